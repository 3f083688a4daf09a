//! A request that is answered by the pooler itself, with an error, as PostgreSQL would answer it: after a
//! Query or FunctionCall at once, in an extended-protocol batch when the client's Sync has come ("Extended
//! Query", error handling). The rest of the request is read and thrown away.

use crate::wire::{
    frame::{FrameError, Splitter, Step},
    frontend::tag,
};

/// What is still to be read of the refused request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nothing has been read.
    Whole,
    /// The message has begun that is the whole request.
    Message,
    /// Everything up to the next Sync.
    ToSync,
}

/// Where reading has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    /// The request ends at this offset: ReadyForQuery is due.
    End(usize),
    /// It does not end here; everything before this offset is done with.
    More(usize),
    /// The client says goodbye.
    Terminate,
}

impl Refusal {
    /// Reads on.
    pub(super) fn pass(&mut self, splitter: &mut Splitter, bytes: &[u8]) -> Result<Passed, FrameError> {
        let mut at = splitter.pass(bytes.len());
        loop {
            if *self == Self::Message && splitter.at_boundary() {
                return Ok(Passed::End(at));
            }
            let tag = match splitter.step(bytes, &mut at, |_| 0)? {
                Step::Whole { tag, .. } | Step::Begun { tag } => tag,
                Step::Short => return Ok(Passed::More(at)),
            };
            match (tag, *self) {
                (tag::TERMINATE, _) => return Ok(Passed::Terminate),
                (tag::SYNC, _) | (tag::QUERY | tag::FUNCTION_CALL, Self::Whole) => *self = Self::Message,
                (_, Self::Whole) => *self = Self::ToSync,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8) -> Vec<u8> {
        vec![tag, 0, 0, 0, 6, b'x', 0]
    }

    fn pass(tags: &[u8]) -> Passed {
        let bytes: Vec<u8> = tags.iter().flat_map(|&tag| message(tag)).collect();
        Refusal::Whole.pass(&mut Splitter::default(), &bytes).unwrap()
    }

    #[test]
    fn a_query_is_one_message_and_a_batch_ends_with_its_sync() {
        assert_eq!(pass(b"QQ"), Passed::End(7));
        assert_eq!(pass(b"F"), Passed::End(7));
        assert_eq!(pass(b"S"), Passed::End(7));
        assert_eq!(pass(b"PBE"), Passed::More(21));
        assert_eq!(pass(b"PBESQ"), Passed::End(28));
        assert_eq!(
            pass(b"PQS"),
            Passed::End(21),
            "a server that skips to Sync skips a Query too"
        );
        assert_eq!(pass(b"PX"), Passed::Terminate);
    }

    #[test]
    fn byte_by_byte() {
        let bytes: Vec<u8> = b"PBES".iter().flat_map(|&tag| message(tag)).collect();
        let (mut refusal, mut splitter, mut held) = (Refusal::Whole, Splitter::default(), Vec::new());
        for (index, byte) in bytes.iter().enumerate() {
            held.push(*byte);
            match refusal.pass(&mut splitter, &held).unwrap() {
                Passed::More(at) => drop(held.drain(..at)),
                other => assert_eq!((other, index), (Passed::End(held.len()), bytes.len() - 1)),
            }
        }
    }
}
