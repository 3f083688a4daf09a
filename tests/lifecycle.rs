//! The life of a process: ready, watched, reloaded, drained, gone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    net::TcpStream,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use pgweir::cli::demo::{
    child::{OwnedChild, tied},
    ports,
};
use support::{
    Authority, Certificate, Frame, LIMIT, Pooler, PoolerBuilder, Postgres, RawClient, eventually, frames,
    postgres, tags,
};
use tempfile::TempDir;

/// Nobody listens on the port `tcpmux`.
const NO_SERVER: &str = "127.0.0.1:1";

fn log_in(pooler: &Pooler) -> RawClient {
    RawClient::log_in(pooler.address(), "app", "secret", "app")
}

/// A pgweir in front of `postgres` for clients that are trusted; it logs in as `app`.
fn builder(postgres: &Postgres) -> PoolerBuilder {
    Pooler::builder(&postgres.address())
}

/// The SQLSTATE of what must be one FATAL error and nothing else.
#[track_caller]
fn last_words(messages: &[Frame]) -> String {
    assert_eq!(tags(messages), "E", "{messages:?}");
    assert_eq!(messages[0].field(b'V').as_deref(), Some("FATAL"), "{messages:?}");
    messages[0].field(b'C').expect("an error has a SQLSTATE")
}

/// The SQLSTATE of a query that must fail and leave the session alive.
#[track_caller]
fn refusal(messages: &[Frame]) -> String {
    assert_eq!(tags(messages), "EZ", "{messages:?}");
    assert_eq!(messages[0].field(b'V').as_deref(), Some("ERROR"), "{messages:?}");
    messages[0].field(b'C').expect("an error has a SQLSTATE")
}

fn psql(postgres: &Postgres, target: &str, sql: &str) -> Output {
    let mut command = postgres.programs().command("psql");
    command.args(["-XAtqc", sql, target]).stdin(Stdio::null());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

#[track_caller]
fn assert_metric(pooler: &Pooler, sample: &str, expected: f64) {
    let found = pooler.metric(sample);
    assert!(
        (found - expected).abs() < 1e-9,
        "{sample} is {found}, not {expected}"
    );
}

#[track_caller]
fn wait_for_metric(pooler: &Pooler, sample: &str, expected: f64) {
    eventually(&format!("{sample} is {expected}"), || {
        (pooler.metric(sample) - expected).abs() < 1e-9
    });
}

/// A pgweir with a configuration that the harness's [`Pooler`] does not take: other logs, or one that fails.
struct Program {
    child: OwnedChild,
    directory: TempDir,
}

impl Program {
    fn start(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pgweir.toml");
        fs::write(&file, config).unwrap();
        let mut command = tied(env!("CARGO_BIN_EXE_pgweir"), Signal::SIGKILL);
        command
            .arg("--config")
            .arg(file)
            .stdin(Stdio::null())
            .stderr(File::create(directory.path().join("log")).unwrap());
        let child = OwnedChild::spawn(command).unwrap();
        Self { child, directory }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    fn wait(&mut self) -> Option<i32> {
        self.child.wait(LIMIT).unwrap().code()
    }
}

// --- Ready and watched ---

#[test]
fn ready_means_that_the_listeners_are_bound_and_says_nothing_of_the_server() {
    let pooler = Pooler::builder(NO_SERVER).start();
    TcpStream::connect(pooler.address()).unwrap();
    assert_eq!(pooler.http_get("/readyz"), (200, "ok\n".into()));
    assert_eq!(pooler.http_get("/livez"), (200, "ok\n".into()));
}

/// `name{label="value"} 1` as its parts. Fails the test if the line is not well-formed.
#[track_caller]
fn parse_sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let name_end = line
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
        .unwrap();
    let (name, mut rest) = line.split_at(name_end);
    assert!(
        !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty(),
        "{line}"
    );
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").unwrap();
            assert!(
                label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
                "{line}"
            );
            let (mut value, mut characters) = (String::new(), after.char_indices());
            let end = loop {
                match characters.next().expect("a label value has an end") {
                    (at, '"') => break at + 1,
                    (_, '\\') => match characters.next().expect("an escape has two characters").1 {
                        'n' => value.push('\n'),
                        c @ ('\\' | '"') => value.push(c),
                        c => panic!("escape {c:?} in {line}"),
                    },
                    (_, c) => value.push(c),
                }
            };
            assert_eq!(labels.insert(label.to_owned(), value), None, "{line}");
            rest = after[end..].trim_start_matches(',');
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').expect("a space before the value");
    (
        name.to_owned(),
        labels,
        value.parse().expect("a value is a number"),
    )
}

#[test]
fn every_line_of_the_metrics_is_well_formed() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    log_in(&pooler).query("SELECT 1");
    // A name that has to be escaped in a label.
    let mut stranger = RawClient::connect(pooler.address());
    let strange = "we\"ird\\na\nme";
    stranger.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", "app"), ("database", strange)],
    ));
    assert_eq!(
        stranger.read_to_end().last().unwrap().field(b'C').unwrap(),
        "3D000"
    );

    let metrics = pooler.metrics();
    let (mut types, mut helped) = (BTreeMap::new(), BTreeSet::new());
    let (mut databases, mut series) = (BTreeSet::new(), BTreeSet::new());
    let mut buckets: BTreeMap<String, f64> = BTreeMap::new();
    for line in metrics.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let [kind, name, rest] = comment.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            match kind {
                "HELP" => assert!(helped.insert(name) && !rest.is_empty(), "{line}"),
                "TYPE" => assert!(types.insert(name, rest).is_none(), "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (name, mut labels, value) = parse_sample(line);
        assert!(series.insert((name.clone(), labels.clone())), "twice: {line}");
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find(|family| types.get(family) == Some(&"histogram"))
            .unwrap_or(&name);
        assert!(
            types.contains_key(family) && helped.contains(family),
            "no TYPE and HELP: {line}"
        );
        assert!(
            types[family] != "counter" || (name.ends_with("_total") && value >= 0.0),
            "{line}"
        );
        databases.extend(labels.get("database").cloned());
        if family != name {
            let le = labels.remove("le");
            let key = format!("{family}{labels:?}");
            if let Some(le) = le {
                let below = buckets.insert(key, value).unwrap_or(0.0);
                assert!(below <= value, "buckets are cumulative: {line}");
                assert!(le == "+Inf" || le.parse::<f64>().is_ok(), "{line}");
            } else if name.ends_with("_count") {
                assert!((buckets[&key] - value).abs() < f64::EPSILON, "{line}");
            }
        }
    }
    assert!(
        databases.contains("app") && databases.contains(strange),
        "{databases:?}"
    );
    let histograms = types.values().filter(|&&kind| kind == "histogram").count();
    assert!(histograms >= 2 && !buckets.is_empty(), "{metrics}");
}

