//! What a lease, or the lack of one, is in a trace.

use std::{sync::Arc, time::Instant};

use super::{Pool, lease::Server};
use crate::{
    fault::SqlState,
    server::{Vitals, Wording},
    traces::{Context, Ending, Happened, Query, Recorder, Transaction},
    types::PoolKey,
};

/// A transaction whose server connection is about to be another client's.
pub(super) struct Leaving {
    recorder: Recorder,
    vitals: Arc<Vitals>,
    client_pid: i32,
}

impl Leaving {
    pub(super) fn new(server: &mut Server) -> Self {
        let vitals = server.vitals().clone();
        Self {
            recorder: std::mem::take(&mut server.recorder),
            client_pid: vitals.client(),
            vitals,
        }
    }

    /// The connection stays.
    pub(super) fn stay(self, server: &mut Server) {
        server.recorder = self.recorder;
    }

    /// The connection is another's; `query` was the last.
    pub(super) fn end(mut self, query: Option<Query>, now: Instant, pool: &Pool) {
        if let Some(query) = query {
            self.recorder.note(query, || pool.tracer.samples());
        }
        if let Some(transaction) = self.recorder.end(now, Ending::Finished) {
            pool.tracer
                .take(happened(transaction, &pool.key, &self.vitals, self.client_pid));
        }
    }
}

/// The server at work, as it was asked and has answered.
pub(super) fn query(since: Instant, until: Instant, wording: Option<&Wording>, pool: &Pool) -> Query {
    let text = wording.and_then(|wording| wording.text.clone());
    Query {
        since,
        until,
        context: wording.and_then(|wording| wording.context),
        text: text.filter(|_| pool.tracer.keeps_texts()),
        error: wording.and_then(|wording| wording.error),
    }
}

fn happened(transaction: Transaction, key: &PoolKey, vitals: &Vitals, client_pid: i32) -> Happened {
    let server = (vitals.address.endpoint.clone(), vitals.pid);
    Happened::new(transaction, key.clone(), Some(server), client_pid)
}

impl Pool {
    /// Notes in a trace that the server has answered.
    pub(super) fn trace_query(&self, server: &mut Server, query: Query) {
        server.recorder.note(query, || self.tracer.samples());
    }

    /// Has a transaction traced that is over, if it is wanted.
    pub(super) fn trace_end(&self, server: &mut Server, now: Instant, ending: Ending) {
        if let Some(transaction) = server.recorder.end(now, ending) {
            let vitals = server.vitals();
            self.tracer
                .take(happened(transaction, &self.key, vitals, vitals.client()));
        }
    }

    /// The same of one that ends with its lease, whatever is under way; of one that is over already there is nothing left.
    pub(super) fn trace_cut(&self, server: &mut Server, now: Instant) {
        let wording = server.take_wording();
        if let Some(since) = server.query_since.take() {
            self.trace_query(server, query(since, now, wording.as_deref(), self));
        }
        self.trace_end(server, now, Ending::Cut);
    }

    /// Has a request traced that has waited since `asked` and is answered with an error, if it is wanted. `context` says
    /// what it has brought.
    pub fn trace_refusal(
        &self,
        asked: Instant,
        context: impl FnOnce() -> Option<Context>,
        error: SqlState,
        client_pid: i32,
    ) {
        if !self.tracer.is_on() {
            return;
        }
        let context = context();
        let is_wanted = context.map_or_else(|| self.tracer.samples(), |context| context.sampled);
        if is_wanted {
            let refused = Transaction::refused(asked, Instant::now(), context, error);
            self.tracer
                .take(Happened::new(refused, self.key.clone(), None, client_pid));
        }
    }
}
