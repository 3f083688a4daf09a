//! What a server owes: the replies that are still to come for what it was sent.
//!
//! A pure value: no socket, no clock. It is told the type of every message in both directions and answers
//! one question: may this connection be handed on? Replies come in the order of the messages
//! ("Message Flow" in the PostgreSQL documentation), so a queue of what was sent is all there is to know,
//! with three exceptions that each have their own rule below: an error in an extended-protocol batch makes
//! the server skip to the next Sync, COPY FROM STDIN makes it ignore Sync and Flush, and messages of a COPY
//! that is over are ignored.

mod queue;

use std::collections::VecDeque;

use queue::Queue;

use super::statements::{Effect, Outcome};
use crate::wire::{
    backend::{TransactionStatus, tag as backend},
    frontend::tag as frontend,
};

/// What the server has been sent and not yet answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Parse,
    Bind,
    Describe,
    Execute,
    Close,
    Sync,
    Query,
    FunctionCall,
    /// CopyDone or CopyFail, sent before it is known whether the server is in COPY at all.
    CopyEnd,
    /// Nothing was sent: the pooler itself says this, when everything before it has been answered.
    Forged(Forged),
}

/// What the pooler says in a server's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forged {
    /// ParseComplete: the server has the statement already.
    ParseComplete,
    /// CloseComplete: only the client's name for a statement is gone.
    CloseComplete,
}

/// One message that is still to be answered.
#[derive(Debug, Clone, Copy)]
struct Owed {
    request: Request,
    origin: Origin,
    /// The next of the effects is this message's.
    effect: bool,
}

impl Request {
    /// Whether ReadyForQuery answers it.
    fn is_answered_by_ready(self) -> bool {
        matches!(self, Self::Sync | Self::Query | Self::FunctionCall)
    }
}

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The client; replies are forwarded.
    Client,
    /// The pooler; replies are consumed.
    Pooler,
    /// The pooler, as part of what the client asked for: success is consumed, an error is the client's.
    Supplied,
}

/// What to do with a message from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// It is the client's.
    Forward,
    /// It answers the pooler's own request.
    Swallow,
}

/// A reply that answers nothing that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("server sent message {tag:#04x} out of step")]
pub struct OutOfStep {
    /// Its type byte.
    pub tag: u8,
}

/// Whether a connection may be handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is owed and no transaction is open.
    Reuse,
    /// It must be closed.
    Close(CloseReason),
}

/// Why a server connection is closed rather than handed on. Also a log field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// Its client went away in the middle of a transaction or a reply.
    Unfinished,
    /// It said something that answers nothing; its state is unknown.
    OutOfStep,
    /// The socket failed or was closed.
    Lost,
    /// It was idle for longer than `server_idle_timeout`.
    Idle,
    /// It was older than `server_lifetime`.
    Lifetime,
    /// The pool is larger than it should be, or is going away.
    Surplus,
    /// The settings that it was opened with no longer apply.
    Outdated,
    /// The server has ended it, and said that it was told to (57P01).
    Dismissed,
    /// Its server is not one that the pool's clients want any more.
    Unrouted,
    /// The name of its server stands for another one.
    Moved,
    /// Another pool that shares a limit needed the room.
    MadeRoom,
    /// Its client has left something in the session that no other may find.
    Unclean,
    /// `server_reset_query` failed.
    ResetFailed,
    /// A cancel request for it may still be under way.
    CancelUnknown,
    /// The server process has run out of memory: it holds more than its share, and may again.
    OutOfMemory,
}

/// Where the extended-protocol messages stand that have been sent since the last Sync, Query or FunctionCall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Batch {
    /// There are none.
    #[default]
    Closed,
    /// There are some: the server is in the middle of an implicit transaction.
    Open,
    /// One of them failed, and the server discards everything up to a Sync that has not been sent yet.
    Skipping,
}

/// Whether a Sync was taken for one that COPY FROM STDIN ignores. It is a guess: a server that fails between
/// CopyInResponse and its next read (in a trigger, say) reads that Sync afterwards, and answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Guess {
    /// There is nothing to guess.
    #[default]
    None,
    /// A Sync was left out of account.
    Dropped,
    /// Then the COPY failed: whether that Sync is answered is not known.
    Failed,
    /// An empty query of the pooler's own is under way. What is answered before it was asked by the client.
    Probed,
}

