//! The ledger against what PostgreSQL does; each case is a conversation.

use proptest::prelude::*;

use super::*;

/// Runs a conversation: `>X` is sent by the client, `!X` by the pooler, `<X` comes from the server, `?` is the
/// pooler's empty query in doubt;
/// `<ZI` is ReadyForQuery with its status.
fn run(conversation: &str) -> Ledger {
    let mut ledger = Ledger::default();
    step(&mut ledger, conversation);
    ledger
}

fn step(ledger: &mut Ledger, conversation: &str) {
    for word in conversation.split_whitespace() {
        let (direction, rest) = word.as_bytes().split_first().unwrap();
        match direction {
            b'>' => ledger.sent(rest[0], Origin::Client),
            b'!' => ledger.sent(rest[0], Origin::Pooler),
            b'?' => {
                assert!(ledger.is_in_doubt(), "no doubt in {conversation}: {ledger:?}");
                ledger.probe();
            }
            _ => {
                ledger.received(rest[0], &rest[1..]).unwrap();
            }
        }
    }
}

#[track_caller]
fn idle(conversation: &str) {
    let ledger = run(conversation);
    assert!(ledger.is_idle(), "not idle after {conversation}: {ledger:?}");
    assert_eq!(ledger.verdict(), Verdict::Reuse);
}

#[track_caller]
fn busy(conversation: &str) {
    let ledger = run(conversation);
    assert!(!ledger.is_idle(), "idle after {conversation}: {ledger:?}");
    assert_eq!(ledger.verdict(), Verdict::Close(CloseReason::Unfinished));
}

#[test]
fn simple_query() {
    busy(">Q");
    busy(">Q <T <D <C");
    idle(">Q <T <D <C <ZI");
    idle(">Q <I <ZI");
    idle(">Q <E <ZI");
    busy(">Q <C <ZT");
    busy(">Q <C <ZT >Q <E <ZE");
    idle(">Q <C <ZT >Q <E <ZE >Q <C <ZI");
}

#[test]
fn ready_must_have_come_for_every_sync_query_and_function_call() {
    busy(">Q >Q <C <ZI");
    idle(">Q >Q <C <ZI <C <ZI");
    busy(">P >B >E >S >P >B >E >S <1 <2 <D <C <ZI");
    idle(">P >B >E >S >P >B >E >S <1 <2 <D <C <ZI <1 <2 <C <ZI");
    busy(">F >F <V <ZI");
    idle(">F >F <V <ZI <E <ZI");
}

#[test]
fn a_batch_without_its_sync_keeps_the_server() {
    busy(">P");
    busy(">P >H <1");
    busy(">P >B >D >E >H <1 <2 <T <D <C");
    idle(">P >B >D >E >H <1 <2 <T <D <C >S <ZI");
    // Committed inside a pipeline, with more to come before Sync.
    busy(">Q <C <ZT >P >B >E >P <1 <2 <C");
}

#[test]
fn describe_of_a_statement_and_of_a_portal() {
    idle(">P >D >S <1 <t <T <ZI");
    idle(">P >D >S <1 <t <n <ZI");
    idle(">B >D >E >C >S <2 <T <s <3 <ZI");
}

#[test]
fn an_error_in_a_batch_skips_to_the_sync() {
    idle(">P >B >E >S <E <ZI");
    busy(">P >B >E >S >P >B >E >S <E <ZI");
    idle(">P >B >E >S >P >B >E >S <E <ZI <1 <2 <C <ZI");
    // The Sync is sent after the error came.
    busy(">P >B >H <E");
    busy(">P >B >H <E >P >B >E");
    idle(">P >B >H <E >P >B >E >S <ZI");
}

#[test]
fn a_query_inside_a_failed_batch_is_skipped_too() {
    idle(">P >Q >S <E <ZI");
    idle(">P >B <1 >H <E >Q >S <ZI");
    idle(">P >Q <1 <C <ZI");
}

#[test]
fn copy_in_by_simple_query() {
    busy(">Q <G");
    busy(">Q <G >d >d");
    busy(">Q <G >d >c");
    idle(">Q <G >d >c <C <ZI");
    idle(">Q <G >f <E <ZI");
    // The whole COPY was sent ahead.
    idle(">Q >d >c <G <C <ZI");
}

#[test]
fn copy_data_after_the_server_gave_up_is_ignored() {
    idle(">Q <G >d <E <ZI");
    idle(">Q <G >d <E >d >c <ZI >d >c");
    idle(">Q >d >c <E <ZI");
    // What was executed is no COPY, and more is on its way.
    idle(">B >E >d >c >B >E >S <2 <C <2 <C <ZI");
    // A stale CopyDone does not end the next COPY.
    busy(">Q >d >c >Q <E <ZI <G");
    idle(">Q >d >c >Q <E <ZI <G >d >c <C <ZI");
}

