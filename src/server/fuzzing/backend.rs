//! A model of PostgreSQL's main loop (`PostgresMain`, `CopyGetData`): it reads messages in order and answers
//! them as a server may, which the input decides. It knows nothing of the ledger.

use std::collections::VecDeque;

use crate::wire::fuzzing::Input;

/// Who asked: the pooler, or a client by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    Pooler,
    Client(u8),
}

/// A message from the server: type, body of a ReadyForQuery, and whom it answers. Nobody is answered by what
/// the server says on its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply {
    pub(crate) tag: u8,
    pub(crate) status: u8,
    pub(crate) to: Option<Asker>,
}

/// What the server does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loop {
    /// It reads a message and carries it out.
    Ready,
    /// It ignores everything up to a Sync.
    Skipping,
    /// It reads data for a COPY that was begun by a message of this type from this client.
    CopyIn(u8, Asker),
    /// It has closed the connection.
    Gone,
}

#[derive(Debug)]
pub(crate) struct Backend {
    inbox: VecDeque<(u8, Asker)>,
    outbox: VecDeque<Reply>,
    now: Loop,
    status: u8,
    in_batch: bool,
    reckless: bool,
}

impl Backend {
    pub(crate) fn new() -> Self {
        Self {
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            now: Loop::Ready,
            status: b'I',
            in_batch: false,
            reckless: false,
        }
    }

    pub(crate) fn send(&mut self, tag: u8, origin: Asker) {
        self.inbox.push_back((tag, origin));
        self.look_ahead();
    }

    /// The next message that has not been delivered.
    pub(crate) fn reply(&mut self) -> Option<Reply> {
        self.outbox.pop_front()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.now == Loop::Gone
    }

    /// Whether a client has sent something behind the beginning of a COPY that can only be right if the COPY fails
    /// before it is read.
    pub(crate) fn is_in_danger(&self) -> bool {
        self.reckless
    }

    fn look_ahead(&mut self) {
        let mut data = self
            .inbox
            .iter()
            .map(|(tag, _)| tag)
            .take_while(|tag| !b"cf".contains(tag));
        self.reckless |= matches!(self.now, Loop::CopyIn(..)) && !data.all(|tag| b"dSH".contains(tag));
    }

    /// How many messages are under way to it and from it.
    pub(crate) fn under_way(&self) -> usize {
        self.inbox.len() + self.outbox.len()
    }

    /// Whether everything that it was sent is read.
    pub(crate) fn has_read(&self) -> bool {
        self.inbox.is_empty()
    }