/// The replies that a server owes, in order.
#[derive(Debug, Default)]
pub struct Ledger {
    owed: Queue<Owed>,
    /// What those of them have as an effect that have one, in the same order.
    effects: VecDeque<Effect>,
    /// What has become of effects, until somebody asks.
    outcomes: Vec<(Effect, Outcome)>,
    status: TransactionStatus,
    batch: Batch,
    guess: Guess,
    copying_in: bool,
    out_of_step: bool,
    /// Parse messages for clients that nobody has counted yet.
    parses: u32,
}

impl Owed {
    fn is_poolers_query(self) -> bool {
        self.request == Request::Query && self.origin == Origin::Pooler
    }
}

impl Origin {
    fn route(self) -> Route {
        match self {
            Self::Client => Route::Forward,
            Self::Pooler | Self::Supplied => Route::Swallow,
        }
    }
}

impl Ledger {
    /// Notes that a message of this type was handed to the server. Types that are answered by nothing
    /// (Flush, CopyData, Terminate) change nothing.
    pub fn sent(&mut self, tag: u8, origin: Origin) {
        self.note(tag, origin, None);
    }

    /// The same for a message that has an effect, which must be one that is answered.
    pub fn sent_with(&mut self, tag: u8, origin: Origin, effect: Effect) {
        self.note(tag, origin, Some(effect));
    }

    /// How many Parse messages were sent for clients since this was last asked.
    pub fn take_parses(&mut self) -> u32 {
        std::mem::take(&mut self.parses)
    }

    /// Notes that the pooler itself will say this in its turn.
    pub fn forge(&mut self, forged: Forged, effect: Effect) {
        self.push(Request::Forged(forged), Origin::Client, Some(effect));
    }

    fn note(&mut self, tag: u8, origin: Origin, effect: Option<Effect>) {
        let request = match tag {
            frontend::PARSE => {
                self.parses += u32::from(origin != Origin::Pooler);
                Request::Parse
            }
            frontend::BIND => Request::Bind,
            frontend::DESCRIBE => Request::Describe,
            frontend::EXECUTE => Request::Execute,
            frontend::CLOSE => Request::Close,
            frontend::SYNC => return self.sent_sync(origin),
            frontend::QUERY => Request::Query,
            frontend::FUNCTION_CALL => Request::FunctionCall,
            frontend::COPY_DONE | frontend::COPY_FAIL => return self.sent_copy_end(origin),
            _ => return,
        };
        self.push(request, origin, effect);
    }

    fn push(&mut self, request: Request, origin: Origin, effect: Option<Effect>) {
        if self.batch == Batch::Skipping {
            self.outcomes
                .extend(effect.map(|effect| (effect, Outcome::Skipped)));
            return;
        }
        self.out_of_step |= self.copying_in;
        self.batch = if request.is_answered_by_ready() {
            Batch::Closed
        } else {
            Batch::Open
        };
        self.owed.push_back(Owed {
            request,
            origin,
            effect: effect.is_some(),
        });
        self.effects.extend(effect);
    }

    fn push_plain(&mut self, request: Request, origin: Origin) {
        self.owed.push_back(Owed {
            request,
            origin,
            effect: false,
        });
    }

    /// Takes the first that is owed, with what has become of its effect.
    fn pop(&mut self, outcome: Outcome) -> Option<Owed> {
        let owed = self.owed.pop_front()?;
        if owed.effect
            && let Some(effect) = self.effects.pop_front()
            && (outcome != Outcome::Done || effect.matters_when_done())
        {
            self.outcomes.push((effect, outcome));
        }
        Some(owed)
    }

    /// What the pooler has to say now, because everything before it has been answered.
    pub fn take_due(&mut self) -> Option<Forged> {
        let Some(Owed {
            request: Request::Forged(forged),
            ..
        }) = self.owed.front().copied()
        else {
            return None;
        };
        self.pop(Outcome::Done);
        self.drop_ignored_copy_ends();
        Some(forged)
    }

