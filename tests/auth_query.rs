//! Users who are looked up on the server: by whom, how often, and what is said when that does not work.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use support::{
    Authority, Frame, Link, Pooler, PoolerBuilder, Postgres, RawClient, Stop,
    api_server::{ApiServer, EndpointSpec, Service},
    eventually, frames, postgres_with,
};
use tokio_postgres::{Config, NoTls};

const ASKER: &str = "cnpg_pooler_pgbouncer";
const QUERY: &str = "SELECT usename, passwd FROM user_search($1)";
/// Lets the asker in without a certificate. `md5` is SCRAM for those whose secret is a SCRAM verifier.
const TRUSTED: [&str; 2] = ["host all asker all trust", "host all all all md5"];

/// Logs in with a driver and asks who it is; otherwise SQLSTATE and message.
fn log_in_to(address: &str, database: &str, user: &str, password: &str) -> Result<String, (String, String)> {
    let (host, port) = address.split_once(':').unwrap();
    let mut config = Config::new();
    config
        .host(host)
        .port(port.parse().unwrap())
        .user(user)
        .password(password)
        .dbname(database);
    let session = async {
        let (client, connection) = config.connect(NoTls).await?;
        tokio::select! {
            row = client.query_one("SELECT session_user::text", &[]) => row.map(|row| row.get(0)),
            end = connection => Err(end.unwrap_err()),
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(session)
        .map_err(|error| match error.as_db_error() {
            Some(error) => (error.code().code().to_owned(), error.message().to_owned()),
            None => panic!("{user} got no answer: {error:?}"),
        })
}

fn log_in(pooler: &Pooler, user: &str, password: &str) -> Result<String, (String, String)> {
    log_in_to(pooler.address(), "app", user, password)
}

#[track_caller]
fn assert_wrong_password(outcome: Result<String, (String, String)>, user: &str) {
    let message = format!("password authentication failed for user \"{user}\"");
    assert_eq!(outcome.unwrap_err(), ("28P01".to_owned(), message));
}

fn ok(user: &str) -> Result<String, (String, String)> {
    Ok(user.to_owned())
}

/// A pgweir that knows nobody.
fn knowing_nobody(address: &str, method: &str) -> PoolerBuilder {
    Pooler::builder(address)
        .without("auth")
        .set("auth.auth_type", format!("'{method}'"))
        .set("auth.allow_plaintext_password", "true")
        .set("auth.max_auth_failures", "0")
        .set("listen.client_login_timeout", "'20s'")
}

/// A PostgreSQL with a superuser `asker` who needs no password, and a table in `app` of what was asked.
fn postgres_with_asker() -> Postgres {
    let pg = postgres_with(|builder| builder.hba(&TRUSTED));
    pg.psql("CREATE ROLE asker LOGIN").unwrap();
    pg.psql_in(
        "app",
        "CREATE TABLE public.asked (pid int, name text);
         CREATE FUNCTION public.user_search(uname text) RETURNS TABLE (usename name, passwd text)
         LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
             INSERT INTO public.asked VALUES (pg_backend_pid(), uname);
             SELECT rolname, CASE WHEN rolvaliduntil IS NULL OR rolvaliduntil > now() THEN rolpassword END
             FROM pg_authid WHERE rolname = $1 AND rolcanlogin $$;",
    )
    .unwrap();
    pg
}

fn asking(pg: &Postgres, method: &str) -> PoolerBuilder {
    knowing_nobody(&pg.address(), method)
        .set("auth.auth_user", "'asker'")
        .set("auth.auth_query", format!("'{QUERY}'"))
}

/// How often a user was asked about.
fn asked(pg: &Postgres, user: &str) -> u32 {
    let sql = format!("SELECT count(*) FROM public.asked WHERE name = '{user}'");
    pg.psql_in("app", &sql).unwrap().parse().unwrap()
}

fn reload(pooler: &mut Pooler, change: impl FnOnce(PoolerBuilder) -> PoolerBuilder) {
    let position = pooler.log_position();
    pooler.reconfigure(change);
    pooler.reload();
    pooler.wait_for_log(position, "configuration reloaded");
}

// --- as in the deployment this is for ---

/// In a planned switchover the primary is shut down in the smart way: it waits for every connection that there is. Those
/// that look users up, and those of databases with role "r", stayed for a minute after they were used last, or until
/// the operator lost patience (180 s).
#[test]
fn a_primary_that_leaves_is_not_kept_waiting_by_look_ups_or_readers() {
    let (pg, api) = (postgres_with_asker(), ApiServer::start());
    let announce = |phase: &str, target: &str| {
        api.cluster("pg", |spec| {
            spec.phase = phase.to_owned();
            spec.current_primary = "pg-1".to_owned();
            spec.target_primary = target.to_owned();
        });
    };
    announce("Cluster in healthy state", "pg-1");
    let pod = EndpointSpec::ready("pg-1", Ipv4Addr::LOCALHOST, pg.port());
    for service in [Service::Rw, Service::R] {
        api.slice("pg", service, std::slice::from_ref(&pod));
    }
    let builder = asking(&pg, "scram-sha-256")
        .without(r#"databases."*""#)
        .set("databases.app.cluster", "'pg'")
        .set("databases.app.role", "'r'");
    let settings = api.settings();
    let builder = settings
        .iter()
        .fold(builder, |builder, (key, value)| builder.set(key, value));
    let pooler = builder.start();
    assert_eq!(log_in(&pooler, "app", "secret"), ok("app"));
    let open = || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename IN ('app', 'asker')";
        pg.psql(sql).unwrap().trim().parse::<u32>().unwrap()
    };
    assert_eq!(open(), 2, "one for the look-up, one for the client");
    eventually("the primary is known", || {
        pooler.metric(r#"pgweir_topology_phase{cluster="pg",phase="serving"}"#) == 1.0
    });
    let start = Instant::now();
    announce("Switchover in progress", "pg-2");
    eventually("nothing keeps the primary waiting", || open() == 0);
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[test]
fn a_role_with_a_certificate_looks_up_users_whom_no_file_has() {
    let authority = Authority::new("CA").unwrap();
    let pg = postgres_with(|builder| {
        builder
            .mutual_tls(
                &authority.server(&["localhost"]).unwrap(),
                authority.certificate_pem(),
            )
            .hba(&[
                &format!("hostssl all {ASKER} all cert"),
                "host all all all scram-sha-256",
            ])
    });
    let certificate = authority.client(ASKER).unwrap();
    let pooler = knowing_nobody(&pg.address(), "scram-sha-256")
        .set("auth.auth_user", format!("'{ASKER}'"))
        .set("auth.auth_query", format!("'{QUERY}'"))
        .file("ca.crt", authority.certificate_pem())
        .file("client.crt", &certificate.certificate_pem)
        .file("client.key", &certificate.key_pem)
        .set("server_tls.mode", "'verify-ca'")
        .set("server_tls.ca_file", "'ca.crt'")
        .set("server_tls.cert_file", "'client.crt'")
        .set("server_tls.key_file", "'client.key'")
        .start();
    // What is missing is said, with what mends it, until it works.
    let mut position = 0;
    for missing in [
        "does not exist",
        "function user_search(unknown) does not exist",
        "permission denied for function user_search",
    ] {
        let refused = log_in(&pooler, "app", "secret").unwrap_err();
        assert_eq!(refused.0, "58000", "{missing}");
        assert!(
            !refused.1.contains("user_search") && !refused.1.contains(ASKER),
            "{refused:?}"
        );
        let line = pooler.wait_for_log(position, "\"sql\":");
        position = pooler.log_position();
        assert!(line.contains(missing), "{line}");
        let field = |name: &str| json_field(&line, name);
        pg.psql_in(&field("sql_database"), &field("sql")).unwrap();
        if missing.starts_with("function") {
            // As PostgreSQL's users know it from an operator that makes a function and does not grant it.
            let signature = "FUNCTION public.user_search(text)";
            pg.psql_in("app", &format!("REVOKE ALL ON {signature} FROM {ASKER}"))
                .unwrap();
        }
    }
    assert_eq!(log_in(&pooler, "app", "secret"), ok("app"));
    assert_wrong_password(log_in(&pooler, "app", "wrong"), "app");
    let over_tls = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'pgweir auth_query'";
    assert_eq!(pg.psql(over_tls).unwrap(), "t");
    assert_eq!(pooler.metric("pgweir_auth_query_connections"), 1.0);
    assert!(
        !pg.log().contains("password authentication failed"),
        "{}",
        pg.log()
    );
}

/// A text field of a log line.
fn json_field(line: &str, name: &str) -> String {
    let (_, rest) = line.split_once(&format!("\"{name}\":\"")).unwrap();
    let mut value = String::new();
    let mut characters = rest.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => value.extend(characters.next()),
            character => value.push(character),
        }
    }
    value
}

#[test]
fn the_default_query_knows_who_may_log_in() {
    let pg = postgres_with(|builder| builder.hba(&TRUSTED));
    pg.psql(
        "CREATE ROLE asker LOGIN SUPERUSER;
         CREATE ROLE expired LOGIN PASSWORD 'secret' VALID UNTIL '2020-01-01';
         CREATE ROLE future LOGIN PASSWORD 'secret' VALID UNTIL '2120-01-01';
         CREATE ROLE eternal LOGIN PASSWORD 'secret' VALID UNTIL 'infinity';
         CREATE ROLE grp PASSWORD 'secret'; CREATE ROLE passwordless LOGIN;
         CREATE ROLE \"O'Brien \\ \"\"x\"\"; --\" LOGIN PASSWORD 'secret'; CREATE ROLE \"Müller\" LOGIN PASSWORD 'secret';",
    )
    .unwrap();
    for (method, central) in [
        ("scram-sha-256", "postgres"),
        ("md5", ""),
        ("password", "postgres"),
    ] {
        let pooler = knowing_nobody(&pg.address(), method)
            .set("auth.auth_user", "'asker'")
            .set("auth.auth_database", format!("'{central}'"))
            .start();
        for user in ["app", "future", "eternal", "O'Brien \\ \"x\"; --", "Müller"] {
            assert_eq!(log_in(&pooler, user, "secret"), ok(user), "{method}");
            assert_wrong_password(log_in(&pooler, user, "wrong"), user);
        }
        let cut = "x".repeat(70);
        for user in [
            "expired",
            "grp",
            "passwordless",
            "nobody",
            "APP",
            "app' OR '1'='1",
            "$1",
            &cut,
        ] {
            for password in ["secret", ""] {
                assert_wrong_password(log_in(&pooler, user, password), user);
            }
        }
        let nowhere = log_in_to(pooler.address(), "nowhere", "app", "secret").unwrap_err();
        assert_eq!(
            nowhere,
            (
                "3D000".to_owned(),
                "database \"nowhere\" does not exist".to_owned()
            )
        );
    }
}

/// They are connections to the server like any other, and somebody counts them.
#[test]
fn connections_that_ask_are_shown_among_the_others() {
    let pg = postgres_with_asker();
    let pooler = asking(&pg, "plain")
        .set("auth.auth_database", "'app'")
        .set("auth.stats_users", "'app'")
        .start();
    let mut console = RawClient::log_in(pooler.address(), "app", "secret", "pgbouncer");
    let of_asker = |console: &mut RawClient| {
        let rows = console.query("SHOW SERVERS");
        let rows = rows.iter().filter(|row| row.tag == b'D').map(Frame::columns);
        let text = |row: &[Option<String>], column: usize| row[column].clone().unwrap_or_default();
        let rows = rows.filter(|row| row[1].as_deref() == Some("asker"));
        rows.map(|row| [2, 4, 16].map(|column| text(&row, column)))
            .collect::<Vec<_>>()
    };
    let shown = of_asker(&mut console);
    let backend = pg
        .psql("SELECT pid FROM pg_stat_activity WHERE usename = 'asker'")
        .unwrap();
    assert_eq!(shown, [["app".to_owned(), "idle".to_owned(), backend.clone()]]);
    let pools = console.query("SHOW POOLS");
    assert!(
        !pools
            .iter()
            .any(|row| row.tag == b'D' && row.columns()[1].as_deref() == Some("asker"))
    );
    pg.psql(&format!("SELECT pg_terminate_backend({backend})"))
        .unwrap();
    assert_wrong_password(log_in(&pooler, "app", "wrong"), "app");
    eventually("it is gone", || {
        of_asker(&mut console).iter().all(|row| row[2] != backend)
    });
}

#[test]
fn md5_hashes_are_looked_up_too() {
    let pg = postgres_with(|builder| builder.hba(&TRUSTED));
    pg.psql(
        "CREATE ROLE asker LOGIN SUPERUSER;
         SET password_encryption = 'md5'; CREATE ROLE old LOGIN PASSWORD 'secret';",
    )
    .unwrap();
    for method in ["md5", "password"] {
        let pooler = knowing_nobody(&pg.address(), method)
            .set("auth.auth_user", "'asker'")
            .start();
        for user in ["old", "app"] {
            assert_eq!(log_in(&pooler, user, "secret"), ok(user), "{method}");
            assert_wrong_password(log_in(&pooler, user, "wrong"), user);
        }
    }
}

#[test]
fn each_database_may_be_asked_by_another_and_the_file_comes_first() {
    let pg = postgres_with_asker();
    pg.psql("CREATE ROLE other LOGIN PASSWORD 'secret'").unwrap();
    pg.psql("CREATE DATABASE \"Big\"").unwrap();
    let pooler = asking(&pg, "scram-sha-256")
        .set("auth.users_file", "'users.txt'")
        .user("app", "from the file")
        .set("databases.alias.hosts", format!("'{}'", pg.address()))
        .set("databases.alias.dbname", "'app'")
        .set("databases.Big.hosts", format!("'{}'", pg.address()))
        .set("databases.Big.auth_database", "'alias'")
        .set("databases.own.hosts", format!("'{}'", pg.address()))
        .set("databases.own.dbname", "'app'")
        .set("databases.own.auth_query", "'SELECT $1, NULL'")
        .start();
    let address = pooler.address();
    assert_wrong_password(log_in(&pooler, "app", "secret"), "app");
    for database in ["app", "alias", "Big"] {
        assert_eq!(
            log_in_to(address, database, "other", "secret"),
            ok("other"),
            "{database}"
        );
    }
    assert_eq!(
        asked(&pg, "other"),
        2,
        "once in app and once in alias, which Big asks too"
    );
    assert_eq!(asked(&pg, "app"), 0);
    assert_wrong_password(log_in_to(address, "own", "other", "secret"), "other");
    // The console has no database of its own to ask.
    assert_wrong_password(log_in_to(address, "pgweir", "other", "secret"), "other");
}

/// What a user is shown before an answer can be wrong: the first request, and of SCRAM what follows but salt and nonce.
fn challenge(pooler: &Pooler, user: &str) -> (Vec<u8>, usize, String) {
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", user), ("database", "app")],
    ));
    let first = client.read();
    let message = b"n,,n=,r=abc";
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let answer = [b"SCRAM-SHA-256\0".as_slice(), &length, message].concat();
    client.send(frames::frame(b'p', answer));
    let second = client.read();
    assert_eq!(second.tag, b'R', "{user}: {second:?}");
    let text = String::from_utf8(second.body[4..].to_vec()).unwrap();
    let iterations = text.split(',').nth(2).unwrap().to_owned();
    (first.body, text.len(), iterations)
}

