//! Who does what, as SHOW CLIENTS, SHOW SERVERS and their like tell it.

use crate::{
    builder, client, console,
    support::{Authority, RawClient, eventually, frames, postgres, tls},
    table::{Row, number, row_where, show, value},
};

const SSL_REQUEST: i32 = 80_877_103;

#[test]
fn a_client_and_its_server_connection_name_each_other() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let mut client = RawClient::connect(pooler.address());
    client.authenticate(
        &[
            ("user", "app"),
            ("database", "app"),
            ("application_name", "worker"),
        ],
        "secret",
    );
    let mut console = console(&pooler);
    let clients = show(&mut console, "CLIENTS");
    let idle = row_where(&clients, "application_name", "worker");
    assert_eq!(value(&idle, "state"), "idle");
    assert_eq!((value(&idle, "link"), number(&idle, "wait")), ("", 0));

    client.query("BEGIN");
    let backend = client.value("SELECT pg_backend_pid()");
    // A client has its answer a moment before that is noted.
    let mut active = Row::new();
    eventually("the server waits for the client", || {
        active = row_where(&show(&mut console, "CLIENTS"), "application_name", "worker");
        value(&active, "activity") == "idle in transaction"
    });
    assert_eq!(value(&active, "state"), "active");
    assert_eq!(value(&active, "addr"), "127.0.0.1");
    assert_eq!(number(&active, "local_port"), i64::from(pooler.port()));
    let servers = show(&mut console, "SERVERS");
    let server = row_where(&servers, "remote_pid", &backend);
    assert_eq!(value(&server, "state"), "active");
    assert_eq!(value(&server, "link"), value(&active, "ptr"));
    assert_eq!(value(&active, "link"), value(&server, "ptr"));
    assert_eq!(value(&server, "application_name"), "worker");
    let (_, port) = postgres
        .address()
        .rsplit_once(':')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    assert_eq!(value(&server, "port"), port);
    assert!(value(&server, "connect_time").ends_with(" UTC"));

    client.query("COMMIT");
    eventually("the server connection is given back", || {
        let server = row_where(&show(&mut console, "SERVERS"), "remote_pid", &backend);
        (value(&server, "state"), value(&server, "link")) == ("idle", "")
    });
    let own = show(&mut console, "CLIENTS");
    let own = row_where(&own, "database", "pgbouncer");
    assert_eq!(value(&own, "state"), "active");
    let pools = show(&mut console, "POOLS");
    let pool = row_where(&pools, "database", "app");
    assert_eq!((number(&pool, "cl_active"), number(&pool, "sv_idle")), (1, 1));
    assert_eq!(
        number(&row_where(&pools, "database", "pgbouncer"), "cl_active"),
        1
    );

    drop(client);
    eventually("the client is gone", || {
        show(&mut console, "CLIENTS").len() == 1 && number(&show(&mut console, "POOLS")[0], "cl_active") == 0
    });
}

/// Frameworks connect first and name themselves later, with SET. The console, and whoever waited for such a client, saw what
/// the driver had said, or nothing.
#[test]
fn a_client_is_shown_as_it_calls_itself_now() {
    let postgres = postgres();
    let pooler = builder(&postgres).set("pool.default_pool_size", "1").start();
    let mut named = RawClient::connect(pooler.address());
    named.authenticate(
        &[
            ("user", "app"),
            ("database", "app"),
            ("application_name", "driver"),
        ],
        "secret",
    );
    let mut unnamed = client(&pooler);
    let mut console = console(&pooler);
    let mut names = || {
        let clients = show(&mut console, "CLIENTS").into_iter();
        let mut names: Vec<_> = clients
            .filter(|row| value(row, "database") == "app")
            .map(|row| value(&row, "application_name").to_owned())
            .collect();
        names.sort_unstable();
        names
    };
    named.query("SET application_name = 'nightly report'");
    assert_eq!(names(), ["", "nightly report"]);
    unnamed.query("SET application_name = 'import'");
    assert_eq!(names(), ["import", "nightly report"], "each has its own");
    // Neither a name that ends with its transaction nor one that is taken back stays.
    named.query("BEGIN; SET LOCAL application_name = 'step 1'");
    assert_eq!(names(), ["import", "step 1"]);
    named.query("ROLLBACK");
    assert_eq!(names(), ["import", "nightly report"]);
    for (client, left) in [(&mut named, ["driver", "import"]), (&mut unnamed, ["", "driver"])] {
        client.query("RESET application_name");
        eventually("it is known what that means", || names() == left);
    }
}

