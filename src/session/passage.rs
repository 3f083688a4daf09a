//! A client with a server connection of its own: a replication connection. Bytes pass in both directions until one side
//! ends; what they mean is between client and server.
//!
//! Messages are told apart only as far as it takes to say an error between two of them, and to know when a shutdown
//! interrupts nothing: a stream of WAL is taken up again where it ended, a base backup is not.

use std::{
    future::poll_fn,
    io,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    aside::{Introduction, Shown},
    cancel::CancelTarget,
    control::Order,
    course::end,
    error::{End, SessionError},
    identity::{Arrival, Identity},
    run::Counted,
    table::Entry,
    welcome::say_ready,
    worker::Worker,
};
use crate::{
    fault::{SqlState, chain},
    pool::{Apart, Pool},
    tls::Stream,
    wire::{
        backend::{ServerError, tag as backend},
        frame::Step,
        frontend::tag as frontend,
        stream::{Filled, Framed},
    },
};

/// An error up to this size is looked into, for whether it is the server's farewell.
const ERROR_WHOLE: usize = 16 * 1024;

/// A client and its server connection.
#[derive(Debug)]
pub struct Passage<Slot> {
    client: Side,
    server: Apart,
    /// Bytes of the server may be held back from the log-in.
    server_is_fresh: bool,
    doing: Doing,
    /// The client has said goodbye.
    terminated: bool,
    /// Why nothing can be written to the server any more; what it has said is still read.
    unwritable: Option<io::Error>,
    farewell: Option<Box<ServerError>>,
    draining: bool,
    identity: Identity,
    pool: Arc<Pool>,
    entry: Entry,
    _counted: Counted,
    _shown: Shown,
    _slot: Slot,
}

#[derive(Debug)]
struct Side {
    stream: Framed<Stream>,
    is_fresh: bool,
}

/// What the server does, as far as a shutdown has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Nothing,
    /// It answers, or sends a base backup.
    Something,
    /// It sends WAL or changes, without an end.
    Streaming,
}

