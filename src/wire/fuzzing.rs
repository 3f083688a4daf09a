//! Fuzzing of framing and of what a server says, and the inputs that the other modules' targets share.

use std::{
    collections::VecDeque,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    backend::{self, ServerError, TransactionStatus},
    frame::{FrameError, HEADER, Splitter, Step},
    reply::{self, Severity},
    stream::{Framed, ReadError},
};

/// An input, read from its front. Where nothing is left, everything is zero.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A decision.
    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// At most `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        front
    }

    /// One of `choices`.
    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    /// A length byte and so many bytes.
    pub(crate) fn counted(&mut self) -> &'a [u8] {
        let count = usize::from(self.byte());
        self.take(count)
    }

    /// All that is left, cut up: a count, the lengths of so many pieces, used again and again, and the bytes.
    pub(crate) fn pieces(&mut self) -> Vec<&'a [u8]> {
        let count = usize::from(self.byte() % 8) + 1;
        let cuts = self.take(count);
        let mut pieces = Vec::new();
        for cut in cuts.iter().cycle() {
            if self.is_empty() {
                break;
            }
            pieces.push(self.take(usize::from(*cut) + 1));
        }
        pieces
    }
}

/// A peer that says its pieces one by one, with a pause after each, then closes; it takes whatever is written.
pub(crate) struct Pipe<'a> {
    pieces: VecDeque<&'a [u8]>,
    paused: bool,
}

impl<'a> Pipe<'a> {
    pub(crate) fn new(pieces: &[&'a [u8]]) -> Self {
        Self {
            pieces: pieces.iter().copied().collect(),
            paused: false,
        }
    }
}

impl AsyncRead for Pipe<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.paused = !self.paused;
        if self.paused {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(piece) = self.pieces.pop_front() {
            let (read, rest) = piece.split_at(piece.len().min(buf.remaining()));
            buf.put_slice(read);
            if !rest.is_empty() {
                self.pieces.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The result of a future that waits for nothing but [`Pipe`]s.
pub(crate) fn complete<T>(future: impl Future<Output = T>) -> T {
    let (mut future, mut cx) = (pin!(future), Context::from_waker(Waker::noop()));
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut cx) {
            return result;
        }
    }
}

/// Where messages begin and end does not depend on how the stream is cut.
pub fn framing(data: &[u8]) {
    let mut input = Input(data);
    let whole = usize::from(input.byte()) * 2;
    let pieces = input.pieces();
    let stream = pieces.concat();
    assert_eq!(split(&pieces, whole), split(&[&stream], whole));
    assert_eq!(
        complete(frames(&pieces, whole)),
        complete(frames(&[&stream], whole))
    );
}

/// The types seen, what is held back at the end, the splitter, and the error if there was one.
type Split = (Vec<u8>, Vec<u8>, Splitter, Option<FrameError>);

fn split(pieces: &[&[u8]], whole: usize) -> Split {
    let (mut splitter, mut held, mut tags) = (Splitter::default(), Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        let mut at = 0;
        loop {
            match splitter.step(&held, &mut at, |_| whole) {
                Ok(Step::Whole { tag, body }) => {
                    assert!(body.len() + HEADER <= at);
                    tags.push(tag);
                }
                Ok(Step::Begun { tag }) => tags.push(tag),
                Ok(Step::Short) => break,
                Err(error) => return (tags, Vec::new(), Splitter::default(), Some(error)),
            }
        }
        held.drain(..at);
        assert!(
            held.len() < whole.max(HEADER),
            "no more is held than was asked for"
        );
    }
    (tags, held, splitter, None)
}

async fn frames(pieces: &[&[u8]], limit: usize) -> (Vec<(u8, BytesMut)>, String) {
    let (mut framed, mut frames) = (Framed::new(Pipe::new(pieces)), Vec::new());
    loop {
        match framed.read_frame(limit).await {
            Ok(frame) => frames.push((frame.tag, frame.body)),
            Err(ReadError::Io(error)) => unreachable!("a pipe does not fail: {error}"),
            Err(error) => return (frames, error.to_string()),
        }
    }
}

/// Whatever a server's message holds is read or refused, and what is read can be said again.
pub fn backend_messages(body: &[u8]) {
    let _ = TransactionStatus::decode(body);
    if let Ok((_, secret)) = backend::backend_key_data(body) {
        assert!(secret.len() + 4 == body.len());
    }
    if let Ok((name, value)) = backend::parameter_status(body) {
        assert!(name.len() + value.len() + 2 <= body.len());
    }
    let error = ServerError::decode(body);
    let mut message = BytesMut::new();
    reply::server_error(Severity::Fatal, &error, &mut message);
    let mut at = 0;
    let step = Splitter::default().step(&message, &mut at, |_| usize::MAX);
    let Ok(Step::Whole { body, .. }) = step else {
        unreachable!("what is said is one message: {step:?}");
    };
    let again = ServerError::decode(body);
    assert!(again.is_fatal() && at == message.len());
    assert_eq!(
        (again.message, again.detail, again.hint),
        (error.message, error.detail, error.hint)
    );
}