#[test]
fn who_waits_is_shown_with_what_for_and_the_longest_first() {
    let postgres = postgres();
    let pooler = builder(&postgres).set("pool.default_pool_size", "1").start();
    let mut holder = client(&pooler);
    holder.query("BEGIN");
    let mut waiters = [client(&pooler), client(&pooler)];
    let mut console = console(&pooler);
    for (count, waiter) in (1..).zip(&mut waiters) {
        waiter.send(frames::query("SELECT 1"));
        eventually("it waits", || show(&mut console, "WAITERS").len() == count);
    }
    eventually("time passes", || {
        let waiting = show(&mut console, "WAITERS");
        number(&waiting[1], "wait_us") > 0
    });
    let waiting = show(&mut console, "WAITERS");
    assert!(number(&waiting[0], "wait_us") >= number(&waiting[1], "wait_us"));
    assert!(
        value(&waiting[0], "reason").contains("1 of 1 server connections in use"),
        "{waiting:?}"
    );
    let pool = row_where(&show(&mut console, "POOLS"), "database", "app");
    assert_eq!((number(&pool, "cl_waiting"), number(&pool, "sv_active")), (2, 1));
    assert!(number(&pool, "maxwait") * 1_000_000 + number(&pool, "maxwait_us") > 0);
    let clients = show(&mut console, "CLIENTS");
    let states: Vec<_> = clients.iter().map(|row| value(row, "state")).collect();
    assert_eq!(states.iter().filter(|state| **state == "waiting").count(), 2);
    let transactions = show(&mut console, "TRANSACTIONS");
    assert_eq!(transactions.len(), 1);

    holder.query("COMMIT");
    for waiter in &mut waiters {
        waiter.read_until_ready();
    }
    eventually("nobody waits", || {
        show(&mut console, "WAITERS").is_empty() && show(&mut console, "TRANSACTIONS").is_empty()
    });
}

#[test]
fn what_keeps_a_connection_is_shown() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let (mut client, mut console) = (client(&pooler), console(&pooler));
    client.query("LISTEN a");
    eventually("it is pinned", || !show(&mut console, "PINS").is_empty());
    let pins = show(&mut console, "PINS");
    assert_eq!(value(&pins[0], "pinned"), "listen");
    assert_eq!(
        value(&pins[0], "server_pid"),
        client.value("SELECT pg_backend_pid()")
    );
}

#[test]
fn tls_is_shown_and_certificates() {
    let authority = Authority::new("the console's").unwrap();
    let certificate = authority.server(&["localhost"]).unwrap();
    let postgres = postgres();
    let pooler = builder(&postgres).client_tls("require", &certificate).start();
    let mut plain = RawClient::connect(pooler.address());
    plain.send(frames::request(SSL_REQUEST));
    assert_eq!(plain.read_byte(), b'S');
    let mut console = RawClient::over(tls(plain.into_stream(), &authority, &[]));
    console.authenticate(&[("user", "app"), ("database", "pgbouncer")], "secret");
    let clients = show(&mut console, "CLIENTS");
    assert!(
        value(&clients[0], "tls").starts_with("TLSv1.3/TLS_"),
        "{clients:?}"
    );
    let certificates = show(&mut console, "CERTIFICATES");
    let own = row_where(&certificates, "setting", "listen.tls.cert_file");
    assert!(number(&own, "seconds_left") > 0, "{own:?}");
}

#[test]
fn replication_and_databases_and_users_are_shown() {
    let postgres = postgres();
    let pooler = builder(&postgres)
        .set("databases.named.hosts", format!("['{}']", postgres.address()))
        .set("databases.named.pool_size", "7")
        .set("databases.named.dbname", "'app'")
        .set("users.eve.pool_size", "3")
        .start();
    let mut console = console(&pooler);
    let databases = show(&mut console, "DATABASES");
    let named = row_where(&databases, "name", "named");
    assert_eq!(
        (value(&named, "host"), value(&named, "database")),
        ("127.0.0.1", "app")
    );
    assert_eq!((number(&named, "pool_size"), number(&named, "paused")), (7, 0));
    assert!(named["force_user"].is_none() && named["pool_mode"].is_none());
    let _client = client(&pooler);
    let databases = show(&mut console, "DATABASES");
    let wild = row_where(&databases, "name", "app");
    assert_eq!(number(&wild, "current_client_connections"), 1);
    let users = show(&mut console, "USERS");
    assert_eq!(value(&row_where(&users, "name", "eve"), "pool_size"), "3");
    let app = row_where(&users, "name", "app");
    assert_eq!(
        (
            value(&app, "pool_size"),
            number(&app, "current_client_connections")
        ),
        ("", 2)
    );
    let lists = show(&mut console, "LISTS");
    assert_eq!(number(&row_where(&lists, "list", "used_clients"), "items"), 2);
}
