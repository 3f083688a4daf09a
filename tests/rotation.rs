//! Files that are replaced while the pooler runs: they are used without a signal, and what cannot be used changes
//! nothing.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use support::{
    Authority, Certificate, FakeServer, Pooler, PoolerBuilder, Postgres, RawClient, TlsStream, eventually,
    frames, postgres, postgres_with, tls_trusting,
};
use tempfile::TempDir;

/// A directory that changes as the kubelet changes a mounted secret: its files are symbolic links through `..data`,
/// which is pointed elsewhere in one step.
struct Volume {
    directory: TempDir,
    version: usize,
}

impl Volume {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut volume = Self {
            directory,
            version: 0,
        };
        volume.swap(files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), volume.file(name)).unwrap();
        }
        volume
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn quoted(&self, name: &str) -> String {
        format!("'{}'", self.file(name).display())
    }

    fn swap(&mut self, files: &[(&str, &str)]) {
        let old = self.file(&format!("..{}", self.version));
        self.version += 1;
        let version = format!("..{}", self.version);
        fs::create_dir(self.file(&version)).unwrap();
        for (name, contents) in files {
            fs::write(self.file(&version).join(name), contents).unwrap();
        }
        symlink(&version, self.file("..data_tmp")).unwrap();
        fs::rename(self.file("..data_tmp"), self.file("..data")).unwrap();
        if old.exists() {
            fs::remove_dir_all(old).unwrap();
        }
    }
}

fn server() -> FakeServer {
    FakeServer::answering(|_| {
        [
            frames::command_complete("SELECT 0"),
            frames::ready_for_query(b'I'),
        ]
        .concat()
    })
}

fn looking_often(builder: PoolerBuilder) -> PoolerBuilder {
    builder.set("process.file_check_interval", "'50ms'")
}

fn failed(pooler: &Pooler, part: &str) -> f64 {
    pooler.metric(&format!("pgweir_file_reload_failed{{part=\"{part}\"}}"))
}

fn reloads(pooler: &Pooler, part: &str, result: &str) -> f64 {
    pooler.metric(&format!(
        "pgweir_file_reloads_total{{part=\"{part}\",result=\"{result}\"}}"
    ))
}

/// A client inside TLS, if the pooler's certificate is from one of these.
fn connect(pooler: &Pooler, authorities: &[&Authority]) -> Option<RawClient<TlsStream>> {
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::request(frames::SSL_REQUEST));
    assert_eq!(client.read_byte(), b'S');
    let mut client = RawClient::over(tls_trusting(client.into_stream(), authorities, &[]));
    let startup = [("user", "app"), ("database", "app")];
    client
        .try_send(frames::startup(frames::PROTOCOL_3_0, &startup))
        .ok()?;
    client.read_until_ready();
    Some(client)
}

fn shows_certificate_of(pooler: &Pooler, authority: &Authority) -> bool {
    connect(pooler, &[authority]).is_some()
}

fn pair(certificate: &Certificate) -> [(&str, &str); 2] {
    [
        ("tls.crt", &certificate.certificate_pem),
        ("tls.key", &certificate.key_pem),
    ]
}

fn with_client_tls(builder: PoolerBuilder, volume: &Volume) -> PoolerBuilder {
    builder
        .set("listen.tls.cert_file", volume.quoted("tls.crt"))
        .set("listen.tls.key_file", volume.quoted("tls.key"))
}