#[test]
fn an_unknown_user_is_asked_for_what_the_others_are_asked_for() {
    // As the deployment's `host all all 0.0.0.0/0 md5` with verifiers on the server: one connection for each name, without
    // an answer, told who exists, because MD5 was pretended of those who do not; so did the iteration count.
    let pg = postgres_with_asker();
    let verifier = "SCRAM-SHA-256$5000:AAECAwQFBgcICQoLDA0ODw==$THoPhoTAuqyoQsK4dUHncUzgfD8fdmhsgKZhWVqNP5U=:7YiHMMi2OcXGRogub03Ek06JRZ9bkhTOdCzHa5iPLiQ=";
    pg.psql(&format!(
        "ALTER ROLE app PASSWORD '{verifier}'; CREATE ROLE passwordless LOGIN"
    ))
    .unwrap();
    for method in ["md5", "scram-sha-256"] {
        let looked_up = asking(&pg, method).start();
        let listed = Pooler::builder(&pg.address())
            .set("auth.auth_type", format!("'{method}'"))
            .user("app", verifier)
            .start();
        for pooler in [looked_up, listed] {
            let known = challenge(&pooler, "app");
            assert_eq!(known.2, "i=5000");
            for user in ["nobody", "passwordless"] {
                assert_eq!(challenge(&pooler, user), known, "{method} {user}");
            }
        }
    }
}

