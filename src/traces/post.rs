//! One request to the collector: OTLP over HTTP, as <https://opentelemetry.io/docs/specs/otlp/#otlphttp> has it.
//!
//! It does not know what is in the body.

use std::{io, path::PathBuf, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, body::Incoming, client::conn::http1::SendRequest};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

use crate::{
    config::{Collector, ReplicaAddress, ServerTls, Tcp, TlsProtocols, Traces},
    net::{self, Socket},
    telemetry::http::exchange,
    tls::{self, Connector, Stream, TlsError},
    types::TlsMode,
};

/// What is read of an answer.
const LONGEST_ANSWER: usize = 64 << 10;
/// Nobody waits longer because a collector wants it.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why a collector has not taken what it was sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    #[error("cannot read {}", path.display())]
    Token {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("TLS failed")]
    Tls(#[from] TlsError),
    #[error("the conversation broke off")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be made")]
    Request(#[from] http::Error),
    #[error("the answer is status {status}")]
    Status { status: u16, pause: Option<Duration> },
    #[error("no answer in time")]
    Timeout,
}

impl PostError {
    /// Whether the same may be taken later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Http(_) => true,
            Self::Status { status, .. } => matches!(status, 429 | 502 | 503 | 504),
            Self::Token { .. } | Self::Tls(_) | Self::Request(_) | Self::Timeout => false,
        }
    }

    /// How long the collector wants to be left alone.
    pub(super) fn pause(&self) -> Option<Duration> {
        match self {
            Self::Status { pause, .. } => *pause,
            _ => None,
        }
    }
}

/// Finds out whether the files that the settings name can be used. It may block.
///
/// # Errors
/// The CAs cannot be read, or are none.
pub fn check(settings: &Traces) -> Result<(), TlsError> {
    connector(settings).map(drop)
}

/// Never without a look at the certificate; by http, without TLS.
fn connector(settings: &Traces) -> Result<Connector, TlsError> {
    tls::connector(&ServerTls {
        mode: if settings.endpoint.tls {
            TlsMode::VerifyFull
        } else {
            TlsMode::Disable
        },
        ca_file: settings.ca_file.clone(),
        identity: None,
        crl_file: None,
        server_name: None,
        protocols: TlsProtocols::Secure,
    })
}

/// Sends an `ExportTraceServiceRequest`. Returns how many spans the collector has rejected of those that it was sent. Not
/// bounded in time; cancel-safe.
pub(super) async fn post(settings: &Traces, body: Vec<u8>) -> Result<u64, PostError> {
    let token = token(settings).await?;
    let stream = connect(settings).await?;
    let request = request(&settings.endpoint, token, body)?;
    exchange(stream, |sender| converse(sender, request)).await
}

async fn token(settings: &Traces) -> Result<Option<String>, PostError> {
    let Some(path) = &settings.token_file else {
        return Ok(None);
    };
    let read = tokio::fs::read_to_string(path).await;
    let token = read.map_err(|source| PostError::Token {
        path: path.clone(),
        source,
    })?;
    Ok(Some(format!("Bearer {}", token.trim())))
}

async fn connect(settings: &Traces) -> Result<Stream, PostError> {
    let Collector { host, port, .. } = &settings.endpoint;
    let connector = connector(settings)?;
    let addresses = net::resolve(host, *port).await.map_err(PostError::Connect)?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match Socket::connect_address(address, &Tcp::default()).await {
            Ok(socket) => return Ok(connector.connect(socket, host).await?),
            Err(error) => last = error,
        }
    }
    Err(PostError::Connect(last))
}

fn request(endpoint: &Collector, token: Option<String>, body: Vec<u8>) -> http::Result<Request<Full<Bytes>>> {
    let host = ReplicaAddress {
        host: endpoint.host.clone(),
        port: endpoint.port,
    };
    let mut request = Request::post(&endpoint.path)
        .header("host", host.to_string())
        .header("content-type", "application/x-protobuf")
        .header("user-agent", concat!("pgweir/", env!("CARGO_PKG_VERSION")));
    if let Some(token) = token {
        let mut value = http::HeaderValue::try_from(token)?;
        value.set_sensitive(true);
        request = request.header("authorization", value);
    }
    request.body(Full::from(body))
}

async fn converse(
    mut sender: SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<u64, PostError> {
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    if !status.is_success() {
        return Err(PostError::Status {
            status: status.as_u16(),
            pause: pause(&answer),
        });
    }
    // Whoever says nothing that can be read has taken everything.
    let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let partial = ExportTraceServiceResponse::decode(body)
        .unwrap_or_default()
        .partial_success;
    let Some(partial) = partial.filter(|partial| partial.rejected_spans > 0) else {
        return Ok(0);
    };
    tracing::warn!(
        rejected = partial.rejected_spans, message = ?partial.error_message, "the collector has rejected spans"
    );
    Ok(partial.rejected_spans.unsigned_abs())
}

/// `Retry-After`, in seconds.
fn pause(answer: &Response<Incoming>) -> Option<Duration> {
    let seconds = answer.headers().get("retry-after")?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}
