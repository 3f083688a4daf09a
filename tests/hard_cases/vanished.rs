//! Clients that vanish in the middle of something: what they have begun is undone, and the next client gets the very
//! server connection that they had.

use std::{
    collections::HashSet,
    io,
    net::Shutdown,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    checks::{assert_settled, log_in, wait_for_metric},
    support::{
        FakeConnection, FakeServer, Pooler, RawClient, Stage, eventually, frames, postgres, stage, tags,
    },
};

const ACTIVE: &str = "pgweir_servers{state=\"active\"}";

/// How a client goes away.
#[derive(Debug, Clone, Copy)]
enum Departure {
    Close,
    Reset,
    HalfClose,
}

const DEPARTURES: [Departure; 3] = [Departure::Close, Departure::Reset, Departure::HalfClose];

fn depart(client: RawClient, how: Departure) {
    let stream = client.into_stream();
    match how {
        Departure::Close => drop(stream),
        Departure::Reset => {
            let none = Some(Duration::ZERO);
            socket2::SockRef::from(&stream).set_linger(none).unwrap();
        }
        Departure::HalfClose => {
            stream.shutdown(Shutdown::Write).unwrap();
            // Whatever is still said: the connection ends.
            let _ = io::copy(&mut &stream, &mut io::sink());
        }
    }
}

fn connects(pooler: &Pooler) -> f64 {
    pooler.metric("pgweir_server_connects_total")
}

/// A client that sends this, waits until a server works for it and it has been told all of `heard`, and goes.
fn vanish(pooler: &Pooler, bytes: impl AsRef<[u8]>, heard: &str, how: Departure) {
    let mut client = log_in(pooler);
    client.send(bytes);
    for tag in heard.bytes() {
        while client.read().tag != tag {}
    }
    if heard.is_empty() {
        wait_for_metric(pooler, ACTIVE, 1.0);
    }
    depart(client, how);
}

fn insert(number: &str) -> Vec<u8> {
    [
        frames::parse("", "INSERT INTO t VALUES ($1::int)"),
        frames::bind("", "", &[Some(number)]),
        frames::execute(""),
    ]
    .concat()
}

/// What a client is in the middle of, what it sends, and what it waits for before it goes.
type Case = (&'static str, Vec<u8>, &'static str);

fn cases() -> Vec<Case> {
    [statements(), streams()].concat()
}

fn begin() -> Vec<u8> {
    frames::query("BEGIN; INSERT INTO t VALUES (1)")
}

fn statements() -> Vec<Case> {
    let begin = begin();
    vec![
        ("in a transaction", begin.clone(), "Z"),
        (
            "in a failed transaction",
            [begin.clone(), frames::query("SELECT 1/0")].concat(),
            "ZZ",
        ),
        (
            "in a statement of a transaction",
            [begin.clone(), frames::query("SELECT pg_sleep(600)")].concat(),
            "Z",
        ),
        (
            "in a statement",
            frames::query("INSERT INTO t SELECT 1 FROM pg_sleep(600)"),
            "",
        ),
        ("in a batch", insert("1"), ""),
        (
            "in a batch that is answered",
            [insert("1"), frames::flush()].concat(),
            "C",
        ),
        (
            "in a batch of a transaction",
            [begin.clone(), insert("2"), frames::flush()].concat(),
            "ZC",
        ),
        (
            "in a batch that has failed",
            [begin.clone(), frames::parse("", "nonsense"), frames::flush()].concat(),
            "ZE",
        ),
        (
            "in a batch that sleeps",
            [
                insert("1"),
                frames::flush(),
                frames::run("SELECT pg_sleep(600)"),
                frames::flush(),
            ]
            .concat(),
            "C",
        ),
        (
            "in a pipeline",
            [
                frames::extended("BEGIN", &[]),
                frames::extended("INSERT INTO t VALUES (1)", &[]),
                frames::extended("SELECT pg_sleep(600)", &[]).repeat(3),
            ]
            .concat(),
            "ZZ",
        ),
    ]
}

fn streams() -> Vec<Case> {
    let out = frames::query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 300000)) TO STDOUT");
    let copy = frames::query("COPY t FROM STDIN");
    let data = frames::copy_data("1\n2\n");
    vec![
        ("in COPY in", [copy.clone(), data.clone()].concat(), "G"),
        (
            "in COPY in, unanswered",
            [frames::run("COPY t FROM STDIN"), data.clone()].concat(),
            "",
        ),
        (
            "in COPY in of a batch",
            [frames::run("COPY t FROM STDIN"), frames::sync(), data.clone()].concat(),
            "G",
        ),
        (
            "in COPY in of a transaction",
            [begin(), copy, data].concat(),
            "ZG",
        ),
        ("in COPY out", out, "H"),
        (
            "in a result",
            frames::query("SELECT repeat('x', 1000) FROM generate_series(1, 300000)"),
            "D",
        ),
    ]
}

