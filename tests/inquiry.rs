//! What a session has set and holds is found by asking it, and can be given to another session.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use bytes::BytesMut;
use pgweir::server::{
    hints::{Hints, Scanner},
    inquiry::{self, Findings},
    parameters::{Parameters, Source},
    pins::Pin,
    stateful::{self, Stateful},
};
use support::{Frame, Postgres, RawClient, frames, postgres_with};

fn postgres() -> Postgres {
    postgres_with(|builder| builder.hba(&["host all all all trust"]))
}

/// A connection to the server itself, and what is known about its settings.
struct Session {
    client: RawClient,
    known: Parameters,
}

impl Session {
    fn new(postgres: &Postgres, user: &str, database: &str) -> Self {
        let client = RawClient::log_in(&postgres.address(), user, "", database);
        let mut known = Parameters::default();
        for (name, value) in &client.parameters {
            known.set(name, value.as_bytes(), Source::Reported);
        }
        Self { client, known }
    }

    /// Runs a request, which must not fail.
    #[track_caller]
    fn run(&mut self, request: &[u8]) -> Vec<Frame> {
        self.client.send(request);
        let messages = self.client.read_until_ready();
        for message in &messages {
            assert_ne!(message.tag, b'E', "{message:?} after {}", request.escape_ascii());
            if message.tag == b'S' {
                let end = message.body.iter().position(|&byte| byte == 0).unwrap();
                let name = String::from_utf8_lossy(&message.body[..end]).into_owned();
                let value = &message.body[end + 1..message.body.len() - 1];
                self.known.set(&name, value, Source::Reported);
            }
        }
        messages
    }

    #[track_caller]
    fn query(&mut self, sql: &str) {
        self.run(&frames::query(sql));
    }

    #[track_caller]
    fn ask(&mut self, parts: Hints, names: &[&str]) -> Findings {
        let names: Vec<Box<str>> = names.iter().map(|&name| name.into()).collect();
        let sql = inquiry::sql(parts, &names);
        let mut findings = Findings::default();
        for row in self
            .run(&frames::query(&sql))
            .iter()
            .filter(|message| message.tag == b'D')
        {
            findings.row(&row.body).unwrap();
        }
        findings
    }

    /// Names and values of what is set, in the order of the names.
    #[track_caller]
    fn settings(&mut self, names: &[&str]) -> Vec<(String, String)> {
        let findings = self.ask(Hints::SETTINGS, names);
        let mut settings: Vec<_> = findings
            .settings()
            .map(|(name, value)| (name.to_owned(), value.escape_ascii().to_string()))
            .collect();
        settings.sort();
        settings
    }

    #[track_caller]
    fn pins(&mut self) -> Vec<Pin> {
        self.ask(Hints::ASKABLE, &[]).pins().iter().collect()
    }

    /// Takes over the settings of another one.
    #[track_caller]
    fn become_like(&mut self, other: &Self) {
        if let Some(difference) = self.known.difference(&other.known) {
            let mut messages = BytesMut::new();
            difference.encode(&mut messages);
            self.known.apply(&difference);
            self.run(&messages);
        }
        assert_eq!(self.known.difference(&other.known), None);
    }

    #[track_caller]
    fn learn(&mut self, names: &[&str]) {
        let findings = self.ask(Hints::SETTINGS, names);
        self.known.found(&findings);
    }
}

fn owned(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = settings
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()));
    owned.collect()
}

#[test]
fn what_is_set_in_the_session_is_found() {
    let postgres = postgres();
    let mut session = Session::new(&postgres, "postgres", "app");
    assert_eq!(session.settings(&["app.x"]), []);
    session.query(
        "SET work_mem = '1MB'; SET SESSION \"app\".X = 'it''s \\ '; SET timezone TO 'CET'; SET ROLE app",
    );
    session
        .query("SELECT set_config('App.y', '', false), set_config('plpgsql.extra_warnings', 'all', false)");
    session
        .query("BEGIN; SET jit = off; SET app.z = 1; ROLLBACK; BEGIN; SET LOCAL enable_sort = off; COMMIT");
    let all = [
        ("TimeZone", "CET"),
        ("app.X", r"it\'s \\ "),
        ("app.y", ""),
        // Rolled back; a custom setting that was ever set is empty then, PostgreSQL does not forget it.
        ("app.z", ""),
        ("plpgsql.extra_warnings", "all"),
        ("role", "app"),
        ("work_mem", "1024"),
    ];
    let names = [
        "app.X",
        "app.y",
        "app.z",
        "app.never",
        "plpgsql.extra_warnings",
        "no name",
    ];
    let found = session.settings(&names);
    assert_eq!(found, owned(&all));
    // In a transaction, whose own settings are not the session's.
    session.query("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE");
    assert_eq!(session.settings(&names), found);
    session.query("COMMIT; RESET ALL; RESET ROLE");
    let custom = session.settings(&names);
    assert!(
        custom
            .iter()
            .all(|(name, value)| name.contains('.') && value.is_empty()),
        "{custom:?}"
    );
    session.query("SET SESSION AUTHORIZATION app; SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY");
    assert_eq!(
        session.settings(&[]),
        owned(&[("default_transaction_read_only", "on")])
    );
    assert_eq!(session.known.get("session_authorization").unwrap(), "app");
}