#[test]
fn counters_count_what_was_done() {
    let postgres = postgres();
    let pooler = builder(&postgres).set("pool.default_pool_size", "1").start();
    let mut client = log_in(&pooler);
    client.query("SELECT 1");
    let names = [
        "pgweir_transactions_total",
        "pgweir_received_bytes_total",
        "pgweir_sent_bytes_total",
        "pgweir_wait_seconds_count",
        "pgweir_transaction_seconds_count",
    ];
    let read = || names.map(|name| pooler.metric(&format!("{name}{{database=\"app\",user=\"app\"}}")));
    let before = read();
    let (mut asked, mut answered) = (0, 0);
    for sql in [
        "SELECT 1",
        "SELECT repeat('x', 100000)",
        "SELECT nothing",
        "BEGIN",
        "SELECT 2",
        "COMMIT",
    ] {
        asked += frames::query(sql).len();
        let answer = client.query(sql);
        answered += answer.iter().map(|message| message.body.len() + 5).sum::<usize>();
    }
    // Three statements of their own and a block: four transactions.
    let expected = [4, asked, answered, 4, 4];
    for ((name, before), (after, expected)) in names.iter().zip(before).zip(read().into_iter().zip(expected))
    {
        let expected = f64::from(u32::try_from(expected).unwrap());
        assert!(
            (after - before - expected).abs() < 1e-9,
            "{name}: {before} then {after}, not {expected} more"
        );
    }
    assert_metric(&pooler, "pgweir_server_connects_total", 1.0);
    assert_metric(&pooler, "pgweir_server_connect_failures_total", 0.0);
}

#[test]
fn gauges_show_who_is_where() {
    let postgres = postgres();
    let pooler = builder(&postgres).set("pool.default_pool_size", "1").start();
    let (mut holder, mut waiter) = (log_in(&pooler), log_in(&pooler));
    let servers = |state: &str| format!("pgweir_servers{{state=\"{state}\"}}");
    assert_metric(&pooler, "pgweir_pool_size", 1.0);
    wait_for_metric(&pooler, "pgweir_clients", 2.0);
    wait_for_metric(&pooler, &servers("idle"), 1.0);
    holder.query("BEGIN");
    assert_metric(&pooler, &servers("active"), 1.0);
    assert_metric(&pooler, &servers("idle"), 0.0);
    waiter.send(frames::query("SELECT 1"));
    wait_for_metric(&pooler, "pgweir_waiting_clients", 1.0);
    holder.query("COMMIT");
    waiter.read_until_ready();
    assert_metric(&pooler, "pgweir_waiting_clients", 0.0);
    wait_for_metric(&pooler, &servers("active"), 0.0);
    assert_metric(&pooler, &servers("idle"), 1.0);
    waiter.send(frames::terminate());
    drop(holder);
    wait_for_metric(&pooler, "pgweir_clients", 0.0);
    // The wait of the second client is in the histogram, and is not one of zero seconds.
    let waited = pooler.metric("pgweir_wait_seconds_sum");
    assert!(waited > 0.0, "{waited}");
}