#[test]
fn a_database_that_is_not_configured_does_not_exist_whoever_asks() {
    // A user who is in no file, with a wrong name for the database, was told that the password was wrong, and after a few
    // tries, as of a pod that is started again and again, refused for all databases.
    let pg = postgres_with_asker();
    let pooler = asking(&pg, "scram-sha-256")
        .without("databases.\"*\"")
        .set("databases.app.hosts", format!("'{}'", pg.address()))
        .set("auth.max_auth_failures", "1")
        .start();
    let missing = ("3D000".to_owned(), "database \"ap\" does not exist".to_owned());
    for user in ["app", "nobody", "app"] {
        let refused = log_in_to(pooler.address(), "ap", user, "secret");
        assert_eq!(refused.unwrap_err(), missing, "{user}");
    }
    assert_eq!(log_in(&pooler, "app", "secret"), ok("app"));
    assert_eq!(asked(&pg, "nobody"), 0);
}

// --- how often ---

#[test]
fn answers_are_remembered_and_asked_for_again_when_a_log_in_fails() {
    let pg = postgres_with_asker();
    let pooler = asking(&pg, "scram-sha-256").start();
    for _ in 0..5 {
        assert_eq!(log_in(&pooler, "app", "secret"), ok("app"));
    }
    assert_eq!(asked(&pg, "app"), 1);
    assert_eq!(pooler.metric("pgweir_auth_cache_hits_total"), 4.0);
    pg.psql("ALTER ROLE app PASSWORD 'changed'").unwrap();
    // The salt of the old one has been shown: this one fails in any case, the next does not.
    eventually("the new password is known", || {
        log_in(&pooler, "app", "changed") == ok("app")
    });
    assert_eq!(asked(&pg, "app"), 2);
    // Whoever guesses does not make the server answer for each guess.
    let start = Instant::now();
    let mut guesses = 0;
    while start.elapsed() < Duration::from_millis(1500) {
        assert_wrong_password(log_in(&pooler, "app", "wrong"), "app");
        guesses += 1;
    }
    let seconds = u32::try_from(start.elapsed().as_secs()).unwrap();
    assert!(
        asked(&pg, "app") <= 2 + seconds + 1,
        "{guesses} guesses: {}",
        asked(&pg, "app")
    );
    assert_eq!(
        pooler.metric(r#"pgweir_auth_queries_total{result="found"}"#),
        f64::from(asked(&pg, "app"))
    );
}

#[test]
fn a_changed_password_is_good_in_the_same_exchange_where_the_question_is_the_same() {
    let pg = postgres_with_asker();
    pg.psql("SET password_encryption = 'md5'; ALTER ROLE app PASSWORD 'first'")
        .unwrap();
    for method in ["password", "md5"] {
        let pooler = asking(&pg, method).set("auth.auth_query_ttl", "'1h'").start();
        pg.psql("SET password_encryption = 'md5'; ALTER ROLE app PASSWORD 'first'")
            .unwrap();
        assert_eq!(log_in(&pooler, "app", "first"), ok("app"));
        pg.psql("SET password_encryption = 'md5'; ALTER ROLE app PASSWORD 'second'")
            .unwrap();
        // An answer of less than a second ago is not asked for again.
        thread::sleep(Duration::from_millis(1050));
        assert_eq!(log_in(&pooler, "app", "second"), ok("app"), "{method}");
    }
}

#[test]
fn times_to_live_are_kept() {
    let pg = postgres_with_asker();
    let mut pooler = asking(&pg, "scram-sha-256")
        .set("auth.auth_query_ttl", "'0'")
        .set("auth.auth_query_negative_ttl", "'1h'")
        .start();
    for _ in 0..3 {
        assert_eq!(log_in(&pooler, "app", "secret"), ok("app"));
        assert_wrong_password(log_in(&pooler, "stranger", "secret"), "stranger");
    }
    assert_eq!(asked(&pg, "app"), 3);
    assert!(asked(&pg, "stranger") <= 2, "{}", asked(&pg, "stranger"));
    // Another time to live keeps what is known; another query does not.
    reload(&mut pooler, |builder| builder.set("auth.auth_query_ttl", "'1h'"));
    assert_eq!(log_in(&pooler, "app", "secret"), ok("app"));
    assert_eq!(asked(&pg, "app"), 3);
    reload(&mut pooler, |builder| {
        builder.set("auth.auth_query", format!("'{QUERY} LIMIT 2'"))
    });
    for _ in 0..2 {
        assert_eq!(log_in(&pooler, "app", "secret"), ok("app"));
    }
    assert_eq!(asked(&pg, "app"), 4);
}

#[test]
fn fifty_clients_at_once_are_one_question() {
    let pg = postgres_with_asker();
    let pooler = asking(&pg, "scram-sha-256").start();
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| assert_eq!(log_in(&pooler, "app", "secret"), ok("app")));
        }
    });
    assert_eq!(asked(&pg, "app"), 1);
    let others = (0..20).map(|number| format!("u{number}"));
    let others: Vec<_> = others.collect();
    thread::scope(|scope| {
        for user in &others {
            scope.spawn(|| assert_wrong_password(log_in(&pooler, user, "secret"), user));
        }
    });
    let connections = pg
        .psql_in("app", "SELECT count(DISTINCT pid) FROM public.asked")
        .unwrap();
    assert!(["1", "2"].contains(&connections.as_str()), "{connections}");
}