    /// Whether all that it has said is delivered.
    pub(crate) fn is_settled(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Whether it does nothing before it reads more, and what it would read next decides what that is.
    pub(crate) fn is_in_the_middle(&self) -> bool {
        matches!(self.now, Loop::Skipping | Loop::CopyIn(..)) || self.in_batch
    }

    /// Whether another client may have it: it is in no transaction, has answered everything, and what it has not
    /// read yet it will ignore.
    pub(crate) fn is_clean(&self) -> bool {
        self.now == Loop::Ready
            && self.status == b'I'
            && !self.in_batch
            && self.outbox.iter().all(|reply| reply.to.is_none())
            && self.inbox.iter().all(|(tag, _)| b"dcfH".contains(tag))
    }

    fn say(&mut self, tags: &[u8], to: Asker) {
        self.outbox.extend(tags.iter().map(|&tag| Reply {
            tag,
            status: self.status,
            to: Some(to),
        }));
    }

    fn ready(&mut self, choice: u8, to: Asker) {
        if to != Asker::Pooler {
            self.status = b"IITE"[usize::from(choice >> 6)];
        }
        self.in_batch = false;
        self.now = Loop::Ready;
        self.say(b"Z", to);
    }

    /// Something that happens without a message: news, or the failure of a COPY on the server's side.
    pub(crate) fn on_its_own(&mut self, input: &mut Input<'_>) {
        let choice = input.byte();
        match (self.now, choice % 4) {
            (Loop::CopyIn(by, to), 3) => self.copy_failed(by, choice, to),
            (Loop::Gone, _) => {}
            (_, what) => self.outbox.push_back(Reply {
                tag: b"NASN"[usize::from(what)],
                status: 0,
                to: None,
            }),
        }
    }

    /// Reads one message.
    pub(crate) fn read(&mut self, input: &mut Input<'_>) {
        let Some((tag, to)) = self.inbox.pop_front() else {
            return;
        };
        let choice = if to == Asker::Pooler { 0 } else { input.byte() };
        match (self.now, tag) {
            (Loop::Gone, _) | (_, b'H') | (Loop::Skipping | Loop::Ready, b'd' | b'c' | b'f') => {}
            (Loop::CopyIn(by, to), _) => self.read_copy(tag, by, choice, to),
            (_, b'S') => self.ready(choice, to),
            (Loop::Skipping, _) => {}
            (Loop::Ready, b'Q') => self.read_query(choice, to),
            (Loop::Ready, b'F') => {
                self.say(if choice % 4 == 0 { b"E" } else { b"V" }, to);
                self.ready(choice, to);
            }
            (Loop::Ready, _) => {
                if (tag, to) == (b'E', Asker::Pooler) {
                    // It executes settings, in no transaction, and ROLLBACK.
                    self.status = b'I';
                }
                self.read_batch(tag, choice, to);
            }
        }
    }

    fn read_query(&mut self, choice: u8, to: Asker) {
        let answer: &[u8] = match choice % 9 {
            0 => b"I",
            1 => b"TDC",
            2 => b"E",
            3 => b"TDE",
            4 => b"HddcC",
            5 => b"CTDDC",
            6 => b"TCE",
            7 => b"C",
            _ => {
                self.say(b"CG", to);
                self.now = Loop::CopyIn(b'Q', to);
                self.look_ahead();
                return;
            }
        };
        self.say(answer, to);
        self.ready(choice, to);
    }

    fn read_batch(&mut self, tag: u8, choice: u8, to: Asker) {
        self.in_batch = true;
        let answer: &[u8] = match (tag, choice % 6) {
            (_, 5) => b"E",
            (b'P', _) => b"1",
            (b'B', _) => b"2",
            (b'C', _) => b"3",
            (b'D', 0) => b"tT",
            (b'D', 1) => b"tn",
            (b'D', 2) => b"n",
            (b'D', _) => b"T",
            (_, 0) => b"C",
            (_, 1) => b"DDs",
            (_, 2) => b"I",
            (_, 3) => b"HdcC",
            _ => {
                self.say(b"G", to);
                self.now = Loop::CopyIn(b'E', to);
                self.look_ahead();
                return;
            }
        };
        self.say(answer, to);
        if answer == b"E" {
            self.now = Loop::Skipping;
        }
    }

    /// "Flush and Sync messages are ignored"; anything else that is not the COPY's ends the connection, because
    /// the body of the message is not read.
    fn read_copy(&mut self, tag: u8, by: u8, choice: u8, to: Asker) {
        match tag {
            b'c' if choice % 4 != 3 => self.copy_done(by, choice, to),
            b'c' | b'f' => self.copy_failed(by, choice, to),
            b'd' if choice % 4 == 3 => self.copy_failed(by, choice, to),
            b'd' | b'S' => {}
            _ => self.now = Loop::Gone,
        }
    }

    fn copy_done(&mut self, by: u8, choice: u8, to: Asker) {
        self.say(b"C", to);
        if by == b'E' {
            self.now = Loop::Ready;
        } else if choice % 8 == 2 {
            // The next statement of the same Query is a COPY too.
            self.say(b"G", to);
            self.look_ahead();
        } else {
            self.ready(choice, to);
        }
    }

    fn copy_failed(&mut self, by: u8, choice: u8, to: Asker) {
        self.say(b"E", to);
        if by == b'E' {
            self.now = Loop::Skipping;
        } else {
            self.ready(choice, to);
        }
    }
}
