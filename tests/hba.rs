//! By what clients may come in: the lines of an HBA file, the maps of an ident file, `cert` and `peer`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
};

use nix::unistd::{Uid, User};
use support::{
    Authority, Leaf, Pooler, PoolerBuilder, Postgres, RawClient, Stop, eventually, frames, postgres_with,
};
use tempfile::TempDir;

const PASSWORD: &str = "secret";

fn trusting() -> Postgres {
    postgres_with(|builder| builder.hba(&["local all all trust", "host all,replication all all trust"]))
}

/// A pgweir with these lines, and `app`, `alice` and `bob` among its users.
fn with_hba(server: &str, lines: &str) -> PoolerBuilder {
    Pooler::builder(server)
        .set("auth.auth_type", "'hba'")
        .set("auth.hba_file", "'hba.conf'")
        .set("auth.allow_plaintext_password", "true")
        .set("auth.stats_users", "['app']")
        .user("app", PASSWORD)
        .user("alice", PASSWORD)
        .user("bob", PASSWORD)
        .file("hba.conf", lines)
}

/// What a client without a password is told: which one is asked for, that it is in, or SQLSTATE and message.
fn knock<S: Read + Write>(stream: S, parameters: &[(&str, &str)]) -> String {
    let mut client = RawClient::over(stream);
    client.send(frames::startup(frames::PROTOCOL_3_0, parameters));
    loop {
        let message = client.read();
        match (message.tag, message.body.get(..4)) {
            (b'R', Some([0, 0, 0, 0])) | (b'S' | b'K' | b'N', _) => {}
            (b'R', Some([0, 0, 0, 3])) => return "password".to_owned(),
            (b'R', Some([0, 0, 0, 5])) => return "md5".to_owned(),
            (b'R', Some([0, 0, 0, 10])) => return "scram-sha-256".to_owned(),
            (b'Z', _) => return "in".to_owned(),
            (b'E', _) => {
                let field = |code| message.field(code).unwrap();
                return format!("{} {}", field(b'C'), field(b'M'));
            }
            _ => panic!("unexpected while logging in: {message:?}"),
        }
    }
}

fn knock_tcp(pooler: &Pooler, database: &str, user: &str) -> String {
    let stream = RawClient::connect(pooler.address()).into_stream();
    knock(stream, &[("user", user), ("database", database)])
}

fn knock_local(pooler: &Pooler, database: &str, user: &str) -> String {
    let path = pooler.addresses()[1].strip_prefix("unix:").unwrap();
    let stream = UnixStream::connect(path).unwrap();
    knock(stream, &[("user", user), ("database", database)])
}

