//! Taking a server connection back from a client that is gone: what the server has to be told before it is done
//! with what that client has left open, and reading what it still says to nobody.
//!
//! It sends no cancel and keeps no time.

use std::{
    future::poll_fn,
    task::{Poll, ready},
};

use bytes::BytesMut;

use super::{connection::Connection, settle::SettleError, state::Ledger};
use crate::wire::{
    backend::TransactionStatus,
    frontend::{self, tag},
    stream::Filled,
};

/// What becomes of the data of a COPY whose client is gone; PostgreSQL quotes it in its log.
const NO_MORE_DATA: &str = "client connection lost";
/// A batch that has failed in a transaction block needs two: the first one is skipped.
const MOST_ROLLBACKS: u8 = 2;

/// What a server is told in place of a client that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The COPY gets no more data, and must not be completed.
    FailCopy,
    /// The answers to a batch without its end, which the server would keep to itself.
    Flush,
    /// What the client has begun is undone. In a batch without its end, Sync alone would commit it.
    RollBack,
    /// The empty query that shows what became of a Sync in doubt.
    Probe,
}

/// What has been said so far.
#[derive(Debug, Default)]
pub struct Unwinding {
    flushed: bool,
    rollbacks: u8,
}

impl Unwinding {
    /// What the server waits for; `None` while it works, and when it is done.
    ///
    /// A statement that has not been answered may turn out to be a COPY, and a request in the middle of its data
    /// makes the server end the connection: nothing but Flush is said before everything is answered.
    pub fn next(&mut self, ledger: &Ledger) -> Option<Word> {
        if ledger.is_in_doubt() {
            return Some(Word::Probe);
        }
        if ledger.is_copying_in() {
            return Some(Word::FailCopy);
        }
        let waits = ledger.waits_for_client();
        if waits && ledger.unanswered() > 0 {
            return (!std::mem::replace(&mut self.flushed, true)).then_some(Word::Flush);
        }
        let open = waits || (ledger.is_settled() && ledger.status() != TransactionStatus::Idle);
        if open && self.rollbacks < MOST_ROLLBACKS {
            self.rollbacks += 1;
            return Some(Word::RollBack);
        }
        None
    }
}

impl Connection {
    /// Has [`Connection::unwind`] say this.
    pub fn say(&mut self, word: Word) {
        let mut messages = BytesMut::new();
        match word {
            Word::FailCopy => {
                frontend::copy_fail(NO_MORE_DATA, &mut messages);
                self.note_own(&[tag::COPY_FAIL]);
            }
            Word::Flush => messages.extend_from_slice(&frontend::FLUSH),
            Word::RollBack => {
                frontend::parse_execute("ROLLBACK", &mut messages);
                messages.extend_from_slice(&frontend::SYNC);
                self.note_own(&[tag::PARSE, tag::BIND, tag::EXECUTE, tag::SYNC]);
            }
            Word::Probe => self.probe(&mut messages),
        }
        self.stream().output().unsplit(messages);
    }

