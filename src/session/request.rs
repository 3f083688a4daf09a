//! What a client between transactions says: where its next request begins, if it has sent enough of it.

use crate::wire::{
    frame::{FrameError, Splitter, Step},
    frontend::tag,
};

/// A request is given to a server when it is there as a whole, or when so much of it is there: a client that
/// sends byte by byte keeps no server waiting.
const WHOLE_REQUEST: usize = 8 * 1024;

/// What stands in a client's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A request begins at this offset; what precedes it is of no consequence.
    Request(usize),
    /// The client says goodbye.
    Terminate,
    /// Everything before this offset is of no consequence; what follows is not enough to go by.
    Nothing(usize),
    /// A message that has no place here.
    Unknown(u8),
}

/// Looks for the first message that a server must answer. The splitter is left at its beginning.
///
/// Copy messages are the rest of a COPY that the server has given up, and Flush has nothing to flush: a
/// server would ignore them.
pub(super) fn find(splitter: &mut Splitter, bytes: &[u8]) -> Result<Found, FrameError> {
    let mut at = splitter.pass(bytes.len());
    loop {
        let start = at;
        let tag = match splitter.step(bytes, &mut at, |_| WHOLE_REQUEST)? {
            Step::Whole { tag, .. } | Step::Begun { tag } => tag,
            Step::Short => return Ok(Found::Nothing(at)),
        };
        match tag {
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL | tag::FLUSH => {}
            tag::TERMINATE => return Ok(Found::Terminate),
            tag if is_request(tag) => {
                splitter.rewind();
                return Ok(Found::Request(start));
            }
            tag => return Ok(Found::Unknown(tag)),
        }
    }
}

/// Whether `bytes`, which begin with a message, are whole messages that a server that works for the client may be
/// sent as they are, and that it answers without being sent more: without a Sync it would keep its answers.
pub(super) fn is_complete(mut splitter: Splitter, bytes: &[u8]) -> bool {
    let (mut at, mut last) = (0, 0);
    loop {
        match splitter.step(bytes, &mut at, |_| 0) {
            Ok(Step::Whole { tag, .. } | Step::Begun { tag }) if is_known(tag) => last = tag,
            Ok(Step::Short) => {
                let answered = matches!(last, tag::QUERY | tag::SYNC | tag::FUNCTION_CALL);
                return answered && at == bytes.len() && splitter.at_boundary();
            }
            _ => return false,
        }
    }
}

/// Whether a server answers messages of this type.
pub(super) fn is_request(tag: u8) -> bool {
    matches!(
        tag,
        tag::QUERY
            | tag::PARSE
            | tag::BIND
            | tag::DESCRIBE
            | tag::EXECUTE
            | tag::CLOSE
            | tag::SYNC
            | tag::FUNCTION_CALL
    )
}

/// Whether a client may send messages of this type to a server that works for it.
pub(super) fn is_known(tag: u8) -> bool {
    is_request(tag) || matches!(tag, tag::FLUSH | tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in(bytes: &[u8]) -> Found {
        find(&mut Splitter::default(), bytes).unwrap()
    }

    #[test]
    fn a_request_is_found_when_it_is_whole_or_long() {
        assert_eq!(find_in(b"Q\0\0\0\x06x\0"), Found::Request(0));
        assert_eq!(find_in(b"Q\0\0\0\x06x"), Found::Nothing(0));
        assert_eq!(find_in(b"Q\0\0"), Found::Nothing(0));
        assert_eq!(find_in(b"Q\0\x10\0\0x"), Found::Request(0));
        assert_eq!(find_in(b"X\0\0\0\x04"), Found::Terminate);
        assert_eq!(find_in(b"p\0\0\0\x04"), Found::Unknown(b'p'));
    }

    #[test]
    fn what_is_left_of_a_copy_is_passed_over() {
        assert_eq!(find_in(b"d\0\0\0\x05xc\0\0\0\x04S\0\0\0\x04"), Found::Request(11));
        assert_eq!(find_in(b"H\0\0\0\x04S\0"), Found::Nothing(5));
        // In pieces, in the middle of a large CopyData.
        let mut splitter = Splitter::default();
        assert_eq!(find(&mut splitter, b"d\0\x10\0\0abc"), Ok(Found::Nothing(8)));
        let rest = vec![b'z'; 0x0010_0000 - 4 - 3];
        assert_eq!(find(&mut splitter, &rest), Ok(Found::Nothing(rest.len())));
        assert_eq!(find(&mut splitter, b"S\0\0\0\x04"), Ok(Found::Request(0)));
        assert!(splitter.at_boundary());
    }

    #[test]
    fn only_what_is_answered_without_more_is_complete() {
        let complete = |bytes: &[u8]| is_complete(Splitter::default(), bytes);
        let (parse, sync) = (b"P\0\0\0\x08\0x\0\0", b"S\0\0\0\x04");
        assert!(complete(b"Q\0\0\0\x06x\0") && complete(&[&parse[..], sync].concat()));
        assert!(!complete(parse) && !complete(&[&parse[..], b"H\0\0\0\x04"].concat()));
        assert!(!complete(&[&parse[..], sync, &parse[..4]].concat()));
        assert!(!complete(&[&sync[..], b"X\0\0\0\x04"].concat()));
    }
}
