//! A peer's byte stream, framed: the raw stream underneath is not reachable.
//!
//! Two ways to use it, one after the other: message by message (`read_*`, `flush`) while a connection is
//! being set up, and chunk by chunk (`poll_*`) while bytes are relayed. No buffer is held while nothing is
//! stuck: reads go into the caller's scratch memory, writes straight to the peer.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{
    frame::{FrameError, HEADER, Splitter, Step},
    startup::{self, Packet, PacketError},
};

/// How much is asked for at once where messages are read one by one; those of a log-in are short.
const READ_SIZE: usize = 1024;
/// The bytes of a packet that say how long it is.
const LENGTH: usize = 4;

/// A message read whole.
#[derive(Debug)]
pub struct Frame {
    /// The type byte.
    pub tag: u8,
    /// The body.
    pub body: BytesMut,
}

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The peer closed the connection.
    #[error("connection closed by peer")]
    Closed,
    /// The socket failed.
    #[error("read failed")]
    Io(#[source] io::Error),
    /// What came is no message.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// What came is no startup packet.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// A message that is longer than the limit at this point of the protocol.
    #[error("message of type {tag:#04x} is longer than {limit} bytes")]
    TooLong {
        /// The type byte.
        tag: u8,
        /// The limit.
        limit: usize,
    },
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

/// A framed stream.
#[derive(Debug)]
pub struct Framed<S> {
    io: S,
    splitter: Splitter,
    /// Bytes that have been read and not consumed.
    input: BytesMut,
    /// Bytes that have not been written yet.
    output: BytesMut,
    /// TLS has taken bytes that the socket has not: they are written by the next flush.
    unflushed: bool,
    /// The output waits for the task's next poll, which has been asked for.
    put_off: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Framed<S> {
    /// Frames `io`, which stands at the beginning of a packet or message.
    pub fn new(io: S) -> Self {
        Self {
            io,
            splitter: Splitter::default(),
            input: BytesMut::new(),
            output: BytesMut::new(),
            unflushed: false,
            put_off: false,
        }
    }

    /// The stream underneath, for looking at it: address, TLS state, readiness.
    pub fn get_ref(&self) -> &S {
        &self.io
    }

    /// The stream underneath, for moving it between runtimes.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.io
    }

    /// Takes the stream out, for example to put TLS around it.
    ///
    /// # Errors
    /// Bytes have been read that nobody consumed: whoever sent them did not wait for the answer
    /// (the class of CVE-2021-23222).
    pub fn into_inner(self) -> Result<S, ReadAhead> {
        if self.input.is_empty() {
            Ok(self.io)
        } else {
            Err(ReadAhead)
        }
    }

    /// Reads one packet without a type byte. What comes behind it is held back. Cancel-safe.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_packet(&mut self) -> Result<Packet, ReadError> {
        loop {
            if let Some(&length) = self.input.first_chunk::<LENGTH>() {
                let end = LENGTH + startup::body_length(length)?;
                if self.input.len() >= end {
                    let packet = self.input.split_to(end);
                    return Ok(startup::decode(packet.get(LENGTH..).unwrap_or_default())?);
                }
            }
            self.read_more().await?;
        }
    }

    /// Waits for bytes, and holds them back. Cancel-safe.
    ///
    /// # Errors
    /// The socket's; it has closed.
    pub async fn read_more(&mut self) -> Result<(), ReadError> {
        self.input.reserve(READ_SIZE);
        match self.io.read_buf(&mut self.input).await? {
            0 => Err(ReadError::Closed),
            _ => Ok(()),
        }
    }

    /// Reads one byte that is no message, such as the answer to an SSLRequest. Not cancel-safe.
    ///
    /// # Errors
    /// The socket's.
    pub async fn read_byte(&mut self) -> Result<u8, ReadError> {
        let mut byte = [0];
        self.io.read_exact(&mut byte).await?;
        let [byte] = byte;
        Ok(byte)
    }

    /// Reads one message of at most `limit` bytes. Cancel-safe.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_frame(&mut self, limit: usize) -> Result<Frame, ReadError> {
        loop {
            let mut at = 0;
            match self.splitter.step(&self.input, &mut at, |_| limit)? {
                Step::Whole { tag, .. } if at <= limit => {
                    let mut message = self.input.split_to(at);
                    message.advance(HEADER);
                    return Ok(Frame { tag, body: message });
                }
                Step::Whole { tag, .. } | Step::Begun { tag } => {
                    return Err(ReadError::TooLong { tag, limit });
                }
                Step::Short => {}
            }
            self.read_more().await?;
        }
    }

    /// Where to put what [`Framed::flush`] or [`Framed::poll_drain`] is to write.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Writes everything in [`Framed::output`]. Cancel-safe: what was not written stays there.
    ///
    /// # Errors
    /// The socket's.
    pub async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_drain(cx)).await
    }

    /// Closes the sending side, with TLS's close_notify where there is TLS.
    ///
    /// # Errors
    /// The socket's.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.io.shutdown().await
    }

    /// Gives up memory that only the log-in needed.
    pub fn shrink(&mut self) {
        for buffer in [&mut self.input, &mut self.output] {
            *buffer = if buffer.is_empty() {
                BytesMut::new()
            } else {
                BytesMut::from(&buffer[..])
            };
        }
    }

    /// Puts what was held back and what can be read into `scratch`. Says how many bytes are there and
    /// whether the peer has closed its side (then nothing was added). Bytes that the caller does not
    /// consume must be given to [`Framed::hold`] before the next call.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<Filled>> {
        let held = self.input.len();
        let Some((front, room)) = scratch.split_at_mut_checked(held) else {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        };
        let mut buffer = ReadBuf::new(room);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        let read = buffer.filled().len();
        if held > 0 && read > 0 {
            front.copy_from_slice(&self.input);
            self.input = BytesMut::new();
        }
        Poll::Ready(Ok(if read == 0 {
            Filled::Closed
        } else {
            Filled::Bytes(held + read)
        }))
    }

    /// Takes what was held back, into `scratch`, without reading.
    pub fn take_held(&mut self, scratch: &mut [u8]) -> usize {
        let held = self.input.len();
        let Some(front) = scratch.get_mut(..held) else {
            return 0;
        };
        front.copy_from_slice(&self.input);
        self.input = BytesMut::new();
        held
    }

    /// Keeps bytes for the next [`Framed::poll_fill`].
    pub fn hold(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.input.extend_from_slice(bytes);
        }
    }

    /// Keeps bytes in front of those that are held back.
    pub fn hold_in_front(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let behind = std::mem::take(&mut self.input);
        self.input.extend_from_slice(bytes);
        self.input.extend_from_slice(&behind);
    }

    /// What is held back.
    pub fn held_bytes(&self) -> &[u8] {
        &self.input
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        self.input.len()
    }

    /// Whether the incoming stream stands between two messages.
    pub fn is_between_messages(&self) -> bool {
        self.splitter.at_boundary()
    }

    /// A copy of the splitter of this stream's incoming messages, for looking ahead.
    pub fn messages(&self) -> Splitter {
        self.splitter
    }

    /// The splitter of this stream's incoming messages.
    pub fn splitter(&mut self) -> &mut Splitter {
        &mut self.splitter
    }

    /// Writes `bytes`, or as much as the peer takes; the rest is kept and [`Framed::poll_drain`] writes it.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_write_through(&mut self, cx: &mut Context<'_>, mut bytes: &[u8]) -> Poll<io::Result<()>> {
        if self.output.is_empty() {
            while !bytes.is_empty() {
                match Pin::new(&mut self.io).poll_write(cx, bytes) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(written)) => bytes = bytes.get(written..).unwrap_or_default(),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => break,
                }
            }
        }
        self.output.extend_from_slice(bytes);
        self.poll_drain(cx)
    }

    /// Keeps `bytes` for the task's next poll, which comes after those of all tasks that are ready by now: the next
    /// [`Framed::poll_drain`] is pending, the one after that writes them. Where many have something to say at once, the
    /// peers are woken one shortly after the other, and who reads for several of them is woken once.
    pub fn put_off(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
        if !self.is_drained() {
            self.put_off = true;
            cx.waker().wake_by_ref();
        }
    }

    /// Whether nothing waits to be written.
    pub fn is_drained(&self) -> bool {
        self.output.is_empty() && !self.unflushed
    }

    /// Writes what was kept.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.put_off) {
            // The poll that was asked for may be this one.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !self.output.is_empty() {
            while !self.output.is_empty() {
                let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.output))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.output.advance(written);
            }
            self.output = BytesMut::new();
        }
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.unflushed = flushed.is_pending();
        flushed
    }
}

