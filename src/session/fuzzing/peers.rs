//! Both ends of the wires that sessions hang on: clients, and a server that answers them by the model. Every
//! message says whom it is for, so that each client can tell what was meant for it.

use std::{
    collections::HashMap,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::{
    server::fuzzing::{Asker, Backend, Reply},
    wire::{
        frame::{Splitter, Step},
        fuzzing::Input,
    },
};

/// The end of a connection.
const FATAL: &[u8] = b"SFATAL\0VFATAL\0C08P01\0Mlost synchronization\0\0";

/// The pooler's own messages begin with a zero or a letter.
pub(super) const LAST_CLIENT: u8 = b'A' - 1;

/// What the server has said to each client: type, and body of a ReadyForQuery.
pub(super) type Said = HashMap<u8, Vec<(u8, u8)>>;

/// One end of a wire, and what is on its way.
struct Wire {
    end: Option<DuplexStream>,
    output: Vec<u8>,
    input: Vec<u8>,
}

impl Wire {
    fn new(end: DuplexStream) -> Self {
        Self {
            end: Some(end),
            output: Vec::new(),
            input: Vec::new(),
        }
    }

    fn put(&mut self, tag: u8, body: &[u8]) {
        let length = u32::try_from(body.len() + 4).expect("messages are short here");
        self.output.push(tag);
        self.output.extend(length.to_be_bytes());
        self.output.extend(body);
    }

    /// Writes at most so many bytes; says how many it was.
    fn write(&mut self, count: usize) -> usize {
        let Some(end) = &mut self.end else { return 0 };
        let mut cx = Context::from_waker(Waker::noop());
        let front = &self.output[..count.min(self.output.len())];
        match Pin::new(end).poll_write(&mut cx, front) {
            Poll::Ready(Ok(written)) => self.output.drain(..written).count(),
            Poll::Ready(Err(_)) => {
                self.output.clear();
                0
            }
            Poll::Pending => 0,
        }
    }

    /// Reads at most so many bytes; says how many it was. At the other's end it ends, too.
    fn read(&mut self, count: usize) -> usize {
        let Some(end) = &mut self.end else { return 0 };
        let (mut cx, mut bytes) = (Context::from_waker(Waker::noop()), vec![0; count.max(1)]);
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(end).poll_read(&mut cx, &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                self.input.extend_from_slice(buffer.filled());
                buffer.filled().len()
            }
            Poll::Ready(_) => {
                self.end = None;
                0
            }
            Poll::Pending => 0,
        }
    }

    /// The whole messages that have arrived.
    fn messages(&mut self) -> Vec<(u8, Vec<u8>)> {
        let (mut at, mut messages) = (0, Vec::new());
        while let Ok(Step::Whole { tag, body }) =
            Splitter::default().step(&self.input, &mut at, |_| usize::MAX)
        {
            messages.push((tag, body.to_vec()));
        }
        self.input.drain(..at);
        messages
    }
}

/// A client that checks what it gets.
pub(super) struct Client {
    number: u8,
    wire: Wire,
    greeted: bool,
    /// It was told an error by the pooler, which also ends that request.
    refused: bool,
    got: usize,
}

impl Client {
    pub(super) fn new(number: u8, end: DuplexStream) -> Self {
        Self {
            number,
            wire: Wire::new(end),
            greeted: false,
            refused: false,
            got: 0,
        }
    }

    pub(super) fn say(&mut self, tag: u8) {
        self.wire.put(tag, &[self.number]);
    }

    pub(super) fn write(&mut self, count: usize) -> usize {
        self.wire.write(count)
    }

    pub(super) fn leave(&mut self) {
        self.wire.end = None;
    }

    pub(super) fn is_connected(&self) -> bool {
        self.wire.end.is_some()
    }

    pub(super) fn number(&self) -> u8 {
        self.number
    }

    /// How many replies it got that a server had made.
    pub(super) fn got(&self) -> usize {
        self.got
    }

    /// Reads, and checks that what came is what the server said to this client, in order.
    pub(super) fn read(&mut self, count: usize, said: &Said) -> usize {
        let read = self.wire.read(count);
        for (tag, body) in self.wire.messages() {
            match tag {
                b'R' | b'S' | b'K' | b'N' | b'A' => {}
                b'E' if body.first() != Some(&self.number) => {
                    assert!(body.starts_with(b"S"), "client {} got {body:?}", self.number);
                    self.refused = true;
                }
                b'Z' if !self.greeted => self.greeted = true,
                b'Z' if self.refused => self.refused = false,
                tag => {
                    let said = said.get(&self.number).and_then(|said| said.get(self.got));
                    let whose = if tag == b'Z' { self.number } else { body[0] };
                    let status = if tag == b'Z' { body[0] } else { 0 };
                    assert_eq!(
                        (whose, Some(&(tag, status))),
                        (self.number, said),
                        "client {} got {}",
                        self.number,
                        char::from(tag)
                    );
                    self.got += 1;
                }
            }
        }
        read
    }
}

/// The server at the other end of a connection.
pub(super) struct Server {
    wire: Wire,
    backend: Backend,
    /// Distinguishes values of a setting.
    news: u8,
}

impl Server {
    pub(super) fn new(end: DuplexStream) -> Self {
        Self {
            wire: Wire::new(end),
            backend: Backend::new(),
            news: 0,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.wire.end.is_some()
    }

    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    pub(super) fn read(&mut self, count: usize) -> usize {
        let read = self.wire.read(count);
        for (tag, body) in self.wire.messages() {
            match body.first() {
                _ if tag == b'X' => self.wire.end = None,
                Some(&number @ 1..=LAST_CLIENT) => self.backend.send(tag, Asker::Client(number)),
                _ => self.backend.send(tag, Asker::Pooler),
            }
        }
        read
    }

    /// Carries out a message.
    pub(super) fn work(&mut self, input: &mut Input<'_>, said: &mut Said) {
        self.backend.read(input);
        self.speak(said);
    }

    pub(super) fn on_its_own(&mut self, input: &mut Input<'_>, said: &mut Said) {
        self.backend.on_its_own(input);
        self.speak(said);
    }

    fn speak(&mut self, said: &mut Said) {
        while let Some(Reply { tag, status, to }) = self.backend.reply() {
            match (to, tag) {
                (None, b'S') => {
                    self.news = (self.news + 1) % 3;
                    self.wire.put(tag, &[b'x', 0, b'0' + self.news, 0]);
                }
                (None, _) => self.wire.put(tag, b"\0"),
                (Some(_), b'Z') => self.wire.put(tag, &[status]),
                (Some(Asker::Client(number)), _) => self.wire.put(tag, &[number, 0, 0]),
                (Some(Asker::Pooler), _) => self.wire.put(tag, b"\xff\0\0"),
            }
            if let Some(Asker::Client(number)) = to {
                let status = if tag == b'Z' { status } else { 0 };
                said.entry(number).or_default().push((tag, status));
            }
        }
        if self.backend.is_gone() && self.wire.end.is_some() {
            self.wire.put(b'E', FATAL);
            self.wire.write(usize::MAX);
            self.wire.end = None;
        }
    }

    pub(super) fn write(&mut self, count: usize) -> usize {
        self.wire.write(count)
    }
}