// --- SIGTERM ---

#[test]
fn new_connections_are_taken_during_the_drain_delay_and_refused_after_it() {
    let postgres = postgres();
    let delay = Duration::from_secs(2);
    let mut pooler = builder(&postgres).set("shutdown.drain_delay", "'2s'").start();
    let mut early = log_in(&pooler);
    let start = Instant::now();
    pooler.terminate();
    eventually("readiness is off", || pooler.http_get("/readyz").0 == 503);
    assert_eq!(pooler.http_get("/livez").0, 200);
    let mut late = log_in(&pooler);
    assert_eq!(late.value("SELECT 1"), "1");
    assert_eq!(early.value("SELECT 1"), "1");
    assert!(start.elapsed() < delay, "too slow to tell");
    eventually("connections are refused", || {
        TcpStream::connect(pooler.address()).is_err()
    });
    assert!(start.elapsed() >= delay, "{:?}", start.elapsed());
    assert_eq!(last_words(&early.read_to_end()), "57P01");
    assert_eq!(last_words(&late.read_to_end()), "57P01");
    assert_eq!(pooler.wait().code(), Some(0));
}

#[test]
fn a_transaction_is_finished_and_whoever_is_idle_is_told() {
    let postgres = postgres();
    postgres
        .psql_in("app", "CREATE TABLE kept (id int); GRANT ALL ON kept TO app")
        .unwrap();
    let mut pooler = builder(&postgres).set("pool.default_pool_size", "1").start();
    let (mut idle, mut busy, mut waiting) = (log_in(&pooler), log_in(&pooler), log_in(&pooler));
    busy.query("BEGIN");
    waiting.send(frames::query("INSERT INTO kept VALUES (2)"));
    wait_for_metric(&pooler, "pgweir_waiting_clients", 1.0);
    pooler.terminate();
    assert_eq!(last_words(&idle.read_to_end()), "57P01");
    assert_eq!(tags(&busy.query("INSERT INTO kept VALUES (1)")), "CZ");
    assert_eq!(tags(&busy.query("COMMIT")), "CZ");
    assert_eq!(last_words(&busy.read_to_end()), "57P01");
    // Whoever has asked gets the answer first.
    assert_eq!(tags(&waiting.read_until_ready()), "CZ");
    assert_eq!(last_words(&waiting.read_to_end()), "57P01");
    assert_eq!(pooler.wait().code(), Some(0));
    assert_eq!(
        postgres
            .psql_in("app", "SELECT string_agg(id::text, ' ' ORDER BY id) FROM kept")
            .unwrap(),
        "1 2"
    );
}

/// Sends a query; `Err` with everything that came if the session has ended.
fn try_query(client: &mut RawClient, sql: &str) -> Result<(), Vec<Frame>> {
    // Whoever cannot send may still read why.
    let _ = client.try_send(frames::query(sql));
    let mut messages = Vec::new();
    while let Ok(message) = client.try_read() {
        let done = message.tag == b'Z';
        messages.push(message);
        if done {
            assert_eq!(tags(&messages), "CZ", "{messages:?}");
            return Ok(());
        }
    }
    Err(messages)
}

/// Inserts numbers, every other one in a block, until the session ends; those that were acknowledged.
fn insert_until_the_end(
    mut client: RawClient,
    numbers: impl Iterator<Item = usize>,
    done: &AtomicUsize,
) -> Vec<usize> {
    let mut acknowledged = Vec::new();
    for number in numbers {
        let in_block = acknowledged.len() % 2 == 1;
        let insert = format!("INSERT INTO kept VALUES ({number})");
        let first = if in_block { "BEGIN" } else { &insert };
        if let Err(messages) = try_query(&mut client, first) {
            assert_eq!(last_words(&messages), "57P01");
            break;
        }
        if in_block {
            try_query(&mut client, &insert).expect("a client in a transaction goes on");
            try_query(&mut client, "COMMIT").expect("a client in a transaction may commit");
        }
        acknowledged.push(number);
        done.fetch_add(1, Ordering::Relaxed);
    }
    acknowledged
}