/// What [`Framed::poll_fill`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// So many bytes are in the scratch memory.
    Bytes(usize),
    /// The peer has closed its side.
    Closed,
}

/// Bytes arrived before they were allowed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("received unencrypted data after SSL request")]
pub struct ReadAhead;

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn a_packet_is_read_in_any_pieces_and_what_follows_it_is_held_back() {
        for piece in [1, 64] {
            let (mut peer, ours) = duplex(piece);
            let mut framed = Framed::new(ours);
            let writer = async move {
                peer.write_all(&[0, 0, 0, 8, 4, 210, 22, 47, b'!']).await.unwrap();
                peer
            };
            let (packet, _peer) = tokio::join!(framed.read_packet(), writer);
            assert_eq!(packet.unwrap(), Packet::SslRequest);
            let mut scratch = [0; 16];
            if framed.held() == 0 {
                assert_eq!(framed.read_byte().await.unwrap(), b'!');
                assert!(framed.into_inner().is_ok());
            } else {
                assert_eq!(framed.take_held(&mut scratch), 1);
                assert_eq!(scratch[0], b'!');
                framed.hold(b"!");
                assert!(framed.into_inner().is_err(), "it was not waited for the answer");
            }
        }
    }

    #[tokio::test]
    async fn frames_beyond_the_limit_are_refused_without_reading_them() {
        let (mut peer, ours) = duplex(64);
        let mut framed = Framed::new(ours);
        peer.write_all(&[b'p', 0x3f, 0, 0, 0]).await.unwrap();
        assert!(matches!(
            framed.read_frame(1000).await,
            Err(ReadError::TooLong {
                tag: b'p',
                limit: 1000
            })
        ));
    }

    #[tokio::test]
    async fn what_the_peer_does_not_take_is_written_later_in_order() {
        let (mut peer, ours) = duplex(4);
        let mut framed = Framed::new(ours);
        let pending = std::future::poll_fn(|cx| {
            let first = framed.poll_write_through(cx, b"abcdef").is_pending();
            let second = framed.poll_write_through(cx, b"ghi").is_pending();
            Poll::Ready(first && second)
        });
        assert!(pending.await && !framed.is_drained());
        let mut read = [0; 9];
        let (flushed, _) = tokio::join!(framed.flush(), peer.read_exact(&mut read));
        flushed.unwrap();
        assert_eq!(&read, b"abcdefghi");
        assert!(framed.is_drained());
    }

    #[tokio::test]
    async fn what_is_put_off_is_written_by_the_next_poll_before_what_comes_later() {
        let (mut peer, ours) = duplex(64);
        let mut framed = Framed::new(ours);
        let mut polls = 0;
        std::future::poll_fn(|cx| {
            polls += 1;
            if polls == 1 {
                framed.put_off(cx, b"abc");
                assert!(!framed.is_drained());
            } else {
                assert!(framed.poll_write_through(cx, b"def").is_ready());
                return Poll::Ready(());
            }
            framed.poll_drain(cx).map(|_| ())
        })
        .await;
        assert_eq!(polls, 2, "it asks for another poll and writes nothing before");
        let mut read = [0; 6];
        peer.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"abcdef");
        // Nothing to write is nothing to wait for.
        std::future::poll_fn(|cx| {
            framed.put_off(cx, b"");
            framed.poll_drain(cx)
        })
        .await
        .unwrap();
        // Whoever only flushes writes it too.
        std::future::poll_fn(|cx| {
            framed.put_off(cx, b"g");
            Poll::Ready(())
        })
        .await;
        framed.flush().await.unwrap();
        peer.read_exact(&mut read[..1]).await.unwrap();
        assert_eq!(read[0], b'g');
    }

    /// A stream as TLS is: it takes every byte at once and passes them on when it can.
    struct Buffering {
        io: tokio::io::DuplexStream,
        taken: Vec<u8>,
    }

    impl AsyncRead for Buffering {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Buffering {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.taken.extend_from_slice(buf);
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            while !self.taken.is_empty() {
                let Self { io, taken } = &mut *self;
                let written = ready!(Pin::new(io).poll_write(cx, taken))?;
                self.taken.drain(..written);
            }
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_shutdown(cx)
        }
    }

    /// A TLS stream had taken the greeting while its socket was not yet writable; nothing was left in the
    /// output, so nobody flushed it, and the client waited for ever.
    #[tokio::test]
    async fn what_tls_has_taken_and_the_socket_has_not_is_not_drained() {
        let (mut peer, io) = duplex(4);
        let mut framed = Framed::new(Buffering {
            io,
            taken: Vec::new(),
        });
        let pending =
            std::future::poll_fn(|cx| Poll::Ready(framed.poll_write_through(cx, b"abcdef").is_pending()));
        assert!(pending.await && !framed.is_drained());
        let mut read = [0; 6];
        let (flushed, _) = tokio::join!(framed.flush(), peer.read_exact(&mut read));
        flushed.unwrap();
        assert!(framed.is_drained() && &read == b"abcdef");
    }

    #[tokio::test]
    async fn held_bytes_come_back_in_front_of_new_ones() {
        let (mut peer, ours) = duplex(64);
        let mut framed = Framed::new(ours);
        framed.hold(b"ab");
        peer.write_all(b"cd").await.unwrap();
        let mut scratch = [0; 16];
        let filled = std::future::poll_fn(|cx| framed.poll_fill(cx, &mut scratch))
            .await
            .unwrap();
        assert_eq!(filled, Filled::Bytes(4));
        assert_eq!(&scratch[..4], b"abcd");
        framed.hold(b"e");
        drop(peer);
        let filled = std::future::poll_fn(|cx| framed.poll_fill(cx, &mut scratch))
            .await
            .unwrap();
        assert_eq!((filled, framed.held()), (Filled::Closed, 1));
    }
}
