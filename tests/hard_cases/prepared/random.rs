//! Random conversations, each held with PostgreSQL itself and through two server connections that others use too: every
//! reply is the same. `PGWEIR_TEST_SEED` repeats a run, `PGWEIR_TEST_SECONDS` makes it longer.

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
    io::ErrorKind,
    str::FromStr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use super::{batch, prepare_and_use, use_statement};
use crate::support::{
    Frame, RawClient, Stage, Twins, comparable, frames, frames::execute_some, stage_for_twins,
};

const NAMES: [&str; 4] = ["", "a", "b", "c"];
/// A Parse of the unnamed statement that is skipped would leave the one before as it is, so it is not relied upon later.
const NAMED: [&str; 3] = ["a", "b", "c"];
const PORTALS: [&str; 3] = ["", "", "p"];
const INT4: i32 = 23;
const TEXT: i32 = 25;
/// What a conversation ends with.
const END: &str = "the end";

const TEXTS: [&str; 12] = [
    "SELECT 1 AS one",
    "SELECT $1",
    "SELECT $1 || 'x'",
    "SELECT 1/0",
    "SELEKT",
    "SELECT missing",
    "SELECT generate_series(1, 3)",
    "",
    "INSERT INTO runs DEFAULT VALUES RETURNING n",
    "SELECT 1; SELECT 2",
    "SHOW DateStyle",
    "VALUES (1, 'x'::text), (2, 'y')",
];
const CONTROL: [&str; 6] = [
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "COMMIT",
];
const FORGETTING: [&str; 5] = [
    "DEALLOCATE a",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "deallocate \"b\"",
    "DEALLOCATE PREPARE c;",
];