/// psql through the pooler: the user that the server sees, or what psql said.
fn psql(pg: &Postgres, pooler: &Pooler, how: &str) -> Result<String, String> {
    let port = pooler.port();
    let target = format!("host=localhost hostaddr=127.0.0.1 port={port} dbname=app {how}");
    let mut command = pg.programs().command("psql");
    // No certificates from somebody's home.
    command
        .env("HOME", Path::new("/nonexistent"))
        .env("PGPASSWORD", PASSWORD);
    let output = command
        .args(["-XAtwc", "SELECT current_user", &target])
        .output()
        .unwrap();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[track_caller]
fn assert_says(outcome: Result<String, String>, words: &str) {
    let said = outcome.unwrap_err();
    assert!(said.contains(words), "{said}");
}

fn roles(pg: &Postgres) {
    for role in ["alice", "bob"] {
        pg.psql(&format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'"))
            .unwrap();
    }
}

#[test]
fn each_line_has_its_method() {
    let pg = trusting();
    roles(&pg);
    let pooler = with_hba(
        &pg.address(),
        "host /^app$ alice samehost md5\n\
         include more.conf\n\
         host all bob 10.0.0.0/8 trust\n\
         host all bob samenet scram-sha-256\n\
         host sameuser,postgres app 127.0.0.1 255.255.255.255 trust\n",
    )
    .file(
        "more.conf",
        "host @databases /^(al|carol)ice$ all \\\n  password\n",
    )
    .file("databases", "postgres \"all\"\n")
    .start();
    for (database, user, expected) in [
        ("app", "alice", "md5"),
        ("postgres", "alice", "password"),
        ("app", "bob", "scram-sha-256"),
        ("app", "app", "in"),
        ("postgres", "app", "in"),
    ] {
        assert_eq!(
            knock_tcp(&pooler, database, user),
            expected,
            "{user} in {database}"
        );
    }
    for user in ["app", "alice", "bob"] {
        assert_eq!(psql(&pg, &pooler, &format!("user={user}")), Ok(user.to_owned()));
    }
}

#[test]
fn whoever_no_line_lets_in_is_told_as_by_postgresql() {
    let pg = trusting();
    let pooler = with_hba(&pg.address(), "host all alice all reject\n")
        .set("listen.address", "['127.0.0.1:0', 'unix:.s.PGSQL.7001']")
        .start();
    assert_eq!(
        knock_tcp(&pooler, "app", "alice"),
        "28000 pg_hba.conf rejects connection for host \"127.0.0.1\", user \"alice\", database \"app\", no encryption"
    );
    assert_eq!(
        knock_tcp(&pooler, "app", "nobody"),
        "28000 no pg_hba.conf entry for host \"127.0.0.1\", user \"nobody\", database \"app\", no encryption"
    );
    assert_eq!(
        knock_local(&pooler, "app", "alice"),
        "28000 no pg_hba.conf entry for host \"[local]\", user \"alice\", database \"app\", no encryption"
    );
    let stream = RawClient::connect(pooler.address()).into_stream();
    assert_eq!(
        knock(stream, &[("user", "app"), ("replication", "true")]),
        "28000 no pg_hba.conf entry for replication connection from host \"127.0.0.1\", user \"app\", no encryption"
    );
}

#[test]
fn replication_is_a_database_of_its_own() {
    let pg = trusting();
    pg.psql("ALTER ROLE app REPLICATION").unwrap();
    let outcome = |lines: &str, replication: &str| {
        let pooler = with_hba(&pg.address(), lines)
            .set("pool.allow_replication", "true")
            .start();
        let stream = RawClient::connect(pooler.address()).into_stream();
        let parameters = [("user", "app"), ("database", "app"), ("replication", replication)];
        knock(stream, &parameters)
    };
    assert!(
        outcome("host all all all trust", "true").starts_with("28000 no pg_hba.conf entry for replication")
    );
    assert_eq!(outcome("host replication all all trust", "true"), "in");
    assert_eq!(outcome("host app all all trust", "database"), "in");
    assert!(
        outcome("host replication all all trust", "database")
            .starts_with("28000 no pg_hba.conf entry for host")
    );
}

#[test]
fn a_reload_takes_the_whole_file_or_none_of_it() {
    let pg = trusting();
    roles(&pg);
    let mut pooler = with_hba(
        &pg.address(),
        "host all alice all trust\nhost all all all reject\n",
    )
    .start();
    assert_eq!(knock_tcp(&pooler, "app", "alice"), "in");

    let position = pooler.log_position();
    pooler.reconfigure(|builder| {
        builder.file(
            "hba.conf",
            "host all app all trust\nhost all +staff all trust\nhots\n",
        )
    });
    pooler.reload();
    let line = pooler.wait_for_log(position, "configuration not reloaded");
    for place in ["hba.conf:2: ", "hba.conf:3: "] {
        assert!(line.contains(place), "{line}");
    }
    assert_eq!(knock_tcp(&pooler, "app", "alice"), "in");
    assert!(knock_tcp(&pooler, "app", "app").starts_with("28000 "));

    let position = pooler.log_position();
    pooler.reconfigure(|builder| builder.file("hba.conf", "host all app all trust\n"));
    pooler.reload();
    pooler.wait_for_log(position, "configuration reloaded");
    assert!(knock_tcp(&pooler, "app", "alice").starts_with("28000 no pg_hba.conf entry"));
    assert_eq!(knock_tcp(&pooler, "app", "app"), "in");
}

#[test]
fn a_file_that_is_taken_in_is_followed_without_a_signal() {
    let pg = trusting();
    let pooler = with_hba(
        &pg.address(),
        "include_if_exists more.conf\nhost all all all reject\n",
    )
    .set("process.file_check_interval", "'50ms'")
    .start();
    assert!(knock_tcp(&pooler, "app", "app").starts_with("28000 "));
    fs::write(pooler.file("more.conf"), "host all app all trust\n").unwrap();
    eventually("the new file is used", || {
        knock_tcp(&pooler, "app", "app") == "in"
    });
    let position = pooler.log_position();
    fs::write(pooler.file("more.conf"), "host all app all tryst\n").unwrap();
    let line = pooler.wait_for_log(position, "auth.hba_file not reloaded");
    assert!(
        line.contains("more.conf:1: invalid authentication method"),
        "{line}"
    );
    assert_eq!(knock_tcp(&pooler, "app", "app"), "in");
}

#[test]
fn check_says_everything_that_is_wrong_with_both_files() {
    let builder = with_hba(
        "127.0.0.1:1",
        "local all all peer map=m\nhost all +x all md5\nhostssl all all all cert\n",
    )
    .set("auth.ident_file", "'ident.conf'")
    .file("ident.conf", "m root\n");
    let (_, said, status) = Pooler::run_command(&builder, &["check", "--config", "CONFIG"]);
    assert!(!status.success());
    for place in ["hba.conf:2: \"+x\"", "ident.conf:1: missing entry"] {
        assert!(said.contains(place), "{said}");
    }
    let builder = with_hba(
        "127.0.0.1:1",
        "local all all peer map=m\nhostssl all all all cert\n",
    );
    let (_, said, status) = Pooler::run_command(&builder, &["check", "--config", "CONFIG"]);
    assert!(!status.success());
    for hint in [
        "hba.conf:1: ",
        "auth.ident_file",
        "hba.conf:2: ",
        "listen.tls.client_ca_file",
    ] {
        assert!(said.contains(hint), "{said}");
    }
}

/// Lines that PostgreSQL takes and lines that it does not, of what both know. (Of a wrong `clientcert` or `clientname` its
/// view says nothing, although it does not take them.)
const LINES: &[&str] = &[
    "local all all trust",
    "local all all",
    "local all",
    "local",
    "loca all all trust",
    "local,host all all trust",
    "\"local\" all all trust",
    "host all all all md5",
    "host all all samehost,samenet md5",
    "host all all samenet password",
    "host all all 10.0.0.1 trust",
    "host all all 10.0.0.1 255.0.0.0 trust",
    "host all all 10.0.0.1 ffff:: trust",
    "host all all 10.0.0.1/33 trust",
    "host all all 10.0.0.1/ trust",
    "host all all 10.0.0.1/x8 trust",
    "host all all 10.0.0.256/8 trust",
    "host all all ::1/128 scram-sha-256",
    "host all all ::1/129 scram-sha-256",
    "host all all ::ffff:10.0.0.0/104 scram-sha-256",
    "host all all fe80:::1/8 trust",
    "hostnossl all all all trust",
    "hostnogssenc all all all trust",
    "hostssl all all all cert",
    "hostssl all all all cert map=m clientname=DN",
    "hostssl all all all cert clientcert=verify-ca",
    "hostssl all all all cert clientcert=verify-full",
    "hostssl all all all md5 clientcert=verify-ca",
    "hostssl all all all md5 map=m",
    "hostssl all all all reject clientcert=verify-ca",
    "host all all all md5 clientcert=verify-ca",
    "host all all all md5 clientname=CN",
    "host all all all cert",
    "host all all all peer",
    "local all all cert",
    "local all all peer map=m",
    "local all all peer map",
    "local all all peer map= \"map=a b\"",
    "local all all ident map=m",
    "local all all trust,md5",
    "local all all trust map=m",
    "local all all kerberos",
    "local all all peer ldapserver=x",
    "local all all peer mpa=x",
    "local @nowhere all trust",
    "local @names all trust",
    "local all all trust # \\",
];

/// Lines of which PostgreSQL 16 was the first to know what they mean.
const LINES_OF_16: &[&str] = &[
    "local \"all\",a,/^b all,\"c d\" reject",
    "local /( all trust",
    "local \"/a,b\" \"/[\" trust",
    "local all /\\d{2,3}$ trust",
    "include nowhere.conf",
    "include_if_exists nowhere.conf",
    "include_dir nowhere",
    "include a b trust",
];

/// What PostgreSQL refuses is refused, and what it takes is taken.
#[test]
fn lines_are_right_and_wrong_as_they_are_to_postgresql() {
    let (certificates, directory) = (Certificates::new(), tempfile::tempdir().unwrap());
    let server = certificates.authority.server(&["localhost"]).unwrap();
    let pg = postgres_with(|builder| builder.mutual_tls(&server, certificates.authority.certificate_pem()));
    let data = pg.psql("SHOW hba_file").unwrap();
    let data = Path::new(data.trim());
    let names = data.with_file_name("names");
    fs::write(&names, "a, b\nc").unwrap();
    fs::write(directory.path().join("names"), "a, b\nc").unwrap();
    let version: u32 = pg
        .psql("SHOW server_version_num")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let newer: &[&str] = if version >= 160_000 { LINES_OF_16 } else { &[] };
    let mut different = Vec::new();
    for line in LINES.iter().chain(newer) {
        // The view reads the file that is there now; what is in force stays.
        fs::write(data, format!("{line}\n")).unwrap();
        let refused = pg
            .psql("SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL")
            .unwrap();
        let ours = directory.path().join("hba.conf");
        fs::write(&ours, format!("{line}\n")).unwrap();
        let read = pgweir::auth::hba::Hba::load(&ours);
        if read.is_err() != (refused.trim() != "0") {
            different.push((*line, read.map(|_| ()).map_err(|error| error.to_string())));
        }
    }
    assert_eq!(different, []);
}

/// Who runs this test.
fn myself() -> String {
    User::from_uid(Uid::current()).unwrap().unwrap().name
}

#[test]
fn peer_is_whom_the_operating_system_says() {
    let (pg, me) = (trusting(), myself());
    let lines =
        "local pgbouncer pgbouncer peer map=admins\nlocal all all peer map=apps\nlocal all all trust\n";
    let ident =
        format!("admins {me} pgbouncer\nother {me} bob\napps \"/^({me})$\" app\napps {me} \"{me}\"\n");
    let pooler = with_hba(&pg.address(), lines)
        .set("listen.address", "['127.0.0.1:0', 'unix:.s.PGSQL.7002']")
        .set("auth.ident_file", "'ident.conf'")
        .set("auth.stats_users", "['pgbouncer']")
        .file("ident.conf", ident)
        .user("pgbouncer", "")
        .start();
    assert_eq!(knock_local(&pooler, "app", "app"), "in");
    assert_eq!(knock_local(&pooler, "pgbouncer", "pgbouncer"), "in");
    let position = pooler.log_position();
    assert_eq!(
        knock_local(&pooler, "app", "bob"),
        "28000 Peer authentication failed for user \"bob\""
    );
    let line = pooler.wait_for_log(position, "log-in failed");
    assert!(
        line.contains("no match in usermap") && line.contains(&me),
        "{line}"
    );
    assert!(knock_tcp(&pooler, "app", "app").starts_with("28000 no pg_hba.conf entry"));
}

#[test]
fn whoever_is_identified_needs_nobody_who_knows_a_secret() {
    // As in the deployment: `local pgbouncer pgbouncer peer` beside an auth_query. The console's user is no role of the
    // server, and was refused for it; and while the server was away, which is when one wants the console, for that.
    let (mut pg, me) = (trusting(), myself());
    pg.psql("CREATE ROLE carol LOGIN").unwrap();
    let ident = format!("admins {me} pgbouncer\nadmins {me} carol\n");
    let pooler = with_hba(&pg.address(), "local all all peer map=admins\n")
        .set("listen.address", "['127.0.0.1:0', 'unix:.s.PGSQL.7004']")
        .set("auth.ident_file", "'ident.conf'")
        .set("auth.stats_users", "['pgbouncer']")
        .set("auth.auth_user", "'missing'")
        .set("auth.auth_database", "'postgres'")
        .file("ident.conf", ident)
        .start();
    assert_eq!(knock_local(&pooler, "pgbouncer", "pgbouncer"), "in");
    assert_eq!(pooler.metric("pgweir_auth_queries_total{result=\"failed\"}"), 0.0);
    // Another's secret would serve the server connection; this server asks for none.
    assert_eq!(knock_local(&pooler, "app", "carol"), "in");
    assert_eq!(pooler.metric("pgweir_auth_queries_total{result=\"failed\"}"), 1.0);
    pg.stop(Stop::Fast).unwrap();
    assert_eq!(knock_local(&pooler, "pgbouncer", "pgbouncer"), "in");
}

#[test]
fn peer_for_all_wants_the_same_name() {
    let pg = trusting();
    let pooler = Pooler::builder(&pg.address())
        .set("auth.auth_type", "'peer'")
        .set("listen.address", "['127.0.0.1:0', 'unix:.s.PGSQL.7003']")
        .set("auth.stats_users", format!("['{}']", myself()))
        .user(&myself(), "")
        .start();
    assert_eq!(knock_local(&pooler, "pgweir", &myself()), "in");
    for refused in [
        knock_local(&pooler, "app", "app"),
        knock_tcp(&pooler, "app", &myself()),
    ] {
        assert!(
            refused.starts_with("28000 Peer authentication failed for user"),
            "{refused}"
        );
    }
}

/// A CA for clients and server, and where psql finds its certificates.
struct Certificates {
    authority: Authority,
    directory: TempDir,
}

impl Certificates {
    fn new() -> Self {
        Self {
            authority: Authority::new("CA").unwrap(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn serve(&self, builder: PoolerBuilder) -> PoolerBuilder {
        let tls = "{ mode = 'allow', cert_file = 'server.crt', key_file = 'server.key', client_ca_file = 'ca.crt' }";
        builder
            .client_tls("allow", &self.authority.server(&["localhost"]).unwrap())
            .file("ca.crt", self.authority.certificate_pem())
            .set("listen.tls", tls)
    }

    /// What psql is told to show this certificate.
    fn show(&self, name: &str, leaf: &Leaf) -> String {
        let certificate = self.authority.issue(leaf).unwrap();
        certificate.write_to(self.directory.path(), name).unwrap();
        let directory = self.directory.path().display();
        format!("sslmode=require sslcert={directory}/{name}.crt sslkey={directory}/{name}.key")
    }
}

#[test]
fn encryption_chooses_among_the_lines() {
    let (pg, certificates) = (trusting(), Certificates::new());
    roles(&pg);
    let lines = "hostssl all alice all trust\nhostnossl all bob all trust\nhostgssenc all all all trust\n";
    let pooler = certificates.serve(with_hba(&pg.address(), lines)).start();
    let session = |user: &str, mode: &str| psql(&pg, &pooler, &format!("user={user} sslmode={mode}"));
    assert_eq!(session("alice", "require"), Ok("alice".to_owned()));
    assert_eq!(session("bob", "disable"), Ok("bob".to_owned()));
    assert_says(
        session("alice", "disable"),
        "no pg_hba.conf entry for host \"127.0.0.1\", user \"alice\", database \"app\", no encryption",
    );
    assert_says(
        session("bob", "require"),
        "no pg_hba.conf entry for host \"127.0.0.1\", user \"bob\", database \"app\", SSL encryption",
    );
}

#[test]
fn a_certificate_names_the_user() {
    let (pg, certificates) = (trusting(), Certificates::new());
    roles(&pg);
    let lines = "hostssl all alice all cert\n\
                 hostssl postgres all all scram-sha-256 clientcert=verify-ca\n\
                 hostssl all bob all cert map=people clientname=DN\n\
                 hostssl all app all scram-sha-256 clientcert=verify-full\n\
                 hostssl all all all cert map=people\n";
    let pooler = certificates
        .serve(with_hba(&pg.address(), lines))
        .set("auth.ident_file", "'ident.conf'")
        .file("ident.conf", "people /^CN=(.*)-laptop$ \\1\npeople ghost ghost\n")
        .start();
    let alice = certificates.show("alice", &Leaf::client("alice"));
    let laptop = certificates.show("laptop", &Leaf::client("bob-laptop"));
    let app = certificates.show("app", &Leaf::client("app"));
    let ghost = certificates.show("ghost", &Leaf::client("ghost"));
    let nameless = certificates.show("nameless", &Leaf::client("x").empty_subject());
    let session = |user: &str, how: &str| psql(&pg, &pooler, &format!("user={user} {how}"));
    assert_eq!(session("alice", &alice), Ok("alice".to_owned()));
    assert_eq!(session("bob", &laptop), Ok("bob".to_owned()));
    assert_eq!(session("app", &app), Ok("app".to_owned()));
    let anybodys = format!("{alice} dbname=postgres");
    assert_eq!(session("bob", &anybodys), Ok("bob".to_owned()));
    let failed = |user: &str| format!("certificate authentication failed for user \"{user}\"");
    for (user, how) in [
        ("alice", &laptop),
        ("bob", &alice),
        ("app", &alice),
        ("alice", &nameless),
    ] {
        assert_says(session(user, how), &failed(user));
    }
    for user in ["alice", "app"] {
        assert_says(
            session(user, "sslmode=require"),
            "connection requires a valid client certificate",
        );
    }
    // The certificate does not make a user of somebody whom the users file does not know.
    assert_says(session("ghost", &ghost), "user \"ghost\" is not known");
    let log = pooler.logs();
    for reason in [
        "provided user name (alice) and authenticated user name (bob-laptop) do not match",
        "no match in usermap",
        "client certificate contains no user name",
    ] {
        assert!(log.contains(reason), "{reason}");
    }
}

#[test]
fn cert_for_all_wants_the_common_name() {
    let (pg, certificates) = (trusting(), Certificates::new());
    roles(&pg);
    let pooler = certificates
        .serve(Pooler::builder(&pg.address()).user("alice", ""))
        .set("auth.auth_type", "'cert'")
        .start();
    let alice = certificates.show("alice", &Leaf::client("alice"));
    assert_eq!(
        psql(&pg, &pooler, &format!("user=alice {alice}")),
        Ok("alice".to_owned())
    );
    let refused = psql(&pg, &pooler, &format!("user=app {alice}"));
    assert_says(refused, "certificate authentication failed for user \"app\"");
    let plain = psql(&pg, &pooler, "user=alice sslmode=disable");
    assert_says(plain, "connection requires a valid client certificate");
}
