//! An established server connection: bytes in both directions, and what is known about its state.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use ring::rand::{SecureRandom, SystemRandom};
use tracing::Span;

use super::{
    asking::Inquiry,
    connect::{Address, Target},
    notices::Notices,
    parameters::{Difference, Parameters},
    patience::Patience,
    pins::Pins,
    replay::Replay,
    state::{CloseReason, Ledger, Origin, Route, Verdict},
    statements::Prepared,
    suspicion::Suspicion,
    vitals::{Duty, Vitals},
    wording::Wording,
};
use crate::{
    fault::SqlState,
    tls::Stream,
    types::{BackendKey, Endpoint},
    wire::{
        frontend,
        stream::{Filled, Framed},
    },
};

/// Up to this many bytes a ParameterStatus or an ErrorResponse is looked into; larger ones pass unread.
pub(super) const READ_WHOLE: usize = 16 * 1024;
/// What an idle connection may have to say at once.
const IDLE_READ: usize = READ_WHOLE + 4096;

/// Which runtime's reactor watches a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// The control runtime, where connections are opened.
    Control,
    /// A data worker, by number.
    Worker(usize),
}

/// A connection to a PostgreSQL server, logged in.
#[derive(Debug)]
pub struct Connection {
    pub(super) stream: Framed<Stream>,
    pub(super) ledger: Ledger,
    /// What becomes of the rest of a message that has begun.
    pub(super) rest: Route,
    pub(super) parameters: Parameters,
    pub(super) prepared: Prepared,
    /// What was prepared under settings that may be of one transaction only.
    pub(super) tainted: Vec<u64>,
    /// The number of the unnamed statement that the server has; zero if it has none.
    pub(super) unnamed: u64,
    pub(super) replay: Replay,
    pub(super) suspicion: Suspicion,
    pub(super) inquiry: Option<Box<Inquiry>>,
    pub(super) pins: Pins,
    /// The search path has `pg_temp` in it by name: whatever is made may be temporary.
    pub(super) makes_temporary: bool,
    /// The server may not have the target's role any more.
    pub(super) role_doubted: bool,
    pub(super) patience: Patience,
    notices: Notices,
    /// What is known of the client's query, where that may be wanted.
    pub(super) wording: Option<Box<Wording>>,
    opening: Opening,
    key: BackendKey,
    vitals: Arc<Vitals>,
    /// The cluster's generation when the server had shown what it is.
    pub(super) generation: u64,
    home: Home,
    /// How much of the last fifth of `server_lifetime` is not for this connection; 255 is all of it.
    spread: u8,
    idle_since: Instant,
    pub(super) broken: Option<CloseReason>,
    /// The server waits for the rest of a message, and would take anybody's bytes for it.
    request_unfinished: bool,
}

/// How long it took to open a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Opening {
    /// Until the server was there to log in to.
    pub connect: Duration,
    /// Until it was logged in.
    pub login: Duration,
}

/// What a connection brings from its log-in.
#[derive(Debug)]
pub(super) struct Established {
    pub(super) stream: Framed<Stream>,
    pub(super) parameters: Parameters,
    pub(super) notices: Notices,
    pub(super) key: BackendKey,
    pub(super) address: Address,
    pub(super) target: Arc<Target>,
}

impl Connection {
    pub(super) fn new(established: Established) -> Self {
        let now = Instant::now();
        let Established {
            stream,
            parameters,
            notices,
            key,
            address,
            target,
        } = established;
        let vitals = Arc::new(Vitals::new(stream.get_ref(), key.pid, address, target, now));
        Self {
            stream,
            ledger: Ledger::default(),
            rest: Route::Forward,
            parameters,
            prepared: Prepared::default(),
            tainted: Vec::new(),
            unnamed: 0,
            replay: Replay::Off,
            suspicion: Suspicion::default(),
            inquiry: None,
            pins: Pins::default(),
            makes_temporary: false,
            role_doubted: false,
            patience: Patience::default(),
            notices,
            wording: None,
            opening: Opening::default(),
            key,
            generation: vitals.target.cluster.topology().generation,
            vitals,
            home: Home::Control,
            spread: random(),
            idle_since: now,
            broken: None,
            request_unfinished: false,
        }
    }

    /// Moves the socket to the reactor of the current runtime, which is `home`'s.
    ///
    /// # Errors
    /// The reactor's; the connection is lost then.
    pub fn rehome(&mut self, home: Home) -> io::Result<()> {
        if self.home != home {
            self.stream
                .get_mut()
                .rehome()
                .inspect_err(|_| self.broken = Some(CloseReason::Lost))?;
            self.home = home;
        }
        Ok(())
    }

