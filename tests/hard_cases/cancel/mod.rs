//! Cancel requests: they hit what they are meant for, once, and nothing else.

mod keys;
mod race;
mod replicas;

use std::{
    io::{self, ErrorKind, Read},
    net::TcpStream,
    process::Stdio,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use nix::sys::signal::Signal;
use pgweir::cli::demo::child::OwnedChild;
use tokio_postgres::{NoTls, error::SqlState};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::{
    checks::{assert_error, assert_settled, log_in, only_error, refused_log_in},
    support::{
        Authority, FakeConnection, FakeServer, Frame, LIMIT, Link, Pooler, Postgres, RawClient, eventually,
        frames, postgres, postgres_with, tags,
    },
};

const SLEEP: &str = "SELECT pg_sleep(100)";

/// The CancelRequest of a client.
fn request_of<S>(client: &RawClient<S>) -> Vec<u8> {
    let (pid, secret) = client.key.as_ref().unwrap().split_first_chunk().unwrap();
    frames::cancel(i32::from_be_bytes(*pid), secret)
}

/// Sends a CancelRequest; the connection, on which nothing is ever said.
fn send(pooler: &Pooler, request: &[u8]) -> RawClient {
    let mut connection = RawClient::connect(pooler.address());
    connection.send(request);
    connection
}

/// Sends a CancelRequest and waits until it has been dealt with.
#[track_caller]
fn cancel(pooler: &Pooler, request: &[u8]) {
    assert!(send(pooler, request).read_to_end().is_empty());
}

#[track_caller]
fn assert_canceled(messages: &[Frame]) {
    assert_error(only_error(messages), "ERROR", "57014");
}

/// Waits until so many server connections run exactly this.
#[track_caller]
fn wait_until_running(postgres: &Postgres, sql: &str, count: usize) {
    let question =
        format!("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '{sql}'");
    eventually(&format!("{sql} runs {count} times"), || {
        postgres.psql(&question).unwrap() == count.to_string()
    });
}

fn wait_for_waiting(pooler: &Pooler, count: f64) {
    eventually(&format!("{count} clients wait"), || {
        (pooler.metric("pgweir_waiting_clients") - count).abs() < f64::EPSILON
    });
}

#[test]
fn case_35_running_query_is_canceled_and_no_other() {
    // Two run the same; one is cancelled.
    let postgres = postgres();
    let pooler = Pooler::builder(&postgres.address()).start();
    let (mut first, mut second) = (log_in(&pooler), log_in(&pooler));
    first.send(frames::query(SLEEP));
    second.send(frames::query(SLEEP));
    wait_until_running(&postgres, SLEEP, 2);
    cancel(&pooler, &request_of(&first));
    assert_canceled(&first.read_until_ready());
    wait_until_running(&postgres, SLEEP, 1);
    assert_eq!(first.value("SELECT 1"), "1", "the session goes on");
    cancel(&pooler, &request_of(&second));
    assert_canceled(&second.read_until_ready());
}

#[test]
fn case_35_canceled_transaction_is_rolled_back_on_the_same_connection() {
    // PgDoorman pays one server connection for each cancel.
    let postgres = postgres();
    let pooler = Pooler::builder(&postgres.address()).start();
    let mut client = log_in(&pooler);
    client.query("BEGIN");
    client.send(frames::extended(SLEEP, &[]));
    wait_until_running(&postgres, SLEEP, 1);
    cancel(&pooler, &request_of(&client));
    let messages = client.read_until_ready();
    assert_canceled(&messages);
    assert_eq!(messages.last().unwrap().body, b"E", "in a failed block");
    assert_eq!(client.query("ROLLBACK").last().unwrap().body, b"I");
    assert!((pooler.metric("pgweir_server_connects_total") - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn case_35_drivers_cancel_works() {
    // What a driver does when a timeout passes.
    let postgres = Arc::new(postgres());
    let pooler = Pooler::builder(&postgres.address()).start();
    let url = format!("postgresql://app:secret@{}/app", pooler.address());
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    let token = client.cancel_token();
    let exchange = async {
        let watched = postgres.clone();
        let running =
            tokio::task::spawn_blocking(move || wait_until_running(&watched, "SELECT pg_sleep($1)", 1));
        let canceling = async {
            running.await.unwrap();
            token.cancel_query(NoTls).await.unwrap();
        };
        let (slept, ()) = tokio::join!(client.query("SELECT pg_sleep($1)", &[&100.0]), canceling);
        assert_eq!(slept.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
        let row = client.query_one("SELECT 1 + 1", &[]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 2);
    };
    tokio::select! {
        () = exchange => {}
        ended = connection => panic!("{ended:?}"),
    }
}

#[test]
fn case_35_ctrl_c_in_psql_cancels() {
    // What a person does; psql before version 17 sends cancels without TLS to a pooler that requires it.
    let postgres = postgres();
    let authority = Authority::new("CA").unwrap();
    let pooler = Pooler::builder(&postgres.address())
        .client_tls("require", &authority.server(&["localhost"]).unwrap())
        .file("ca.crt", authority.certificate_pem())
        .start();
    let mut command = postgres.programs().command("psql");
    let target = format!(
        "host=localhost hostaddr=127.0.0.1 port={} dbname=app user=app sslmode=verify-full sslrootcert={}",
        pooler.port(),
        pooler.file("ca.crt").display()
    );
    command.args(["-XAt", "-c", SLEEP, "-c", "SELECT 'goes on'", &target]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut psql = OwnedChild::spawn(command).unwrap();
    wait_until_running(&postgres, SLEEP, 1);
    psql.signal(Signal::SIGINT).unwrap();
    psql.wait(LIMIT).unwrap();
    let mut said = [String::new(), String::new()];
    psql.pipes()
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said[0])
        .unwrap();
    psql.pipes()
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said[1])
        .unwrap();
    assert!(
        said[1].contains("canceling statement due to user request"),
        "{said:?}"
    );
    wait_until_running(&postgres, SLEEP, 0);
}

/// A TLS session with the pooler on top of a connection that has asked for it.
fn tls(pooler: &Pooler, authority: &Authority) -> RawClient<StreamOwned<ClientConnection, TcpStream>> {
    let mut plain = RawClient::connect(pooler.address());
    plain.send(frames::request(frames::SSL_REQUEST));
    assert_eq!(plain.read_byte(), b'S');
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    RawClient::over(StreamOwned::new(session, plain.into_stream()))
}

#[test]
fn case_36_tls_on_both_sides_carries_cancels_too() {
    // A cancel that does not use TLS as queries do is refused by the server, or its key is read by others.
    let authority = Authority::new("CA").unwrap();
    let certificate = authority.server(&["localhost"]).unwrap();
    // The server takes nothing without TLS from anyone.
    let postgres = postgres_with(|builder| {
        builder
            .tls(&certificate)
            .hba(&["hostssl all all all scram-sha-256"])
    });
    let pooler = Pooler::builder(&postgres.address())
        .client_tls("require", &certificate)
        .set("server_tls.mode", "'verify-full'")
        .set("server_tls.server_name", "'localhost'")
        .set("server_tls.ca_file", "'ca.crt'")
        .file("ca.crt", authority.certificate_pem())
        .start();
    let mut client = tls(&pooler, &authority);
    client.authenticate(&[("user", "app"), ("database", "app")], "secret");
    client.send(frames::query(SLEEP));
    wait_until_running(&postgres, SLEEP, 1);
    let mut canceling = tls(&pooler, &authority);
    canceling.send(request_of(&client));
    assert!(canceling.read_to_end().is_empty());
    assert_canceled(&client.read_until_ready());
}

#[test]
fn case_36_wrong_secret_does_nothing() {
    // Keys that can be guessed, or the server's own (pgagroal), let anyone cancel.
    let postgres = postgres();
    let pooler = Pooler::builder(&postgres.address()).start();
    let mut client = log_in(&pooler);
    client.query("BEGIN");
    let server_pid: i32 = client.value("SELECT pg_backend_pid()").parse().unwrap();
    client.send(frames::query("SELECT pg_sleep(0.5)"));
    wait_until_running(&postgres, "SELECT pg_sleep(0.5)", 1);
    let (pid, secret) = client.key.as_ref().unwrap().split_first_chunk().unwrap();
    let pid = i32::from_be_bytes(*pid);
    let wrong = secret.iter().map(|byte| !byte).collect::<Vec<_>>();
    for request in [
        frames::cancel(pid, &wrong),
        frames::cancel(pid, &[secret, &[0]].concat()),
        frames::cancel(pid.wrapping_add(1), secret),
        frames::cancel(server_pid, secret),
        frames::cancel(0, secret),
    ] {
        cancel(&pooler, &request);
    }
    for too_short in [&secret[..3], &[]] {
        send(&pooler, &frames::cancel(pid, too_short)).read_to_end();
    }
    assert_eq!(tags(&client.read_until_ready()), "TDCZ");
    assert_eq!(tags(&client.query("COMMIT")), "CZ");
}

#[test]
fn case_36_client_in_the_queue_is_answered_by_the_pooler_and_leaves_it() {
    // There is no server to send the cancel to, and the client waits all the same.
    let postgres = postgres();
    let pooler = Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", "1")
        .start();
    let (mut holder, mut simple, mut extended) = (log_in(&pooler), log_in(&pooler), log_in(&pooler));
    holder.query("BEGIN");
    simple.send(frames::query("SELECT 'a'"));
    wait_for_waiting(&pooler, 1.0);
    let batch = frames::extended("SELECT 'b'", &[]);
    let (before_sync, sync) = batch.split_at(batch.len() - frames::sync().len());
    extended.send(before_sync);
    wait_for_waiting(&pooler, 2.0);
    cancel(&pooler, &request_of(&simple));
    let messages = simple.read_until_ready();
    assert_canceled(&messages);
    assert_eq!(tags(&messages), "EZ");
    wait_for_waiting(&pooler, 1.0);
    // In a batch ReadyForQuery answers the Sync, and nothing before it.
    cancel(&pooler, &request_of(&extended));
    assert_canceled(&[extended.read()]);
    wait_for_waiting(&pooler, 0.0);
    extended.send(sync);
    assert_eq!(extended.read().tag, b'Z');
    // The next requests find their turn.
    simple.send(frames::query("SELECT 'c'"));
    wait_for_waiting(&pooler, 1.0);
    holder.query("COMMIT");
    assert_eq!(simple.read_until_ready()[1].columns(), [Some("c".to_owned())]);
    assert_eq!(extended.value("SELECT 'd'"), "d");
}

#[test]
fn case_35_cancel_of_an_idle_client_does_nothing() {
    // The server that it used last works for somebody else by now.
    let postgres = postgres();
    let pooler = Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", "1")
        .start();
    let (mut idle, mut other) = (log_in(&pooler), log_in(&pooler));
    assert_eq!(idle.value("SELECT 1"), "1");
    // The server connection that the idle one has used works for another now.
    other.send(frames::query("SELECT pg_sleep(0.5)"));
    wait_until_running(&postgres, "SELECT pg_sleep(0.5)", 1);
    cancel(&pooler, &request_of(&idle));
    assert_eq!(tags(&other.read_until_ready()), "TDCZ");
    assert_eq!(idle.value("SELECT 2"), "2");
    // The same between two statements of a transaction: PostgreSQL ignores a cancel then.
    idle.query("BEGIN");
    cancel(&pooler, &request_of(&idle));
    assert_eq!(idle.value("SELECT 3"), "3");
}

#[test]
fn case_35_client_that_has_left_cannot_be_canceled() {
    // Its process id may be another's one day; its secret is not.
    let postgres = postgres();
    let pooler = Pooler::builder(&postgres.address()).start();
    let mut client = log_in(&pooler);
    let request = request_of(&client);
    client.send(frames::terminate());
    client.read_to_end();
    cancel(&pooler, &request);
}

#[test]
fn case_35_cancel_connection_is_closed_when_the_server_has_dealt_with_it() {
    // Drivers send the next query as soon as the cancel connection is closed: libpq's PQcancel waits for it.
    let postgres = postgres();
    let link = Link::to(postgres.address());
    let pooler = Pooler::builder(&link.address()).start();
    let mut client = log_in(&pooler);
    client.send(frames::query(SLEEP));
    wait_until_running(&postgres, SLEEP, 1);
    link.freeze();
    let connection = send(&pooler, &request_of(&client));
    eventually("the cancel is on its way", || link.accepted() == 2);
    let mut stream = connection.into_stream();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let early = stream.read(&mut [0]).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::WouldBlock, "it is still open");
    link.thaw();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    assert_canceled(&client.read_until_ready());
}

/// What a fake server's cancel connections wait for.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let open = self.open.lock().unwrap();
        drop(self.changed.wait_while(open, |open| !*open).unwrap());
    }
}

/// A server that answers each query on the word of the test, and keeps cancel connections open as long.
struct SlowToCancel {
    server: FakeServer,
    /// Lets `SELECT 'slow'` be answered.
    answer: Arc<Gate>,
    /// Lets cancel connections be closed.
    dealt_with: Arc<Gate>,
    cancels: Arc<AtomicUsize>,
}

impl SlowToCancel {
    fn start() -> Self {
        let (answer, dealt_with) = (Arc::<Gate>::default(), Arc::<Gate>::default());
        let cancels = Arc::<AtomicUsize>::default();
        let gates = (answer.clone(), dealt_with.clone(), cancels.clone());
        let server = FakeServer::start(move |connection| {
            let (answer, dealt_with, cancels) = &gates;
            match connection.log_in() {
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    cancels.fetch_add(1, Ordering::SeqCst);
                    dealt_with.pass();
                    Ok(())
                }
                Err(error) => Err(error),
                Ok(_) => Self::serve(connection, answer),
            }
        });
        Self {
            server,
            answer,
            dealt_with,
            cancels,
        }
    }

    fn serve(connection: &mut FakeConnection, answer: &Gate) -> io::Result<()> {
        loop {
            let message = connection.read()?;
            match message.tag {
                b'Q' if message.strings()[0] == "SELECT 'slow'" => answer.pass(),
                b'Q' => {}
                _ => return Ok(()),
            }
            let row = [frames::data_row(&["done"]), frames::command_complete("SELECT 1")];
            connection.send([row.concat(), frames::ready_for_query(b'I')].concat())?;
        }
    }
}