    /// Writes what is to be written and reads a piece of what the server says, which nobody else will see; neither
    /// waits for the other. Cancel-safe.
    ///
    /// # Errors
    /// The connection is of no more use. That includes a refusal of the pooler's own words: what was to be undone is
    /// not.
    pub async fn unwind(&mut self, scratch: &mut [u8]) -> Result<(), SettleError> {
        let count = poll_fn(|cx| {
            if !self.stream().is_drained()
                && let Poll::Ready(written) = self.stream().poll_drain(cx)
            {
                written?;
            }
            match ready!(self.stream().poll_fill(cx, scratch))? {
                Filled::Bytes(count) => Poll::Ready(Ok(count)),
                Filled::Closed => Poll::Ready(Err(SettleError::Closed)),
            }
        })
        .await?;
        let bytes = scratch.get(..count).unwrap_or_default();
        let heard = self.hear(bytes, None)?;
        self.stream()
            .hold(bytes.get(heard.consumed..).unwrap_or_default());
        match heard.farewell.or(heard.refused) {
            Some(error) => Err(SettleError::Refused(*error)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::server::{fuzzing, state::Origin};

    /// What is said after a conversation (`>` client, `<` server), and after the answers to it.
    fn words(conversation: &str, answers: &[&str]) -> Vec<Word> {
        let (mut ledger, mut unwinding) = (Ledger::default(), Unwinding::default());
        let mut words = Vec::new();
        for part in [conversation].iter().chain(answers) {
            for word in part.split_whitespace() {
                match word.as_bytes() {
                    [b'>', tag] => ledger.sent(*tag, Origin::Client),
                    [_, tag, status @ ..] => _ = ledger.received(*tag, status).unwrap(),
                    _ => {}
                }
            }
            while let Some(word) = unwinding.next(&ledger) {
                words.push(word);
                let tags: &[u8] = match word {
                    Word::FailCopy => b"f",
                    Word::Flush => break,
                    Word::RollBack => b"PBES",
                    Word::Probe => {
                        ledger.probe();
                        b""
                    }
                };
                for tag in tags {
                    ledger.sent(*tag, Origin::Pooler);
                }
            }
        }
        assert!(ledger.is_idle(), "{ledger:?} after {words:?}");
        words
    }

    #[test]
    fn transactions_are_rolled_back_and_nothing_else_is() {
        assert_eq!(words(">Q", &["<C <ZI"]), []);
        assert_eq!(words(">Q <C <ZT", &["<1 <2 <C <ZI"]), [Word::RollBack]);
        assert_eq!(words(">Q <E <ZE", &["<1 <2 <C <ZI"]), [Word::RollBack]);
        assert_eq!(
            words(">Q <C <ZT >Q", &["<E <ZE", "<1 <2 <C <ZI"]),
            [Word::RollBack]
        );
    }

    #[test]
    fn a_batch_without_its_end_is_never_committed() {
        let open = words(">P >B >E", &["<1 <2 <C", "<1 <2 <C <ZI"]);
        assert_eq!(open, [Word::Flush, Word::RollBack]);
        let failed = words(">P >B >E", &["<1 <E", "<ZI"]);
        assert_eq!(failed, [Word::Flush, Word::RollBack]);
        let failed_in_a_block = words(">Q <C <ZT >P >H <E", &["<ZE", "<1 <2 <C <ZI"]);
        assert_eq!(failed_in_a_block, [Word::RollBack, Word::RollBack]);
        // The batch before it is complete.
        let second = words(">P >B >E >S >P", &["<1 <2 <C <ZI", "<1", "<1 <2 <C <ZI"]);
        assert_eq!(second, [Word::Flush, Word::RollBack]);
    }

    #[test]
    fn a_copy_gets_no_more_data() {
        assert_eq!(words(">Q <G >d", &["<E <ZI"]), [Word::FailCopy]);
        assert_eq!(
            words(">Q <C <ZT >Q <G", &["<E <ZE", "<1 <2 <C <ZI"]),
            [Word::FailCopy, Word::RollBack]
        );
        // Whether an unanswered statement is a COPY is waited for.
        let unknown = words(">B >E", &["<2 <G", "<E", "<ZI"]);
        assert_eq!(unknown, [Word::Flush, Word::FailCopy, Word::RollBack]);
        // The Sync that was sent with it may have been read or not.
        let doubtful = words(">B >E >S <2 <G", &["<E", "<ZI", "<I <ZI"]);
        assert_eq!(
            doubtful,
            [Word::FailCopy, Word::Flush, Word::RollBack, Word::Probe]
        );
    }

    #[test]
    fn a_server_that_does_not_roll_back_is_not_asked_for_ever() {
        let (mut ledger, mut unwinding) = (Ledger::default(), Unwinding::default());
        for _ in 0..MOST_ROLLBACKS {
            ledger.sent(b'Q', Origin::Client);
            ledger.received(b'Z', b"T").unwrap();
            assert_eq!(unwinding.next(&ledger), Some(Word::RollBack));
        }
        assert_eq!(unwinding.next(&ledger), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Against the model of PostgreSQL; the fuzz target does the same.
        #[test]
        fn whatever_a_client_leaves_is_undone(data in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzzing::ledger(&data);
        }
    }
}