#[test]
fn guesses_side_by_side_count_before_the_secret_is_looked_up_again() {
    // A wrong answer was counted after the secret had been looked up once more, so that while the server was slow as
    // many guesses fitted in as there were connections, and none of those that were given up meanwhile counted.
    let pg = postgres_with_asker();
    let link = Link::to(pg.address());
    let pooler = knowing_nobody(&link.address(), "password")
        .set("auth.auth_user", "'asker'")
        .set("auth.auth_query", format!("'{QUERY}'"))
        .set("auth.max_auth_failures", "3")
        .start();
    assert_eq!(log_in(&pooler, "app", "secret"), ok("app"));
    // What was found out just now would do.
    thread::sleep(Duration::from_millis(1050));
    let mut clients: Vec<_> = (0..40)
        .map(|_| {
            let mut client = RawClient::connect(pooler.address());
            client.send(frames::startup(
                frames::PROTOCOL_3_0,
                &[("user", "app"), ("database", "app")],
            ));
            assert_eq!(client.read().tag, b'R');
            client
        })
        .collect();
    link.freeze();
    for client in &mut clients {
        client.send(frames::frame(b'p', frames::text("wrong")));
    }
    let states: Vec<_> = clients
        .iter_mut()
        .map(|client| client.read().field(b'C').unwrap())
        .collect();
    link.thaw();
    let guesses = states.iter().filter(|state| *state == "28P01").count();
    // Some threads may judge at the same moment.
    assert!((3..=3 + 8).contains(&guesses), "{guesses}");
    assert!(states.iter().all(|state| state == "28P01" || state == "28000"));
}