impl Drop for SlowToCancel {
    fn drop(&mut self) {
        // The scripts must end before the server does.
        self.answer.open();
        self.dealt_with.open();
    }
}

/// A client whose query has ended while a cancel for it is under way, and one that asks next.
fn race(fake: &SlowToCancel, pooler: &Pooler) -> (RawClient, RawClient, RawClient) {
    let (mut first, mut second) = (log_in(pooler), log_in(pooler));
    first.send(frames::query("SELECT 'slow'"));
    eventually("it has a server", || {
        (pooler.metric("pgweir_servers{state=\"active\"}") - 1.0).abs() < f64::EPSILON
    });
    let canceling = send(pooler, &request_of(&first));
    eventually("the server has the cancel", || {
        fake.cancels.load(Ordering::SeqCst) == 1
    });
    second.send(frames::query("SELECT 'next'"));
    wait_for_waiting(pooler, 1.0);
    fake.answer.open();
    assert_eq!(tags(&first.read_until_ready()), "DCZ");
    (first, second, canceling)
}

/// What the console shows of the pool: clients that wait, then what cancels there are.
fn shown(pooler: &Pooler) -> [String; 5] {
    let mut console = RawClient::log_in(pooler.address(), "app", "secret", "pgbouncer");
    let answer = console.query("SHOW POOLS");
    let pool = answer[1].columns();
    assert_eq!(pool[0].as_deref(), Some("app"));
    // cl_waiting, cl_active_cancel_req, cl_waiting_cancel_req, sv_active_cancel, sv_being_canceled
    [3, 4, 5, 7, 8].map(|column| pool[column].clone().unwrap())
}

