//! The pooler's own requests on a server connection, with nobody else's in between: carried out to the end.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Poll, ready},
};

use bytes::Bytes;
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
    frontend,
    reader::{Malformed, Reader},
    stream::{Filled, Frame, ReadError},
};

const SCRATCH: usize = 32 * 1024;
/// Longer messages than this are no answer to the pooler.
const LARGEST_MESSAGE: usize = 1024 * 1024;
/// A secret is a password of up to 64 kB.
const LARGEST_SECRET: usize = 128 * 1024;

/// The value of a column; `None` is NULL.
pub type Column = Option<Bytes>;

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
    /// A row could not be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
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
        let heard = self.listen(LARGEST_MESSAGE, |tag, body| {
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
    pub async fn ask(&mut self, sql: &str, row: impl FnMut(&[u8])) -> Result<(), SettleError> {
        let mut message = bytes::BytesMut::new();
        self.query(sql, &mut message);
        self.stream().output().unsplit(message);
        self.listen(LARGEST_MESSAGE, rows_only(row)).await
    }

    /// Asks a query of the pooler's own with one text parameter. Returns the first row's columns, of which there may be
    /// up to two that matter, or `None` where there is no row. Not bounded in time.
    ///
    /// # Errors
    /// See [`SettleError`].
    pub async fn ask_about(&mut self, sql: &str, value: &str) -> Result<Option<Vec<Column>>, SettleError> {
        let mut messages = bytes::BytesMut::new();
        frontend::execute_one(sql, Bytes::copy_from_slice(value.as_bytes()), &mut messages);
        self.note_own(&[
            frontend::tag::PARSE,
            frontend::tag::BIND,
            frontend::tag::EXECUTE,
            frontend::tag::SYNC,
        ]);
        self.stream().output().unsplit(messages);
        let mut first = None;
        let rows = rows_only(|row| {
            first.get_or_insert_with(|| first_columns(row));
        });
        self.listen(LARGEST_SECRET, rows).await?;
        Ok(first.transpose()?)
    }

    /// Writes what is to be written, and shows each message of up to `limit` bytes until the server owes nothing.
    async fn listen(&mut self, limit: usize, mut each: impl FnMut(u8, &[u8])) -> Result<(), SettleError> {
        self.stream().flush().await?;
        let mut refused = None;
        while !self.ledger.is_settled() {
            let Frame { tag, body } = self.stream().read_frame(limit).await?;
            let in_step = self.ledger.received(tag, &body);
            each(tag, &body);
            match tag {
                backend::tag::PARAMETER_STATUS => {
                    let _ = self.note_reported(&body);
                }
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

/// The first three columns of a DataRow, or those that there are.
pub(super) fn first_columns(row: &[u8]) -> Result<Vec<Column>, Malformed> {
    let mut reader = Reader::new(row);
    let count = reader.uint16()?.min(3);
    let mut columns = Vec::new();
    for _ in 0..count {
        let length = reader.int32()?;
        let value = match length {
            -1 => None,
            length => {
                let length = usize::try_from(length).map_err(|_| Malformed)?;
                Some(Bytes::copy_from_slice(reader.bytes(length)?))
            }
        };
        columns.push(value);
    }
    Ok(columns)
}

/// Shows the bodies of rows, of all that a server says.
fn rows_only(mut row: impl FnMut(&[u8])) -> impl FnMut(u8, &[u8]) {
    move |tag, body| {
        if tag == backend::tag::DATA_ROW {
            row(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_columns_of_a_row_are_enough() {
        let row = b"\0\x04\0\0\0\x01a\xff\xff\xff\xff\0\0\0\x01c\0\0\0\x01d";
        let text = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        assert_eq!(first_columns(row), Ok(vec![text("a"), None, text("c")]));
        assert_eq!(first_columns(&[0, 0]), Ok(Vec::new()));
        for broken in [
            &row[..8],
            &row[..1],
            b"\0\x01\xff\xff\xff\xfe",
            b"\0\x01\x7f\0\0\0",
        ] {
            assert_eq!(first_columns(broken), Err(Malformed), "{broken:?}");
        }
    }
}
