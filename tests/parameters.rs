//! What a client has set, it keeps, on whichever server connection; what it has not set, it never sees.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use support::{Frame, Pooler, Postgres, RawClient, eventually, frames, postgres_with, tags};

struct Stage {
    pooler: Pooler,
    size: usize,
    postgres: Postgres,
}

fn stage(size: usize) -> Stage {
    let postgres = postgres_with(|builder| builder.setting("log_statement", "all"));
    let pooler = Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", size.to_string())
        .start();
    Stage {
        pooler,
        size,
        postgres,
    }
}

impl Stage {
    fn client(&self) -> RawClient {
        self.client_with(&[])
    }

    fn client_with(&self, settings: &[(&str, &str)]) -> RawClient {
        let mut client = RawClient::connect(self.pooler.address());
        let user = [("user", "app"), ("database", "app")];
        client.authenticate(&[&user, settings].concat(), "secret");
        client
    }

    /// How often a client has been given its settings, by the server's log.
    fn replays(&self) -> usize {
        let log = self.postgres.log();
        log.lines()
            .filter(|line| line.contains("pg_catalog.set_config("))
            .count()
    }
}

/// Bytes of the first column of the only row.
fn raw_value(client: &mut RawClient, sql: &[u8]) -> Vec<u8> {
    client.send(frames::frame(b'Q', [sql, &[0]].concat()));
    let messages = client.read_until_ready();
    let row = messages.iter().find(|message| message.tag == b'D');
    row.unwrap().body[6..].to_vec()
}

/// The ParameterStatus messages among these.
fn reported(messages: &[Frame]) -> Vec<Vec<String>> {
    let statuses = messages.iter().filter(|message| message.tag == b'S');
    statuses.map(Frame::strings).collect()
}

fn told<'a>(client: &'a RawClient, name: &str) -> Option<&'a str> {
    frames::parameter(&client.parameters, name)
}