/// What each does, what undoes it.
const PINS: [(Pin, &str, &str); 12] = [
    (Pin::Prepared, "PREPARE p AS SELECT 1", "DEALLOCATE p"),
    (Pin::Prepared, "PREPARE p AS SELECT 1", "DISCARD ALL"),
    (Pin::Listen, "LISTEN a", "UNLISTEN *"),
    (Pin::Temp, "CREATE TEMP TABLE t (a int)", "DROP TABLE t"),
    (Pin::Temp, "SELECT 1 AS a INTO TEMPORARY t", "DISCARD TEMP"),
    (Pin::Temp, "CREATE TABLE pg_temp.t ()", "DROP TABLE t"),
    (Pin::Temp, "CREATE TEMPORARY SEQUENCE s", "DROP SEQUENCE s"),
    (
        Pin::Temp,
        "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP FUNCTION pg_temp.f()",
    ),
    (
        Pin::Cursor,
        "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
        "CLOSE c",
    ),
    (
        Pin::Lock,
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_advisory_unlock(1)",
    ),
    (
        Pin::Lock,
        "SELECT pg_try_advisory_lock_shared(1, 2)",
        "SELECT pg_advisory_unlock_all()",
    ),
    (
        Pin::Lock,
        "DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$",
        "DO $$ BEGIN PERFORM pg_advisory_unlock(1); END $$",
    ),
];

#[test]
fn what_keeps_a_session_is_found_while_it_is_there() {
    let postgres = postgres();
    let (mut session, mut other) = (
        Session::new(&postgres, "app", "app"),
        Session::new(&postgres, "app", "app"),
    );
    let scanner = Scanner::new();
    for (pin, sql, undo) in PINS {
        assert!(!scanner.read(sql.as_bytes()).hints.is_empty(), "{sql}");
        session.query(sql);
        assert_eq!((session.pins(), other.pins()), (vec![pin], vec![]), "{sql}");
        session.query(undo);
        assert_eq!(session.pins(), [], "{undo}");
    }
    // What does not outlive its transaction, and what the protocol prepares.
    session.query("BEGIN; CREATE TEMP TABLE t () ON COMMIT DROP; SELECT pg_advisory_xact_lock(1); COMMIT");
    session.query("BEGIN; DECLARE c CURSOR FOR SELECT 1; LISTEN a; CREATE TEMP TABLE t (); ROLLBACK");
    session.run(&[frames::parse("named", "SELECT 1"), frames::sync()].concat());
    assert_eq!(session.pins(), []);
    // Only what is asked about.
    session.query("LISTEN a; SELECT pg_advisory_lock(1)");
    let findings = session.ask(Hints::LOCKS.union(Hints::TEMP), &[]);
    assert!(!findings.has_settings());
    assert_eq!(findings.pins().iter().collect::<Vec<_>>(), [Pin::Lock]);
}

