//! What clients notice when a peer fails: a true error once, or a wait, and nothing that stays.

mod clients;
mod idle;
mod middle;
mod protocol;
mod reach;
mod restart;
mod silence;

use std::io;

use crate::{
    checks::{assert_settled, log_in},
    support::{FakeConnection, FakeServer, Frame, Link, Pooler, PoolerBuilder, Postgres, frames, tags},
};

/// A link to a server, and a pooler in front of it where clients do not wait for long.
fn behind_link(postgres: &Postgres, change: impl FnOnce(PoolerBuilder) -> PoolerBuilder) -> (Link, Pooler) {
    let link = Link::to(postgres.address());
    let builder = Pooler::builder(&link.address()).set("pool.query_wait_timeout", "'700ms'");
    let pooler = change(builder).start();
    (link, pooler)
}

/// A server that logs in and then does `script` with the first query of its first connection; later
/// connections answer as they should.
fn failing_once(
    script: impl Fn(&mut FakeConnection) -> io::Result<()> + Send + Sync + 'static,
) -> FakeServer {
    FakeServer::start(move |connection| {
        connection.log_in()?;
        loop {
            let message = connection.read()?;
            match message.tag {
                b'Q' if connection.index == 0 => return script(connection),
                b'Q' => connection.send(good())?,
                _ => return Ok(()),
            }
        }
    })
}

fn good() -> Vec<u8> {
    let row = [frames::data_row(&["good"]), frames::command_complete("SELECT 1")];
    [row.concat(), frames::ready_for_query(b'I')].concat()
}

fn in_front_of(server: &FakeServer) -> Pooler {
    Pooler::builder(&server.address())
        .set("pool.default_pool_size", "1")
        .start()
}

/// What a client gets whose server does this, up to the end of its connection. The next client must be served
/// as if nothing had been.
fn outcome(script: impl Fn(&mut FakeConnection) -> io::Result<()> + Send + Sync + 'static) -> Vec<Frame> {
    let server = failing_once(script);
    let mut pooler = in_front_of(&server);
    let (mut victim, mut next) = (log_in(&pooler), log_in(&pooler));
    victim.send(frames::query("SELECT 1"));
    let messages = victim.read_to_end();
    assert_eq!(tags(&next.query("SELECT 1")), "DCZ", "after {messages:?}");
    assert_eq!(server.accepted(), 2, "the connection was not used again");
    drop((victim, next));
    assert_settled(&pooler);
    assert!(
        pooler.is_running() && !pooler.logs().contains("panicked"),
        "{}",
        pooler.logs()
    );
    messages
}
