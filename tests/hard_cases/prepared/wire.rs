//! 34: what a server gets to see of clients that share their statements.

use std::io;

use super::{batch, prepare_and_use, use_statement};
use crate::support::{FakeConnection, FakeServer, Frame, Pooler, RawClient, frames, tags};

/// Logs the peer in, and says in a notice of each batch which messages and texts it saw.
fn tell_what_is_seen(connection: &mut FakeConnection) -> io::Result<()> {
    connection.log_in()?;
    let mut seen = Vec::new();
    loop {
        let message = connection.read()?;
        let tag = message.tag;
        seen.push(message);
        connection.send(match tag {
            b'P' => frames::frame(b'1', []),
            b'B' => frames::frame(b'2', []),
            b'C' => frames::frame(b'3', []),
            b'E' => frames::command_complete("SELECT 0"),
            b'X' => return Ok(()),
            b'S' => [notice(&describe(&seen)), frames::ready_for_query(b'I')].concat(),
            _ => continue,
        })?;
        if tag == b'S' {
            seen.clear();
        }
    }
}

fn describe(batch: &[Frame]) -> String {
    let parses = batch
        .iter()
        .filter(|message| message.tag == b'P')
        .map(Frame::strings);
    let mut texts = String::new();
    for mut strings in parses {
        assert!(strings[0].starts_with("pgweir_"), "{batch:?}");
        texts.push(' ');
        texts.push_str(&strings.swap_remove(1));
    }
    format!("{}{texts}", tags(batch))
}

/// A statement has one name of the pooler's own, and is prepared when a client says so or where it is missing. Nothing
/// stands between a client's messages that is not needed: no reset, no Sync (Odyssey #1483).
#[test]
fn case_34_a_server_sees_a_client_s_batch_and_what_it_lacks() {
    let server = FakeServer::start(tell_what_is_seen);
    let pooler = Pooler::builder(&server.address())
        .set("pool.default_pool_size", "1")
        .start();
    let log_in = || RawClient::log_in(pooler.address(), "app", "", "app");
    let (mut first, mut second) = (log_in(), log_in());
    let using = batch(&[use_statement("a")]);
    let expect = |client: &mut RawClient, request: &[u8], answer: &str, seen: &str| {
        client.send(request);
        let replies = client.read_until_ready();
        let notice = replies.iter().find(|reply| reply.tag == b'N').unwrap();
        let found = (tags(&replies), notice.field(b'M').unwrap());
        assert_eq!(found, (answer.to_owned(), seen.to_owned()));
    };
    let one = batch(&[prepare_and_use("a", "one")]);
    let two = batch(&[frames::close(b'S', "a"), prepare_and_use("a", "two")]);
    expect(&mut first, &one, "12CNZ", "PBES one");
    expect(&mut first, &using, "2CNZ", "BES");
    // A client's Parse is the server's to judge, as things are now.
    expect(&mut second, &one, "12CNZ", "CPBES one");
    expect(&mut second, &two, "312CNZ", "PBES two");
    expect(&mut first, &using, "2CNZ", "BES");
    expect(&mut first, &batch(&[frames::close(b'S', "a")]), "3NZ", "S");
    assert_eq!(server.accepted(), 1);
}

fn notice(message: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (code, value) in [(b'S', "NOTICE"), (b'C', "00000"), (b'M', message)] {
        body.push(code);
        body.extend(frames::text(value));
    }
    body.push(0);
    frames::frame(b'N', body)
}