#[test]
fn nothing_that_was_acknowledged_is_lost_under_load() {
    const CLIENTS: usize = 20;
    let postgres = postgres();
    postgres
        .psql_in("app", "CREATE TABLE kept (id int); GRANT ALL ON kept TO app")
        .unwrap();
    let mut pooler = builder(&postgres).set("pool.default_pool_size", "5").start();
    let done = AtomicUsize::new(0);
    let mut acknowledged: Vec<usize> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|first| {
                let (client, done) = (log_in(&pooler), &done);
                scope.spawn(move || insert_until_the_end(client, (first..).step_by(CLIENTS), done))
            })
            .collect();
        eventually("the load is under way", || done.load(Ordering::Relaxed) > 2000);
        pooler.terminate();
        clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect()
    });
    assert_eq!(pooler.wait().code(), Some(0));
    let kept = postgres
        .psql_in("app", "SELECT id FROM kept ORDER BY id")
        .unwrap();
    let kept: Vec<usize> = kept.lines().map(|line| line.parse().unwrap()).collect();
    acknowledged.sort_unstable();
    assert_eq!(kept, acknowledged);
}

#[test]
fn what_is_left_at_the_drain_timeout_is_ended() {
    let postgres = postgres();
    let mut pooler = builder(&postgres)
        .set("shutdown.drain_timeout", "'300ms'")
        .start();
    let (mut in_block, mut running) = (log_in(&pooler), log_in(&pooler));
    in_block.query("BEGIN");
    running.send(frames::query("SELECT pg_sleep(100)"));
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(100)%' \
        AND pid <> pg_backend_pid()";
    eventually("the query runs", || postgres.psql(sleeping).unwrap() == "1");
    pooler.terminate();
    assert_eq!(last_words(&in_block.read_to_end()), "57P01");
    assert_eq!(last_words(&running.read_to_end()), "57P01");
    assert_eq!(pooler.wait().code(), Some(0));
    eventually("the server does not work for nobody", || {
        postgres.psql(sleeping).unwrap() == "0"
    });
}

#[test]
fn a_second_sigterm_stops_at_once() {
    let postgres = postgres();
    // Longer than the harness waits.
    let mut pooler = builder(&postgres).set("shutdown.drain_timeout", "'10m'").start();
    let mut client = log_in(&pooler);
    client.query("BEGIN");
    let position = pooler.log_position();
    pooler.terminate();
    pooler.wait_for_log(position, "draining");
    assert_eq!(client.value("SELECT 1"), "1");
    pooler.terminate();
    assert_eq!(pooler.wait().code(), Some(0));
    client.read_to_end();
}

/// The janitor of each pool that had been made outlived it: a stop took two seconds more, and said so in the log.
#[test]
fn nothing_that_runs_in_the_background_is_in_the_way_of_a_stop() {
    let postgres = postgres();
    let mut pooler = builder(&postgres).start();
    log_in(&pooler).query("SELECT 1");
    pooler.terminate();
    assert_eq!(pooler.wait().code(), Some(0));
    let log = pooler.logs();
    assert!(!log.contains("did not stop in time"), "{log}");
    assert!(log.contains("stopped"), "{log}");
}

#[test]
fn a_client_that_is_just_logging_in_is_told_too() {
    let postgres = postgres();
    let mut pooler = builder(&postgres).set("shutdown.drain_timeout", "'10m'").start();
    let mut holder = log_in(&pooler);
    holder.query("BEGIN");
    let (mut late, mut idle) = (RawClient::connect(pooler.address()), log_in(&pooler));
    pooler.terminate();
    assert_eq!(last_words(&idle.read_to_end()), "57P01");
    // Meanwhile everybody else has been told.
    assert_eq!(tags(&holder.query("SELECT pg_sleep(0.2)")), "TDCZ");
    late.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", "app"), ("database", "app")],
    ));
    let messages = late.read_to_end();
    assert_eq!(
        messages.last().and_then(|message| message.field(b'C')).as_deref(),
        Some("57P01"),
        "{messages:?}"
    );
    assert!(pooler.is_running());
    holder.query("COMMIT");
    assert_eq!(pooler.wait().code(), Some(0));
}

// --- SIGHUP ---

#[track_caller]
fn reload(pooler: &mut Pooler, change: impl FnOnce(PoolerBuilder) -> PoolerBuilder) {
    let position = pooler.log_position();
    pooler.reconfigure(change);
    pooler.reload();
    pooler.wait_for_log(position, "configuration reloaded");
}

#[test]
fn a_reload_changes_the_size_of_a_pool_both_ways() {
    let postgres = postgres();
    let mut pooler = builder(&postgres).set("pool.default_pool_size", "1").start();
    let (mut first, mut second) = (log_in(&pooler), log_in(&pooler));
    first.query("BEGIN");
    second.send(frames::query("BEGIN"));
    wait_for_metric(&pooler, "pgweir_waiting_clients", 1.0);
    reload(&mut pooler, |builder| builder.set("pool.default_pool_size", "2"));
    assert_eq!(tags(&second.read_until_ready()), "CZ");
    assert_metric(&pooler, "pgweir_pool_size", 2.0);
    reload(&mut pooler, |builder| builder.set("users.app.pool_size", "1"));
    assert_metric(&pooler, "pgweir_pool_size", 1.0);
    // Nobody's transaction is a victim of it.
    assert_eq!(tags(&first.query("COMMIT")), "CZ");
    assert_eq!(tags(&second.query("COMMIT")), "CZ");
    wait_for_metric(&pooler, "pgweir_servers", 1.0);
    assert_eq!(first.value("SELECT 1"), "1");
    assert_eq!(second.value("SELECT 1"), "1");
}