#[test]
fn case_35_nobody_gets_a_server_connection_while_a_cancel_for_it_is_under_way() {
    // The query ends by itself, the cancel arrives late and hits the next client (pgbouncer #717, pgdog #1505).
    let fake = SlowToCancel::start();
    let pooler = Pooler::builder(&fake.server.address())
        .set("pool.default_pool_size", "1")
        .set("auth.stats_users", "'app'")
        .start();
    let (mut first, second, mut canceling) = race(&fake, &pooler);
    eventually("it is shown", || shown(&pooler) == ["1", "1", "0", "1", "1"]);
    let mut stream = second.into_stream();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert_eq!(
        stream.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::WouldBlock,
        "it waits"
    );
    fake.dealt_with.open();
    assert!(canceling.read_to_end().is_empty());
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(tags(&RawClient::over(stream).read_until_ready()), "DCZ");
    assert_eq!(tags(&first.query("SELECT 'again'")), "DCZ");
    assert_eq!(
        fake.server.accepted(),
        2,
        "one connection for queries, one for the cancel"
    );
    eventually("it is over", || shown(&pooler) == ["0", "0", "0", "0", "0"]);
}

#[test]
fn case_35_server_connection_is_closed_when_nobody_knows_what_became_of_a_cancel() {
    // The cancel may still be on its way somewhere.
    let fake = SlowToCancel::start();
    let pooler = Pooler::builder(&fake.server.address())
        .set("pool.default_pool_size", "1")
        .start();
    // The server never closes the cancel connection.
    let (_first, mut second, mut canceling) = race(&fake, &pooler);
    assert_eq!(tags(&second.read_until_ready()), "DCZ");
    assert!(canceling.read_to_end().is_empty());
    assert_eq!(fake.server.accepted(), 3, "a new connection for the next query");
}

#[test]
fn case_35_cancel_works_when_everything_is_full() {
    // The cancel that would end the overload needs no place among the clients and none in the pool (pgdog #1362).
    let postgres = postgres();
    let pooler = Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", "1")
        .set("listen.max_client_conn", "2")
        .start();
    let (mut busy, mut waiting) = (log_in(&pooler), log_in(&pooler));
    busy.send(frames::query(SLEEP));
    wait_until_running(&postgres, SLEEP, 1);
    waiting.send(frames::query("SELECT 'at last'"));
    wait_for_waiting(&pooler, 1.0);
    assert_error(&refused_log_in(&pooler, &[]), "FATAL", "53300");
    cancel(&pooler, &request_of(&busy));
    assert_canceled(&busy.read_until_ready());
    assert_eq!(tags(&waiting.read_until_ready()), "TDCZ");
    drop((busy, waiting));
    // The pool may be quiet before the last client's place is free.
    assert_settled(&pooler);
    pooler.assert_all_places(1);
}