    /// Whether the next message that is answered has an effect.
    pub fn is_effect_next(&self) -> bool {
        self.owed.front().is_some_and(|owed| owed.effect)
    }

    /// Whether the last message is part of a batch whose Sync has not been sent: what is sent now may be skipped.
    pub fn has_open_batch(&self) -> bool {
        self.batch != Batch::Closed
    }

    /// Whether the server skips everything up to a Sync that it has not been sent.
    pub fn skips(&self) -> bool {
        self.batch == Batch::Skipping
    }

    /// Whether there is something to ask [`Ledger::take_outcomes`] for.
    pub fn has_outcomes(&self) -> bool {
        !self.outcomes.is_empty()
    }

    /// What has become of effects since this was last asked, in order.
    pub fn take_outcomes(&mut self) -> Vec<(Effect, Outcome)> {
        std::mem::take(&mut self.outcomes)
    }

    /// Makes the first thing that is owed, a Sync, the pooler's own: the client's batch will be sent again.
    pub fn disown_sync(&mut self) {
        if let Some(owed) = self.owed.front_mut() {
            owed.origin = Origin::Pooler;
        }
    }

    fn sent_sync(&mut self, origin: Origin) {
        if self.copying_in {
            // "Flush and Sync messages are ignored during COPY FROM STDIN" (Message Flow, COPY).
            self.guess = Guess::Dropped;
            return;
        }
        self.batch = Batch::Closed;
        self.push_plain(Request::Sync, origin);
    }

    fn sent_copy_end(&mut self, origin: Origin) {
        if self.copying_in {
            self.copying_in = false;
        } else if !self.owed.is_empty() && self.batch != Batch::Skipping && !self.ends_nothing_more() {
            self.push_plain(Request::CopyEnd, origin);
        }
        // Otherwise no COPY can be open or open itself before the server reads this: it ignores it.
    }

    /// Whether the last message was the end of a COPY that an Execute may begin. Only a Query begins more than one.
    fn ends_nothing_more(&self) -> bool {
        let ended = self
            .owed
            .back()
            .is_some_and(|owed| owed.request == Request::CopyEnd);
        ended && self.batch == Batch::Open
    }

    /// Notes a message from the server; `status` is the body of a ReadyForQuery.
    ///
    /// # Errors
    /// It answers nothing that was asked. The connection must not be reused then; the message may still be
    /// forwarded.
    pub fn received(&mut self, tag: u8, status: &[u8]) -> Result<Route, OutOfStep> {
        let front = self.owed.front().copied();
        let route = front.map_or(Route::Forward, |owed| owed.origin.route());
        self.learn(tag, route);
        if self.is_before_probe(tag, front) {
            return Ok(Route::Forward);
        }
        let in_step = match (tag, front.map(|owed| owed.request)) {
            (backend::NOTICE_RESPONSE | backend::NOTIFICATION_RESPONSE, _) => return Ok(Route::Forward),
            (backend::PARAMETER_STATUS, _) if front.is_some_and(|owed| owed.origin == Origin::Supplied) => {
                return Ok(Route::Forward);
            }
            (backend::PARAMETER_STATUS, _) => true,
            (backend::READY_FOR_QUERY, _) => return self.ready(status),
            (backend::ERROR_RESPONSE, _) => return Ok(self.failed(front)),
            (
                backend::DATA_ROW | backend::COPY_DATA | backend::COPY_DONE | backend::COPY_OUT_RESPONSE,
                front,
            ) => {
                matches!(front, Some(Request::Query | Request::Execute))
            }
            (backend::COPY_IN_RESPONSE, Some(Request::Query | Request::Execute)) => {
                self.copy_in_began();
                true
            }
            (backend::FUNCTION_CALL_RESPONSE, front) => front == Some(Request::FunctionCall),
            (backend::PARAMETER_DESCRIPTION, front) => front == Some(Request::Describe),
            (
                backend::ROW_DESCRIPTION | backend::COMMAND_COMPLETE | backend::EMPTY_QUERY_RESPONSE,
                Some(Request::Query),
            ) => true,
            (backend::PARSE_COMPLETE, Some(Request::Parse))
            | (backend::BIND_COMPLETE, Some(Request::Bind))
            | (backend::CLOSE_COMPLETE, Some(Request::Close))
            | (backend::ROW_DESCRIPTION | backend::NO_DATA, Some(Request::Describe))
            | (
                backend::COMMAND_COMPLETE | backend::EMPTY_QUERY_RESPONSE | backend::PORTAL_SUSPENDED,
                Some(Request::Execute),
            ) => {
                self.pop(Outcome::Done);
                self.drop_ignored_copy_ends();
                true
            }
            _ => false,
        };
        if in_step {
            return Ok(route);
        }
        self.out_of_step = true;
        Err(OutOfStep { tag })
    }