impl<Slot> Passage<Slot> {
    /// Opens a server connection with what the client has asked for, and greets the client. `None`: the client has been
    /// told why there is none.
    pub async fn open(arrival: Arrival<Slot>, asked: Vec<(String, String)>) -> Option<Box<Self>> {
        let Arrival {
            mut stream,
            identity,
            pool,
            entry,
            slot,
            ..
        } = arrival;
        let setting = |wanted: &str| {
            let setting = asked.iter().find(|(name, _)| name == wanted);
            setting.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let application_name = setting("application_name");
        let replication = match setting("replication").as_str() {
            "database" => "logical",
            _ => "physical",
        };
        let control = entry.control().clone();
        let opened = tokio::select! {
            biased;
            () = control.ordered_to_end() => Err(SessionError::Drained),
            opened = pool.open_apart(asked) => opened.map_err(SessionError::from),
        };
        let mut server = match opened {
            Ok(server) => server,
            Err(error) => {
                let ended = End::Fault(error);
                ended.count(&pool);
                end(ended, &mut stream, &identity).await;
                return None;
            }
        };
        server.take_notices().write(None, stream.output());
        server.parameters().report(stream.output());
        say_ready(entry.key(), stream.output());
        let introduction = Introduction {
            identity: &identity,
            application_name: &application_name,
            replication,
            server: Some((pool.key().clone(), server.key().pid)),
        };
        let shown = entry.show_aside(stream.get_ref(), introduction);
        let span = identity.span();
        span.in_scope(|| tracing::info!(server = %server.endpoint(), "replication connection opened"));
        Some(Box::new(Self {
            client: Side {
                stream,
                is_fresh: true,
            },
            _shown: shown,
            server,
            server_is_fresh: true,
            doing: Doing::Nothing,
            terminated: false,
            unwritable: None,
            farewell: None,
            draining: false,
            identity,
            _counted: Counted::new(pool.clone()),
            pool,
            entry,
            _slot: slot,
        }))
    }

    fn poll(&mut self, cx: &mut Context<'_>, worker: &Worker) -> Poll<End> {
        match self.advance(cx, &mut worker.scratch()) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    /// Moves what can be moved. Neither direction waits for the other.
    fn advance(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Result<(), End> {
        loop {
            self.obey()?;
            let down = self.server_to_client(cx, scratch)?;
            let up = self.client_to_server(cx, scratch)?;
            if !down && !up {
                return Ok(());
            }
        }
    }

    fn obey(&mut self) -> Result<(), End> {
        for order in self.entry.control().take() {
            match order {
                Order::Cancel(reply) => {
                    // Nobody else will ever have the connection: what becomes of the cancel matters to nobody here.
                    let (target, _) = CancelTarget::new(&self.server, self.server.target_in_force());
                    let _ = reply.send(target);
                }
                // What an old primary still sends is not what the new one has.
                Order::LookAtServer if self.server.is_fenced() => {
                    let fenced = End::Fault(SessionError::Fenced);
                    return Err(if self.can_speak() { fenced } else { End::Cut });
                }
                Order::LookAtClock | Order::LookAtServer => {}
                Order::Drain => self.draining = true,
                Order::Kill if self.can_speak() => return Err(End::Fault(SessionError::Drained)),
                Order::Kill => return Err(End::Cut),
            }
        }
        if self.draining && self.doing != Doing::Something && self.can_speak() {
            return Err(End::Fault(SessionError::Drained));
        }
        Ok(())
    }

    /// Whether the client is not in the middle of a message.
    fn can_speak(&mut self) -> bool {
        self.server.stream().splitter().at_boundary()
    }

    fn server_to_client(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Result<bool, End> {
        let left = |error| End::Left(Some(error));
        if !self.client.stream.is_drained() {
            match self.client.stream.poll_drain(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(written) => written.map_err(left)?,
            }
        }
        let count = match fill(self.server.stream(), &mut self.server_is_fresh, cx, scratch) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(Filled::Bytes(count))) => count,
            Poll::Ready(Ok(Filled::Closed)) => return Err(self.server_ended(None)),
            Poll::Ready(Err(error)) => return Err(self.server_ended(Some(error))),
        };
        let bytes = scratch.get(..count).unwrap_or_default();
        let end = self.listen(bytes)?;
        self.server.stream().hold(bytes.get(end..).unwrap_or_default());
        self.pool.metrics().sent.inc_by(end as u64);
        let whole = bytes.get(..end).unwrap_or_default();
        match self.client.stream.poll_write_through(cx, whole) {
            Poll::Ready(Err(error)) => Err(left(error)),
            _ => Ok(true),
        }
    }

    /// Follows what the server says. Returns where the part ends that can be passed on.
    fn listen(&mut self, bytes: &[u8]) -> Result<usize, End> {
        let mut at = 0;
        loop {
            let whole = |tag| {
                if tag == backend::ERROR_RESPONSE {
                    ERROR_WHOLE
                } else {
                    0
                }
            };
            let step = self.server.stream().splitter().step(bytes, &mut at, whole);
            match step.map_err(|error| End::Fault(SessionError::ServerProtocol(error)))? {
                Step::Short => return Ok(at),
                Step::Whole { tag, body } if tag == backend::ERROR_RESPONSE => {
                    let error = ServerError::decode(body);
                    let code = error.code.unwrap_or(SqlState::INTERNAL_ERROR);
                    self.pool.metrics().count_error(code, code.blame_of_server());
                    if error.is_fatal() {
                        self.farewell = Some(Box::new(error));
                    }
                }
                Step::Whole { tag, .. } | Step::Begun { tag } => match tag {
                    backend::READY_FOR_QUERY => self.doing = Doing::Nothing,
                    backend::COPY_BOTH_RESPONSE => self.doing = Doing::Streaming,
                    _ => {}
                },
            }
        }
    }

    fn client_to_server(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Result<bool, End> {
        if self.unwritable.is_some() {
            return Ok(false);
        }
        if !self.server.stream().is_drained() {
            let drained = self.server.stream().poll_drain(cx);
            self.note_write(drained);
            if !self.server.stream().is_drained() {
                return Ok(false);
            }
        }
        let Side { stream, is_fresh } = &mut self.client;
        let count = match fill(stream, is_fresh, cx, scratch) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(Filled::Bytes(count))) => count,
            Poll::Ready(_) if self.terminated => return Err(End::Terminated),
            Poll::Ready(Ok(Filled::Closed)) => return Err(End::Left(None)),
            Poll::Ready(Err(error)) => return Err(End::Left(Some(error))),
        };
        let bytes = scratch.get(..count).unwrap_or_default();
        let mut at = 0;
        loop {
            let step = self.client.stream.splitter().step(bytes, &mut at, |_| 0);
            match step.map_err(|error| End::Fault(error.into()))? {
                Step::Short => break,
                Step::Whole { tag, .. } | Step::Begun { tag } => {
                    self.terminated |= tag == frontend::TERMINATE;
                    if self.doing == Doing::Nothing {
                        self.doing = Doing::Something;
                    }
                }
            }
        }
        self.client.stream.hold(bytes.get(at..).unwrap_or_default());
        self.pool.metrics().received.inc_by(at as u64);
        let whole = bytes.get(..at).unwrap_or_default();
        let written = self.server.stream().poll_write_through(cx, whole);
        self.note_write(written);
        Ok(true)
    }

    fn note_write(&mut self, written: Poll<io::Result<()>>) {
        if let Poll::Ready(Err(error)) = written {
            self.unwritable = Some(error);
        }
    }

    fn server_ended(&mut self, error: Option<io::Error>) -> End {
        match self.farewell.take() {
            Some(farewell) => End::ServerFarewell(farewell),
            None if self.terminated => End::Terminated,
            None if self.can_speak() => {
                End::Fault(SessionError::ServerLost(error.or_else(|| self.unwritable.take())))
            }
            None => End::Cut,
        }
    }
}

/// Passes bytes until one side ends. Dropping it closes both.
pub async fn pass<Slot>(mut passage: Box<Passage<Slot>>, worker: Rc<Worker>) {
    let moved = passage.client.stream.get_mut().rehome();
    if let Err(error) = moved.and_then(|()| passage.server.rehome(worker.home())) {
        tracing::warn!(error = chain(&error), "cannot move a client to its worker");
        return;
    }
    let ended = poll_fn(|cx| {
        passage.entry.control().listen(cx.waker());
        passage.poll(cx, &worker)
    });
    let ended = ended.await;
    let Passage {
        client,
        server,
        identity,
        pool,
        ..
    } = &mut *passage;
    if client.stream.is_between_messages() {
        server.say_goodbye();
    }
    ended.count(pool);
    end(ended, &mut client.stream, identity).await;
}

/// Reads into `scratch`; the first time, takes what was read before.
fn fill(
    stream: &mut Framed<Stream>,
    is_fresh: &mut bool,
    cx: &mut Context<'_>,
    scratch: &mut [u8],
) -> Poll<io::Result<Filled>> {
    if std::mem::take(is_fresh) && stream.held() > 0 {
        return Poll::Ready(Ok(Filled::Bytes(stream.take_held(scratch))));
    }
    stream.poll_fill(cx, scratch)
}