#[test]
fn nothing_that_a_client_sets_bends_the_question() {
    let postgres = postgres();
    postgres
        .psql_in(
            "app",
            "CREATE SCHEMA evil; GRANT ALL ON SCHEMA evil TO app; SET search_path = evil, pg_catalog;
             CREATE FUNCTION wrong(name, name) RETURNS bool LANGUAGE sql AS 'SELECT false';
             CREATE FUNCTION wrong(text, text) RETURNS bool LANGUAGE sql AS 'SELECT false';
             CREATE FUNCTION wrong(oid, oid) RETURNS bool LANGUAGE sql AS 'SELECT false';
             CREATE OPERATOR = (LEFTARG = name, RIGHTARG = name, FUNCTION = wrong);
             CREATE OPERATOR = (LEFTARG = text, RIGHTARG = text, FUNCTION = wrong);
             CREATE OPERATOR = (LEFTARG = oid, RIGHTARG = oid, FUNCTION = wrong);
             CREATE OPERATOR <> (LEFTARG = text, RIGHTARG = text, FUNCTION = wrong);
             CREATE TABLE pg_settings (); CREATE TABLE pg_locks (); CREATE DOMAIN text AS int; CREATE DOMAIN oid AS int;
             CREATE FUNCTION lower(pg_catalog.text) RETURNS int LANGUAGE sql AS 'SELECT 1';
             CREATE FUNCTION current_setting(pg_catalog.text) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        )
        .unwrap();
    postgres
        .psql("CREATE ROLE powerless; GRANT powerless TO app")
        .unwrap();
    let mut session = Session::new(&postgres, "app", "app");
    session.query(
        "SELECT pg_advisory_lock(1); CREATE TEMP TABLE pg_depend (); SET app.x = '1'; SET standard_conforming_strings = off;
         SET transform_null_equals = on; SET client_encoding = 'SJIS'; SET bytea_output = 'escape'; SET enable_seqscan = off;
         SET default_transaction_read_only = on; SET row_security = off; SET ROLE powerless;
         SET search_path = evil, pg_temp, pg_catalog; SET quote_all_identifiers = on",
    );
    assert_eq!(session.pins(), [Pin::Temp, Pin::Lock]);
    let settings = session.settings(&["app.x"]);
    assert_eq!(settings.len(), 11, "{settings:?}");
    assert!(settings.contains(&("app.x".into(), "1".into())));
    assert!(settings.contains(&("search_path".into(), "evil, pg_temp, pg_catalog".into())));
    assert!(settings.contains(&("role".into(), "powerless".into())));
}

#[test]
fn settings_are_given_to_another_session_in_every_encoding() {
    let postgres = postgres();
    let cases: [(&str, &[u8]); 4] = [
        ("UTF8", "größe 表 \\ 'x'".as_bytes()),
        ("LATIN1", b"gr\xf6\xdfe \\ 'x'"),
        ("EUC_JP", b"\xc9\xbd"),
        ("SQL_ASCII", b"\xff\xfe \\"),
    ];
    for (encoding, bytes) in cases {
        let database = encoding.to_lowercase();
        postgres
            .psql(&format!(
                "CREATE DATABASE {database} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
            ))
            .unwrap();
        let mut one = Session::new(&postgres, "postgres", &database);
        let mut other = Session::new(&postgres, "postgres", &database);
        let quoted: Vec<u8> = bytes
            .iter()
            .flat_map(|&byte| [byte].repeat(1 + usize::from(byte == b'\'')))
            .collect();
        for name in ["app.x", "search_path", "application_name"] {
            let sql = [format!("SET {name} = '").as_bytes(), &quoted, b"'\0"].concat();
            one.run(&frames::frame(b'Q', sql));
        }
        one.learn(&["app.x"]);
        other.become_like(&one);
        let (expected, found) = (one.settings(&["app.x"]), other.settings(&["app.x"]));
        assert_eq!(expected.len(), 3, "{expected:?}");
        assert_eq!(found, expected, "{encoding}");
        // And back: nothing is left of it.
        let fresh = Session::new(&postgres, "postgres", &database);
        other.become_like(&fresh);
        other.learn(&["app.x"]);
        let left: Vec<_> = other
            .known
            .iter()
            .filter(|known| known.source != Source::Reported)
            .collect();
        assert!(left.iter().all(|known| known.value.is_empty()), "{left:?}");
    }
}

/// What sessions of one superuser do, each to be taken over by the next.
const IDENTITIES: [&str; 8] = [
    "SET log_statement = 'all'; SET ROLE app",
    "SET log_min_messages = 'error'; SET ROLE app",
    "RESET log_statement; SET ROLE other; SET search_path = a",
    "SET SESSION AUTHORIZATION other",
    "SET application_name = 'a \\ b'; SET log_statement = 'mod'; SET SESSION AUTHORIZATION app; SET ROLE other",
    "SET application_name = 'c \\ d'; SET SESSION AUTHORIZATION other; SET work_mem = '3MB'",
    "SET log_statement = 'ddl'",
    "SET ROLE other; SET TimeZone = 'CET'",
];

