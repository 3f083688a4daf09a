//! The pooler's own requests on a server connection, with nobody else's in between: carried out to the end.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Poll, ready},
};

use tokio::io::AsyncWrite;

use super::{
    connection::Connection,
    notices::Notices,
    parameters::{Difference, Source},
    state::CloseReason,
};
use crate::wire::{
    backend::{self, ServerError},
    frame::FrameError,
    stream::{Filled, Frame, ReadError},
};

const SCRATCH: usize = 32 * 1024;
/// Longer messages than this are no answer to the pooler.
const LARGEST_MESSAGE: usize = 1024 * 1024;

/// Why a request of the pooler's own was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The server refused it; the connection is as before.
    #[error("server refused: {0}")]
    Refused(ServerError),
    /// The connection ended.
    #[error("server closed the connection")]
    Closed,
    /// The socket failed.
    #[error("connection to the server failed")]
    Io(#[from] io::Error),
    /// What came was not the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Connection {
    /// Carries out a difference of settings, and leaves the settings as the server has them afterwards.
    ///
    /// # Errors
    /// See [`SettleError`]; a refusal changes nothing.
    pub async fn change(&mut self, difference: &Difference) -> Result<(), SettleError> {
        let before = self.parameters().clone();
        let mut messages = bytes::BytesMut::new();
        self.synchronize(difference, &mut messages);
        self.stream().output().unsplit(messages);
        let settled = self.settle().await;
        if settled.is_err() {
            self.restore_parameters(before);
        }
        settled
    }

    /// Sets everything back that the pooler knows to be set, then runs `query`.
    ///
    /// # Errors
    /// See [`SettleError`].
    pub async fn reset(&mut self, query: &str) -> Result<(), SettleError> {
        let reset: Vec<_> = self
            .parameters()
            .iter()
            .filter(|parameter| parameter.source != Source::Reported)
            .map(|parameter| parameter.name.clone())
            .collect();
        if !reset.is_empty() {
            self.change(&Difference {
                reset,
                ..Difference::default()
            })
            .await?;
        }
        self.prove(query).await
    }

    /// Carries out a difference of settings for a client that logs in, and says what the server has said beside.
    ///
    /// # Errors
    /// See [`SettleError`]; a refusal changes nothing.
    pub async fn try_change(&mut self, difference: &Difference) -> Result<Notices, SettleError> {
        let before = self.parameters().clone();
        let (mut messages, mut notices) = (bytes::BytesMut::new(), Notices::default());
        self.synchronize(difference, &mut messages);
        self.stream().output().unsplit(messages);
        let heard = self.read_answers(|tag, body| {
            if tag == backend::tag::NOTICE_RESPONSE {
                notices.push(body);
            }
        });
        let settled = heard.await;
        if settled.is_err() {
            self.restore_parameters(before);
        }
        settled.map(|()| notices)
    }

    /// Runs a query of the pooler's own and shows each row of its answer, the body of a DataRow, to `row`.
    ///
    /// # Errors
    /// See [`SettleError`].
    pub async fn ask(&mut self, sql: &str, mut row: impl FnMut(&[u8])) -> Result<(), SettleError> {
        let mut message = bytes::BytesMut::new();
        self.query(sql, &mut message);
        self.stream().output().unsplit(message);
        let answers = self.read_answers(|tag, body| {
            if tag == backend::tag::DATA_ROW {
                row(body);
            }
        });
        answers.await
    }

    /// Writes what is to be written and shows each message of the answer, up to 1 MiB long, to `each`.
    async fn read_answers(&mut self, mut each: impl FnMut(u8, &[u8])) -> Result<(), SettleError> {
        self.stream().flush().await?;
        let mut refused = None;
        while !self.ledger.is_settled() {
            let Frame { tag, body } = self.stream().read_frame(LARGEST_MESSAGE).await?;
            let in_step = self.ledger.received(tag, &body);
            each(tag, &body);
            match tag {
                backend::tag::PARAMETER_STATUS => self.note_reported(&body),
                backend::tag::ERROR_RESPONSE => {
                    let error = ServerError::decode(&body);
                    if error.is_fatal() {
                        self.mark_broken(CloseReason::Lost);
                        return Err(SettleError::Refused(error));
                    }
                    refused.get_or_insert(error);
                }
                _ if in_step.is_err() => self.mark_broken(CloseReason::OutOfStep),
                _ => {}
            }
        }
        refused.map_or(Ok(()), |error| Err(SettleError::Refused(error)))
    }

    /// Asks whether the server is there.
    ///
    /// # Errors
    /// It is not, or it does not like the query. Not bounded in time.
    pub async fn prove(&mut self, query: &str) -> Result<(), SettleError> {
        let mut message = bytes::BytesMut::new();
        self.query(query, &mut message);
        self.stream().output().unsplit(message);
        self.settle().await
    }

    /// Sends nothing more and reads until the server has closed the connection, whatever it has to say.
    /// Cancel-safe.
    pub async fn closed(&mut self) {
        let mut scratch = vec![0; SCRATCH];
        let closed = poll_fn(|cx| {
            if self.stream().poll_drain(cx).is_ready() {
                let _ = Pin::new(self.stream().get_mut()).poll_shutdown(cx);
            }
            while let Filled::Bytes(_) = ready!(self.stream().poll_fill(cx, &mut scratch))? {}
            Poll::Ready(Ok::<_, io::Error>(()))
        });
        // A connection that failed has ended as well.
        let _ = closed.await;
    }

    /// Writes what is to be written and reads until the server owes nothing.
    async fn settle(&mut self) -> Result<(), SettleError> {
        self.stream().flush().await?;
        let mut scratch = vec![0; SCRATCH];
        let mut refused = None;
        while !self.ledger().is_settled() {
            let filled = poll_fn(|cx| self.stream().poll_fill(cx, &mut scratch)).await?;
            let Filled::Bytes(count) = filled else {
                return Err(SettleError::Closed);
            };
            let bytes = scratch.get(..count).unwrap_or_default();
            let heard = self.hear(bytes, None)?;
            self.stream()
                .hold(bytes.get(heard.consumed..).unwrap_or_default());
            if let Some(error) = heard.farewell {
                return Err(SettleError::Refused(*error));
            }
            refused = refused.or(heard.refused);
        }
        refused.map_or(Ok(()), |error| Err(SettleError::Refused(*error)))
    }
}
