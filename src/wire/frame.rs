//! Where messages begin and end in a byte stream that arrives in arbitrary pieces.
//!
//! A message is one type byte, a length (four bytes, big-endian, counting itself but not the type byte)
//! and a body ("Message Formats" in the PostgreSQL documentation). A [`Splitter`] never copies: it says
//! which bytes of the caller's buffer are a whole message, and lets the bodies of large ones pass through.

/// Type byte and length.
pub const HEADER: usize = 5;

/// The largest length that PostgreSQL accepts (`MaxAllocSize` in `memutils.h`).
pub const MAX_LENGTH: u32 = 0x3fff_ffff;

/// A stream that is not the PostgreSQL protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length that cannot be.
    #[error("invalid message length {length} of message type {tag:#04x}")]
    Length {
        /// The type byte.
        tag: u8,
        /// What stood where the length belongs.
        length: u32,
    },
    /// A message longer than this stream may have (PgBouncer's `max_packet_size`).
    #[error("message of {length} bytes is longer than max_packet_size ({limit} bytes)")]
    TooLong {
        /// Its length.
        length: u32,
        /// The limit.
        limit: u32,
    },
}

/// What stands at the cursor.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A whole message; the cursor stands behind it.
    Whole {
        /// The type byte.
        tag: u8,
        /// The body, without type and length.
        body: &'a [u8],
    },
    /// A message has begun and the rest of it is still to come; the cursor stands at the end of the buffer.
    Begun {
        /// The type byte.
        tag: u8,
    },
    /// Nothing more can be said before more bytes arrive. What the cursor has not passed belongs in front
    /// of them.
    Short,
}

/// The place in a stream of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Splitter {
    /// Bytes of a begun message that are still to come.
    rest: u32,
    /// The largest length that a message may have.
    limit: u32,
}

impl Default for Splitter {
    fn default() -> Self {
        Self {
            rest: 0,
            limit: MAX_LENGTH,
        }
    }
}