/// Every reported setting that a client may set, and a value that is not the default.
const REPORTED: [(&str, &str); 7] = [
    ("application_name", r#"it's "mine" \ here"#),
    ("TimeZone", "America/New_York"),
    ("DateStyle", "SQL, DMY"),
    ("IntervalStyle", "iso_8601"),
    ("client_encoding", "LATIN1"),
    ("default_transaction_read_only", "on"),
    ("standard_conforming_strings", "off"),
];

fn show_all(client: &mut RawClient) -> Vec<String> {
    let names = REPORTED.iter();
    names
        .map(|(name, _)| client.value(&format!("SHOW {name}")))
        .collect()
}

#[test]
fn reported_settings_follow_their_client_and_are_nobody_elses() {
    for size in [1, 2] {
        let stage = stage(size);
        let (mut setter, mut other, mut blocker) = (stage.client(), stage.client(), stage.client());
        let fresh = show_all(&mut other);
        let told_before = other.parameters.clone();
        for (name, value) in REPORTED {
            setter.query(&format!("SET {name} TO '{}'", value.replace('\'', "''")));
        }
        let own = REPORTED.map(|(_, value)| value.to_owned());
        let mut pids = std::collections::HashSet::new();
        for round in 0..6 {
            // With two server connections the setter is driven from one to the other.
            let block = size == 2 && round % 2 == 0;
            if block {
                blocker.query("BEGIN");
                assert_eq!(blocker.value("SHOW TimeZone"), fresh[1]);
            }
            assert_eq!(show_all(&mut setter), own);
            pids.insert(setter.value("SELECT pg_backend_pid()"));
            assert_eq!(show_all(&mut other), fresh);
            if block {
                blocker.query("COMMIT");
            }
        }
        assert_eq!(pids.len(), size);
        for (name, value) in REPORTED {
            assert_eq!(told(&setter, name), Some(value));
        }
        assert_eq!(
            other.parameters, told_before,
            "nobody told it about another's settings"
        );
        assert_eq!(show_all(&mut stage.client()), fresh);
        drop((setter, other, blocker));
        stage.pooler.assert_all_places(size);
    }
}

#[test]
fn startup_settings_are_told_in_the_servers_words() {
    let stage = stage(1);
    stage.client();
    let client = stage.client_with(&[
        ("timezone", "europe/berlin"),
        ("DATESTYLE", "german"),
        ("client_encoding", "latin1"),
        ("application_name", "Größe"),
        (
            "options",
            r"-c IntervalStyle=SQL_standard --default-transaction-read-only=true",
        ),
    ]);
    for (name, value) in [
        ("TimeZone", "Europe/Berlin"),
        ("DateStyle", "German, DMY"),
        ("client_encoding", "LATIN1"),
        ("IntervalStyle", "sql_standard"),
        ("default_transaction_read_only", "on"),
    ] {
        assert_eq!(told(&client, name), Some(value));
    }
    assert!(
        told(&client, "application_name").unwrap().starts_with("Gr?"),
        "PostgreSQL takes ASCII only"
    );
    drop(client);
    stage.pooler.assert_all_places(1);
}

#[test]
fn startup_settings_belong_to_their_client_alone() {
    let stage = stage(1);
    stage
        .postgres
        .psql_in("app", r#"SET ROLE app; CREATE SCHEMA "o'dd \ sche""ma, grün""#)
        .unwrap();
    let search_path = r#""o'dd \ sche""ma, grün", public"#;
    let options = r"-c statement_timeout=12345 -c search_path=a,\ b";
    let mut plain = stage.client();
    let mut odd = stage.client_with(&[("search_path", search_path), ("extra_float_digits", "0")]);
    let mut large = stage.client_with(&[("work_mem", "5MB"), ("options", options), ("my.setting", "it's")]);
    let names = [
        "search_path",
        "extra_float_digits",
        "work_mem",
        "statement_timeout",
    ];
    let show = |client: &mut RawClient| names.map(|name| client.value(&format!("SHOW {name}")));
    let default = [r#""$user", public"#, "1", "4MB", "0"];
    for _ in 0..3 {
        assert_eq!(show(&mut plain), default);
        assert_eq!(show(&mut odd), [search_path, "0", default[2], default[3]]);
        assert_eq!(odd.value("SELECT current_schema()"), r#"o'dd \ sche"ma, grün"#);
        assert_eq!(odd.value("SELECT 1/3::float8"), "0.333333333333333");
        assert_eq!(show(&mut large), ["a, b", default[1], "5MB", "12345ms"]);
        assert_eq!(large.value("SHOW my.setting"), "it's");
    }
    assert_eq!(show(&mut stage.client()), default);
    assert_eq!(
        plain.value("SELECT coalesce(current_setting('my.setting', true), '')"),
        ""
    );
    drop((plain, odd, large));
    stage.pooler.assert_all_places(1);
}

#[test]
fn every_client_has_its_own_encoding() {
    let stage = stage(1);
    // Hyō, whose second byte in Shift JIS is a backslash, and e acute.
    let cases: [(&str, &[u8]); 4] = [
        ("UTF8", "é表".as_bytes()),
        ("LATIN1", b"\xe9"),
        ("SJIS", b"\x95\x5c"),
        ("EUC_JP", b"\xc9\xbd"),
    ];
    let mut clients: Vec<_> = cases
        .iter()
        .map(|&(encoding, text)| (stage.client_with(&[("client_encoding", encoding)]), text))
        .collect();
    for _ in 0..3 {
        for (client, text) in &mut clients {
            assert_eq!(raw_value(client, &[b"SELECT '", *text, b"'"].concat()), *text);
        }
    }
    drop(clients);
    stage.pooler.assert_all_places(1);
}

#[test]
fn a_setting_made_in_the_middle_of_a_query_is_followed_at_once() {
    let stage = stage(1);
    let (mut client, mut other) = (stage.client(), stage.client());
    client.query(
        "CREATE FUNCTION move(zone text) RETURNS text LANGUAGE sql \
         AS $$ SELECT set_config('TimeZone', zone, false) $$",
    );
    let answer = client.query("SELECT move('Asia/Tokyo')");
    assert_eq!(reported(&answer), [["TimeZone", "Asia/Tokyo"]]);
    assert_ne!(other.value("SHOW TimeZone"), "Asia/Tokyo");
    assert_eq!(client.value("SHOW TimeZone"), "Asia/Tokyo");

    client.send(
        [
            frames::extended("SELECT move($1)", &[Some("Asia/Seoul")]),
            frames::query("SELECT 1/0"),
            frames::extended("SHOW TimeZone", &[]),
        ]
        .concat(),
    );
    for _ in 0..2 {
        client.read_until_ready();
    }
    assert_eq!(
        client.read_until_ready()[3].columns(),
        [Some("Asia/Seoul".to_owned())]
    );
    assert_ne!(other.value("SHOW TimeZone"), "Asia/Seoul");
    assert_eq!(client.value("SHOW TimeZone"), "Asia/Seoul");
    assert_eq!(told(&client, "TimeZone"), Some("Asia/Seoul"));

    client.query("RESET TimeZone");
    assert_eq!(client.value("SHOW TimeZone"), other.value("SHOW TimeZone"));
    client.query("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY");
    assert_eq!(other.value("SHOW transaction_read_only"), "off");
    assert_eq!(client.value("SHOW transaction_read_only"), "on");
    drop((client, other));
    stage.pooler.assert_all_places(1);
}

#[test]
fn a_setting_goes_when_its_transaction_is_rolled_back() {
    let stage = stage(1);
    let (mut client, mut other) = (stage.client(), stage.client());
    let fresh = other.value("SHOW TimeZone");
    let undone: [&[&str]; 4] = [
        &["BEGIN", "SET TimeZone TO 'Asia/Tokyo'", "ROLLBACK"],
        &["BEGIN", "SET TimeZone TO 'Asia/Tokyo'", "SELECT 1/0", "COMMIT"],
        &["BEGIN", "SET LOCAL TimeZone TO 'Asia/Tokyo'", "COMMIT"],
        &["SET TimeZone TO 'Asia/Tokyo'; SELECT 1/0"],
    ];
    for statements in undone {
        for statement in statements {
            client.query(statement);
        }
        assert_eq!(told(&client, "TimeZone"), Some(fresh.as_str()), "{statements:?}");
        assert_eq!(other.value("SHOW TimeZone"), fresh);
        assert_eq!(client.value("SHOW TimeZone"), fresh, "{statements:?}");
    }
    // What was set before stays.
    client.query("SET TimeZone TO 'Asia/Seoul'");
    client.query("BEGIN; SET TimeZone TO 'Asia/Tokyo'; SAVEPOINT a; SET TimeZone TO 'UTC'");
    client.query("ROLLBACK TO a");
    client.query("COMMIT");
    assert_eq!(other.value("SHOW TimeZone"), fresh);
    assert_eq!(client.value("SHOW TimeZone"), "Asia/Tokyo");
    drop((client, other));
    stage.pooler.assert_all_places(1);
}

#[test]
fn nothing_is_sent_where_nothing_differs() {
    let stage = stage(1);
    let mut alike = [stage.client(), stage.client(), stage.client_with(&[])];
    for _ in 0..5 {
        for client in &mut alike {
            client.query("SELECT 1");
            client.query("BEGIN; COMMIT");
        }
    }
    assert_eq!(stage.replays(), 0);

    let [one, other, _] = &mut alike;
    one.query("SET TimeZone TO 'Asia/Tokyo'");
    for _ in 0..5 {
        one.query("SELECT 2");
    }
    assert_eq!(stage.replays(), 0, "the server has it from the client itself");
    for _ in 0..3 {
        other.query("SELECT 3");
        other.query("SELECT 3");
        one.query("SELECT 4");
        one.query("SELECT 4");
    }
    assert_eq!(stage.replays(), 6, "once for each change of hands");
    other.query("SET TimeZone TO 'Asia/Tokyo'");
    let before = stage.replays();
    for client in [one, other] {
        client.query("SELECT 5");
    }
    assert_eq!(stage.replays(), before, "two that have come to agree");

    // Startup settings, tried once and then known.
    let settings = [("work_mem", "5MB"), ("TimeZone", "Asia/Tokyo")];
    drop(stage.client_with(&settings));
    let before = stage.replays();
    let mut same = [stage.client_with(&settings), stage.client_with(&settings)];
    for _ in 0..3 {
        for client in &mut same {
            client.query("SELECT 6");
        }
    }
    assert_eq!(stage.replays(), before);
    drop(same);
    drop(alike);
    stage.pooler.assert_all_places(stage.size);
}

#[test]
fn a_setting_that_the_server_refuses_is_told_at_log_in() {
    let stage = stage(1);
    for (name, value, sqlstate) in [
        ("TimeZone", "Middle/Earth", "22023"),
        ("work_mem", "much", "22023"),
        ("no_such_setting", "1", "42704"),
        ("shared_buffers", "1GB", "55P02"),
        ("search_path", "\"", "22023"),
    ] {
        let mut client = RawClient::connect(stage.pooler.address());
        let parameters = [("user", "app"), ("database", "app"), (name, value)];
        client.send(frames::startup(frames::PROTOCOL_3_0, &parameters));
        let end = client.read_to_end();
        let error = end.last().unwrap();
        assert_eq!(
            (error.tag, error.field(b'S').as_deref()),
            (b'E', Some("FATAL")),
            "{end:?}"
        );
        assert_eq!(error.field(b'C').as_deref(), Some(sqlstate), "{error:?}");
        assert!(error.field(b'M').unwrap().contains(name), "{error:?}");
        assert_eq!(stage.client().value("SELECT 1"), "1");
    }
    stage.pooler.assert_all_places(1);
}

#[test]
fn a_setting_that_is_refused_later_ends_its_client_and_no_other() {
    let stage = stage(1);
    let (mut other, name) = (stage.client(), "default_text_search_config");
    other.query("CREATE TEXT SEARCH CONFIGURATION mine (COPY = simple)");
    let mut client = stage.client_with(&[(name, "public.mine")]);
    assert_eq!(client.value("SHOW default_text_search_config"), "public.mine");
    other.query("DROP TEXT SEARCH CONFIGURATION mine");
    other.query("CREATE TABLE t (a int)");
    client.send(frames::query("INSERT INTO t VALUES (1)"));
    let end = client.read_to_end();
    assert_eq!(tags(&end), "E", "{end:?}");
    assert_eq!(end[0].field(b'C').as_deref(), Some("22023"));
    assert!(end[0].field(b'M').unwrap().contains(name));
    assert_eq!(other.value("SELECT 1"), "1");
    drop(other);
    stage.pooler.assert_all_places(1);
}

/// A driver that resets its session with RESET ALL or DISCARD ALL, as several do when a connection goes back to
/// their own pool, also reset what the pooler had set for others on that server connection, and the pooler did
/// not know: the next client ran with another client's settings, or without its own.
#[test]
fn what_a_client_resets_or_sets_is_not_taken_for_what_others_asked_for() {
    let stage = stage(1);
    let mut mine = stage.client_with(&[("work_mem", "5MB"), ("search_path", "a, b")]);
    let mut plain = stage.client();
    let default = plain.value("SHOW work_mem");
    for (statement, own) in [
        ("RESET ALL", "5MB"),
        ("DISCARD ALL", "5MB"),
        ("SET work_mem = '9MB'", "9MB"),
        ("RESET work_mem", "5MB"),
    ] {
        mine.query(statement);
        assert_eq!(mine.value("SHOW work_mem"), own, "after {statement}");
        let mut alike = stage.client_with(&[("work_mem", "5MB"), ("search_path", "a, b")]);
        assert_eq!(alike.value("SHOW work_mem"), "5MB", "after {statement}");
        assert_eq!(alike.value("SHOW search_path"), "a, b", "after {statement}");
        assert_eq!(mine.value("SHOW work_mem"), own, "after {statement}, and others");
        assert_eq!(plain.value("SHOW work_mem"), default, "after {statement}");
    }
    drop((mine, plain));
    stage.pooler.assert_all_places(1);
}

/// Severity and text of what the server says to a client that logs in.
fn notices_at_log_in(stage: &Stage, parameters: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut client = RawClient::connect(stage.pooler.address());
    let mut startup = vec![("user", "app"), ("database", "app")];
    startup.extend_from_slice(parameters);
    client.send(frames::startup(frames::PROTOCOL_3_0, &startup));
    let mut notices = Vec::new();
    loop {
        let message = client.read();
        match message.tag {
            b'N' => notices.push((message.field(b'V').unwrap(), message.field(b'M').unwrap())),
            b'Z' => return notices,
            b'E' => panic!("refused: {message:?}"),
            _ => {}
        }
    }
}

/// PostgreSQL tells a client at log-in that a name was cut, or that the database's collation is of another version; through
/// the pooler both were lost, as whoever opened or tried the server connection was not the client.
#[test]
fn what_the_server_says_at_log_in_reaches_every_client() {
    let stage = stage(2);
    let long = "n".repeat(65);
    // The first is tried on a server, the second is answered from memory.
    for _ in 0..2 {
        let notices = notices_at_log_in(&stage, &[("application_name", &long)]);
        let [(severity, text)] = &notices[..] else {
            panic!("one notice: {notices:?}");
        };
        assert!(
            severity == "NOTICE" && text.contains("will be truncated"),
            "{text}"
        );
    }
    assert_eq!(notices_at_log_in(&stage, &[("application_name", "short")]), []);
    let quiet = [
        ("application_name", long.as_str()),
        ("client_min_messages", "warning"),
    ];
    assert_eq!(notices_at_log_in(&stage, &quiet), []);

    let sql = "UPDATE pg_database SET datcollversion = 'another' WHERE datname = 'app'";
    stage.postgres.psql(sql).unwrap();
    stage
        .postgres
        .psql("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'app'")
        .unwrap();
    eventually("the pooler has no server connection", || {
        stage.pooler.metric("pgweir_servers") == 0.0
    });
    let collation = |parameters: &[(&str, &str)]| {
        notices_at_log_in(&stage, parameters)
            .into_iter()
            .filter(|(severity, text)| severity == "WARNING" && text.contains("collation version"))
            .count()
    };
    // A new server connection is needed before anybody can know.
    stage.client().query("SELECT 1");
    assert_eq!(collation(&[]), 1);
    assert_eq!(collation(&[("application_name", &long)]), 1);
    assert_eq!(collation(&[("client_min_messages", "error")]), 0);
}