#[test]
fn a_reload_changes_timeouts_for_those_who_wait_already() {
    let postgres = postgres();
    let mut pooler = builder(&postgres).set("pool.default_pool_size", "1").start();
    let (mut holder, mut waiter) = (log_in(&pooler), log_in(&pooler));
    holder.query("BEGIN");
    waiter.send(frames::query("SELECT 1"));
    wait_for_metric(&pooler, "pgweir_waiting_clients", 1.0);
    reload(&mut pooler, |builder| {
        builder.set("pool.query_wait_timeout", "'100ms'")
    });
    assert_eq!(refusal(&waiter.read_until_ready()), "53300");
    holder.query("COMMIT");
    wait_for_metric(&pooler, "pgweir_servers{state=\"idle\"}", 1.0);
    reload(&mut pooler, |builder| {
        builder.set("pool.server_idle_timeout", "'100ms'")
    });
    wait_for_metric(&pooler, "pgweir_servers", 0.0);
}

#[test]
fn a_reload_changes_users_and_passwords() {
    let postgres = postgres();
    postgres
        .psql("CREATE ROLE reader LOGIN PASSWORD 'reading'")
        .unwrap();
    let mut pooler = builder(&postgres)
        .set("auth.auth_type", "'scram-sha-256'")
        .start();
    let who = |pooler: &Pooler, user: &str, password: &str| {
        let target = format!("postgresql://{user}:{password}@{}/app", pooler.address());
        let output = psql(&postgres, &target, "SELECT current_user");
        text(if output.status.success() {
            &output.stdout
        } else {
            &output.stderr
        })
    };
    assert_eq!(who(&pooler, "app", "secret"), "app");
    let refused = "password authentication failed";
    assert!(who(&pooler, "reader", "reading").contains(refused));
    reload(&mut pooler, |builder| builder.user("reader", "reading"));
    assert_eq!(who(&pooler, "reader", "reading"), "reader");

    postgres.psql("ALTER ROLE app PASSWORD 'changed'").unwrap();
    postgres
        .psql("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'app'")
        .unwrap();
    reload(&mut pooler, |builder| builder.user("app", "changed"));
    assert!(who(&pooler, "app", "secret").contains(refused));
    // The server connections log in with the new password too.
    assert_eq!(who(&pooler, "app", "changed"), "app");
}

#[test]
fn a_reload_changes_the_certificate_for_new_handshakes() {
    let postgres = postgres();
    let (old, new) = (
        Authority::new("old CA").unwrap(),
        Authority::new("new CA").unwrap(),
    );
    let certificate = |authority: &Authority| -> Certificate { authority.server(&["localhost"]).unwrap() };
    let mut pooler = builder(&postgres)
        .client_tls("require", &certificate(&old))
        .file("old.crt", old.certificate_pem())
        .file("new.crt", new.certificate_pem())
        .start();
    let connect = |pooler: &Pooler, authority: &str| {
        let target = format!(
            "host=localhost hostaddr=127.0.0.1 port={} dbname=app user=app sslmode=verify-full sslrootcert={}",
            pooler.port(),
            pooler.file(authority).display()
        );
        psql(&postgres, &target, "SELECT 'connected'")
    };
    assert_eq!(text(&connect(&pooler, "old.crt").stdout), "connected");
    assert!(!connect(&pooler, "new.crt").status.success());
    reload(&mut pooler, |builder| {
        builder.client_tls("require", &certificate(&new))
    });
    assert_eq!(text(&connect(&pooler, "new.crt").stdout), "connected");
    let refused = connect(&pooler, "old.crt");
    assert!(
        text(&refused.stderr).contains("certificate verify failed"),
        "{refused:?}"
    );
}