#[test]
fn case_31_vanished_client_costs_no_server_connection() {
    // PgBouncer closes the connection of every client that leaves in a transaction, whatever the log-in of the next
    // one costs. Those that did not close it handed on what was left behind (pgdog #805, #848; odyssey #1216).
    let stage = stage(1);
    let mut watcher = stage.client();
    watcher.query("CREATE TABLE t (a int)");
    let pid = watcher.value("SELECT pg_backend_pid()");
    for (case, bytes, heard) in cases() {
        for how in DEPARTURES {
            vanish(&stage.pooler, &bytes, heard, how);
            let sql = "SELECT count(*) FROM t";
            assert_eq!(watcher.value(sql), "0", "{case}, {how:?}");
            assert_eq!(
                watcher.value("SELECT pg_backend_pid()"),
                pid,
                "{case}, {how:?}: the same server"
            );
        }
    }
    assert_eq!(connects(&stage.pooler), 1.0);
    stage.is_whole(&mut watcher);
}

#[test]
fn case_31_client_that_says_goodbye_in_a_transaction_costs_no_server_connection() {
    // As every driver does that opens transactions by itself and is closed without a COMMIT.
    for mode in ["'transaction'", "'session'"] {
        let postgres = postgres();
        let pooler = Pooler::builder(&postgres.address())
            .set("pool.default_pool_size", "1")
            .set("pool.mode", mode)
            .start();
        postgres
            .psql_in("app", "CREATE TABLE t (a int); GRANT ALL ON t TO app")
            .unwrap();
        let pid = log_in(&pooler).value("SELECT pg_backend_pid()");
        let copy = frames::query("COPY t FROM STDIN");
        let cases = [
            ("a transaction", begin(), "Z"),
            (
                "a failed transaction",
                [begin(), frames::query("SELECT 1/0")].concat(),
                "ZZ",
            ),
            (
                "a batch of a transaction",
                [begin(), insert("2"), frames::flush()].concat(),
                "ZC",
            ),
            ("a COPY of a transaction", [begin(), copy].concat(), "ZG"),
            ("a transaction, in one go", begin(), ""),
        ];
        for (case, bytes, heard) in cases {
            let mut client = log_in(&pooler);
            if heard.is_empty() {
                client.send([bytes, frames::terminate()].concat());
            } else {
                client.send(bytes);
                heard.bytes().for_each(|tag| while client.read().tag != tag {});
                client.send(frames::terminate());
            }
            client.read_to_end();
            let mut next = log_in(&pooler);
            let seen = next.value("SELECT pg_backend_pid() || ' ' || count(*) FROM t");
            assert_eq!(seen, format!("{pid} 0"), "{mode}, {case}");
            next.send(frames::terminate());
        }
        assert_eq!(connects(&pooler), 1.0, "{mode}");
    }
}

#[test]
fn case_31_vanished_client_leaves_its_settings_behind_neither_for_others() {
    let stage = stage(1);
    let mut next = stage.client();
    let show = "SELECT current_setting('TimeZone') || current_setting('work_mem')";
    let (before, pid) = (next.value(show), next.value("SELECT pg_backend_pid()"));
    for settings in [
        "BEGIN; SET TimeZone TO 'Asia/Tokyo'; SET work_mem TO '77MB'",
        "SET TimeZone TO 'Asia/Tokyo'; BEGIN; SET TimeZone TO 'Europe/Berlin'; SET LOCAL work_mem TO '77MB'",
    ] {
        vanish(&stage.pooler, frames::query(settings), "Z", Departure::Close);
        assert_eq!(next.value(show), before, "{settings}");
    }
    assert_eq!(next.value("SELECT pg_backend_pid()"), pid);
}

#[test]
fn case_31_vanished_client_in_mid_message_costs_its_server_connection() {
    // The server has read a part of a message and would take anybody's bytes for the rest.
    let stage = stage(1);
    let mut watcher = stage.client();
    watcher.query("CREATE TABLE t (a int)");
    let half_of = |message: Vec<u8>| message[..message.len() / 2].to_vec();
    let data = frames::copy_data("1\n".repeat(30_000));
    let cases = [
        ("a query", half_of(frames::query(&"x".repeat(50_000))), ""),
        (
            "CopyData",
            [frames::query("COPY t FROM STDIN"), half_of(data)].concat(),
            "G",
        ),
    ];
    for ((case, bytes, heard), number) in cases.into_iter().zip(2..) {
        vanish(&stage.pooler, bytes, heard, Departure::Close);
        assert_eq!(watcher.value("SELECT count(*) FROM t"), "0", "{case}");
        assert_eq!(connects(&stage.pooler), f64::from(number), "{case}");
    }
    stage.is_whole(&mut watcher);
}

