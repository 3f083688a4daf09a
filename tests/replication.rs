//! Replication connections: each has a server connection of its own, on which PostgreSQL's own programs work as they do
//! without pgweir in between.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use pgweir::cli::demo::child::{OwnedChild, describe};
use support::{
    FakeConnection, FakeServer, Frame, LIMIT, Pooler, PoolerBuilder, Postgres, RawClient, eventually, frames,
    postgres_with, tags,
};

const APP: [(&str, &str); 2] = [("user", "app"), ("database", "app")];
const MIB: usize = 1 << 20;

/// A server that can do everything, and a role that may ask for it.
fn postgres() -> Postgres {
    let postgres = postgres_with(|builder| builder.setting("wal_level", "logical"));
    postgres.psql("ALTER ROLE app REPLICATION").unwrap();
    postgres
}

fn in_front_of(address: &str) -> PoolerBuilder {
    Pooler::builder(address)
        .set("pool.default_pool_size", "1")
        .set("pool.allow_replication", "true")
}

/// Connects and asks for a walsender.
fn knock(pooler: &Pooler, replication: &str) -> RawClient {
    let mut client = RawClient::connect(pooler.address());
    let parameters = [&APP[..], &[("replication", replication)]].concat();
    client.send(frames::startup(frames::PROTOCOL_3_0, &parameters));
    client
}

fn log_in(pooler: &Pooler, replication: &str) -> RawClient {
    let mut client = knock(pooler, replication);
    client.read_until_ready();
    client
}

#[track_caller]
fn assert_fatal(messages: &[Frame], sqlstate: &str) -> Frame {
    let error = messages.last().expect("something is said");
    assert_eq!(error.tag, b'E', "{messages:?}");
    assert_eq!(error.field(b'V').as_deref(), Some("FATAL"), "{error:?}");
    assert_eq!(error.field(b'C').as_deref(), Some(sqlstate), "{error:?}");
    error.clone()
}