#[test]
fn a_reload_adds_and_removes_databases() {
    let postgres = postgres();
    let hosts = format!("['{}']", postgres.address());
    let mut pooler = builder(&postgres)
        .without(r#"databases."*""#)
        .set("databases.app.hosts", &hosts)
        .set("databases.app.pool_size", "1")
        .start();
    let try_other = |pooler: &Pooler| {
        let target = format!("postgresql://app@{}/other", pooler.address());
        psql(&postgres, &target, "SELECT current_database()")
    };
    assert!(text(&try_other(&pooler).stderr).contains("database \"other\" does not exist"));
    let (mut busy, mut waiting, mut idle) = (log_in(&pooler), log_in(&pooler), log_in(&pooler));
    busy.query("BEGIN");
    waiting.send(frames::query("SELECT 1"));
    wait_for_metric(&pooler, "pgweir_waiting_clients", 1.0);
    reload(&mut pooler, |builder| {
        builder
            .without("databases.app")
            .set("databases.other.hosts", &hosts)
            .set("databases.other.dbname", "'app'")
    });
    assert_eq!(text(&try_other(&pooler).stdout), "app");
    // Whoever uses the database that is gone is told, when it asks for something; work goes on to its end.
    assert_eq!(last_words(&waiting.read_to_end()), "57P03");
    idle.send(frames::query("SELECT 1"));
    assert_eq!(last_words(&idle.read_to_end()), "57P03");
    assert_eq!(tags(&busy.query("COMMIT")), "CZ");
    busy.send(frames::extended("SELECT 1", &[]));
    assert_eq!(last_words(&busy.read_to_end()), "57P03");
    let mut again = RawClient::connect(pooler.address());
    again.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", "app"), ("database", "app")],
    ));
    assert_eq!(again.read_to_end().last().unwrap().field(b'C').unwrap(), "3D000");
    let left = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
    wait_for_metric(&pooler, "pgweir_servers{database=\"other\"}", 1.0);
    eventually("only the new pool has connections", || {
        postgres.psql(left).unwrap() == "1"
    });
}

#[test]
fn a_wrong_file_changes_nothing_and_every_problem_is_told() {
    let postgres = postgres();
    let mut pooler = builder(&postgres).start();
    let mut client = log_in(&pooler);
    let position = pooler.log_position();
    pooler.reconfigure(|builder| {
        builder
            .user("newcomer", "x")
            .set("pool.default_pool_size", "0")
            .set("pool.mode", "'sometimes'")
            .set("listen.max_client_conn", "1")
            .set("listen.colour", "'blue'")
    });
    pooler.reload();
    let line = pooler.wait_for_log(position, "configuration not reloaded");
    for key in ["pool.default_pool_size", "pool.mode", "listen.colour"] {
        assert!(line.contains(&format!("{key}: ")), "{key} in {line}");
    }
    assert!(line.contains("pgweir.toml:"), "{line}");
    assert_metric(&pooler, "pgweir_pool_size", 2.0);
    assert_eq!(client.value("SELECT 1"), "1");
    log_in(&pooler);

    // A file that is named must be as good as the one that names it; both problems are told.
    let position = pooler.log_position();
    let authority = Authority::new("CA").unwrap();
    pooler.reconfigure(|builder| {
        builder
            .set("pool.default_pool_size", "3")
            .set("pool.mode", "'transaction'")
            .without("listen")
            .set("listen.address", "'127.0.0.1:0'")
            .client_tls("require", &authority.server(&["localhost"]).unwrap())
            .file("server.key", "not a key")
            .set("server_tls.mode", "'verify-ca'")
            .set("server_tls.ca_file", "'server.key'")
    });
    pooler.reload();
    pooler.wait_for_log(position, "listen.tls");
    pooler.wait_for_log(position, "server_tls");
    assert_metric(&pooler, "pgweir_pool_size", 2.0);
    log_in(&pooler);

    let position = pooler.log_position();
    fs::remove_file(pooler.file("pgweir.toml")).unwrap();
    pooler.reload();
    pooler.wait_for_log(position, "cannot read");
    assert_eq!(client.value("SELECT 1"), "1");
}

#[test]
fn a_reload_names_what_needs_a_restart_and_does_the_rest() {
    let postgres = postgres();
    let mut pooler = builder(&postgres).start();
    let mut client = log_in(&pooler);
    client.query("SELECT 1");
    let position = pooler.log_position();
    reload(&mut pooler, |builder| {
        builder
            .set("pool.default_pool_size", "3")
            .set("listen.listen_backlog", "7")
            .set("process.workers", "2")
            .set("log.format", "'text'")
    });
    for key in ["listen.listen_backlog", "process.workers", "log.format"] {
        let line = pooler.wait_for_log(position, &format!("\"key\":\"{key}\""));
        assert!(line.contains("at the next start"), "{line}");
    }
    assert_metric(&pooler, "pgweir_pool_size", 3.0);
    // Told once, and not again by a reload that changes nothing.
    let position = pooler.log_position();
    reload(&mut pooler, |builder| builder);
    let log = pooler.logs();
    let repeated = log
        .lines()
        .skip(position)
        .filter(|line| line.contains("at the next start"));
    assert_eq!(
        repeated.count(),
        3,
        "the file still differs from what is in force"
    );
}

#[test]
fn a_reload_changes_how_many_clients_there_may_be() {
    let postgres = postgres();
    let mut pooler = builder(&postgres).set("listen.max_client_conn", "1").start();
    let client = log_in(&pooler);
    let target = format!("postgresql://app@{}/app", pooler.address());
    let refused = psql(&postgres, &target, "SELECT 1");
    assert!(!refused.status.success(), "{refused:?}");
    reload(&mut pooler, |builder| builder.set("listen.max_client_conn", "2"));
    assert_eq!(text(&psql(&postgres, &target, "SELECT 1").stdout), "1");
    drop(client);
}