#[test]
fn case_31_clients_that_wait_get_the_server_of_the_vanished_one() {
    let stage = stage(1);
    stage.client().query("CREATE TABLE t (a int)");
    for doing in ["SELECT 1", "SELECT pg_sleep(600)"] {
        let mut holder = stage.client();
        holder.query("BEGIN; INSERT INTO t VALUES (1)");
        holder.send(frames::query(doing));
        let mut waiting: Vec<_> = (0..5).map(|_| stage.client()).collect();
        for client in &mut waiting {
            client.send(frames::query("SELECT count(*) FROM t"));
        }
        stage.waits(5);
        drop(holder);
        for client in &mut waiting {
            let answer = client.read_until_ready();
            assert_eq!(crate::support::values(&answer), ["0"], "{answer:?}");
        }
    }
    assert_eq!(connects(&stage.pooler), 1.0);
    assert_settled(&stage.pooler);
}

#[test]
fn case_31_storm_of_vanishing_clients_opens_no_connections() {
    // An application server that is killed leaves hundreds of clients in the middle of something at once: closing
    // their connections would have the server fork as many new ones while it ends the old.
    const POOL: usize = 4;
    const CLIENTS: usize = 200;
    let stage = stage(POOL);
    let mut watcher = stage.client();
    watcher.query("CREATE TABLE t (a int)");
    stage.pooler.assert_all_places(POOL);
    let before = pids(&stage);
    let cases = cases();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= CLIENTS {
                        return;
                    }
                    let (_, bytes, heard) = &cases[number % cases.len()];
                    let mut client = log_in(&stage.pooler);
                    client.send(bytes);
                    if !heard.is_empty() && !number.is_multiple_of(3) {
                        // Some are served already, some may still wait.
                        client.read();
                    }
                    depart(client, [Departure::Close, Departure::Reset][number % 2]);
                }
            });
        }
    });
    assert_eq!(watcher.value("SELECT count(*) FROM t"), "0");
    stage.pooler.assert_all_places(POOL);
    assert_eq!(pids(&stage), before, "the same servers as before");
    assert!(connects(&stage.pooler) <= POOL as f64);
}

fn pids(stage: &Stage) -> HashSet<String> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE usename = 'app'";
    let pids = stage.postgres.psql(sql).unwrap();
    pids.lines().map(str::to_owned).collect()
}

#[test]
fn case_31_cancel_for_the_vanished_never_hits_the_next() {
    let stage = stage(1);
    let mut next = stage.client();
    let pid = next.value("SELECT pg_backend_pid()");
    for round in 0..30 {
        let mut client = stage.client();
        client.send(frames::query("SELECT pg_sleep(0.02)"));
        let (their_pid, secret) = client.key.as_ref().unwrap().split_first_chunk().unwrap();
        let cancel = frames::cancel(i32::from_be_bytes(*their_pid), secret);
        // Its own cancel is on the way, too, as that of a driver that gives up; it leaves at about the time when the
        // statement ends.
        let mut canceler = RawClient::connect(stage.pooler.address());
        canceler.send(cancel);
        thread::sleep(Duration::from_millis(round));
        drop(client);
        let answer = next.query("SELECT pg_sleep(0.03)");
        assert_eq!(tags(&answer), "TDCZ", "round {round}: {answer:?}");
    }
    assert_eq!(next.value("SELECT pg_backend_pid()"), pid);
    assert_eq!(connects(&stage.pooler), 1.0);
}

/// A door that is opened once.
#[derive(Default)]
struct Door(Mutex<bool>, Condvar);

impl Door {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn pass(&self) {
        let open = self.1.wait_while(self.0.lock().unwrap(), |open| !*open);
        drop(open.unwrap());
    }
}

/// A server in a transaction after `BEGIN`, whose dealing with a cancel takes until the door is opened. Notes what it
/// reads.
fn slow_to_cancel(door: Arc<Door>, said: Arc<Mutex<String>>) -> FakeServer {
    FakeServer::start(move |connection| {
        if connection.log_in().is_err() {
            said.lock().unwrap().push('!');
            door.pass();
            return Ok(());
        }
        loop {
            let message = connection.read()?;
            said.lock().unwrap().push(char::from(message.tag));
            answer(connection, message.tag, &message.body)?;
        }
    })
}