#[test]
fn copy_in_by_extended_query_ignores_the_sync_sent_before_its_end() {
    // As drivers do that send Bind, Execute, Sync first and CopyDone, Sync at the end.
    busy(">B >E >S <2 <G >d");
    busy(">B >E >S <2 <G >d >c");
    idle(">B >E >S <2 <G >d >c >S <C <ZI");
    // All of it sent ahead.
    idle(">B >E >S >d >c >S <2 <G <C <ZI");
    // The same without the second Sync: the first one did not end the batch.
    busy(">B >E >S >d >c <2 <G <C");
    idle(">B >E >S >d >c <2 <G <C >S <ZI");
    // The COPY fails before it begins: both Syncs count.
    busy(">B >E >S >d >c >S <E <ZI");
    idle(">B >E >S >d >c >S <E <ZI <ZI");
    // It fails after that: whether the first Sync is answered is only known from what is answered before an
    // empty query of the pooler's own.
    for answers in ["", "<ZI"] {
        for failed in [
            ">B >E >S <2 <G >d <E >d >c >S <ZI",
            ">B >E >S <2 <G >d >c >S <E <ZI",
        ] {
            busy(failed);
            busy(&format!("{failed} ? {answers}"));
            idle(&format!("{failed} ? {answers} <I <ZI"));
            idle(&format!("{failed} ? >Q {answers} <I <ZI <C <ZI"));
        }
    }
    // What was sent after the error is discarded or carried out, whichever Sync it was that the server read.
    let failed = ">B >E <2 <G >S <E >P >B >E >S <ZI";
    for answers in ["", "<1 <2 <D <C <ZI", "<E <ZI"] {
        idle(&format!("{failed} ? {answers} <I <ZI"));
    }
    let mut ledger = run(&format!("{failed} ?"));
    for tag in *b"12DC" {
        assert_eq!(ledger.received(tag, b""), Ok(Route::Forward));
    }
    // Sync and Flush in the middle of the data are ignored.
    idle(">Q <G >d >H >S >d >c <C <ZI");
}

#[test]
fn the_end_of_no_copy_is_ignored_and_not_remembered() {
    idle(">P >B >c >E >S <1 <2 <D <C <ZI");
    idle(">B >E >d >c >c >S <2 <G <C <ZI");
    idle(">B >E >c >S <2 <D <C <ZI");
    idle(">P >c >f >S >Q <1 <ZI <I <ZI");
    idle(">Q >c >d >c <G <C <G <C <ZI");
    let flood = ">P >B >E".to_owned() + &" >c >d >f".repeat(1000);
    assert_eq!(run(&flood).backlog(), 4);
    idle(&(flood + " >S <1 <2 <D <C <ZI"));
}

#[test]
fn a_copy_after_a_long_pipeline_is_found_in_one_pass() {
    let mut ledger = run(">B >E");
    for tag in [b'P', b'S'] {
        for _ in 0..200_000 {
            ledger.sent(tag, Origin::Client);
        }
    }
    step(&mut ledger, "<2 <G");
    assert_eq!(ledger.backlog(), 200_001);
    // What the server makes of Parse in a COPY.
    step(&mut ledger, "<E >S <ZI");
    assert_eq!(ledger.backlog(), 0);
}

#[test]
fn a_request_in_the_middle_of_copy_data_costs_the_connection() {
    // The first COPY fails by itself, the second one reads what was meant for it, and the Sync is answered.
    for conversation in [">Q >Q >c <G <E <ZI <G >S <C <ZI", ">Q <G >Q >c <E <ZI <G <C <ZI"] {
        let verdict = run(conversation).verdict();
        assert_eq!(verdict, Verdict::Close(CloseReason::OutOfStep), "{conversation}");
    }
}

#[test]
fn copy_out() {
    idle(">Q <H <d <d <c <C <ZI");
    idle(">B >E >S <2 <H <d <c <C <ZI");
}

#[test]
fn an_empty_sync_is_answered() {
    busy(">S");
    idle(">S <ZI");
}

#[test]
fn replies_to_the_pooler_are_told_apart() {
    let mut ledger = Ledger::default();
    step(&mut ledger, "!Q >P >B >E >S");
    assert!(ledger.owes_pooler());
    for (tag, status) in [(b'C', ""), (b'S', ""), (b'Z', "I")] {
        assert_eq!(ledger.received(tag, status.as_bytes()), Ok(Route::Swallow));
    }
    assert!(!ledger.owes_pooler());
    assert_eq!(ledger.received(b'1', b""), Ok(Route::Forward));
    step(&mut ledger, "<2 <C <ZI");
    assert!(ledger.is_idle());
}