#[test]
fn a_mounted_certificate_is_swapped_and_a_bad_or_missing_one_changes_nothing() {
    let server = server();
    let [first, second, third] = [1, 2, 3].map(|_| Authority::new("CA").unwrap());
    let [one, two, three] = [&first, &second, &third].map(|ca| ca.server(&["localhost"]).unwrap());
    let mut volume = Volume::new(&pair(&one));
    let builder = with_client_tls(Pooler::builder(&server.address()), &volume);
    let pooler = looking_often(builder).start();
    let mut stays = connect(&pooler, &[&first]).unwrap();
    let is_failed = |state: f64| eventually("the metric", || failed(&pooler, "listen.tls") == state);
    is_failed(0.0);

    volume.swap(&pair(&two));
    eventually("the new certificate is shown", || {
        shows_certificate_of(&pooler, &second)
    });
    assert!(!shows_certificate_of(&pooler, &first));
    assert_eq!(reloads(&pooler, "listen.tls", "ok"), 1.0);
    let since = pooler.metric("pgweir_file_reload_success_timestamp_seconds{part=\"listen.tls\"}");
    let start = pooler.metric("pgweir_file_reload_success_timestamp_seconds{part=\"server_tls\"}");
    assert!(since > start && start > 1e9);

    // A key that does not belong to the certificate yet.
    let position = pooler.log_position();
    volume.swap(&[pair(&three)[0], pair(&two)[1]]);
    is_failed(1.0);
    assert!(shows_certificate_of(&pooler, &second));
    let line = pooler.wait_for_log(position, "listen.tls not reloaded");
    assert!(
        line.contains("tls.key") && line.contains("does not belong to the certificate"),
        "{line}"
    );
    volume.swap(&pair(&three));
    is_failed(0.0);
    assert!(shows_certificate_of(&pooler, &third));

    let position = pooler.log_position();
    volume.swap(&[("tls.crt", "no certificate"), ("tls.key", "no key")]);
    is_failed(1.0);
    assert!(shows_certificate_of(&pooler, &third));
    // The secret is deleted, which is another mistake, and comes back as it was.
    volume.swap(&[]);
    pooler.wait_for_log(position, "cannot read");
    assert!(shows_certificate_of(&pooler, &third));
    volume.swap(&pair(&three));
    is_failed(0.0);
    pooler.wait_for_log(position, "the files are again what is in force");
    let lines = pooler
        .logs()
        .lines()
        .skip(position)
        .filter(|line| line.contains("not reloaded"))
        .count();
    assert_eq!(lines, 2, "once for each change");
    assert_eq!(reloads(&pooler, "listen.tls", "ok"), 2.0);
    stays.query("SELECT 1");
}