// --- Commands ---

#[test]
fn check_prints_every_problem_with_its_place() {
    let good = Pooler::builder(NO_SERVER);
    let (out, err, status) = Pooler::run_command(&good, &["check", "--config", "CONFIG"]);
    assert_eq!((status.code(), err.as_str()), (Some(0), ""));
    assert!(out.ends_with("pgweir.toml: ok\n"), "{out}");

    let bad = good.file(
        "pgweir.toml",
        "[listen]\naddress = 7\nadress = '127.0.0.1:1'\n[pool]\nmode = 'x'\n[databases.a]\n",
    );
    let (out, err, status) = Pooler::run_command(&bad, &["check", "--config", "CONFIG"]);
    assert_eq!((status.code(), out.as_str()), (Some(1), ""));
    for place in [
        "2: listen.address: ",
        "3: listen.adress: ",
        "5: pool.mode: ",
        "6: databases.a.hosts: ",
    ] {
        assert!(err.contains(&format!("pgweir.toml:{place}")), "{place} in {err}");
    }
    let (_, started, status) = Pooler::run_command(&bad, &["run", "--config", "CONFIG"]);
    assert_eq!(status.code(), Some(1));
    assert_eq!(started.lines().count(), err.lines().count(), "{started}");
}

#[test]
fn check_reads_the_files_that_are_named() {
    let builder = Pooler::builder(NO_SERVER)
        .set(
            "listen.tls",
            "{ mode = 'require', cert_file = 'users.txt', key_file = 'users.txt' }",
        )
        .set("server_tls.mode", "'verify-ca'")
        .set("server_tls.ca_file", "'users.txt'");
    let (_, err, status) = Pooler::run_command(&builder, &["check", "--config", "CONFIG"]);
    assert_eq!(status.code(), Some(1));
    assert!(err.contains("listen.tls") && err.contains("server_tls"), "{err}");
}

#[test]
fn healthcheck_tells_whether_the_process_is_ready() {
    let postgres = postgres();
    let http = format!("'127.0.0.1:{}'", ports::free(None).unwrap());
    let mut pooler = builder(&postgres).set("http.address", http).start();
    let config = pooler.file("pgweir.toml");
    let healthcheck = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgweir"));
        command.args(["healthcheck", "--config"]).arg(&config);
        let output = command.output().unwrap();
        (output.status.code(), text(&output.stdout))
    };
    assert_eq!(healthcheck(), (Some(0), "ok".into()));
    let mut client = log_in(&pooler);
    client.query("BEGIN");
    pooler.terminate();
    eventually("readiness is off", || pooler.http_get("/readyz").0 == 503);
    assert_eq!(healthcheck(), (Some(1), "not ready: draining".into()));
    client.query("COMMIT");
    pooler.wait();
    assert_eq!(healthcheck().0, Some(1));
}

#[test]
fn a_second_instance_on_the_same_port_says_so() {
    let first = Pooler::builder(NO_SERVER).start();
    for (key, address) in [
        ("listen", first.address().to_owned()),
        ("http", http_address(&first)),
    ] {
        let other = if key == "http" {
            "[listen]\naddress = '127.0.0.1:0'\n"
        } else {
            ""
        };
        let mut second = Program::start(&format!(
            "{other}[{key}]\naddress = '{address}'\n[auth]\nauth_type = 'trust'\n[databases.app]\nhosts = '{NO_SERVER}'\n"
        ));
        assert_eq!(second.wait(), Some(1));
        let log = second.log();
        assert!(log.contains(&format!("cannot listen on {address}")), "{log}");
        assert!(log.contains("Address already in use"), "{log}");
        assert!(!log.contains("addresses="), "{log}");
    }
}