#[derive(Debug, Clone)]
enum Said {
    Parse(&'static str, &'static str, Option<i32>),
    Bind(&'static str, &'static str, usize),
    DescribeStatement(&'static str),
    DescribePortal(&'static str),
    Execute(&'static str, i32),
    CloseStatement(&'static str),
    ClosePortal(&'static str),
    Query(&'static str),
    Unnamed(&'static str),
    /// What drivers do most.
    Run(&'static str, &'static str),
    Use(&'static str),
    Flush,
    Sync,
}

impl Said {
    fn bytes(&self) -> Vec<u8> {
        match *self {
            Self::Parse(name, text, oid) => frames::parse_typed(name, &own(name, text), oid.as_slice()),
            Self::Bind(portal, name, parameters) => {
                frames::bind(portal, name, &[Some("5")].repeat(parameters))
            }
            Self::DescribeStatement(name) => frames::describe(b'S', name),
            Self::DescribePortal(name) => frames::describe(b'P', name),
            Self::Execute(portal, rows) => execute_some(portal, rows),
            Self::CloseStatement(name) => frames::close(b'S', name),
            Self::ClosePortal(name) => frames::close(b'P', name),
            // One that is skipped in the middle of a batch would leave the unnamed statement as it is.
            Self::Query(text) => [frames::sync(), frames::query(text)].concat(),
            Self::Unnamed(text) => prepare_and_use("", text),
            Self::Run(name, text) => batch(&[prepare_and_use(name, &own(name, text))]),
            Self::Use(name) => batch(&[use_statement(name)]),
            Self::Flush => frames::flush(),
            Self::Sync => frames::sync(),
        }
    }
}

fn text() -> impl Strategy<Value = &'static str> {
    prop_oneof![6 => select(&TEXTS[..]), 3 => select(&CONTROL[..]), 1 => select(&FORGETTING[..])]
}

/// Of two names for one text, errors may have the other; so each has its own.
fn own(name: &str, text: &str) -> String {
    match name.is_empty() || FORGETTING.contains(&text) {
        true => text.to_owned(),
        false => format!("{text} /* {name} */"),
    }
}

/// A statement with a name may forget all; what it says of one name is not replaced.
fn named(name: &str, text: &'static str) -> &'static str {
    match FORGETTING.contains(&text) && !name.is_empty() {
        true => FORGETTING[1],
        false => text,
    }
}

fn said() -> impl Strategy<Value = Said> {
    let (name, named_only) = (|| select(&NAMES[..]), || select(&NAMED[..]));
    let portal = || select(&PORTALS[..]);
    let oid = proptest::option::weighted(0.2, select(&[0, INT4, TEXT][..]));
    prop_oneof![
        4 => (name(), text(), oid).prop_map(|(name, text, oid)| Said::Parse(name, named(name, text), oid)),
        4 => (portal(), named_only(), 0..2_usize).prop_map(|(portal, name, count)| Said::Bind(portal, name, count)),
        1 => named_only().prop_map(Said::DescribeStatement),
        1 => portal().prop_map(Said::DescribePortal),
        4 => (portal(), prop_oneof![3 => Just(0), 1 => Just(1)]).prop_map(|(portal, rows)| Said::Execute(portal, rows)),
        2 => name().prop_map(Said::CloseStatement),
        1 => portal().prop_map(Said::ClosePortal),
        2 => text().prop_map(Said::Query),
        3 => (name(), text()).prop_map(|(name, text)| Said::Run(name, named(name, text))),
        4 => named_only().prop_map(Said::Use),
        2 => text().prop_map(Said::Unnamed),
        1 => Just(Said::Flush),
        5 => Just(Said::Sync),
    ]
}

/// What is said, and where pgweir's client pauses (in per mille of it).
fn conversation() -> impl Strategy<Value = (Vec<Said>, Vec<usize>)> {
    let pauses = proptest::collection::vec(0..1000_usize, 0..4);
    (proptest::collection::vec(said(), 1..25), pauses)
}

/// How it went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Alike,
    /// PostgreSQL has crashed by what it was told directly: there is nothing to compare with. 15.18 does, when DISCARD ALL
    /// is executed in a failed transaction.
    Crashed,
}

/// Holds a conversation twice.
fn hold(stage: &Stage, conversation: &[Said], pauses: &[usize]) -> Result<Held, String> {
    let mut twins = Twins::new(&stage.postgres, stage.pooler.address());
    let mut bytes: Vec<u8> = conversation.iter().flat_map(Said::bytes).collect();
    bytes.extend([frames::sync(), frames::query("ROLLBACK")].concat());
    bytes.extend(frames::query(&format!("SELECT '{END}'")));
    twins.direct.send(&bytes);
    let direct = match hear(&mut twins.direct) {
        Err((ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset, _)) => return Ok(Held::Crashed),
        heard => heard.map_err(|(_, error)| error)?,
    };
    let mut cuts: Vec<_> = pauses.iter().map(|pause| bytes.len() * pause / 1000).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    for cut in cuts.windows(2) {
        twins.pooled.send(&bytes[cut[0]..cut[1]]);
        thread::sleep(Duration::from_micros(300));
    }
    let pooled =
        hear(&mut twins.pooled).map_err(|(_, error)| format!("pgweir: {error}, PostgreSQL: {direct:?}"))?;
    if are_same(&direct, &pooled) {
        return Ok(Held::Alike);
    }
    let show = |replies: &[Frame]| {
        replies
            .iter()
            .map(|reply| format!("\n  {reply:?}"))
            .collect::<String>()
    };
    Err(format!(
        "PostgreSQL says{}\npgweir says{}",
        show(&direct),
        show(&pooled)
    ))
}

/// Whether the same is said. In a transaction that has failed nothing can be prepared: there the use of a statement that
/// the server connection lacks is refused for that reason, whatever PostgreSQL would say of the statement.
fn are_same(direct: &[Frame], pooled: &[Frame]) -> bool {
    let (direct, pooled) = (answers(direct), answers(pooled));
    let failed = |answer: &[Frame]| answer.last().is_some_and(|end| end.body == b"E");
    let refused = |answer: &[Frame]| {
        let mut codes = answer
            .iter()
            .filter(|reply| reply.tag == b'E')
            .map(|error| error.field(b'C'));
        codes.any(|code| code.as_deref() == Some("25P02"))
    };
    let mut before_failed = false;
    let same = |(direct, pooled): (&&[Frame], &&[Frame])| {
        let is_refusal = before_failed && failed(direct) && failed(pooled) && refused(pooled);
        before_failed = failed(direct);
        direct == pooled || is_refusal || without_aliases(direct) == without_aliases(pooled)
    };
    direct.len() == pooled.len() && direct.iter().zip(&pooled).all(same)
}

/// Two names of a client may stand for one statement on the server. What is said of that, such as how many parameters it
/// has, is said with one of them.
fn without_aliases(answer: &[Frame]) -> Vec<(u8, Vec<u8>)> {
    let masked = |reply: &Frame| match reply.field(b'C').as_deref() {
        Some("08P01") if reply.tag == b'E' => reply.field(b'M').map(|message| {
            let name = message.split('"').nth(1).unwrap_or_default();
            message.replace(&format!("\"{name}\""), "").into_bytes()
        }),
        _ => None,
    };
    answer
        .iter()
        .map(|reply| (reply.tag, masked(reply).unwrap_or_else(|| reply.body.clone())))
        .collect()
}

/// Up to each ReadyForQuery.
fn answers(replies: &[Frame]) -> Vec<&[Frame]> {
    replies.split_inclusive(|reply| reply.tag == b'Z').collect()
}

fn hear(client: &mut RawClient) -> Result<Vec<Frame>, (ErrorKind, String)> {
    let mut replies = Vec::new();
    loop {
        match client.try_read() {
            Ok(reply) => replies.push(reply),
            Err(error) => return Err((error.kind(), format!("{error} after {replies:?}"))),
        }
        let [.., end, _, _] = &replies[..] else { continue };
        if end.tag == b'D' && end.body.ends_with(END.as_bytes()) {
            return Ok(comparable(&replies));
        }
    }
}

/// Another client that prepares the same texts by the same names, and forgets them. Whether it was cut off.
fn meddle(stage: &Stage, which: usize, done: &AtomicBool) -> bool {
    let mut client = stage.client();
    let mut turn = which;
    while !done.load(Ordering::SeqCst) {
        let name = NAMES[turn % 4];
        let text = &own(name, TEXTS[turn % TEXTS.len()]);
        let request = match turn % 7 {
            0 => batch(&[frames::parse(name, text), frames::parse("a", "ROLLBACK")]),
            1 => batch(&[frames::close(b'S', name), prepare_and_use(name, text)]),
            2 => frames::query(FORGETTING[turn % 3]),
            3 => frames::query("SELECT 1; SELECT 1/0"),
            4 => frames::query("SELECT pg_sleep(0.001)"),
            _ => batch(&[use_statement(name), prepare_and_use(name, text)]),
        };
        if client.try_send(request).is_err() {
            return true;
        }
        // What keeps it waiting for ever is somebody else's failure.
        while client.try_read().is_ok_and(|reply| reply.tag != b'Z') {}
        turn += 3;
    }
    false
}

fn from_environment<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn case_19_random_conversations_are_answered_as_postgresql_answers_them() {
    let stage = stage_for_twins(2);
    for database in ["app", "direct"] {
        let table = "SET ROLE app; CREATE TABLE runs (n serial)";
        stage.postgres.psql_in(database, table).unwrap();
    }
    let seed = from_environment("PGWEIR_TEST_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let seconds = from_environment("PGWEIR_TEST_SECONDS").unwrap_or(6);
    println!("PGWEIR_TEST_SEED={seed}");
    let done = AtomicBool::new(false);
    let (result, cut_off) = thread::scope(|scope| {
        let (stage, done) = (&stage, &done);
        let others = [0, 1].map(|which| scope.spawn(move || meddle(stage, which, done)));
        let result = converse(stage, seed, Duration::from_secs(seconds));
        done.store(true, Ordering::SeqCst);
        (result, others.map(|other| other.join().unwrap()))
    });
    match result {
        Err(difference) => panic!("PGWEIR_TEST_SEED={seed}: {difference}"),
        Ok(Held::Crashed) => return eprintln!("PostgreSQL has crashed, PGWEIR_TEST_SEED={seed}"),
        Ok(Held::Alike) => assert_eq!(cut_off, [false, false]),
    }
    stage.is_whole(&mut stage.client());
}

fn converse(stage: &Stage, seed: u64, time: Duration) -> Result<Held, String> {
    let config = Config {
        failure_persistence: None,
        max_shrink_time: 30_000,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed.to_le_bytes(); 4].concat());
    let until = Instant::now() + time;
    let mut count = 0;
    let mut runner = TestRunner::new_with_rng(config, rng);
    while Instant::now() < until {
        let tree = conversation()
            .new_tree(&mut runner)
            .map_err(|reason| reason.to_string())?;
        let crashed = Cell::new(false);
        let held = runner.run_one(tree, |(conversation, pauses)| {
            let held = hold(stage, &conversation, &pauses).map_err(TestCaseError::fail)?;
            crashed.set(held == Held::Crashed);
            Ok(())
        });
        held.map_err(|error| error.to_string())?;
        if crashed.get() {
            return Ok(Held::Crashed);
        }
        count += 1;
    }
    println!("{count} conversations");
    Ok(Held::Alike)
}