fn answer(connection: &mut FakeConnection, tag: u8, body: &[u8]) -> io::Result<()> {
    match tag {
        b'Q' if body.starts_with(b"BEGIN") => {
            connection.send([frames::command_complete("BEGIN"), frames::ready_for_query(b'T')].concat())
        }
        // Answered when it is too late to be canceled.
        b'Q' if body.starts_with(b"WORK") => {
            thread::sleep(Duration::from_millis(100));
            connection.send([frames::command_complete("WORK"), frames::ready_for_query(b'T')].concat())
        }
        b'Q' => connection.send([frames::command_complete("OK"), frames::ready_for_query(b'I')].concat()),
        b'P' => connection.send(frames::frame(b'1', [])),
        b'B' => connection.send(frames::frame(b'2', [])),
        b'E' => connection.send(frames::command_complete("ROLLBACK")),
        b'S' => connection.send(frames::ready_for_query(b'I')),
        _ => Ok(()),
    }
}

#[test]
fn case_31_nothing_is_said_to_a_server_while_a_cancel_for_it_is_under_way() {
    // Not the pooler's ROLLBACK either: a cancel that comes late would hit it, and leave the transaction to the next.
    let (door, said) = (Arc::<Door>::default(), Arc::<Mutex<String>>::default());
    let server = slow_to_cancel(door.clone(), said.clone());
    let pooler = Pooler::builder(&server.address())
        .set("pool.default_pool_size", "1")
        .start();
    let mut client = log_in(&pooler);
    client.query("BEGIN");
    client.send(frames::query("WORK"));
    eventually("the server works", || said.lock().unwrap().ends_with("QQ"));
    drop(client);
    let mut next = log_in(&pooler);
    next.send(frames::query("NEXT"));
    eventually("a cancel is under way", || said.lock().unwrap().ends_with('!'));
    // Longer than the server works.
    thread::sleep(Duration::from_millis(300));
    assert_eq!(*said.lock().unwrap(), "QQ!");
    door.open();
    assert_eq!(tags(&next.read_until_ready()), "CZ");
    assert_eq!(*said.lock().unwrap(), "QQ!PBESQ");
    drop(next);
    assert_settled(&pooler);
}

#[test]
fn case_31_server_that_does_not_roll_back_is_closed() {
    for answer in [
        [
            frames::error_response("ERROR", "XX000", "no"),
            frames::ready_for_query(b'T'),
        ]
        .concat(),
        [
            frames::command_complete("ROLLBACK"),
            frames::ready_for_query(b'T'),
        ]
        .concat(),
    ] {
        let server = FakeServer::start(move |connection| {
            connection.log_in()?;
            let mut begun = false;
            loop {
                let message = connection.read()?;
                match message.tag {
                    b'Q' if message.strings() == ["BEGIN"] => {
                        begun = true;
                        let ready = frames::ready_for_query(b'T');
                        connection.send([frames::command_complete("BEGIN"), ready].concat())?;
                    }
                    b'Q' => {
                        assert!(!begun, "the transaction is still open");
                        let ready = frames::ready_for_query(b'I');
                        connection.send([frames::command_complete("OK"), ready].concat())?;
                    }
                    b'S' if answer[0] == b'C' => {
                        connection.send([frames::frame(b'1', []), frames::frame(b'2', [])].concat())?;
                        connection.send(&answer)?;
                    }
                    b'S' => connection.send(&answer)?,
                    b'X' => return Ok(()),
                    _ => {}
                }
            }
        });
        let pooler = Pooler::builder(&server.address())
            .set("pool.default_pool_size", "1")
            .start();
        let mut client = log_in(&pooler);
        client.query("BEGIN");
        drop(client);
        assert_eq!(tags(&log_in(&pooler).query("NEXT")), "CZ");
        assert_eq!(connects(&pooler), 2.0);
    }
}

#[test]
fn case_31_vanished_client_of_a_session_pool_is_cleaned_up_after() {
    let postgres = postgres();
    let pooler = Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", "1")
        .set("pool.mode", "'session'")
        .start();
    let mut client = log_in(&pooler);
    let pid = client.value("SELECT pg_backend_pid()");
    client.query("CREATE TEMP TABLE mine (a int)");
    client.query("BEGIN; INSERT INTO mine VALUES (1)");
    drop(client);
    let mut next = log_in(&pooler);
    assert_eq!(next.value("SELECT pg_backend_pid()"), pid);
    assert_eq!(
        next.value("SELECT coalesce(to_regclass('mine')::text, 'none')"),
        "none"
    );
}