#[test]
fn a_secret_that_has_changed_is_held_against_nobody() {
    // Clients of one address that all come with the new password when the old one's verifier is remembered: each fails
    // once, as its challenge had the old salt in it, or not at all.
    let pg = postgres_with_asker();
    for (method, round) in [("scram-sha-256", "1"), ("password", "2")] {
        let pooler = asking(&pg, method)
            .set("auth.max_auth_failures", "1")
            .set("auth.auth_query_ttl", "'1h'")
            .start();
        pg.psql("ALTER ROLE app PASSWORD 'before'").unwrap();
        assert_eq!(log_in(&pooler, "app", "before"), ok("app"));
        thread::sleep(Duration::from_millis(1050));
        let password = format!("after{round}");
        pg.psql(&format!("ALTER ROLE app PASSWORD '{password}'")).unwrap();
        if method == "scram-sha-256" {
            assert_wrong_password(log_in(&pooler, "app", &password), "app");
        }
        assert_eq!(log_in(&pooler, "app", &password), ok("app"), "{method}");
    }
}

/// A client is set up with a database that does not exist and tries all the time; a stranger makes names up.
#[test]
fn databases_that_do_not_exist_cost_the_server_little_and_nobody_anything() {
    let pg = postgres_with_asker();
    let pooler = asking(&pg, "scram-sha-256")
        .set("auth.max_auth_failures", "3")
        .set("auth.auth_query_negative_ttl", "'1s'")
        .start();
    let missing = |name: &str| {
        let message = format!("database \"{name}\" does not exist");
        let refused = log_in_to(pooler.address(), name, "app", "secret").unwrap_err();
        assert_eq!(refused, ("3D000".to_owned(), message));
    };
    let start = Instant::now();
    for _ in 0..20 {
        missing("typo");
    }
    let tries = pg.log().matches("\"typo\" does not exist").count();
    let most = usize::try_from(start.elapsed().as_secs()).unwrap() + 1;
    assert!((1..=most).contains(&tries), "{tries}");
    thread::scope(|scope| {
        for number in 0..30 {
            scope.spawn(move || missing(&format!("made_up_{number}")));
        }
        // Neither the user nor the address is held responsible.
        assert_eq!(log_in(&pooler, "app", "secret"), ok("app"));
    });
    pg.psql("CREATE DATABASE typo").unwrap();
    eventually("a database that was created is found", || {
        log_in_to(pooler.address(), "typo", "app", "secret")
            .unwrap_err()
            .0
            != "3D000"
    });
}

