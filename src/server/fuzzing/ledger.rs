//! The ledger against the model: any interleaving of what a client sends, what the server reads and what
//! comes back.

use super::backend::{Asker, Backend, Reply};
use crate::{
    server::{
        Unwinding, Word,
        state::{CloseReason, Guess, Ledger, Origin, Route, Verdict},
    },
    wire::fuzzing::Input,
};

/// What the pooler does in between: a setting as one Query, or as a batch.
const SETTINGS: [&[u8]; 2] = [b"Q", b"PBEBES"];

const CLIENT: Asker = Asker::Client(1);

struct Conversation {
    ledger: Ledger,
    server: Backend,
    /// The server said something that the ledger could not expect.
    lost: bool,
    /// It was not known which of its Syncs the server reads, and the client may have gone on. Nobody gets the
    /// connection before it is known, which may be never.
    doubtful: bool,
    /// One answer was taken for another that looks the same.
    mistaken: bool,
}

/// Nothing that a server may say is out of step, every reply goes to whoever asked, a connection is reusable
/// only when the server is done, and it is reusable when the server is done.
pub fn ledger(data: &[u8]) {
    let mut input = Input(data);
    let mut talk = Conversation {
        ledger: Ledger::default(),
        server: Backend::new(),
        lost: false,
        doubtful: false,
        mistaken: false,
    };
    while !input.is_empty() {
        match input.byte() % 16 {
            0..6 => talk.client_sends(input.one_of(b"QPBDECSFHdcfPBES")),
            6..10 => talk.server.read(&mut input),
            10..14 => talk.deliver(),
            14 => talk.server.on_its_own(&mut input),
            _ => talk.pooler_sends(input.one_of(&SETTINGS)),
        }
        talk.probe();
        if talk.server.is_gone() || talk.mistaken {
            return;
        }
        talk.check();
    }
    if data.len().is_multiple_of(2) {
        talk.finish();
    }
    talk.vanish();
    // Whatever bytes were there are types of messages, too.
    nonsense(data);
}

impl Conversation {
    fn client_sends(&mut self, tag: u8) {
        let kept_step = !self.is_out_of_step();
        self.ledger.sent(tag, Origin::Client);
        self.server.send(tag, CLIENT);
        self.lost |= kept_step && self.is_out_of_step();
    }

    fn is_out_of_step(&self) -> bool {
        self.ledger.verdict() == Verdict::Close(CloseReason::OutOfStep)
    }

    /// As it does before the request of the next client.
    fn pooler_sends(&mut self, tags: &[u8]) {
        if self.ledger.verdict() == Verdict::Reuse {
            for tag in tags {
                self.ledger.sent(*tag, Origin::Pooler);
                self.server.send(*tag, Asker::Pooler);
            }
        }
    }

    fn probe(&mut self) {
        if self.ledger.is_in_doubt() {
            self.ledger.probe();
            self.server.send(b'Q', Asker::Pooler);
        }
    }

    fn deliver(&mut self) {
        let Some(Reply { tag, status, to }) = self.server.reply() else {
            return;
        };
        let body: &[u8] = if tag == b'Z' { &[status] } else { &[] };
        let (guess, kept_step) = (self.ledger.guess(), !self.is_out_of_step());
        if tag == b'I' && to == Some(CLIENT) && guess == Guess::Probed {
            // The client asked the same as the probe does: that one's answer will be forwarded in its place.
            self.mistaken = true;
            return;
        }
        let route = self.ledger.received(tag, body);
        self.doubtful |= self.ledger.guess() == Guess::Failed;
        // A COPY may have ended before the data did that was meant for it, and a Sync may have been ignored or
        // not. Nobody can know, and the connection is closed.
        self.lost |= route.is_err() && (self.doubtful || self.server.is_in_danger());
        self.lost |= tag == b'G' && kept_step && self.is_out_of_step();
        let route = route.or(if self.lost { Ok(Route::Forward) } else { route });
        let expected = match to {
            Some(Asker::Pooler) => Route::Swallow,
            Some(Asker::Client(_)) => Route::Forward,
            // A setting that changes while the pooler's request is carried out is taken for its effect.
            None if tag == b'S' => return assert!(route.is_ok()),
            None => Route::Forward,
        };
        assert_eq!(
            route,
            Ok(expected),
            "{} to {to:?} leaves {:?}",
            char::from(tag),
            self.ledger
        );
    }

    fn check(&self) {
        if self.ledger.verdict() == Verdict::Reuse {
            assert!(self.server.is_clean(), "{:?} but {:?}", self.ledger, self.server);
        }
    }

    /// The server reads all there is, and all that it says arrives.
    fn finish(&mut self) {
        loop {
            while !self.server.has_read() {
                self.server.read(&mut Input(&[]));
            }
            while !self.server.is_settled() {
                self.deliver();
            }
            self.probe();
            if self.server.is_gone() || self.mistaken {
                return;
            }
            if self.server.has_read() {
                break;
            }
        }
        self.check();
        if self.doubtful || self.server.is_in_danger() {
            return;
        }
        if self.lost {
            return assert_ne!(self.ledger.verdict(), Verdict::Reuse);
        }
        assert_eq!(
            self.ledger.is_idle(),
            self.server.is_clean(),
            "{:?} but {:?}",
            self.ledger,
            self.server
        );
        assert_eq!(
            self.ledger.waits_for_client(),
            self.server.is_in_the_middle(),
            "{:?} but {:?}",
            self.ledger,
            self.server
        );
    }
}

impl Conversation {
    /// The client is gone, wherever it was: what the pooler says in its place leaves a clean server.
    fn vanish(&mut self) {
        let mut unwinding = Unwinding::default();
        // Each message may need a round, what the server has said on its own too, and then a few words.
        let mut rounds = self.ledger.unanswered() * 2 + self.server.under_way() + 50;
        while self.ledger.verdict() != Verdict::Reuse || !self.server.is_settled() {
            self.deliver();
            if let Some(word) = unwinding.next(&self.ledger) {
                self.pooler_says(word);
            }
            self.server.read(&mut Input(&[]));
            let known = !self.doubtful && !self.lost && !self.server.is_in_danger();
            if self.server.is_gone() || self.mistaken || !known {
                return;
            }
            assert!(
                rounds > 0,
                "{unwinding:?} gets no further: {:?} {:?}",
                self.ledger,
                self.server
            );
            rounds -= 1;
        }
        self.check();
    }

    fn pooler_says(&mut self, word: Word) {
        let tags: &[u8] = match word {
            Word::FailCopy => b"f",
            Word::Flush => b"H",
            Word::RollBack => b"PBES",
            Word::Probe => return self.probe(),
        };
        for tag in tags {
            self.ledger.sent(*tag, Origin::Pooler);
            self.server.send(*tag, Asker::Pooler);
        }
    }
}

/// A server may say anything at any time.
fn nonsense(data: &[u8]) {
    let mut ledger = Ledger::default();
    for pair in data.chunks(2) {
        match pair {
            [tag, status] if status % 2 == 0 => {
                let _ = ledger.received(*tag, &[b"ITEx"[usize::from(status / 64)]]);
            }
            [tag, ..] => ledger.sent(*tag, Origin::Client),
            [] => {}
        }
        if ledger.is_in_doubt() {
            ledger.probe();
        }
    }
    let _ = ledger.verdict();
}