#[test]
fn a_role_stands_in_nobodys_way() {
    let postgres = postgres();
    postgres.psql("CREATE ROLE other; GRANT other TO app").unwrap();
    let show = "SELECT concat_ws('|', session_user, current_user, current_setting('log_statement'), \
                current_setting('work_mem'), current_setting('application_name'))";
    let mut server = Session::new(&postgres, "postgres", "app");
    for sql in IDENTITIES.iter().chain(IDENTITIES.iter().rev()) {
        let mut client = Session::new(&postgres, "postgres", "app");
        client.query(sql);
        client.learn(&[]);
        server.become_like(&client);
        assert_eq!(server.client.value(show), client.client.value(show), "{sql}");
        // What the server reports is set rather than reset, so that it is still found to be set.
        let unreported = |session: &mut Session| {
            let mut settings = session.settings(&[]);
            settings.retain(|(name, _)| !session.client.parameters.iter().any(|(told, _)| told == name));
            settings
        };
        assert_eq!(unreported(&mut server), unreported(&mut client), "{sql}");
    }
}

/// Functions, and what a call of each may do.
const FUNCTIONS: [(&str, &str, Hints); 9] = [
    (
        "take",
        "plpgsql AS $$ BEGIN PERFORM pg_advisory_lock(k); END $$",
        Hints::LOCKS,
    ),
    ("outer_take", "sql AS $$ SELECT app.take(1) $$", Hints::LOCKS),
    (
        "harmless",
        "sql SET work_mem = '1MB' AS $$ SELECT $$",
        Hints::NONE,
    ),
    (
        "enter",
        "plpgsql AS $$ BEGIN PERFORM set_config('app.tenant', 'x', false); END $$",
        Hints::SETTINGS,
    ),
    (
        "for_now",
        "plpgsql AS $$ BEGIN PERFORM set_config('app.tenant', 'x', true); SET LOCAL jit = off; UPDATE x SET a = 1; END $$",
        Hints::NONE,
    ),
    (
        "temporary",
        "plpgsql AS $$ BEGIN IF k > 1 THEN CREATE TEMP TABLE t (); END IF; END $$",
        Hints::TEMP,
    ),
    (
        "dynamic",
        "plpgsql AS $$ BEGIN EXECUTE format('SET %I = 1', 'jit'); END $$",
        Hints::SETTINGS.union(Hints::OPAQUE),
    ),
    ("listening", "plpgsql AS $$ BEGIN LISTEN a; END $$", Hints::LISTEN),
    ("\"Quoted\"", "sql AS $$ SELECT enter(1) $$", Hints::SETTINGS),
];

#[test]
fn functions_that_keep_state_are_found() {
    let postgres = postgres();
    let mut sql = "CREATE SCHEMA app; SET check_function_bodies = off; SET search_path = app;".to_owned();
    for (name, definition, _) in FUNCTIONS {
        sql += &format!("CREATE FUNCTION {name}(k int) RETURNS void LANGUAGE {definition};");
    }
    sql += "CREATE FUNCTION on_write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM take(1); RETURN new; END $$;
            CREATE TABLE written (); CREATE TRIGGER w BEFORE INSERT ON written FOR EACH ROW EXECUTE FUNCTION on_write();";
    let mut session = Session::new(&postgres, "postgres", "app");
    session.query(&sql);
    let has_bodies = session
        .client
        .value("SELECT current_setting('server_version_num')::int >= 140000")
        == "t";
    if has_bodies {
        session.query(
            "CREATE FUNCTION standard() RETURNS void LANGUAGE sql BEGIN ATOMIC SELECT app.take(1); END",
        );
    }
    let mut stateful = Stateful::default();
    let rows = session.run(&frames::query(stateful::SQL));
    for row in rows.iter().filter(|message| message.tag == b'D') {
        stateful.row(&row.body).unwrap();
    }
    let found = stateful.finish();
    let mut expected: Vec<(String, Hints)> = FUNCTIONS
        .iter()
        .filter(|(.., hints)| !hints.is_empty())
        .map(|(name, _, hints)| (name.trim_matches('"').to_lowercase(), *hints))
        .chain([
            ("on_write".to_owned(), Hints::LOCKS),
            ("written".to_owned(), Hints::LOCKS),
        ])
        .chain(has_bodies.then(|| ("standard".to_owned(), Hints::LOCKS)))
        .collect();
    expected.sort_by(|(one, _), (other, _)| one.cmp(other));
    let hints: Vec<_> = found
        .iter()
        .map(|(name, effect)| (name.to_string(), effect.hints))
        .collect();
    assert_eq!(hints, expected);
    assert_eq!(found["quoted"].names, ["app.tenant".into()]);
    let scanner = Scanner::with_functions(found.iter().map(|(name, effect)| (&**name, effect.clone())));
    assert_eq!(
        scanner.read(b"INSERT INTO app.written DEFAULT VALUES").hints,
        Hints::LOCKS
    );
}
