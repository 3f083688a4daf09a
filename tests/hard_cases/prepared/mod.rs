//! Cases 15, 17 to 22 and 34: named prepared statements that clients share. Wherever it can be, a test is a conversation
//! that is held with PostgreSQL itself too, and every reply is compared.

mod eviction;
mod forgetting;
mod ghosts;
mod names;
mod order;
mod plans;
mod random;
mod sharing;
mod wire;

use crate::support::{RawClient, frames, sqlstates, values};

/// Bind, Execute of a named statement without parameters, by the unnamed portal; without Sync.
fn use_statement(name: &str) -> Vec<u8> {
    [frames::bind("", name, &[]), frames::execute("")].concat()
}

/// The same with a Parse before.
fn prepare_and_use(name: &str, sql: &str) -> Vec<u8> {
    [frames::parse(name, sql), use_statement(name)].concat()
}

/// A batch: what it says and Sync.
fn batch(messages: &[Vec<u8>]) -> Vec<u8> {
    [messages.concat(), frames::sync()].concat()
}

/// The values or SQLSTATEs that using a statement brings.
#[track_caller]
fn outcome(client: &mut RawClient, name: &str) -> Vec<String> {
    client.send(batch(&[use_statement(name)]));
    let replies = client.read_until_ready();
    [values(&replies), sqlstates(&replies)].concat()
}
