//! What a client is told when it is logged in, and the trial of the settings that it asked for.
//!
//! Where no server has to be asked, the client is told before it has a worker: it need not wait for another thread, and
//! its request is there when the worker first looks.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::AtomicI32},
    task::Poll,
    time::Instant,
};

use arc_swap::ArcSwapOption;
use bytes::{Bytes, BytesMut};

use super::{
    activity::Activity, course::moved, error::SessionError, identity::Arrival, member::Member,
    pinned::Pinned, run::Counted, table::Entry,
};
use crate::{
    pool::{Greeting, Lease, Leasing, Pool, StartupSettings},
    server::{
        Home, Notices, SettleError,
        parameters::{Parameters, Source},
        statements::SharedNames,
    },
    tls::Stream,
    types::{BackendKey, PoolMode},
    wire::{reply, stream::Framed},
};

/// A client that others see, and that has been told that it may ask; or will be, by what stands in its stream's output.
#[derive(Debug)]
pub struct Welcomed<Slot> {
    pub(super) stream: Framed<Stream>,
    pub(super) member: Arc<Member>,
    pub(super) pool: Counted,
    pub(super) entry: Entry,
    pub(super) parameters: Parameters,
    pub(super) slot: Slot,
}

impl<Slot> Arrival<Slot> {
    /// Welcomes a client here and now. It is given back where it has to be ended, or a server asked: that is its worker's
    /// business.
    pub async fn welcome(self: Box<Self>) -> Result<Box<Welcomed<Slot>>, Box<Self>> {
        if self.entry.control().is_pending() {
            return Err(self);
        }
        let Some(greeting) = self.pool.welcome(&self.startup) else {
            return Err(self);
        };
        let mut welcomed = Box::new(Welcomed::new(*self, greeting));
        poll_fn(|cx| {
            // What the client does not take now its worker writes, who finds an error too.
            let _ = welcomed.stream.poll_drain(cx);
            Poll::Ready(())
        })
        .await;
        Ok(welcomed)
    }
}

impl<Slot> Welcomed<Slot> {
    /// Whether its worker has nothing to do for it before it says something.
    pub fn is_quiet(&self) -> bool {
        self.stream.is_drained() && self.stream.held() == 0 && !self.stream.get_ref().has_plaintext()
    }

    /// Moves it to its worker, whose runtime is the current one. `None` has been logged.
    pub fn move_in(&mut self) -> Option<()> {
        moved(self.stream.get_mut().rehome_for_reads())
    }

    /// Shows the client to others, and puts what it is told into its stream's output.
    pub(super) fn new(arrival: Arrival<Slot>, greeting: Greeting) -> Self {
        let Arrival {
            mut stream,
            identity,
            startup,
            pool,
            entry,
            slot,
        } = arrival;
        let level = startup.get("client_min_messages").map(str::as_bytes);
        let out = stream.output();
        greeting.notices.write(level, out);
        greeting.remarks.write(level, out);
        out.extend_from_slice(&greeting.reports);
        let parameters = greeting.parameters;
        say_ready(entry.key(), out);
        let settings = &pool.plan().settings;
        let member = Arc::new(Member {
            identity,
            origin: entry.origin(stream.get_ref()),
            pool: pool.clone(),
            settings: parameters.clone(),
            activity: Activity::new(entry.clock().now()),
            clock: entry.clock().clone(),
            names: SharedNames::new(entry.key().pid, entry.neighbours()),
            backend: AtomicI32::new(0),
            shares: settings.mode != PoolMode::Session,
            renames: settings.max_prepared_statements > 0,
            renamed: ArcSwapOption::empty(),
            pinned: Pinned::default(),
        });
        entry.show(member.clone());
        Self {
            stream,
            member,
            pool: Counted::new(pool),
            entry,
            parameters,
            slot,
        }
    }
}

/// Finds out what a session begins with. Cancel-safe.
///
/// A server connection is needed only where the pool does not know the answer from earlier clients; then an
/// unknown database or a setting that the server does not take is told at once, in the server's words.
pub(super) async fn settings(
    pool: &Arc<Pool>,
    startup: &StartupSettings,
    home: Home,
) -> Result<Greeting, SessionError> {
    match pool.welcome(startup) {
        Some(greeting) => Ok(greeting),
        None => try_settings(pool, startup, home).await,
    }
}

/// The cancel key, ReadyForQuery.
pub(super) fn say_ready(key: &BackendKey, out: &mut BytesMut) {
    reply::backend_key_data(key, out);
    reply::ready_for_query(out);
}

async fn try_settings(
    pool: &Arc<Pool>,
    startup: &StartupSettings,
    home: Home,
) -> Result<Greeting, SessionError> {
    let mut lease = lease(pool, home).await?;
    // The connection that was just lent may have been the first one.
    if let Some(greeting) = pool.welcome(startup) {
        return Ok(greeting);
    }
    lease
        .rehome(home)
        .map_err(|error| SessionError::Startup(SettleError::Io(error)))?;
    let mut wanted = pool.fresh_parameters().unwrap_or_default();
    for (name, value) in startup.iter() {
        wanted.set(name, value.as_bytes(), Source::Session);
    }
    // Everything that was asked for is tried, also what the server has already and what nobody can set: the
    // server says so in its own words. None of it has been reported yet.
    let mut difference = lease.parameters().difference(&wanted).unwrap_or_default();
    difference
        .set
        .retain(|(set, _)| !startup.iter().any(|(name, _)| set.eq_ignore_ascii_case(name)));
    let given = startup
        .iter()
        .map(|(name, value)| (name.into(), Bytes::copy_from_slice(value.as_bytes())));
    difference.given = given.collect();
    let remarks = if startup.is_empty() {
        Notices::default()
    } else {
        lease
            .try_change(&difference)
            .await
            .map_err(SessionError::Startup)?
    };
    Ok(pool.proved(startup, lease.parameters().clone(), remarks))
}

async fn lease(pool: &Arc<Pool>, home: Home) -> Result<Lease, SessionError> {
    match pool.lease(home, Instant::now(), || None) {
        Leasing::Ready(lease) => Ok(lease),
        Leasing::Queued(mut waiting) => Ok(poll_fn(|cx| waiting.poll(cx)).await?.lease),
    }
}