/// One of PostgreSQL's programs, as `app` through pgweir.
fn program(postgres: &Postgres, pooler: &Pooler, name: &str) -> Command {
    let mut command = postgres.programs().command(name);
    command
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", pooler.port().to_string())
        .env("PGUSER", "app")
        .env("PGPASSWORD", "secret")
        .env("PGCONNECT_TIMEOUT", "20")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a program to its end; what it printed.
#[track_caller]
fn run(mut command: Command, arguments: &[&str]) -> String {
    command.args(arguments);
    finish(OwnedChild::spawn(command).unwrap())
}

#[track_caller]
fn finish(mut child: OwnedChild) -> String {
    let status = child.wait(LIMIT).unwrap();
    let (mut output, mut errors) = (String::new(), String::new());
    let pipes = child.pipes();
    pipes.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    pipes.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(status.success(), "{}: {errors}", describe(status));
    output
}

#[test]
fn psql_speaks_to_a_walsender_of_either_kind() {
    let postgres = postgres();
    let pooler = in_front_of(&postgres.address()).start();
    for (kind, database) in [
        ("database", "app"),
        ("true", ""),
        ("1", ""),
        ("on", ""),
        ("yes", ""),
    ] {
        let conninfo = format!("dbname=app replication={kind}");
        let arguments = ["-X", "-A", "-t", "-c", "IDENTIFY_SYSTEM", &conninfo];
        let row = run(program(&postgres, &pooler, "psql"), &arguments);
        let columns: Vec<_> = row.trim_end().split('|').collect();
        assert_eq!(columns.len(), 4, "{row}");
        assert_eq!(columns[3], database, "{kind}: {row}");
    }
    // SQL works there as well, with the settings of the startup packet.
    let conninfo = "dbname=app replication=database application_name=mine options='-c work_mem=77MB'";
    let sql = "SELECT current_setting('work_mem'), current_setting('application_name')";
    let row = run(
        program(&postgres, &pooler, "psql"),
        &["-X", "-A", "-t", "-c", sql, conninfo],
    );
    assert_eq!(row.trim_end(), "77MB|mine");
    pooler.wait_until_quiet();
}

#[test]
fn a_base_backup_comes_through_whole() {
    let postgres = postgres();
    let pooler = in_front_of(&postgres.address()).start();
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("backup");
    let target = target.to_str().unwrap();
    // A second connection streams WAL meanwhile.
    let arguments = ["-D", target, "-X", "stream", "-c", "fast", "--no-sync"];
    run(program(&postgres, &pooler, "pg_basebackup"), &arguments);
    let version = fs::read_to_string(Path::new(target).join("PG_VERSION")).unwrap();
    assert!(version.trim_end().parse::<u32>().is_ok(), "{version}");
    // It compares every file with the manifest, and reads the WAL.
    run(program(&postgres, &pooler, "pg_verifybackup"), &[target]);
}

#[test]
fn wal_is_received_from_a_slot_that_survives() {
    let postgres = postgres();
    let pooler = in_front_of(&postgres.address()).start();
    let receive = |arguments: &[&str]| {
        let mut command = program(&postgres, &pooler, "pg_receivewal");
        command.args(arguments);
        command
    };
    run(receive(&["--slot", "mine", "--create-slot"]), &[]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let child = receive(&["--slot", "mine", "-D", path, "--synchronous"]);
    let mut child = OwnedChild::spawn(child).unwrap();
    let files = || {
        let names = fs::read_dir(directory.path()).unwrap();
        names
            .filter(|name| {
                !name
                    .as_ref()
                    .unwrap()
                    .path()
                    .to_string_lossy()
                    .ends_with(".partial")
            })
            .count()
    };
    let active = || {
        postgres
            .psql("SELECT active FROM pg_replication_slots WHERE slot_name = 'mine'")
            .unwrap()
    };
    eventually("it streams", || active() == "t");
    // A little more than one segment.
    for _ in 0..2 {
        postgres
            .psql_in(
                "app",
                "SELECT pg_logical_emit_message(false, 'x', 'y'), pg_switch_wal()",
            )
            .unwrap();
    }
    eventually("a segment is whole", || files() >= 1);
    child.signal(Signal::SIGINT).unwrap();
    finish(child);
    eventually("the slot is there, and free", || active() == "f");
    run(receive(&["--slot", "mine", "--drop-slot"]), &[]);
    assert_eq!(
        postgres
            .psql("SELECT count(*) FROM pg_replication_slots")
            .unwrap(),
        "0"
    );
}

#[test]
fn changes_are_decoded_and_a_shutdown_ends_the_stream_and_keeps_the_slot() {
    let postgres = postgres();
    postgres
        .psql_in("app", "CREATE TABLE t (a text); CREATE PUBLICATION p FOR TABLE t")
        .unwrap();
    let mut pooler = in_front_of(&postgres.address()).start();
    let receive = |arguments: &[&str]| {
        let mut command = program(&postgres, &pooler, "pg_recvlogical");
        command.args(["-d", "app", "--slot", "mine"]).args(arguments);
        command
    };
    run(receive(&["--create-slot", "--plugin", "pgoutput"]), &[]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("changes");
    let options = ["-o", "proto_version=1", "-o", "publication_names=p"];
    let start = [
        "--start",
        "--no-loop",
        "--fsync-interval=0",
        "-f",
        file.to_str().unwrap(),
    ];
    let mut child = OwnedChild::spawn(receive(&[&start[..], &options].concat())).unwrap();
    let has = |what: &str| {
        let bytes = fs::read(&file).unwrap_or_default();
        bytes.windows(what.len()).any(|window| window == what.as_bytes())
    };
    for change in ["first change", "second change"] {
        postgres
            .psql_in("app", &format!("INSERT INTO t VALUES ('{change}')"))
            .unwrap();
        eventually("a change arrives", || has(change));
    }
    assert_eq!(pooler.metric("pgweir_clients"), 1.0);
    pooler.terminate();
    let status = child.wait(LIMIT).unwrap();
    let mut errors = String::new();
    child
        .pipes()
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut errors)
        .unwrap();
    assert!(!status.success(), "{errors}");
    assert!(
        errors.contains("terminating connection due to administrator command"),
        "{errors}"
    );
    assert!(pooler.wait().success());
    let slots = "SELECT slot_name || ' ' || active FROM pg_replication_slots";
    eventually("the slot is there, and free", || {
        postgres.psql(slots).unwrap() == "mine false"
    });
}

#[test]
fn it_is_refused_where_it_is_not_allowed() {
    let postgres = postgres();
    let pooler = Pooler::builder(&postgres.address())
        .user("allowed", "secret")
        .set("users.allowed.allow_replication", "true")
        .start();
    let error = assert_fatal(&knock(&pooler, "database").read_to_end(), "42501");
    assert!(
        error.field(b'H').unwrap().contains("allow_replication"),
        "{error:?}"
    );
    // Who is allowed and is no replication role hears so from the server.
    postgres
        .psql("CREATE ROLE allowed LOGIN PASSWORD 'secret'")
        .unwrap();
    let parameters = [("user", "allowed"), APP[1], ("replication", "database")];
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::startup(frames::PROTOCOL_3_0, &parameters));
    let error = assert_fatal(&client.read_to_end(), "42501");
    assert!(!error.field(b'M').unwrap().contains("pgweir"), "{error:?}");
    assert!(
        error.field(b'M').unwrap().contains("walsender") || error.field(b'M').unwrap().contains("WAL sender")
    );
}

#[test]
fn it_takes_no_place_of_the_pool_and_counts_towards_shared_limits() {
    let postgres = postgres();
    let pooler = in_front_of(&postgres.address())
        .set("pool.max_db_connections", "2")
        .start();
    let mut pooled = RawClient::log_in(pooler.address(), "app", "secret", "app");
    pooled.query("BEGIN");
    let mut own = log_in(&pooler, "database");
    assert_eq!(own.value("SELECT 1"), "1");
    let error = assert_fatal(&knock(&pooler, "database").read_to_end(), "53300");
    assert!(
        error.field(b'M').unwrap().contains("max_db_connections = 2"),
        "{error:?}"
    );
    // An idle connection of the pool makes room.
    pooled.query("COMMIT");
    pooler.wait_until_quiet();
    let mut second = log_in(&pooler, "database");
    assert_eq!(second.value("SELECT 2"), "2");
    drop((own, second));
    eventually("their places are free", || {
        tags(&pooled.query("SELECT 3")) == "TDCZ" && pooler.metric("pgweir_clients") == 1.0
    });
}

#[test]
fn a_cancel_reaches_its_server() {
    let postgres = postgres();
    let pooler = in_front_of(&postgres.address()).start();
    let mut client = log_in(&pooler, "database");
    client.send(frames::query("SELECT pg_sleep(100)"));
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'pg_sleep' AND state = 'active' AND pid <> pg_backend_pid()";
    eventually("it runs", || postgres.psql(running).unwrap() == "1");
    let (pid, secret) = client.key.as_ref().unwrap().split_first_chunk().unwrap();
    let mut canceler = RawClient::connect(pooler.address());
    canceler.send(frames::cancel(i32::from_be_bytes(*pid), secret));
    assert!(canceler.read_to_end().is_empty());
    let messages = client.read_until_ready();
    let error = messages.iter().find(|message| message.tag == b'E').unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("57014"));
    assert_eq!(client.value("SELECT 1"), "1");
    // Gone with its client.
    drop(client);
    let walsenders = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'";
    eventually("the server is let go", || {
        postgres.psql(walsenders).unwrap() == "0"
    });
}