    /// An error ends a COPY. In a batch the server then discards everything up to the next Sync, a Query
    /// among it too; after a Query or FunctionCall it goes on to ReadyForQuery. An error that answers
    /// nothing is the server's farewell.
    fn failed(&mut self, front: Option<Owed>) -> Route {
        self.copying_in = false;
        if self.guess == Guess::Dropped {
            self.guess = Guess::Failed;
        }
        let Some(front) = front else {
            return Route::Forward;
        };
        if front.request.is_answered_by_ready() {
            if front.effect {
                let effect = self.effects.pop_front();
                self.outcomes
                    .extend(effect.map(|effect| (effect, Outcome::Failed)));
                if let Some(front) = self.owed.front_mut() {
                    front.effect = false;
                }
            }
        } else {
            self.pop(Outcome::Failed);
            while self
                .owed
                .front()
                .is_some_and(|owed| owed.request != Request::Sync)
            {
                self.pop(Outcome::Skipped);
            }
            if self.owed.is_empty() {
                self.batch = Batch::Skipping;
            }
        }
        match front.origin {
            Origin::Pooler => Route::Swallow,
            Origin::Client | Origin::Supplied => Route::Forward,
        }
    }

    /// The server reads COPY data now. It ignores each Sync that was sent before the end of the COPY. A request
    /// there makes it end the connection, unless the COPY fails first, and then the data of this COPY may be read
    /// by another: what the server has made of it all cannot be known.
    fn copy_in_began(&mut self) {
        self.copying_in = true;
        let (copying_in, guess, out_of_step) = (&mut self.copying_in, &mut self.guess, &mut self.out_of_step);
        let mut copy_itself = true;
        self.owed.retain(|owed| {
            if std::mem::take(&mut copy_itself) || !*copying_in {
                return true;
            }
            match owed.request {
                Request::Sync => *guess = Guess::Dropped,
                Request::CopyEnd => *copying_in = false,
                _ => {
                    *out_of_step = true;
                    return true;
                }
            }
            false
        });
        if self
            .owed
            .front()
            .is_some_and(|owed| owed.request == Request::Execute)
            && !self.owes_ready()
        {
            // The Sync that would have ended this batch was among the ignored ones.
            self.batch = Batch::Open;
        }
    }

    /// A COPY that succeeds has read everything before its end; the empty query's answer ends the doubt.
    fn learn(&mut self, tag: u8, route: Route) {
        match (self.guess, tag, route) {
            (Guess::Dropped, backend::COMMAND_COMPLETE, _)
            | (Guess::Probed, backend::EMPTY_QUERY_RESPONSE, Route::Swallow) => self.guess = Guess::None,
            _ => {}
        }
    }

    /// Whether a message comes before the answer to the empty query. If the Sync in doubt was read, the server has
    /// also carried out what the client sent after the error, which it would have discarded otherwise.
    fn is_before_probe(&self, tag: u8, front: Option<Owed>) -> bool {
        self.guess == Guess::Probed
            && front.is_some_and(Owed::is_poolers_query)
            && tag != backend::READY_FOR_QUERY
    }

    /// What the model of the server has to know to tell whether a reply could be expected.
    #[cfg(any(fuzzing, test))]
    pub(super) fn guess(&self) -> Guess {
        self.guess
    }