fn http_address(pooler: &Pooler) -> String {
    let log = pooler.logs();
    let (_, rest) = log.split_once("\"http\":\"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

// --- Logs ---

/// A value in JSON, checked to its end; only what is needed to tell one object from something else.
fn skip_json(text: &str) -> &str {
    let text = text.trim_start();
    let closed = |mut rest: &str, close: char, with_keys: bool| -> usize {
        let all = rest.len();
        if let Some(after) = rest.trim_start().strip_prefix(close) {
            return all - after.len();
        }
        loop {
            if with_keys {
                assert!(rest.trim_start().starts_with('"'), "{rest}");
                rest = skip_json(rest).trim_start().strip_prefix(':').expect("a colon");
            }
            rest = skip_json(rest).trim_start();
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None => return all - rest.strip_prefix(close).expect("an end").len(),
            }
        }
    };
    match text.chars().next().expect("a value") {
        '{' => &text[1 + closed(&text[1..], '}', true)..],
        '[' => &text[1 + closed(&text[1..], ']', false)..],
        '"' => {
            let mut escaped = false;
            let end = text[1..].find(|c| {
                assert!(c >= ' ', "control character in {text}");
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            &text[end.expect("a string has an end") + 2..]
        }
        _ => text.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "+-.".contains(c)),
    }
}

#[test]
fn json_logs_are_one_object_a_line_with_the_clients_fields() {
    let postgres = postgres();
    let mut pooler = builder(&postgres).set("log.level", "'debug'").start();
    let mut client = log_in(&pooler);
    client.query("SELECT 1");
    drop(client);
    let mut wrong = RawClient::connect(pooler.address());
    wrong.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", "a\"b\nc"), ("database", "d\\e")],
    ));
    wrong.read_to_end();
    let left = pooler.wait_for_log(0, "client left without saying goodbye");
    for field in [
        "\"client\":\"",
        "\"db\":\"app\"",
        "\"user\":\"app\"",
        "\"peer\":\"127.0.0.1:",
        "\"level\":\"INFO\"",
    ] {
        assert!(left.contains(field), "{field} in {left}");
    }
    pooler.terminate();
    pooler.wait();
    let logs = pooler.logs();
    assert!(logs.lines().count() > 5);
    for line in logs.lines() {
        assert!(line.starts_with('{'), "{line}");
        assert_eq!(skip_json(line), "", "{line}");
    }
    assert!(!logs.contains("secret"), "the password of app");
}

#[test]
fn text_logs_have_the_same_fields() {
    let postgres = postgres();
    let port = ports::free(None).unwrap();
    let mut program = Program::start(&format!(
        "[listen]\naddress = '127.0.0.1:{port}'\n[auth]\nauth_type = 'trust'\n[databases.app]\nhosts = '{}'\n\
         user = 'postgres'\n[server_tls]\nmode = 'disable'\n[shutdown]\ndrain_delay = '0'\n",
        postgres.address()
    ));
    eventually("it is ready", || program.log().contains("ready"));
    let mut client = RawClient::connect(&format!("127.0.0.1:{port}"));
    client.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", "app"), ("database", "app")],
    ));
    // There is no password for the server.
    client.read_to_end();
    program.child.signal(Signal::SIGTERM).unwrap();
    assert_eq!(program.wait(), Some(0));
    let log = program.log();
    let line = log
        .lines()
        .find(|line| line.contains("session ended"))
        .expect("the end is logged");
    for field in [
        "INFO",
        "client=",
        "db=app",
        "user=app",
        "peer=127.0.0.1:",
        "sqlstate=",
    ] {
        assert!(line.contains(field), "{field} in {line}");
    }
    assert!(!log.contains('\x1b'), "{log}");
}

// --- Unix sockets ---

#[test]
fn unix_sockets_work_on_both_sides() {
    let postgres = support::postgres_with(|builder| builder.hba(&["local all app scram-sha-256"]));
    let server = format!("unix:{}", postgres.socket_file().display());
    let mut pooler = Pooler::builder(&server)
        .set("listen.address", "['127.0.0.1:0', 'unix:.s.PGSQL.7654']")
        .start();
    let socket: PathBuf = pooler.file(".s.PGSQL.7654");
    assert_eq!(pooler.addresses()[1], format!("unix:{}", socket.display()));
    for target in [
        format!(
            "host={} port=7654 user=app dbname=app",
            pooler.directory().display()
        ),
        format!("postgresql://app@{}/app", pooler.address()),
    ] {
        let output = psql(
            &postgres,
            &target,
            "SELECT coalesce(inet_client_addr()::text, 'unix') || current_user",
        );
        assert_eq!(text(&output.stdout), "unixapp", "{output:?}");
    }
    pooler.terminate();
    assert_eq!(pooler.wait().code(), Some(0));
    assert!(!socket.exists(), "the socket file is removed");
}

/// Ending an idle client of a session pool for the drain dropped its server connection without
/// server_reset_query, and the next in the queue read its temporary table.
#[test]
fn a_drained_session_is_cleaned_before_the_next_client_has_its_server() {
    let postgres = postgres();
    let mut pooler = builder(&postgres)
        .set("pool.mode", "'session'")
        .set("pool.default_pool_size", "1")
        .start();
    let mut first = log_in(&pooler);
    let mut second = log_in(&pooler);
    first.query("CREATE TEMP TABLE secret AS SELECT 1");
    second.send(frames::query("SELECT to_regclass('pg_temp.secret') IS NULL"));
    wait_for_metric(&pooler, "pgweir_waiting_clients", 1.0);
    pooler.terminate();
    let answer = second.read_until_ready();
    let row = answer.iter().find(|message| message.tag == b'D').unwrap();
    assert_eq!(row.columns(), [Some("t".to_owned())]);
    drop((first, second));
    assert!(pooler.wait().success());
}
