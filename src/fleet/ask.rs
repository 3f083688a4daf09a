//! One question to one replica, over HTTP.

use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{Request, body::Incoming, client::conn::http1::SendRequest};

use super::{Place, resolve};
use crate::{config::Tcp, net::Socket, telemetry::http::exchange};

/// What replicas are asked.
#[derive(Debug, Clone)]
pub struct Question {
    path: String,
    /// What is to be done, where that is not only to say something.
    order: Option<Bytes>,
    headers: Vec<(&'static str, http::HeaderValue)>,
}

/// Why a replica has said nothing that is of use.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Its name stands for nothing.
    #[error("the name cannot be resolved")]
    Resolve(#[source] io::Error),
    /// Nobody is there.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// It does not speak HTTP, or not to the end.
    #[error("the answer is broken")]
    Http(#[from] hyper::Error),
    /// It has answered with another status than 200.
    #[error("the answer is status {0}")]
    Status(u16),
    /// It says more than anybody reads.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// Nothing, in the time there was.
    #[error("no answer in time")]
    Timeout,
    /// Its answer is no text.
    #[error("the answer is no text")]
    NotText,
    /// Its answer is not what was asked for.
    #[error("the answer is something else")]
    NotMetrics(#[from] super::NotMetrics),
}

impl Question {
    /// What is at this path.
    pub fn new(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            order: None,
            headers: Vec::new(),
        }
    }

    /// What is to be done at this path.
    pub fn order(path: &str, body: impl Into<Bytes>) -> Self {
        Self {
            order: Some(body.into()),
            ..Self::new(path)
        }
    }

    /// With this header, if its value can be one.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(mut value) = http::HeaderValue::try_from(value) {
            value.set_sensitive(true);
            self.headers.push((name, value));
        }
        self
    }

    fn request(&self, host: &str) -> http::Result<Request<Full<Bytes>>> {
        let request = match &self.order {
            None => Request::get(&self.path),
            Some(_) => Request::post(&self.path),
        };
        let mut request = request.header("host", host);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        request.body(self.order.clone().unwrap_or_default().into())
    }
}

/// Asks one replica, and reads at most `most` bytes. Not bounded in time; cancel-safe.
pub(super) async fn ask(place: Place, question: &Question, most: usize) -> Result<Bytes, AskError> {
    let socket = connect(&place).await?;
    let host = match &place {
        Place::Here => "localhost".to_owned(),
        Place::At(address) => address.to_string(),
        Place::Named(address) => address.to_string(),
    };
    exchange(socket, |sender| converse(sender, question, &host, most)).await
}

async fn connect(place: &Place) -> Result<Socket, AskError> {
    let addresses = match place {
        // Only what is not recognised is asked.
        Place::Here => return Err(AskError::Connect(io::ErrorKind::AddrNotAvailable.into())),
        Place::At(address) => vec![*address],
        Place::Named(address) => resolve(address).await?,
    };
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match Socket::connect_address(address, &Tcp::default()).await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(AskError::Connect(last))
}

async fn converse(
    mut sender: SendRequest<Full<Bytes>>,
    question: &Question,
    host: &str,
    most: usize,
) -> Result<Bytes, AskError> {
    let Ok(request) = question.request(host) else {
        return Err(AskError::Status(400));
    };
    let answer = sender.send_request(request).await.map_err(AskError::Http)?;
    let status = answer.status().as_u16();
    if status != 200 {
        return Err(AskError::Status(status));
    }
    read(answer.into_body(), most).await
}

async fn read(body: Incoming, most: usize) -> Result<Bytes, AskError> {
    match Limited::new(body, most).collect().await {
        Ok(read) => Ok(read.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(AskError::TooLong(most)),
        Err(error) => Err(match error.downcast::<hyper::Error>() {
            Ok(error) => AskError::Http(*error),
            Err(_) => AskError::TooLong(most),
        }),
    }
}