    /// Which runtime's reactor watches the socket.
    pub fn home(&self) -> Home {
        self.home
    }

    /// What the server said at log-in beside the answer, once.
    pub fn take_notices(&mut self) -> Notices {
        std::mem::take(&mut self.notices)
    }

    /// How long it took to open it.
    pub fn opening(&self) -> Opening {
        self.opening
    }

    pub(super) fn took(mut self, opening: Opening) -> Self {
        self.opening = opening;
        self
    }

    /// How many Parse messages the server was sent for clients since this was last asked.
    pub fn take_parses(&mut self) -> u32 {
        self.ledger.take_parses()
    }

    /// The settings of the session as the server has them.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Makes the settings the very allocation that a client holds, when they are equal, so that the next
    /// comparison is one of pointers.
    pub fn share_parameters(&mut self, parameters: &Parameters) {
        if self.parameters == *parameters {
            self.parameters = parameters.clone();
        }
    }

    /// What the server owes.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Notes that a message of this type is being sent for the client.
    pub fn note_sent(&mut self, tag: u8) {
        self.ledger.sent(tag, Origin::Client);
    }

    /// Notes that messages of these types are being sent for the pooler.
    pub(super) fn note_own(&mut self, tags: &[u8]) {
        for tag in tags {
            self.ledger.sent(*tag, Origin::Pooler);
        }
    }

    /// Appends the messages that give this connection a client's settings; their replies will be consumed.
    pub fn synchronize(&mut self, difference: &Difference, out: &mut BytesMut) {
        // Whatever the messages are, they take the unnamed statement's place.
        self.unnamed = 0;
        for tag in difference.encode(out) {
            self.ledger.sent(tag, Origin::Pooler);
        }
        self.parameters.apply(difference);
        self.note_search_path();
    }

    /// Notes that a difference was not carried out after all.
    pub(super) fn restore_parameters(&mut self, parameters: Parameters) {
        self.parameters = parameters;
        self.note_search_path();
    }

    /// Appends a query of the pooler's own; its replies will be consumed.
    pub fn query(&mut self, sql: &str, out: &mut BytesMut) {
        frontend::query(sql, out);
        self.unnamed = 0;
        self.ledger.sent(frontend::tag::QUERY, Origin::Pooler);
    }

    /// Appends the empty query that shows whether the server has answered everything.
    pub fn probe(&mut self, out: &mut BytesMut) {
        frontend::query("", out);
        self.unnamed = 0;
        self.ledger.probe();
    }

    /// Notes whether the client's last message has been sent only in part.
    pub fn note_request(&mut self, unfinished: bool) {
        self.request_unfinished = unfinished;
    }

    /// The framed stream, for the relay.
    pub fn stream(&mut self) -> &mut Framed<Stream> {
        &mut self.stream
    }

    /// Marks the connection as unusable.
    pub fn mark_broken(&mut self, reason: CloseReason) {
        self.broken.get_or_insert(reason);
    }

    /// Whether the connection may be handed on.
    pub fn verdict(&self) -> Verdict {
        let between_messages = !self.request_unfinished && self.stream.is_between_messages();
        match self.broken {
            Some(reason) => Verdict::Close(reason),
            None if !between_messages || !self.stream.is_drained() => Verdict::Close(CloseReason::Unfinished),
            None if self.ledger.is_idle() && self.needs_cleaning() => Verdict::Close(CloseReason::Unclean),
            None => self.ledger.verdict(),
        }
    }