/// Whoever watches for expiry is told of the certificate that is shown to clients, also after a bad pair was written
/// and something else was reloaded, or the files are gone.
#[test]
fn the_metrics_of_certificates_are_those_of_the_ones_in_force() {
    let server = server();
    let [first, second] = [1, 2].map(|_| Authority::new("CA").unwrap());
    let [one, two] = [&first, &second].map(|ca| ca.server(&["localhost"]).unwrap());
    let mut volume = Volume::new(&pair(&one));
    let builder = with_client_tls(Pooler::builder(&server.address()), &volume);
    let mut pooler = looking_often(builder).start();
    let shown = |pooler: &Pooler| {
        let is_ours = |line: &&str| line.starts_with("pgweir_tls_certificate_not_after_seconds{");
        let metrics = pooler.metrics();
        metrics
            .lines()
            .filter(is_ours)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let before = shown(&pooler);
    assert_eq!(before.len(), 1, "{before:?}");
    for files in [vec![], vec![pair(&two)[0], ("tls.key", "no key")]] {
        let position = pooler.log_position();
        volume.swap(&files);
        pooler.wait_for_log(position, "listen.tls not reloaded");
        assert_eq!(shown(&pooler), before);
        // Something else is read again.
        let done = reloads(&pooler, "auth.users_file", "ok");
        pooler.reconfigure(|builder| builder.user("app", &format!("secret {done}")));
        eventually("the users file is read", || {
            reloads(&pooler, "auth.users_file", "ok") == done + 1.0
        });
        assert_eq!(shown(&pooler), before);
    }
    assert!(shows_certificate_of(&pooler, &first));
}

/// A reload that was asked for meets a bad users file. The configuration has not changed and is no better for it: it is
/// tried until the file is good.
#[test]
fn a_reload_that_fails_at_another_file_is_not_said_to_be_over() {
    let server = server();
    let mut pooler = looking_often(Pooler::builder(&server.address()))
        .set("process.file_check_interval", "'200ms'")
        .start();
    let good = fs::read_to_string(pooler.file("users.txt")).unwrap();
    fs::write(pooler.file("users.txt"), "nonsense\n").unwrap();
    let position = pooler.log_position();
    pooler.reload();
    pooler.wait_for_log(position, "configuration not reloaded");
    // It is looked at several times.
    pooler.wait_for_log(position, "auth.users_file not reloaded");
    assert_eq!(failed(&pooler, "configuration"), 1.0);
    fs::write(pooler.file("users.txt"), good).unwrap();
    eventually("all is well", || {
        failed(&pooler, "configuration") + failed(&pooler, "auth.users_file") == 0.0
    });
    let logs = pooler.logs();
    let since: Vec<_> = logs.lines().skip(position).collect();
    let count = |text: &str| since.iter().filter(|line| line.contains(text)).count();
    assert_eq!(count("configuration not reloaded"), 1, "said once");
    assert_eq!(count("configuration reloaded"), 1, "as it was asked for");
}

#[test]
fn a_change_of_the_users_file_is_for_clients_and_for_new_server_connections() {
    let pg = postgres();
    let mut pooler = looking_often(Pooler::builder(&pg.address()))
        .set("auth.auth_type", "'password'")
        .set("auth.allow_plaintext_password", "true")
        .start();
    let mut stays = RawClient::log_in(pooler.address(), "app", "secret", "app");
    let pid = stays.value("SELECT pg_backend_pid()");
    pg.psql("ALTER ROLE app PASSWORD 'changed'").unwrap();
    pooler.reconfigure(|builder| builder.user("app", "changed"));
    eventually("the new file is in force", || {
        reloads(&pooler, "auth.users_file", "ok") == 1.0
    });
    assert_eq!(stays.value("SELECT pg_backend_pid()"), pid, "nobody is disturbed");
    pg.psql(&format!("SELECT pg_terminate_backend({pid})")).unwrap();
    eventually("the pooler knows", || pooler.metric("pgweir_servers") == 0.0);
    let mut new = RawClient::log_in(pooler.address(), "app", "changed", "app");
    assert_ne!(new.value("SELECT pg_backend_pid()"), pid);
    // A line too many does not take away what there is.
    fs::write(pooler.file("users.txt"), "\"app\" \"changed\"\nnonsense\n").unwrap();
    let line = pooler.wait_for_log(0, "auth.users_file not reloaded");
    assert!(line.contains("line 2"), "{line}");
    assert_eq!(failed(&pooler, "auth.users_file"), 1.0);
    RawClient::log_in(pooler.address(), "app", "changed", "app");
}

#[test]
fn a_change_of_the_configuration_is_applied_like_a_reload() {
    let server = server();
    let mut pooler = looking_often(Pooler::builder(&server.address())).start();
    RawClient::log_in(pooler.address(), "app", "", "app").query("SELECT 1");
    let size = |pooler: &Pooler| pooler.metric("pgweir_pool_size{user=\"app\"}");
    assert_eq!(size(&pooler), 2.0);
    pooler.reconfigure(|builder| builder.set("pool.default_pool_size", "7"));
    eventually("the pool is larger", || size(&pooler) == 7.0);
    pooler.reconfigure(|builder| builder.set("pool.default_pool_size", "'many'"));
    eventually("it is refused", || failed(&pooler, "configuration") == 1.0);
    let line = pooler.wait_for_log(0, "configuration not reloaded");
    assert!(line.contains("default_pool_size"), "{line}");
    assert_eq!(size(&pooler), 7.0);
    pooler.reconfigure(|builder| builder.set("pool.default_pool_size", "8"));
    eventually("it is used", || size(&pooler) == 8.0);
    assert_eq!(failed(&pooler, "configuration"), 0.0);
    // And a signal does what it always did.
    pooler.reconfigure(|builder| {
        builder
            .set("pool.default_pool_size", "9")
            .set("process.file_check_interval", "'0'")
    });
    pooler.reload();
    eventually("it is used as well", || size(&pooler) == 9.0);
}

// --- under load ---

/// What the server and the pooler have on disk towards each other.
struct Secrets<'a> {
    authorities: &'a [&'a Authority],
    issuer: &'a Authority,
}