/// The role that asks is used all the time, and still its connection is another after a while.
#[test]
fn a_connection_that_asks_lives_no_longer_than_any_other() {
    let pg = postgres_with_asker();
    let pooler = asking(&pg, "scram-sha-256")
        .set("auth.auth_query_ttl", "'0'")
        .set("pool.server_lifetime", "'1s'")
        .start();
    let pids = "SELECT count(DISTINCT pid) FROM public.asked";
    eventually("another connection asks", || {
        assert_eq!(log_in(&pooler, "app", "secret"), ok("app"));
        pg.psql_in("app", pids).unwrap() != "1"
    });
    assert_eq!(pooler.metric("pgweir_auth_query_connections"), 1.0);
}

#[test]
fn a_log_in_that_began_with_the_old_password_does_not_bring_it_back() {
    // It was judged by what was known when it began, and what it taught replaced what somebody had taught meanwhile who
    // came with the new password: the server refused the next connections.
    let pg = postgres_with_asker();
    let pooler = asking(&pg, "password").set("auth.auth_query_ttl", "'1h'").start();
    assert_eq!(log_in(&pooler, "app", "secret"), ok("app"));
    thread::sleep(Duration::from_millis(1050));
    let app = [("user", "app"), ("database", "app")];
    let mut late = RawClient::connect(pooler.address());
    late.send(frames::startup(frames::PROTOCOL_3_0, &app));
    assert_eq!(late.read().tag, b'R');
    pg.psql("ALTER ROLE app PASSWORD 'changed'").unwrap();
    let mut session = RawClient::connect(pooler.address());
    session.authenticate(&app, "changed");
    late.send(frames::frame(b'p', frames::text("secret")));
    late.read_until_ready();
    let end = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE usename = 'app'";
    pg.psql(end).unwrap();
    assert_eq!(session.value("SELECT session_user"), "app");
}

// --- what reaches the connection ---

#[test]
fn nothing_of_a_client_reaches_the_connection_that_asks() {
    let pg = postgres_with_asker();
    pg.psql_in(
        "app",
        "CREATE SCHEMA evil AUTHORIZATION app;
         CREATE TABLE public.seen (setting text);
         CREATE FUNCTION evil.user_search(uname text) RETURNS TABLE (usename name, passwd text)
         LANGUAGE sql AS 'SELECT uname::name, ''stolen''';
         CREATE FUNCTION public.settings(uname text) RETURNS TABLE (usename name, passwd text)
         LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
             INSERT INTO public.seen SELECT name || '=' || setting FROM pg_settings WHERE source IN ('client', 'session');
             RETURN QUERY SELECT * FROM public.user_search(uname);
         END $$;
         GRANT USAGE ON SCHEMA evil TO PUBLIC",
    )
    .unwrap();
    let pooler = asking(&pg, "password")
        .set("auth.auth_query", "'SELECT usename, passwd FROM settings($1)'")
        .set("databases.\"*\".application_name", "'of the database'")
        .set("databases.\"*\".connect_query", "'SET work_mem = 123456'")
        .start();
    let evil = [
        ("user", "app"),
        ("database", "app"),
        ("search_path", "evil"),
        (
            "options",
            "-c search_path=evil -c role=evil -c client_encoding=latin1",
        ),
        ("application_name", "evil"),
        ("session_authorization", "evil"),
    ];
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::startup(frames::PROTOCOL_3_0, &evil));
    client.read_until(b'R');
    client.send(frames::frame(b'p', frames::text("stolen")));
    let refused = client.read();
    assert_eq!(refused.field(b'C').as_deref(), Some("28P01"), "{refused:?}");
    let settings = pg.psql_in(
        "app",
        "SELECT string_agg(DISTINCT setting, ',' ORDER BY setting) FROM public.seen",
    );
    assert_eq!(
        settings.unwrap(),
        "application_name=pgweir auth_query,search_path=public,statement_timeout=5000"
    );
}

// --- whose answer is believed ---

/// Whoever may make functions in a database makes one that says what the verifier of `postgres` is, has the database
/// find it first, and becomes `postgres` with the certificate that the pooler has for it.
#[test]
fn the_owner_of_a_database_does_not_become_a_role_that_the_pooler_can_log_in_as() {
    let authority = Authority::new("CA").unwrap();
    let pg = postgres_with(|builder| {
        let server = authority.server(&["localhost"]).unwrap();
        builder
            .mutual_tls(&server, authority.certificate_pem())
            .hba(&["hostssl all postgres all cert", "host all all all trust"])
    });
    make_planted_functions(&pg);
    let certificate = authority.client("postgres").unwrap();
    let mut pooler = asking(&pg, "scram-sha-256")
        .file("postgres.crt", &certificate.certificate_pem)
        .file("postgres.key", &certificate.key_pem)
        .set(
            "users.postgres.server_tls",
            "{ mode = 'require', cert_file = 'postgres.crt', key_file = 'postgres.key' }",
        )
        .start();
    pooler.wait_for_log(0, "users.postgres.server_tls: nobody is let in");
    let address = pooler.address().to_owned();
    for database in ["app", "hers"] {
        // Also as the role that asks, whose rights are worth having.
        for role in ["postgres", "asker"] {
            assert_wrong_password(log_in_to(&address, database, role, "planted"), role);
        }
    }
    // About others too, nobody asks the schema that comes first in the database's search_path.
    assert_eq!(log_in(&pooler, "mallory", "own"), ok("mallory"));
    assert_wrong_password(log_in(&pooler, "mallory", "planted"), "mallory");
    // Where the configuration has chosen the database, its answer counts.
    reload(&mut pooler, |builder| {
        builder.set("auth.auth_database", "'postgres'")
    });
    for database in ["app", "hers"] {
        assert_wrong_password(log_in_to(&address, database, "postgres", "planted"), "postgres");
        assert_eq!(log_in_to(&address, database, "postgres", "true"), ok("postgres"));
    }
}