    /// Looks whether an idle connection still lives: consumes what the server says on its own (notices,
    /// notifications, changed settings) and notices an end. Registers the waker for the next time there is
    /// something to hear. Makes no system call when nothing has arrived.
    pub fn check_idle(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        while let Poll::Ready(ready) = self.stream.get_ref().poll_read_ready(cx) {
            ready.map_err(|_| CloseReason::Lost)?;
            let mut scratch = [0; IDLE_READ];
            let filled = match self.stream.poll_fill(cx, &mut scratch) {
                Poll::Pending => return Ok(()),
                Poll::Ready(filled) => filled.map_err(|_| CloseReason::Lost)?,
            };
            let Filled::Bytes(count) = filled else {
                return Err(CloseReason::Lost);
            };
            let bytes = scratch.get(..count).unwrap_or_default();
            let heard = self.hear(bytes, None).map_err(|_| CloseReason::OutOfStep)?;
            if let Some(error) = &heard.farewell {
                self.span()
                    .in_scope(|| tracing::info!(%error, "server closes an idle connection"));
                return Err(match error.code {
                    Some(SqlState::ADMIN_SHUTDOWN) => CloseReason::Dismissed,
                    // About this connection, such as idle_session_timeout.
                    _ => CloseReason::Lost,
                });
            }
            self.stream.hold(bytes.get(heard.consumed..).unwrap_or_default());
            // Nobody has seen how this message begins.
            self.rest = Route::Swallow;
            if !self.ledger.is_idle() {
                return Err(CloseReason::OutOfStep);
            }
        }
        Ok(())
    }

    /// Says goodbye as far as that is possible without waiting, and closes.
    pub fn close(mut self) {
        self.say_goodbye();
    }

    /// Says goodbye as far as that is possible without waiting.
    pub fn say_goodbye(&mut self) {
        if self.stream.is_drained() {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let _ = self.stream.poll_write_through(&mut cx, &frontend::TERMINATE);
        }
    }

    /// The span of what is logged about this connection; made when there is something to log.
    pub fn span(&self) -> Span {
        self.vitals.target.span(self.endpoint())
    }

    /// What a CancelRequest for this connection must carry.
    pub fn key(&self) -> &BackendKey {
        &self.key
    }

    /// The server.
    pub fn endpoint(&self) -> &Endpoint {
        &self.vitals.address.endpoint
    }

    /// The server, and where it is.
    pub fn address(&self) -> &Address {
        &self.vitals.address
    }

    /// Whether the name that it was opened by stands for other servers by now.
    pub fn has_moved(&self) -> bool {
        self.vitals.has_moved()
    }

    /// The cluster's generation when the server had shown what it is.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What the connection was opened for.
    pub fn target(&self) -> &Arc<Target> {
        &self.vitals.target
    }

    /// When the connection was opened.
    pub fn opened(&self) -> Instant {
        self.vitals.opened
    }

    /// Whether it is older than `lifetime` allows this connection; zero allows any age. Each has a share of its own,
    /// 80 to 100 %, so that those which were opened together do not all end together.
    pub fn has_outlived(&self, lifetime: Duration, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.opened());
        // Most are young, and that is quickly seen.
        !lifetime.is_zero() && age >= lifetime / 2 && age >= share(lifetime, self.spread)
    }

    /// Whether it was made with certificates that were replaced, and it is its turn to go. Turns are spread over
    /// `period`, so that those which were opened together do not all end together.
    pub fn has_old_certificates(&self, current: &Target, period: Duration, now: Instant) -> bool {
        let connector = &current.connector;
        !Arc::ptr_eq(&self.target().connector, connector)
            && now.saturating_duration_since(connector.built())
                >= period * u32::from(self.spread) / u32::from(u8::MAX)
    }

    /// When it was last used.
    pub fn idle_since(&self) -> Instant {
        self.idle_since
    }

    /// Notes that it is idle from now on.
    pub fn note_idle(&mut self, now: Instant) {
        self.idle_since = now;
        self.vitals.set_duty(Duty::Idle);
        self.vitals.set_used(now);
    }

    /// Notes that it is a client's from now on.
    pub fn note_lent(&self) {
        self.vitals.set_duty(Duty::Lent);
        self.vitals.set_prepared(self.prepared.len());
    }

    /// What it shows of itself to others.
    pub fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }
}

fn share(lifetime: Duration, spread: u8) -> Duration {
    lifetime - lifetime / 5 * u32::from(spread) / u32::from(u8::MAX)
}