impl Secrets<'_> {
    fn bundle(&self) -> String {
        self.authorities
            .iter()
            .map(|authority| authority.certificate_pem())
            .collect()
    }

    /// Has PostgreSQL use them.
    fn give_to(&self, pg: &Postgres) {
        let write = |setting: &str, contents: &str| {
            let path = pg.psql(&format!("SHOW {setting}")).unwrap();
            fs::write(path.trim(), contents).unwrap();
        };
        let certificate = self.issuer.server(&["localhost"]).unwrap();
        write("ssl_cert_file", &certificate.certificate_pem);
        write("ssl_key_file", &certificate.key_pem);
        write("ssl_ca_file", &self.bundle());
        pg.psql("SELECT pg_reload_conf()").unwrap();
    }

    /// The pooler's volume: towards clients, and towards servers.
    fn files(&self) -> Vec<(&'static str, String)> {
        let server = self.issuer.server(&["localhost"]).unwrap();
        let client = self.issuer.client("app").unwrap();
        vec![
            ("tls.crt", server.certificate_pem),
            ("tls.key", server.key_pem),
            ("ca.crt", self.bundle()),
            ("client.crt", client.certificate_pem),
            ("client.key", client.key_pem),
        ]
    }
}

fn borrowed<'a>(files: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    files
        .iter()
        .map(|(name, contents)| (*name, contents.as_str()))
        .collect()
}

/// The processes that serve the pooler.
fn pids(pg: &Postgres) -> BTreeSet<String> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE usename = 'app'";
    pg.psql(sql).unwrap().lines().map(str::to_owned).collect()
}

/// Commits one row after the other until `stop`, on one connection or on a new one each time.
fn work(
    pooler: &Pooler,
    authorities: &[&Authority],
    reconnects: bool,
    stop: &AtomicBool,
    committed: &AtomicUsize,
) {
    let mut client = connect(pooler, authorities).unwrap();
    while !stop.load(Ordering::Relaxed) {
        if reconnects {
            client = connect(pooler, authorities).unwrap();
        }
        client.query("BEGIN");
        assert_eq!(client.value("INSERT INTO t SELECT 1 RETURNING x"), "1");
        let done = client.query("COMMIT");
        assert_eq!(support::tags(&done), "CZ", "{done:?}");
        committed.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn no_client_loses_a_transaction_when_all_certificates_are_replaced() {
    let [old, new] = ["old CA", "new CA"].map(|name| Authority::new(name).unwrap());
    let both = [&old, &new];
    let secrets = |authorities, issuer| Secrets { authorities, issuer };
    let certificate = old.server(&["localhost"]).unwrap();
    let pg = postgres_with(|builder| {
        builder
            .mutual_tls(&certificate, old.certificate_pem())
            .setting("listen_addresses", "localhost")
            .hba(&["hostssl all app all cert"])
    });
    pg.psql_in("app", "CREATE TABLE t (x int); GRANT ALL ON t TO app")
        .unwrap();
    let mut volume = Volume::new(&borrowed(&secrets(&both[..1], &old).files()));
    let builder = with_client_tls(Pooler::builder(&format!("localhost:{}", pg.port())), &volume)
        .set("pool.default_pool_size", "4")
        .set("pool.min_pool_size", "4")
        .set("server_tls.mode", "'verify-full'")
        .set("server_tls.ca_file", volume.quoted("ca.crt"))
        .set("server_tls.cert_file", volume.quoted("client.crt"))
        .set("server_tls.key_file", volume.quoted("client.key"));
    let pooler = looking_often(builder).start();
    drop(connect(&pooler, &[&old]).unwrap());
    eventually("the pool is filled", || pids(&pg).len() == 4);
    let before = pids(&pg);
    let (stop, committed) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|number| {
                scope.spawn({
                    let (pooler, both, stop, committed) = (&pooler, &both, &stop, &committed);
                    move || work(pooler, both, number % 2 == 0, stop, committed)
                })
            })
            .collect();
        // A CA is replaced in three steps: both are trusted, the new one issues, the old one is not trusted.
        for (authorities, issuer) in [(&both[..], &old), (&both[..], &new), (&both[1..], &new)] {
            let step = secrets(authorities, issuer);
            step.give_to(&pg);
            let done = reloads(&pooler, "server_tls", "ok");
            volume.swap(&borrowed(&step.files()));
            eventually("the pooler has them", || {
                reloads(&pooler, "server_tls", "ok") == done + 1.0
            });
        }
        assert!(shows_certificate_of(&pooler, &new));
        assert!(!shows_certificate_of(&pooler, &old));
        let passed = committed.load(Ordering::Relaxed);
        eventually("every server connection is another", || {
            pids(&pg).is_disjoint(&before) && made_with_old_certificates(&pg) == 0
        });
        eventually("work goes on", || {
            committed.load(Ordering::Relaxed) > passed + 100
        });
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().unwrap();
        }
    });
    let rows = pg.psql_in("app", "SELECT count(*) FROM t").unwrap();
    assert_eq!(rows.trim(), committed.into_inner().to_string());
    let logs = pooler.logs();
    assert!(!logs.contains("\"level\":\"ERROR\""), "an error is logged");
    assert!(!pg.log().contains("FATAL"), "{}", pg.log());
}

