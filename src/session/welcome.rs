//! What a client is told when it is logged in, and the trial of the settings that it asked for.

use std::{future::poll_fn, sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};

use super::{error::SessionError, identity::Arrival};
use crate::{
    pool::{Greeting, Lease, Leasing, Pool, StartupSettings},
    server::{
        Home, Notices, SettleError,
        parameters::{Parameters, Source},
    },
    types::BackendKey,
    wire::reply,
};

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

/// Puts what PostgreSQL says after a log-in into the stream's output.
pub(super) fn greet<Slot>(arrival: &mut Arrival<Slot>, greeting: &Greeting) {
    let level = arrival.startup.get("client_min_messages").map(str::as_bytes);
    let out = arrival.stream.output();
    greeting.notices.write(level, out);
    greeting.remarks.write(level, out);
    say_ready(&greeting.parameters, arrival.entry.key(), out);
}

/// Each reported setting, the cancel key, ReadyForQuery.
pub(super) fn say_ready(parameters: &Parameters, key: &BackendKey, out: &mut BytesMut) {
    for parameter in parameters
        .iter()
        .filter(|parameter| parameter.source == Source::Reported)
    {
        reply::parameter_status(&parameter.name, &parameter.value, out);
    }
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
