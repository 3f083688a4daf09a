//! The console in the extended protocol, as drivers speak it.

use crate::{
    builder, console,
    support::{Frame, RawClient, frames, postgres, sqlstates, tags},
    table::{columns, error},
};

/// A Bind with result formats.
fn bind(portal: &str, statement: &str, formats: &[u16]) -> Vec<u8> {
    let mut body = [frames::text(portal), frames::text(statement)].concat();
    body.extend([0; 4]);
    body.extend(u16::try_from(formats.len()).unwrap().to_be_bytes());
    body.extend(formats.iter().flat_map(|format| format.to_be_bytes()));
    frames::frame(b'B', body)
}

fn send(console: &mut RawClient, messages: &[Vec<u8>]) -> Vec<Frame> {
    console.send([&messages.concat()[..], &frames::sync()].concat());
    console.read_until_ready()
}

#[test]
fn a_show_is_prepared_described_bound_and_executed() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let mut console = console(&pooler);
    let answer = send(
        &mut console,
        &[
            frames::parse("s", "SHOW LISTS"),
            frames::describe(b'S', "s"),
            bind("p", "s", &[]),
            frames::describe(b'P', "p"),
            frames::execute("p"),
        ],
    );
    assert_eq!(tags(&answer), format!("1tT2T{}CZ", "D".repeat(14)));
    assert_eq!(
        columns(&answer),
        [("list".to_owned(), 25), ("items".to_owned(), 23)]
    );
    // A statement is kept, a portal is not.
    let answer = send(
        &mut console,
        &[bind("", "s", &[0, 1]), frames::execute_some("", 10)],
    );
    assert_eq!(tags(&answer), format!("2{}sZ", "D".repeat(10)));
    let row = &answer[1].body;
    assert_eq!(
        row[row.len() - 8..row.len() - 4],
        [0, 0, 0, 4],
        "an integer of four bytes"
    );
    assert_eq!(error(&send(&mut console, &[frames::execute("p")])).0, "34000");
    let answer = send(&mut console, &[frames::close(b'S', "s"), bind("", "s", &[])]);
    assert_eq!(
        (tags(&answer).as_str(), sqlstates(&answer)),
        ("3EZ", vec!["26000".to_owned()])
    );
}

#[test]
fn the_rest_of_a_batch_is_skipped_after_an_error() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let mut console = console(&pooler);
    let answer = send(
        &mut console,
        &[
            frames::parse("", "SHOW POLLS"),
            bind("", "", &[]),
            frames::execute(""),
        ],
    );
    // What it shows is looked for when it is carried out, as PostgreSQL does.
    assert_eq!(error(&answer).0, "42704");
    for wrong in ["SELEC 1", "SHOW LISTS; SHOW POOLS"] {
        let answer = send(
            &mut console,
            &[frames::parse("", wrong), bind("", "", &[]), frames::execute("")],
        );
        assert_eq!(
            (tags(&answer).as_str(), error(&answer).0.as_str()),
            ("EZ", "42601"),
            "{wrong}"
        );
    }
    let parameter = frames::bind("", "", &[Some("1")]);
    let answer = send(&mut console, &[frames::parse("", "SHOW LISTS"), parameter]);
    assert_eq!(error(&answer).0, "08P01");
    let answer = send(
        &mut console,
        &[frames::parse("", "SHOW LISTS"), bind("", "", &[0, 0, 0])],
    );
    assert_eq!(error(&answer).0, "08P01");
    let answer = send(&mut console, &[frames::parse("a", ""), frames::parse("a", "")]);
    assert_eq!(error(&answer).0, "42P05");
    assert_eq!(tags(&console.query("SHOW STATE")), "TDDDCZ");
}

#[test]
fn orders_and_empty_queries_have_no_rows() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let mut console = console(&pooler);
    let run = |sql: &str| {
        vec![
            frames::parse("", sql),
            bind("", "", &[]),
            frames::describe(b'P', ""),
            frames::execute(""),
        ]
    };
    assert_eq!(tags(&send(&mut console, &run("RECONNECT"))), "12nCZ");
    assert_eq!(tags(&send(&mut console, &run(" -- ping"))), "12nIZ");
    assert_eq!(
        tags(&send(&mut console, &run("SET extra_float_digits = 3"))),
        "12nNCZ"
    );
    assert_eq!(tags(&send(&mut console, &run("SHOW client_encoding"))), "12TDCZ");
}

/// Numbers that a driver asks for in binary are what they are in text.
#[test]
fn binary_and_text_say_the_same() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let mut console = console(&pooler);
    for topic in ["POOLS", "STATS", "DATABASES", "CLIENTS"] {
        let sql = format!("SHOW {topic}");
        let run = |format: u16| {
            [
                frames::parse("", &sql),
                bind("", "", &[format]),
                frames::execute(""),
            ]
        };
        let (text, binary) = (send(&mut console, &run(0)), send(&mut console, &run(1)));
        assert_eq!(tags(&text), tags(&binary), "{topic}");
    }
}