/// `mallory` may only make schemas in `app`, and has `hers` to herself.
fn make_planted_functions(pg: &Postgres) {
    pg.psql("CREATE ROLE asker LOGIN; CREATE ROLE mallory LOGIN PASSWORD 'own'; ALTER ROLE postgres PASSWORD 'true'")
        .unwrap();
    pg.psql("CREATE DATABASE hers OWNER mallory").unwrap();
    pg.psql("ALTER DATABASE app SET search_path TO evil, public")
        .unwrap();
    let schema = "CREATE SCHEMA evil AUTHORIZATION mallory; GRANT USAGE ON SCHEMA evil TO PUBLIC";
    pg.psql_in("app", schema).unwrap();
    let honest = "CREATE FUNCTION public.user_search(uname text) RETURNS TABLE (usename name, passwd text)
        LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS
        $$SELECT usename, passwd FROM pg_shadow WHERE usename = $1$$";
    for database in ["app", "postgres"] {
        pg.psql_in(database, honest).unwrap();
    }
    for (database, schema) in [("app", "evil"), ("hers", "public")] {
        let planted = format!(
            "GRANT ALL ON SCHEMA {schema} TO mallory; SET ROLE mallory;
             CREATE FUNCTION {schema}.user_search(uname text) RETURNS TABLE (usename name, passwd text)
             LANGUAGE sql AS $$SELECT uname::name, 'planted'$$"
        );
        pg.psql_in(database, &planted).unwrap();
    }
}

// --- faults ---

#[test]
fn a_server_that_restarts_costs_a_log_in_nothing_but_time() {
    let mut pg = postgres_with_asker();
    let pooler = asking(&pg, "scram-sha-256")
        .set("auth.auth_query_ttl", "'0'")
        .start();
    assert_eq!(log_in(&pooler, "app", "secret"), ok("app"));
    let end = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE usename = 'asker'";
    assert_eq!(pg.psql(end).unwrap(), "1");
    assert_eq!(log_in(&pooler, "app", "secret"), ok("app"));
    pg.stop(Stop::Fast).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| log_in(&pooler, "app", "secret"));
        pooler.wait_for_log(0, "cannot look up users");
        pg.start().unwrap();
        assert_eq!(waiting.join().unwrap(), ok("app"));
    });
    eventually("what was closed is not counted", || {
        pooler.metric("pgweir_auth_query_connections") == 1.0
    });
}

#[test]
fn a_server_that_stays_away_is_said_once_for_all_who_wait() {
    let pg = postgres_with_asker();
    let mut link = Link::to(pg.address());
    let pooler = knowing_nobody(&link.address(), "scram-sha-256")
        .set("auth.auth_user", "'asker'")
        .set("auth.auth_query", format!("'{QUERY}'"))
        .set("pool.server_connect_timeout", "'1s'")
        .start();
    link.refuse();
    let start = Instant::now();
    thread::scope(|scope| {
        for number in 0..20 {
            let (user, pooler) = (format!("u{number}"), &pooler);
            scope.spawn(move || {
                let (code, message) = log_in(pooler, &user, "secret").unwrap_err();
                assert_eq!(code, "08006", "{message}");
            });
        }
    });
    // One after the other they would have taken 20 s.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(pooler.logs().matches("cannot look up users").count(), 1);
    link.admit();
    assert_eq!(log_in(&pooler, "app", "secret"), ok("app"));
}

#[test]
fn a_client_that_leaves_takes_nothing_with_it() {
    let pg = postgres_with_asker();
    let pooler = asking(&pg, "scram-sha-256").start();
    // So that the question takes until the lock is gone.
    let mut lock = pg.psql_command();
    lock.args(["-d", "app", "-c", "BEGIN; LOCK public.asked; SELECT pg_sleep(1)"]);
    let mut lock = lock.spawn().unwrap();
    let locked = "SELECT count(*) FROM pg_locks WHERE relation = 'public.asked'::regclass AND granted";
    eventually("the table is locked", || {
        pg.psql_in("app", locked).unwrap() == "1"
    });
    for _ in 0..5 {
        let mut client = RawClient::connect(pooler.address());
        client.send(frames::startup(
            frames::PROTOCOL_3_0,
            &[("user", "app"), ("database", "app")],
        ));
        drop(client);
    }
    assert_eq!(log_in(&pooler, "app", "secret"), ok("app"));
    lock.wait().unwrap();
    assert_eq!(asked(&pg, "app"), 1);
    assert_eq!(pooler.metric("pgweir_auth_query_connections"), 1.0);
}

