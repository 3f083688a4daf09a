//! A collector of traces: it takes what OTLP brings over HTTP, as protobuf, and keeps the spans.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, mpsc},
    thread,
};

use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::status::StatusCode,
};
use prost::Message;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use tokio_util::sync::CancellationToken;

use super::{Certificate, eventually};

/// Ends with its value.
pub struct Collector {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    spans: Vec<Span>,
    requests: Vec<Heard>,
    answers: VecDeque<Answer>,
}

/// What it answers instead of taking everything.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// This status.
    Status(u16),
    /// It has no time for so many seconds.
    Later(u64),
    /// It has taken all but so many spans.
    Rejected(i64),
}

/// The head of a request.
#[derive(Debug, Clone)]
pub struct Heard {
    /// The path.
    pub path: String,
    /// `Content-Type`
    pub content_type: String,
    /// `Authorization`
    pub authorization: Option<String>,
    /// The attributes of what the spans are of.
    pub resource: BTreeMap<String, String>,
}

/// A span, numbers as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// `transaction`, `wait`, `server`
    pub name: String,
    /// 32 digits.
    pub trace: String,
    /// 16 digits.
    pub id: String,
    /// 16 digits, or none.
    pub parent: String,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub end: u64,
    /// Numbers as text.
    pub attributes: BTreeMap<String, String>,
    /// Whether its status is an error.
    pub failed: bool,
}

impl Span {
    /// An attribute, or nothing.
    pub fn get(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

impl Collector {
    /// One that listens on a free port, by http.
    pub fn start() -> Self {
        Self::listen(None)
    }

    /// The same by https.
    pub fn with_tls(certificate: &Certificate) -> Self {
        let chain = CertificateDer::pem_slice_iter(certificate.certificate_pem.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("it is a certificate");
        let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes()).expect("it is a key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring speaks TLS")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("they belong together");
        Self::listen(Some(Arc::new(config).into()))
    }

    fn listen(tls: Option<TlsAcceptor>) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let stop = CancellationToken::new();
        let (sender, address) = mpsc::channel();
        let (shared, stopped) = (state.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
            listener.set_nonblocking(true).expect("a socket");
            let _ = sender.send(listener.local_addr().expect("it is bound"));
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let accepting = accept(listener, tls, shared);
            runtime.block_on(stopped.run_until_cancelled(accepting));
        });
        Self {
            address: address.recv().expect("it is bound"),
            state,
            stop,
            thread: Some(thread),
        }
    }

    /// `host:port`
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The next requests are answered like this.
    pub fn answer(&self, answers: &[Answer]) {
        self.lock().answers.extend(answers);
    }

    /// What has been asked.
    pub fn requests(&self) -> Vec<Heard> {
        self.lock().requests.clone()
    }

    /// What has come.
    pub fn spans(&self) -> Vec<Span> {
        self.lock().spans.clone()
    }

    /// The spans of a trace as soon as there are so many.
    pub fn wait_for(&self, trace: &str, count: usize) -> Vec<Span> {
        let mut found = Vec::new();
        eventually(&format!("{count} spans of {trace}"), || {
            found = self
                .spans()
                .into_iter()
                .filter(|span| span.trace == trace)
                .collect();
            found.len() >= count
        });
        assert_eq!(found.len(), count, "{found:#?}");
        found
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nobody has panicked")
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<Mutex<State>>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
    // One after the other, as they are short.
    while let Ok((socket, _)) = listener.accept().await {
        let service = service_fn(|request| take(request, state.clone()));
        // A client that goes away, or does not trust it, is its own affair.
        let _ = match &tls {
            None => http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await
                .map_err(io::Error::other),
            Some(tls) => match tls.accept(socket).await {
                Ok(stream) => http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await
                    .map_err(io::Error::other),
                Err(error) => Err(error),
            },
        };
    }
}

async fn take(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let header = |name: &str| {
        let value = request.headers().get(name)?;
        Some(value.to_str().expect("it is text").to_owned())
    };
    let mut heard = Heard {
        path: request.uri().path().to_owned(),
        content_type: header("content-type").unwrap_or_default(),
        authorization: header("authorization"),
        resource: BTreeMap::new(),
    };
    let body = request
        .into_body()
        .collect()
        .await
        .expect("all of it comes")
        .to_bytes();
    let sent = ExportTraceServiceRequest::decode(body).expect("it is a request of OTLP");
    let mut state = state.lock().expect("nobody has panicked");
    let answer = state.answers.pop_front();
    let mut response = Response::new(Full::default());
    match answer {
        Some(Answer::Status(status)) => *response.status_mut() = status.try_into().expect("a status"),
        Some(Answer::Later(seconds)) => {
            *response.status_mut() = 503.try_into().expect("a status");
            response.headers_mut().insert("retry-after", seconds.into());
        }
        Some(Answer::Rejected(rejected_spans)) => {
            let partial_success = Some(ExportTracePartialSuccess {
                rejected_spans,
                error_message: "too old".to_owned(),
            });
            let answer = ExportTraceServiceResponse { partial_success };
            *response.body_mut() = Full::from(answer.encode_to_vec());
        }
        None => {}
    }
    for resource in sent.resource_spans {
        heard.resource = attributes(&resource.resource.unwrap_or_default().attributes);
        if response.status() == 200 {
            let spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
            state.spans.extend(spans.map(readable));
        }
    }
    state.requests.push(heard);
    Ok(response)
}

fn readable(span: &opentelemetry_proto::tonic::trace::v1::Span) -> Span {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Span {
        name: span.name.clone(),
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
        attributes: attributes(&span.attributes),
        failed: span
            .status
            .as_ref()
            .is_some_and(|status| status.code() == StatusCode::Error),
    }
}

fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let shown = |attribute: &KeyValue| {
        let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
        let value = match value {
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::IntValue(number)) => number.to_string(),
            other => panic!("{other:?}"),
        };
        (attribute.key.clone(), value)
    };
    attributes.iter().map(shown).collect()
}