    /// Whether the pooler has to find out if a Sync is still to be answered, with [`Ledger::probe`].
    pub fn is_in_doubt(&self) -> bool {
        self.guess == Guess::Failed && self.has_answered()
    }

    /// Notes that an empty query of the pooler's own was handed to the server.
    pub fn probe(&mut self) {
        self.guess = Guess::Probed;
        self.sent(frontend::QUERY, Origin::Pooler);
    }

    /// Whether the server does nothing before the client says more: it reads COPY data, or waits for the Sync
    /// of a batch.
    pub fn waits_for_client(&self) -> bool {
        self.copying_in || (self.batch != Batch::Closed && !self.owes_ready())
    }

    fn owes_ready(&self) -> bool {
        self.owed.iter().any(|owed| owed.request.is_answered_by_ready())
    }

    fn ready(&mut self, status: &[u8]) -> Result<Route, OutOfStep> {
        let status = TransactionStatus::decode(status);
        if let (Guess::Probed, Some(true), Ok(status)) = (
            self.guess,
            self.owed.front().copied().map(Owed::is_poolers_query),
            status,
        ) {
            // The Sync was read after all.
            self.status = status;
            return Ok(Route::Forward);
        }
        match (self.pop(Outcome::Done), status) {
            (Some(Owed { request, origin, .. }), Ok(status)) if request.is_answered_by_ready() => {
                self.status = status;
                self.copying_in = false;
                self.drop_ignored_copy_ends();
                Ok(origin.route())
            }
            _ => {
                self.out_of_step = true;
                Err(OutOfStep {
                    tag: backend::READY_FOR_QUERY,
                })
            }
        }
    }

    /// The end of a COPY that never began, or failed before its end was read: the server has ignored it. So none
    /// is ever the first that is owed.
    fn drop_ignored_copy_ends(&mut self) {
        while self
            .owed
            .front()
            .is_some_and(|owed| owed.request == Request::CopyEnd)
        {
            self.owed.pop_front();
        }
    }

    /// How many messages are still to be answered.
    pub fn unanswered(&self) -> usize {
        self.owed.len()
    }

    /// Whether the server reads COPY data.
    pub fn is_copying_in(&self) -> bool {
        self.copying_in
    }

    fn has_answered(&self) -> bool {
        self.owed.is_empty() && self.batch == Batch::Closed && !self.copying_in
    }

    /// Whether every reply has come.
    pub fn is_settled(&self) -> bool {
        self.has_answered() && !matches!(self.guess, Guess::Failed | Guess::Probed)
    }

    /// Whether every reply has come and no transaction is open: its client is done with the connection.
    pub fn is_between_transactions(&self) -> bool {
        self.is_settled() && self.status == TransactionStatus::Idle
    }

    /// The same of a server that has kept to the protocol, so that another client may have the connection.
    pub fn is_idle(&self) -> bool {
        self.is_between_transactions() && !self.out_of_step
    }

    /// Whether rows, or data of a COPY, would be a reply to the client, which then gets them as they are.
    pub fn owes_client_rows(&self) -> bool {
        self.owed.front().is_some_and(|owed| {
            owed.origin.route() == Route::Forward && matches!(owed.request, Request::Query | Request::Execute)
        })
    }

    /// Whether a reply to the pooler's own request is still to come.
    pub fn owes_pooler(&self) -> bool {
        self.owed
            .front()
            .is_some_and(|owed| owed.origin == Origin::Pooler)
    }

    /// Whether a reply to the client is still to come.
    pub fn owes_client(&self) -> bool {
        self.owed.iter().any(|owed| owed.origin != Origin::Pooler)
    }

    /// How many messages the server has been sent and not answered yet.
    pub fn backlog(&self) -> usize {
        self.owed.len()
    }

    /// The last transaction status that the server told.
    pub fn status(&self) -> TransactionStatus {
        self.status
    }

    /// Whether the connection may be handed on.
    pub fn verdict(&self) -> Verdict {
        if self.out_of_step {
            Verdict::Close(CloseReason::OutOfStep)
        } else if self.is_idle() {
            Verdict::Reuse
        } else {
            Verdict::Close(CloseReason::Unfinished)
        }
    }
}

#[cfg(test)]
mod tests;