#[test]
fn a_changed_password_reaches_the_server_connections_of_the_pool() {
    let pg = postgres_with_asker();
    let pooler = asking(&pg, "scram-sha-256").start();
    assert_eq!(log_in(&pooler, "app", "secret"), ok("app"));
    pg.psql("ALTER ROLE app PASSWORD 'changed'").unwrap();
    // The connection that there is goes on; new ones are opened with what the last log-in has shown.
    eventually("the new password is known", || {
        log_in(&pooler, "app", "changed") == ok("app")
    });
    let end = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE usename = 'app'";
    pg.psql(end).unwrap();
    eventually("the pooler has no server connection", || {
        pooler.metric(r#"pgweir_servers{user="app"}"#) == 0.0
    });
    assert_eq!(log_in(&pooler, "app", "changed"), ok("app"));
    assert!(
        !pg.log().contains("password authentication failed"),
        "{}",
        pg.log()
    );
}

#[test]
fn a_pool_whose_secret_is_old_goes_on_after_the_next_log_in() {
    let pg = postgres_with_asker();
    let pooler = asking(&pg, "scram-sha-256")
        .set("pool.min_pool_size", "1")
        .start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let connect = |password: &str| {
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(pooler.port())
            .user("app")
            .password(password)
            .dbname("app");
        let (client, connection) = runtime.block_on(config.connect(NoTls))?;
        runtime.spawn(connection);
        Ok::<_, tokio_postgres::Error>(client)
    };
    let ask = |client: &tokio_postgres::Client| runtime.block_on(client.simple_query("SELECT 1")).is_ok();
    let stays = connect("secret").unwrap();
    assert!(ask(&stays));
    pg.psql("ALTER ROLE app PASSWORD 'changed'").unwrap();
    assert!(ask(&stays), "an open connection is as good as before");
    let end = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE usename = 'app'";
    pg.psql(end).unwrap();
    // Nothing that the pooler knows lets it in, and it sends no proof to find out.
    eventually("the pooler is not let in", || {
        !ask(&stays) && pooler.logs().contains("different secret")
    });
    eventually("the new password is known", || {
        connect("changed").is_ok_and(|client| ask(&client))
    });
    assert_eq!(log_in(&pooler, "app", "changed"), ok("app"));
    assert!(
        !pg.log().contains("password authentication failed"),
        "{}",
        pg.log()
    );
}

#[test]
fn the_role_that_asks_may_have_a_password_in_the_file() {
    let pg = postgres_with(|builder| builder);
    pg.psql("CREATE ROLE asker LOGIN SUPERUSER PASSWORD 'of the asker'")
        .unwrap();
    let mut pooler = knowing_nobody(&pg.address(), "scram-sha-256")
        .set("auth.auth_user", "'asker'")
        .set("auth.users_file", "'users.txt'")
        .user("app", "not looked up")
        .start();
    pg.psql("CREATE ROLE other LOGIN PASSWORD 'secret'").unwrap();
    assert_eq!(log_in(&pooler, "other", "secret").unwrap_err().0, "58000");
    pooler.wait_for_log(0, "a line with its password in users_file");
    reload(&mut pooler, |builder| builder.user("asker", "of the asker"));
    assert_eq!(log_in(&pooler, "other", "secret"), ok("other"));
    let logs = pooler.logs();
    assert!(
        !logs.contains("of the asker") && !logs.contains("SCRAM-SHA-256$"),
        "{logs}"
    );
    // Where nobody has to prove anything, there must at least be such a user.
    reload(&mut pooler, |builder| builder.set("auth.auth_type", "'trust'"));
    assert_eq!(log_in(&pooler, "nobody", "").unwrap_err().0, "28000");
}

#[test]
fn a_strange_answer_lets_nobody_in_and_is_said() {
    let pg = postgres_with(|builder| builder.hba(&TRUSTED));
    pg.psql("CREATE ROLE asker LOGIN").unwrap();
    let hosts = format!("'{}'", pg.address());
    let cases = [
        (
            "first",
            "SELECT * FROM (VALUES ($1, 'secret', 1), ($1, 'other', 2)) AS u",
            "",
            "",
        ),
        ("one", "SELECT $1", "58000", "fewer than two columns"),
        (
            "other",
            "SELECT 'asker', 'secret' WHERE $1 <> ''",
            "58000",
            "another user than",
        ),
        (
            "null",
            "SELECT NULL, 'secret' WHERE $1 <> ''",
            "58000",
            "another user than",
        ),
        (
            "broken",
            "SELECT $1, 'SCRAM-SHA-256$4096:oops'",
            "28P01",
            "broken secret",
        ),
        ("wrong", "SELEKT $1, 2", "58000", "correct auth_query"),
        (
            "table",
            "SELECT a, b FROM missing WHERE a = $1",
            "58000",
            "public.user_search($1)",
        ),
        (
            "forbidden",
            "SELECT usename, passwd FROM pg_shadow WHERE usename = $1",
            "58000",
            "public.user_search($1)",
        ),
        ("long", "SELECT $1, repeat('x', 1000000)", "08006", "longer than"),
    ];
    let pooler = cases
        .iter()
        .fold(knowing_nobody(&pg.address(), "scram-sha-256"), |builder, case| {
            let (name, query, ..) = case;
            let section = format!("databases.{name}");
            builder
                .set(&format!("{section}.hosts"), &hosts)
                .set(&format!("{section}.dbname"), "'app'")
                .set(&format!("{section}.auth_query"), format!("\"{query}\""))
        })
        .set("auth.auth_user", "'asker'")
        .start();
    for (database, _, code, said) in cases {
        let position = pooler.log_position();
        let outcome = log_in_to(pooler.address(), database, "app", "secret");
        if code.is_empty() {
            assert_eq!(outcome, ok("app"), "{database}");
            continue;
        }
        assert_eq!(outcome.unwrap_err().0, code, "{database}");
        pooler.wait_for_log(position, said);
    }
    assert!(!pooler.logs().contains("oops"), "{}", pooler.logs());
}