impl Splitter {
    /// From here on refuses messages longer than `limit`. What PostgreSQL does not accept is never accepted.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = limit.min(MAX_LENGTH);
    }

    /// Stands between two messages again: the caller goes back to the beginning of the last one.
    pub fn rewind(&mut self) {
        self.rest = 0;
    }

    /// Whether the stream stands between two messages.
    pub fn at_boundary(&self) -> bool {
        self.rest == 0
    }

    /// Passes what remains of a begun message, of `available` bytes, and says how many bytes that was.
    pub fn pass(&mut self, available: usize) -> usize {
        let passed = u32::try_from(available).unwrap_or(u32::MAX).min(self.rest);
        self.rest -= passed;
        passed as usize
    }

    /// Looks at the message at `buf[*at..]` and moves the cursor over what it passed.
    ///
    /// `whole` says up to how many bytes (header included) a message of that type must be seen whole; one
    /// that is larger, or of no interest (0), is [`Step::Begun`] as soon as its header is there.
    ///
    /// # Errors
    /// [`FrameError::Length`] for a length below 4 or above [`MAX_LENGTH`], [`FrameError::TooLong`] for one above the
    /// limit. The cursor stands before the message then.
    pub fn step<'a>(
        &mut self,
        buf: &'a [u8],
        at: &mut usize,
        whole: impl Fn(u8) -> usize,
    ) -> Result<Step<'a>, FrameError> {
        if self.rest > 0 {
            *at += self.pass(buf.len().saturating_sub(*at));
        }
        let rest = buf.get(*at..).unwrap_or_default();
        let Some((&[tag, a, b, c, d], _)) = rest.split_first_chunk::<HEADER>() else {
            return Ok(Step::Short);
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        if !(4..=self.limit).contains(&length) {
            return Err(self.refusal(tag, length));
        }
        let total = length as usize + 1;
        if let Some(message) = rest.get(..total) {
            *at += total;
            return Ok(Step::Whole {
                tag,
                body: message.get(HEADER..).unwrap_or_default(),
            });
        }
        if total <= whole(tag) {
            return Ok(Step::Short);
        }
        self.rest = u32::try_from(total - rest.len()).unwrap_or(MAX_LENGTH);
        *at += rest.len();
        Ok(Step::Begun { tag })
    }

    #[cold]
    fn refusal(&self, tag: u8, length: u32) -> FrameError {
        match length {
            4..=MAX_LENGTH => FrameError::TooLong {
                length,
                limit: self.limit,
            },
            _ => FrameError::Length { tag, length },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    /// Feeds the pieces as a connection would, and says which messages were seen and what passed.
    fn feed(pieces: &[Vec<u8>], whole: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut splitter, mut held) = (Splitter::default(), Vec::new());
        let (mut tags, mut passed) = (Vec::new(), Vec::new());
        for piece in pieces {
            held.extend(piece);
            let mut at = 0;
            while let Step::Whole { tag, .. } | Step::Begun { tag } =
                splitter.step(&held, &mut at, |_| whole).unwrap()
            {
                tags.push(tag);
            }
            passed.extend(held.drain(..at));
        }
        assert!(held.is_empty() && splitter.at_boundary());
        (tags, passed)
    }

    #[test]
    fn lengths_are_hostile() {
        for length in [0u32, 3, MAX_LENGTH + 1, u32::MAX] {
            let mut bytes = vec![b'Q'];
            bytes.extend(length.to_be_bytes());
            let error = Splitter::default().step(&bytes, &mut 0, |_| 0).unwrap_err();
            assert_eq!(error, FrameError::Length { tag: b'Q', length });
        }
    }

    #[test]
    fn a_limit_is_for_each_message_and_keeps_the_place() {
        let mut splitter = Splitter::default();
        splitter.set_limit(10);
        let stream = [
            message(b'Q', &[1; 6]),
            message(b'Q', &[1; 6]),
            message(b'Q', &[1; 7]),
        ]
        .concat();
        let mut at = 0;
        for _ in 0..2 {
            let step = splitter.step(&stream, &mut at, |_| 0).unwrap();
            assert!(matches!(step, Step::Whole { tag: b'Q', .. }));
        }
        let error = FrameError::TooLong {
            length: 11,
            limit: 10,
        };
        assert_eq!(splitter.step(&stream, &mut at, |_| 0), Err(error));
        assert_eq!((at, splitter.at_boundary()), (22, true));
        splitter.set_limit(u32::MAX);
        let mut beyond = vec![b'Q'];
        beyond.extend((MAX_LENGTH + 1).to_be_bytes());
        let error = splitter.step(&beyond, &mut 0, |_| 0).unwrap_err();
        assert!(matches!(error, FrameError::Length { .. }));
    }

    #[test]
    fn a_large_message_passes_through_without_being_held() {
        let mut bytes = vec![b'd'];
        bytes.extend(MAX_LENGTH.to_be_bytes());
        bytes.extend([7; 100]);
        let (mut splitter, mut at) = (Splitter::default(), 0);
        assert_eq!(
            splitter.step(&bytes, &mut at, |_| 8192),
            Ok(Step::Begun { tag: b'd' })
        );
        assert_eq!(at, bytes.len());
        assert!(!splitter.at_boundary());
    }

    proptest! {
        #[test]
        fn any_split_sees_the_same_messages(
            bodies in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 1..12),
            cuts in prop::collection::vec(1usize..30, 1..40),
            whole in 0usize..60,
        ) {
            let stream: Vec<u8> = bodies.iter().flat_map(|(tag, body)| message(*tag, body)).collect();
            let (mut pieces, mut from) = (Vec::new(), 0);
            for cut in cuts.iter().cycle() {
                let to = (from + cut).min(stream.len());
                pieces.push(stream[from..to].to_vec());
                from = to;
                if from == stream.len() { break; }
            }
            let (tags, passed) = feed(&pieces, whole);
            prop_assert_eq!(tags, bodies.iter().map(|(tag, _)| *tag).collect::<Vec<_>>());
            prop_assert_eq!(passed, stream);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), whole in 0usize..300) {
            let (mut splitter, mut at) = (Splitter::default(), 0);
            for _ in 0..=bytes.len() {
                match splitter.step(&bytes, &mut at, |_| whole) {
                    Ok(Step::Short) | Err(_) => break,
                    Ok(_) => prop_assert!(at <= bytes.len()),
                }
            }
        }
    }
}