/// The role that asks about users is used all the time; after a rotation its connection is made with the new certificate.
#[test]
fn connections_that_look_users_up_are_renewed_too() {
    let authorities = ["old CA", "new CA"].map(|name| Authority::new(name).unwrap());
    let [old, new] = &authorities;
    let both = [old, new];
    let secrets = |issuer| Secrets {
        authorities: &both,
        issuer,
    };
    let bundle = secrets(old).bundle();
    let certificate = old.server(&["localhost"]).unwrap();
    let pg = postgres_with(|builder| {
        builder.mutual_tls(&certificate, &bundle).hba(&[
            "hostssl all postgres all trust clientcert=verify-ca",
            "host all all all md5",
        ])
    });
    let mut volume = Volume::new(&borrowed(&secrets(old).files()));
    let builder = Pooler::builder(&pg.address())
        .without("auth")
        .set("auth.auth_type", "'password'")
        .set("auth.allow_plaintext_password", "true")
        .set("auth.auth_user", "'postgres'")
        .set("auth.auth_query_ttl", "'0'")
        .set("server_tls.mode", "'require'")
        .set("server_tls.cert_file", volume.quoted("client.crt"))
        .set("server_tls.key_file", volume.quoted("client.key"));
    let pooler = looking_often(builder).start();
    let issuers = || {
        let sql = "SELECT DISTINCT issuer_dn FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                   WHERE application_name = 'pgweir auth_query'";
        RawClient::log_in(pooler.address(), "app", "secret", "app");
        pg.psql(sql).unwrap()
    };
    assert_eq!(issuers(), "/CN=old CA");
    volume.swap(&borrowed(&secrets(new).files()));
    eventually("they are used", || reloads(&pooler, "server_tls", "ok") == 1.0);
    eventually("and no connection is old", || issuers() == "/CN=new CA");
}