fn random() -> u8 {
    let mut byte = [0];
    // Without random numbers a connection merely lives as long as it may.
    let _ = SystemRandom::new().fill(&mut byte);
    let [byte] = byte;
    byte
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{net::Socket, server::fuzzing, types::Role};

    const FAREWELL: &[u8] = b"E\0\0\0\x13SFATAL\0C57P01\0\0";
    const ANSWER: &[u8] = b"C\0\0\0\x0dSELECT 0\0Z\0\0\0\x05I";

    /// A connection whose socket is not looked at.
    fn connection() -> Connection {
        let socket = Socket::memory(tokio::io::duplex(1).0);
        fuzzing::connection(socket, Arc::new(fuzzing::target()))
    }

    #[test]
    fn a_farewell_after_the_answer_answers_nothing() {
        let mut connection = connection();
        connection.note_sent(frontend::tag::QUERY);
        let heard = connection.hear(&[ANSWER, FAREWELL].concat(), None).unwrap();
        assert_eq!(heard.unasked_farewell, Some(ANSWER.len()));
        assert!(heard.farewell.is_some());
        assert_eq!(connection.verdict(), Verdict::Close(CloseReason::Lost));
    }

    #[test]
    fn a_farewell_before_the_answer_is_the_clients() {
        let mut connection = connection();
        connection.note_sent(frontend::tag::QUERY);
        let heard = connection.hear(FAREWELL, None).unwrap();
        assert_eq!((heard.unasked_farewell, heard.forward_from), (None, 0));
        assert!(heard.farewell.is_some() && heard.early.is_empty());
    }

    #[test]
    fn a_farewell_to_the_pooler_is_the_clients_too() {
        let mut connection = connection();
        connection.query("SELECT 1", &mut BytesMut::new());
        connection.note_sent(frontend::tag::QUERY);
        let heard = connection.hear(FAREWELL, None).unwrap();
        assert_eq!((heard.forward_from, heard.consumed), (0, FAREWELL.len()));
        assert!(heard.farewell.is_some() && heard.refused.is_none());
    }

    #[test]
    fn a_server_out_of_memory_answers_on_and_is_closed_then() {
        let mut connection = connection();
        connection.note_sent(frontend::tag::QUERY);
        let answer = b"E\0\0\0\x13SERROR\0C53200\0\0Z\0\0\0\x05I";
        let heard = connection.hear(answer, None).unwrap();
        assert_eq!((heard.consumed, heard.transactions), (answer.len(), 1));
        assert!(heard.farewell.is_none());
        assert_eq!(connection.verdict(), Verdict::Close(CloseReason::OutOfMemory));
    }

    #[test]
    fn a_role_is_doubted_when_the_server_says_what_does_not_go_with_it() {
        let changed = |value: &[u8]| {
            let mut message = BytesMut::new();
            frontend::message(b'S', &[b"in_hot_standby\0", value, b"\0"], &mut message);
            message
        };
        let read_only = BytesMut::from(&b"E\0\0\0\x13SERROR\0C25006\0\0Z\0\0\0\x05I"[..]);
        let (standby, primary) = (changed(b"on"), changed(b"off"));
        for (role, said, doubted) in [
            (Role::ReadWrite, &standby, true),
            (Role::ReadWrite, &primary, false),
            (Role::ReadWrite, &read_only, true),
            (Role::ReadOnly, &standby, false),
            (Role::ReadOnly, &primary, true),
            (Role::ReadOnly, &read_only, false),
            (Role::Any, &standby, false),
            (Role::Any, &primary, true),
        ] {
            let mut target = fuzzing::target();
            target.wish.role = role;
            let socket = Socket::memory(tokio::io::duplex(1).0);
            let mut connection = fuzzing::connection(socket, Arc::new(target));
            assert_eq!(connection.is_standby(), None);
            connection.note_sent(frontend::tag::QUERY);
            connection.hear(said, None).unwrap();
            assert_eq!(connection.doubts_role(), doubted, "{role:?} {said:?}");
        }
    }

    #[test]
    fn the_rest_of_what_an_idle_server_said_is_no_reply_to_the_pooler() {
        let mut connection = connection();
        let notice = b"N\0\0\0\x10SNOTICE\0\0\0\0\0";
        connection.hear(&notice[..8], None).unwrap();
        connection.rest = Route::Swallow;
        connection.note_sent(frontend::tag::QUERY);
        let status = b"S\0\0\0\x0ba\0bcde\0";
        let heard = connection.hear(&[&notice[8..], status].concat(), None).unwrap();
        assert_eq!(heard.forward_from, notice.len() - 8);
        assert!(heard.told.len() == 1 && !heard.pooler_answered, "{heard:?}");
    }

    #[test]
    fn lifetimes_are_spread_over_the_last_fifth() {
        let hour = Duration::from_secs(3600);
        assert_eq!(share(hour, 0), hour);
        assert_eq!(share(hour, u8::MAX), Duration::from_secs(2880));
        assert!((share(hour, 128).as_secs_f64() - 3238.6).abs() < 1.0);
        assert_eq!(share(Duration::from_secs(1), 255), Duration::from_millis(800));
    }
}