/// A server that streams in both directions after `START`, and takes its time for other queries.
fn streaming(up: usize, down: usize) -> FakeServer {
    FakeServer::start(move |connection| {
        connection.log_in()?;
        loop {
            let message = connection.read()?;
            match message.tag {
                b'Q' if message.strings() == ["START"] => stream(connection, up, down)?,
                b'Q' => {
                    std::thread::sleep(Duration::from_millis(300));
                    let ready = frames::ready_for_query(b'I');
                    connection.send([frames::command_complete("SLOW"), ready].concat())?;
                }
                _ => return Ok(()),
            }
        }
    })
}

/// Sends so many MiB before it reads as many.
fn stream(connection: &mut FakeConnection, up: usize, down: usize) -> io::Result<()> {
    connection.send(frames::frame(b'W', [0, 0, 0]))?;
    let piece = frames::copy_data(vec![b'd'; MIB]);
    for _ in 0..down {
        connection.send(&piece)?;
    }
    for _ in 0..up {
        assert_eq!(connection.expect(b'd')?.body.len(), MIB);
    }
    connection.send(frames::copy_data("end"))
}

#[test]
fn neither_direction_waits_for_the_other_and_memory_is_bounded() {
    const PIECES: usize = 64;
    let server = streaming(PIECES, PIECES);
    let pooler = in_front_of(&server.address()).start();
    let mut client = log_in(&pooler, "true");
    client.send(frames::query("START"));
    assert_eq!(client.read().tag, b'W');
    let before = pooler.peak_memory();
    // The server reads nothing before it has sent all that it has to say.
    let mut stream = client.into_stream();
    let mut writing = stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        let piece = frames::copy_data(vec![b'u'; MIB]);
        (0..PIECES).try_for_each(|_| writing.write_all(&piece))
    });
    for _ in 0..PIECES {
        assert_eq!(Frame::read(&mut stream).unwrap().body.len(), MIB);
    }
    writer.join().unwrap().unwrap();
    assert_eq!(Frame::read(&mut stream).unwrap().body, b"end");
    let growth = pooler.peak_memory().saturating_sub(before);
    assert!(growth < 8 * MIB as u64, "{growth} bytes more");
}

#[test]
fn a_shutdown_waits_for_an_answer_and_not_for_a_stream() {
    let server = streaming(0, 0);
    let mut pooler = in_front_of(&server.address()).start();
    let (mut idle, mut busy, mut streams) = (
        log_in(&pooler, "true"),
        log_in(&pooler, "true"),
        log_in(&pooler, "true"),
    );
    streams.send(frames::query("START"));
    assert_eq!(streams.read().tag, b'W');
    assert_eq!(streams.read().tag, b'd');
    let received = "pgweir_received_bytes_total";
    let before = pooler.metric(received);
    busy.send(frames::query("SLOW"));
    eventually("the request is under way", || pooler.metric(received) > before);
    pooler.terminate();
    for client in [&mut idle, &mut streams] {
        assert_fatal(&client.read_to_end(), "57P01");
    }
    let answer = busy.read_to_end();
    assert_eq!(tags(&answer), "CZE");
    assert_fatal(&answer, "57P01");
    assert!(pooler.wait().success());
}

#[test]
fn a_server_that_is_lost_is_told_once() {
    let server = FakeServer::start(|connection| {
        connection.log_in()?;
        connection.expect(b'Q')?;
        connection.send(frames::frame(b'W', [0, 0, 0]))
    });
    let pooler = in_front_of(&server.address()).start();
    let mut client = log_in(&pooler, "true");
    client.send(frames::query("START"));
    let messages = client.read_to_end();
    assert_eq!(tags(&messages), "WE");
    assert_fatal(&messages, "08006");
}