#[test]
fn what_answers_nothing_is_out_of_step() {
    for conversation in [
        ("", "Z"),
        ("", "C"),
        (">P", "2"),
        (">Q", "1"),
        (">F", "D"),
        (">B", "V"),
        (">Q", "W"),
    ] {
        let mut ledger = run(conversation.0);
        let tag = conversation.1.as_bytes()[0];
        assert_eq!(ledger.received(tag, b"I"), Err(OutOfStep { tag }));
        assert_eq!(ledger.verdict(), Verdict::Close(CloseReason::OutOfStep));
    }
    let mut ledger = run(">Q");
    assert!(ledger.received(b'Z', b"?").is_err());
}

#[test]
fn a_client_is_done_with_a_server_that_fell_out_of_step() {
    let mut ledger = run(">Q <T <D <C <ZI");
    assert!(ledger.received(b'Z', b"I").is_err());
    assert!(ledger.is_between_transactions() && !ledger.is_idle());
    step(&mut ledger, ">Q <C <ZT");
    assert!(!ledger.is_between_transactions(), "its transaction is not lost");
    step(&mut ledger, ">Q <C <ZI");
    assert!(ledger.is_between_transactions());
    assert_eq!(ledger.verdict(), Verdict::Close(CloseReason::OutOfStep));
}

#[test]
fn asynchronous_messages_change_nothing() {
    idle("<N <A <S");
    idle(">Q <N <S <A <C <ZI");
    let mut ledger = run("!Q");
    assert_eq!(ledger.received(b'A', b""), Ok(Route::Forward));
}

/// A model of the server's side of the protocol: it reads what was sent and answers as PostgreSQL would,
/// choosing failures by the given bits.
struct Model<'a> {
    input: VecDeque<u8>,
    fails: std::iter::Cycle<std::slice::Iter<'a, bool>>,
    skip: bool,
}

impl Model<'_> {
    fn answer(&mut self) -> Vec<&'static str> {
        let mut replies = Vec::new();
        while let Some(tag) = self.input.pop_front() {
            if self.skip && tag != b'S' {
                continue;
            }
            let fail = !b"SH".contains(&tag) && *self.fails.next().unwrap();
            match (tag, fail) {
                (b'S', _) => {
                    self.skip = false;
                    replies.push("<ZI");
                }
                (b'Q', true) => replies.extend(["<E", "<ZI"]),
                (b'Q', false) => replies.extend(["<T", "<D", "<C", "<ZI"]),
                (b'F', _) => replies.extend(["<V", "<ZI"]),
                (_, true) => {
                    self.skip = true;
                    replies.push("<E");
                }
                (b'P', _) => replies.push("<1"),
                (b'B', _) => replies.push("<2"),
                (b'D', _) => replies.extend(["<t", "<T"]),
                (b'E', _) => replies.extend(["<D", "<C"]),
                (b'C', _) => replies.push("<3"),
                _ => {}
            }
        }
        replies
    }
}

proptest! {
    /// Whatever is pipelined in whatever pieces, and whatever fails: the ledger is never out of step, and it
    /// is idle at the end exactly when the last batch was closed.
    #[test]
    fn agrees_with_a_model_of_the_server(
        batches in prop::collection::vec(prop::collection::vec(prop::sample::select(&b"PBDECSQFH"[..]), 1..8), 1..8),
        fails in prop::collection::vec(prop::bool::weighted(0.2), 1..20),
    ) {
        let mut ledger = Ledger::default();
        let mut model = Model { input: VecDeque::new(), fails: fails.iter().cycle(), skip: false };
        for batch in &batches {
            for &tag in batch {
                ledger.sent(tag, Origin::Client);
                model.input.push_back(tag);
            }
            for reply in model.answer() {
                let bytes = reply.as_bytes();
                prop_assert_eq!(ledger.received(bytes[1], &bytes[2..]), Ok(Route::Forward));
            }
        }
        ledger.sent(b'S', Origin::Client);
        model.input.push_back(b'S');
        prop_assert!(!ledger.is_idle());
        for reply in model.answer() {
            let bytes = reply.as_bytes();
            prop_assert_eq!(ledger.received(bytes[1], &bytes[2..]), Ok(Route::Forward));
        }
        prop_assert!(ledger.is_idle());
    }

    #[test]
    fn arbitrary_conversations_never_panic(words in prop::collection::vec((any::<bool>(), any::<u8>(), any::<u8>()), 0..100)) {
        let mut ledger = Ledger::default();
        for (sent, tag, status) in words {
            if sent {
                ledger.sent(tag, Origin::Client);
            } else {
                let _ = ledger.received(tag, &[status]);
            }
        }
        let _ = ledger.verdict();
    }
}

#[test]
fn a_server_that_waits_for_its_client_says_so() {
    for waiting in [
        ">Q <G",
        ">Q <G >d",
        ">P >B >E >H <1 <2 <C",
        ">P >H <E",
        ">B >E <2 <G",
    ] {
        assert!(run(waiting).waits_for_client(), "{waiting}");
    }
    for working in ["", ">Q", ">P >B >E >S", ">P >B >E >S >P >S", ">Q <G >c"] {
        assert!(!run(working).waits_for_client(), "{working}");
    }
}