/// The CA is replaced, on the server too, while a client's query runs, which the client then cancels.
#[test]
fn a_query_that_has_run_since_before_a_rotation_can_be_canceled() {
    let [old, new] = ["old CA", "new CA"].map(|name| Authority::new(name).unwrap());
    let certificate = old.server(&["localhost"]).unwrap();
    let pg = postgres_with(|builder| {
        builder
            .mutual_tls(&certificate, old.certificate_pem())
            .setting("listen_addresses", "localhost")
            .hba(&["hostssl all app all cert"])
    });
    let first = Secrets {
        authorities: &[&old],
        issuer: &old,
    };
    let mut volume = Volume::new(&borrowed(&first.files()));
    let builder = Pooler::builder(&format!("localhost:{}", pg.port()))
        .set("server_tls.mode", "'verify-full'")
        .set("server_tls.ca_file", volume.quoted("ca.crt"))
        .set("server_tls.cert_file", volume.quoted("client.crt"))
        .set("server_tls.key_file", volume.quoted("client.key"));
    let pooler = looking_often(builder).start();
    let mut client = RawClient::log_in(pooler.address(), "app", "", "app");
    client.send(frames::query("SELECT pg_sleep(60)"));
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    eventually("it runs", || pg.psql(sleeps).unwrap() == "1");
    let second = Secrets {
        authorities: &[&new],
        issuer: &new,
    };
    second.give_to(&pg);
    volume.swap(&borrowed(&second.files()));
    eventually("the pooler has them", || {
        reloads(&pooler, "server_tls", "ok") == 1.0
    });
    let mut canceling = RawClient::connect(pooler.address());
    let (pid, secret) = client.key.as_ref().unwrap().split_first_chunk().unwrap();
    canceling.send(frames::cancel(i32::from_be_bytes(*pid), secret));
    let refused = client.read_until_ready();
    assert!(
        refused
            .iter()
            .any(|frame| frame.field(b'C').as_deref() == Some("57014")),
        "{refused:?}"
    );
    assert!(!pooler.logs().contains("cannot deliver a cancel request"));
    client.query("SELECT 1");
}

/// How many connections of the pooler were made with a certificate of the old CA.
fn made_with_old_certificates(pg: &Postgres) -> usize {
    let sql = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
               WHERE usename = 'app' AND issuer_dn LIKE '%old CA%'";
    pg.psql(sql).unwrap().trim().parse().unwrap()
}

#[test]
fn certificates_that_the_server_does_not_take_cost_a_full_pool_one_connection_at_most() {
    let [right, wrong] = [1, 2].map(|_| Authority::new("CA").unwrap());
    let pg = postgres_with(|builder| {
        builder
            .mutual_tls(&right.server(&["localhost"]).unwrap(), right.certificate_pem())
            .setting("listen_addresses", "localhost")
            .hba(&["hostssl all app,lone all trust clientcert=verify-ca"])
    });
    pg.psql("CREATE ROLE lone LOGIN").unwrap();
    let secrets = |issuer| Secrets {
        authorities: &[],
        issuer,
    };
    let mut volume = Volume::new(&borrowed(&secrets(&right).files()));
    let builder = Pooler::builder(&format!("localhost:{}", pg.port()))
        .set("pool.default_pool_size", "2")
        .set("users.lone.pool_size", "1")
        .set("pool.min_pool_size", "2")
        .set("server_tls.mode", "'require'")
        .set("server_tls.cert_file", volume.quoted("client.crt"))
        .set("server_tls.key_file", volume.quoted("client.key"));
    let pooler = looking_often(builder).user("lone", "").start();
    let mut lone = RawClient::log_in(pooler.address(), "lone", "", "app");
    let lone_pid = lone.value("SELECT pg_backend_pid()");
    let mut client = RawClient::log_in(pooler.address(), "app", "", "app");
    eventually("the pool is filled", || {
        client.value("SELECT 1");
        pids(&pg).len() == 2
    });
    let before = pids(&pg);
    volume.swap(&borrowed(&secrets(&wrong).files()));
    // A full pool has no room for a successor: one connection finds out.
    eventually("they are used, and refused by the server", || {
        client.value("SELECT 1");
        pooler.metric("pgweir_server_connect_failures_total") >= 2.0
    });
    assert_eq!(pids(&pg).intersection(&before).count(), 1);
    // And one that has a single place does not give it up.
    assert_eq!(lone.value("SELECT pg_backend_pid()"), lone_pid);
    volume.swap(&borrowed(&secrets(&right).files()));
    eventually("good ones replace both", || {
        client.value("SELECT 1");
        let now = pids(&pg);
        now.len() == 2 && now.is_disjoint(&before)
    });
    eventually("and the single one", || {
        lone.value("SELECT pg_backend_pid()") != lone_pid
    });
}
