//! The configuration files that are shipped, and what a wrong one is answered with.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use pgweir::{
    config::{AuthType, ConfigError, KEYS, Key, ListenAddress, Problem, Settings, load, parse},
    types::{Endpoint, TlsMode},
};
use tempfile::TempDir;

const REFERENCE: &str = include_str!("../config/pgweir.toml");
const MINIMAL: &str = include_str!("../config/minimal.toml");
const EXAMPLE: &str = "# example";

/// Which commented-out lines to take into the file.
#[derive(Clone, Copy, PartialEq)]
enum Take {
    Defaults,
    Everything,
}

/// The reference with its commented-out settings in force. Prose has a space after the `#`.
fn uncommented(take: Take) -> String {
    let line = |line: &'static str| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|first: char| first.is_ascii_lowercase() || first == '[') => {
            let taken = take == Take::Everything || !setting.ends_with(EXAMPLE);
            if taken { setting } else { line }
        }
        _ => line,
    };
    REFERENCE.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn parsed(text: &str) -> Settings {
    parse(text, Path::new("/etc/pgweir")).expect("nothing is wrong with the text")
}

/// Dotted paths of all settings in a TOML document, names chosen by the user replaced by `NAME`.
fn keys_of(text: &str) -> BTreeSet<String> {
    fn walk(table: &toml::Table, path: &str, keys: &mut BTreeSet<String>) {
        for (name, value) in table {
            let name = if matches!(path, "databases" | "users") {
                "NAME"
            } else {
                name
            };
            let path = if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            };
            match value {
                toml::Value::Table(inner) => walk(inner, &path, keys),
                _ => {
                    keys.insert(path);
                }
            }
        }
    }
    let mut keys = BTreeSet::new();
    walk(&text.parse().expect("it is TOML"), "", &mut keys);
    keys
}

/// A directory with `text` as configuration file and an empty file of each of the other names.
fn installation(text: &str, files: &[&str]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for file in files {
        fs::write(directory.path().join(file), "").expect("it can be written");
    }
    let path = directory.path().join("pgweir.toml");
    fs::write(&path, text).expect("it can be written");
    (directory, path)
}

fn places(problems: &[Problem]) -> Vec<(usize, &str)> {
    problems
        .iter()
        .map(|problem| (problem.line, problem.key.as_str()))
        .collect()
}

#[test]
fn the_reference_has_every_key_and_no_other() {
    let known: BTreeSet<_> = KEYS.iter().map(Key::path).collect();
    assert_eq!(keys_of(&uncommented(Take::Everything)), known);
    parsed(&uncommented(Take::Everything));
}

#[test]
fn the_defaults_in_the_reference_are_those_of_the_program() {
    let with_defaults = uncommented(Take::Defaults);
    assert!(
        keys_of(&with_defaults).len() > 20,
        "the reference sets its defaults:\n{with_defaults}"
    );
    assert_eq!(parsed(&with_defaults), parsed(REFERENCE));
}

#[test]
fn the_reference_gives_pgbouncers_names() {
    for key in KEYS {
        let comment = REFERENCE
            .split("PgBouncer: ")
            .skip(1)
            .map(|rest| rest.split(".\n").next().unwrap_or(rest));
        let named: BTreeSet<_> = comment.flat_map(|names| names.split(", ")).collect();
        for name in key.pgbouncer {
            assert!(
                named.contains(name),
                "{name}, which is {}, is not named",
                key.path()
            );
        }
    }
}

/// Some replica would have no server connection, ever.
#[test]
fn a_budget_has_one_for_each_listed_replica_at_least() {
    let text = |budget: usize| {
        format!(
            "[auth]\nauth_type = \"trust\"\n[databases.a]\nhosts = \"h\"\n[http]\n[pool]\n\
             server_connection_budget = {budget}\n[fleet]\nreplicas = [\"a:1\", \"b:1\", \"c:1\"]\n"
        )
    };
    let problems = parse(&text(2), Path::new("")).unwrap_err();
    assert_eq!(places(&problems), [(7, "pool.server_connection_budget")]);
    for budget in [0, 3] {
        parsed(&text(budget));
    }
}

/// A key that is listed but never read would take any value.
#[test]
fn every_key_is_read() {
    let moment = |line: &str| match line.split_once(" = ") {
        Some((key, _)) if !line.starts_with('#') => format!("{key} = 1979-05-27"),
        _ => line.to_owned(),
    };
    let text = uncommented(Take::Everything);
    let text = text.lines().map(moment).collect::<Vec<_>>().join("\n");
    let problems = parse(&text, Path::new("")).unwrap_err();
    let wrong: BTreeSet<_> = problems
        .iter()
        .map(|problem| {
            problem
                .key
                .replace("databases.\"*\"", "databases.NAME")
                .replace("databases.reports", "databases.NAME")
                .replace("users.reader", "users.NAME")
        })
        .collect();
    assert_eq!(wrong, KEYS.iter().map(Key::path).collect());
    assert_eq!(problems.len(), KEYS.len(), "{problems:#?}");
}

#[test]
fn the_minimal_file_loads() {
    let (directory, path) = installation(MINIMAL, &["tls.crt", "tls.key", "users.txt"]);
    let settings = load(&path).unwrap();
    assert_eq!(
        settings.listen.addresses,
        [ListenAddress::Tcp("0.0.0.0:6432".parse().unwrap())]
    );
    assert_eq!(settings.listen.tls.mode, TlsMode::Require);
    assert_eq!(settings.auth.users_file, Some(directory.path().join("users.txt")));
    assert_eq!(
        settings.database("any").unwrap().servers.hosts(),
        [Endpoint::Tcp {
            host: "127.0.0.1".to_owned(),
            port: 5432
        }]
    );
    assert_eq!(settings.pool.query_wait_timeout, Duration::from_secs(120));
    assert_eq!(settings.http.unwrap().address.port(), 9127);
}

#[test]
fn the_reference_loads() {
    let (_directory, path) = installation(REFERENCE, &["users.txt"]);
    load(&path).unwrap();
}

#[test]
fn files_that_are_not_there_are_problems() {
    let (directory, path) = installation(MINIMAL, &["tls.crt"]);
    fs::create_dir(directory.path().join("users.txt")).unwrap();
    let error = load(&path).unwrap_err();
    assert_eq!(
        places(error.problems()),
        [(5, "listen.tls.key_file"), (8, "auth.users_file")]
    );
    assert!(
        error.problems()[0].message.contains("tls.key: No such file"),
        "{error}"
    );
    assert!(error.problems()[1].message.contains("directory"), "{error}");

    let error = load(&directory.path().join("none.toml")).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }));
    assert!(error.to_string().contains("none.toml"));
}

#[test]
fn a_file_that_is_not_text_is_a_problem() {
    let (_directory, path) = installation("", &[]);
    fs::write(&path, b"[auth]\nusers_file = \"\xff\"\n").unwrap();
    let error = load(&path).unwrap_err();
    assert_eq!(places(error.problems()), [(2, "")]);
}

const WRONG: &str = r#"[listen]
address = ["0.0.0.0:6432", "localhost:6432"]
max_client_conn = 0
client_tls_sslmode = "require"

[listen.tls]
cert_file = "tls.crt"

[auth]
auth_tpye = "md5"

[pool]
mode = "transactoin"
default_pool_size = 5
min_pool_size = 9
query_wait_timeout = 120
server_connect_timeout = "0"
max_client_conn = 100

[databases.pgbouncer]
hosts = "db"

[databases.app]
role = "rw"
pool_size = "many"

[databases.other]
hosts = [
  "10.0.0.5",
  "10.0.0.6:0",
]

[server_tls]
mode = "verify-full"

[http]
address = "0.0.0.0:6432"

[log]
level = "debgu"

[proccess]
workers = 3
"#;

const ANSWER: &str = r#"wrong.toml:2: listen.address: "localhost:6432" is not an IP address with a port
  hint: such as "0.0.0.0:6432", "[::]:6432" or "127.0.0.1:6432"
wrong.toml:3: listen.max_client_conn: must be between 1 and 1000000, not 0
wrong.toml:4: listen.client_tls_sslmode: unknown key
  hint: PgBouncer's `client_tls_sslmode` is `listen.tls.mode` here
wrong.toml:7: listen.tls.cert_file: needs key_file as well
  hint: a certificate is of no use without its key
wrong.toml:9: auth.users_file: is required where passwords are asked for and there is no auth_user
  hint: such as users_file = "users.txt", in the format of PgBouncer's auth_file
wrong.toml:10: auth.auth_tpye: unknown key
  hint: did you mean `auth_type`?
wrong.toml:13: pool.mode: unknown value `transactoin`, expected one of `session`, `transaction`, `statement`
wrong.toml:15: pool.min_pool_size: must not be more than default_pool_size, which is 5
wrong.toml:16: pool.query_wait_timeout: a duration needs a unit
  hint: write "120s" for seconds, "120ms" for milliseconds
wrong.toml:17: pool.server_connect_timeout: must not be zero
  hint: without a limit, a server that does not answer would hold its clients forever
wrong.toml:18: pool.max_client_conn: unknown key
  hint: belongs in [listen]
wrong.toml:20: databases.pgbouncer: the name belongs to the admin console
  hint: give it another name here and the real one as dbname
wrong.toml:23: databases.app.hosts: is required
  hint: such as hosts = "127.0.0.1:5432", or cluster = "mypg" in Kubernetes
wrong.toml:25: databases.app.pool_size: expected an integer, not a string
wrong.toml:30: databases.other.hosts: "10.0.0.6:0" has a port that is not between 1 and 65535
wrong.toml:34: server_tls.mode: needs ca_file to verify against
  hint: set ca_file to the CA that signs server certificates
wrong.toml:37: http.address: is taken by listen.address
  hint: give it another port
wrong.toml:40: log.level: "debgu" is not a level
  hint: did you mean "debug"?
wrong.toml:42: proccess: unknown section
  hint: did you mean `process`?"#;

#[test]
fn every_mistake_is_told_at_once() {
    let problems = parse(WRONG, Path::new("")).unwrap_err();
    let error = ConfigError::Invalid {
        path: "wrong.toml".into(),
        problems,
    };
    assert_eq!(error.to_string(), ANSWER);
}

#[test]
fn clusters_are_told_apart_from_hosts() {
    let text = r#"
        [auth]
        auth_type = "trust"
        [databases.good]
        cluster = "db/mypg-yc"
        role = "ro"
        fall_back_to_primary = true
        [databases.replica]
        cluster = "other"
        replica_cluster = true
        [kubernetes]
        namespace = "here"
        api_server = "http://127.0.0.1:8001"
        [pool]
        hold_timeout = "20s"
    "#;
    let settings = parsed(text);
    let cluster = |name: &str| settings.databases[name].servers.cluster().unwrap().to_string();
    assert_eq!(
        (cluster("good").as_str(), cluster("replica").as_str()),
        ("db/mypg-yc", "other")
    );
    assert!(settings.databases["good"].fall_back_to_primary);
    assert!(settings.databases["replica"].replica_cluster);
    assert_eq!(settings.kubernetes.namespace.as_deref(), Some("here"));
    assert_eq!(settings.pool.hold_timeout, Duration::from_secs(20));

    let text = r#"
        [auth]
        auth_type = "trust"
        [databases.a]
        cluster = "pg"
        hosts = "h"
        [databases.b]
        cluster = "pg-rw.db.svc"
        load_balance_hosts = "round-robin"
        [databases.c]
        hosts = "h"
        replica_cluster = true
        fall_back_to_primary = true
        [databases.d]
        cluster = ""
        [kubernetes]
        api_server = "http://10.96.0.1"
        namespace = "a/b"
        [databases.e]
        cluster = "a/b/c"
    "#;
    let problems = parse(text, Path::new("")).unwrap_err();
    let said: Vec<_> = problems
        .iter()
        .map(|problem| format!("{}: {}", problem.key, problem.message))
        .collect();
    assert_eq!(
        said,
        [
            "databases.a.cluster: cannot be set together with hosts",
            "databases.b.cluster: \"pg-rw.db.svc\" is a host, not the name of a cluster",
            "databases.b.load_balance_hosts: is for hosts",
            "databases.c.replica_cluster: needs cluster",
            "databases.c.fall_back_to_primary: is for databases with role \"ro\"",
            "databases.d.cluster: \"\" is not the name of a cluster",
            "kubernetes.api_server: must be https:// except on this machine",
            "kubernetes.namespace: \"a/b\" is not a namespace",
            "databases.e.cluster: \"a/b/c\" is not a namespace and the name of a cluster",
        ]
    );
    assert!(problems.iter().all(|problem| problem.hint.is_some()));
}

#[test]
fn what_a_session_may_keep_has_bounds_and_words() {
    let text = r#"
        [auth]
        auth_type = "trust"
        [pool]
        max_prepared_statements = -1
        prepared_statement_cache_size = 64
        session_state = "pinned"
        max_pin_duration = 5
        allow_replication = "yes"
        [databases.a]
        hosts = "h"
        session_state = "discard"
        max_prepared_statements = 1_000_001
        [users.u]
        session_state = "pin"
    "#;
    let expected = [
        "5: pool.max_prepared_statements: must be between 0 and 1000000, not -1",
        "6: pool.prepared_statement_cache_size: a size needs a unit",
        "7: pool.session_state: unknown value `pinned`, expected one of `pin`, `reset`, `reject`",
        "8: pool.max_pin_duration: a duration needs a unit",
        "9: pool.allow_replication: expected true or false, not a string",
        "12: databases.a.session_state: unknown value `discard`, expected one of `pin`, `reset`, `reject`",
        "13: databases.a.max_prepared_statements: must be between 0 and 1000000, not 1000001",
        "15: users.u.session_state: unknown key",
    ];
    let problems = parse(text, Path::new("")).unwrap_err();
    let told: Vec<_> = problems
        .iter()
        .map(|problem| format!("{}: {}: {}", problem.line, problem.key, problem.message))
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn syntax_errors_do_not_hide_other_mistakes() {
    let text = "[listen]\naddress = \nmax_client_conn = 0\nmax_client_conn = 5\n[log]\nlevel = \"info\nformat = \"xml\"\n";
    let problems = parse(text, Path::new("")).unwrap_err();
    let lines: BTreeSet<_> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, BTreeSet::from([2, 3, 4, 6, 7]), "{problems:#?}");
    assert_eq!(problems.len(), 5, "{problems:#?}");
}

/// A reload may find a file that is being written.
#[test]
fn a_file_that_ends_anywhere_is_read_without_panic() {
    let text = uncommented(Take::Everything);
    for (end, _) in text.char_indices() {
        let lines = text[..end].lines().count().max(1);
        for problem in parse(&text[..end], Path::new("")).err().unwrap_or_default() {
            assert!(
                (1..=lines + 1).contains(&problem.line),
                "{problem}, of {lines} lines"
            );
        }
    }
}

#[test]
fn an_empty_file_says_what_is_required() {
    let problems = parse("", Path::new("")).unwrap_err();
    assert_eq!(places(&problems), [(1, "databases"), (1, "auth.users_file")]);
    let hint = problems[0].hint.as_deref().unwrap();
    assert!(hint.contains("[databases.\"*\"]"), "{hint}");
}

/// A file that needs nothing else, with `more` in it from line 3.
fn problems_of(more: &str) -> Vec<(usize, String)> {
    let text = format!("databases.a.hosts = \"h\"\nauth.auth_type = \"trust\"\n{more}");
    let problems = parse(&text, Path::new("")).err().unwrap_or_default();
    problems
        .into_iter()
        .map(|problem| (problem.line, problem.key))
        .collect()
}

#[test]
fn settings_that_contradict_each_other() {
    for (more, key) in [
        ("listen.tls = { mode = \"require\" }", "listen.tls.mode"),
        (
            "listen.tls = { cert_file = \"c\", key_file = \"k\", mode = \"verify-ca\" }",
            "listen.tls.mode",
        ),
        ("listen.tls = { key_file = \"k\" }", "listen.tls.key_file"),
        ("server_tls = { mode = \"verify-ca\" }", "server_tls.mode"),
        ("auth.auth_query = \"SELECT $1, $1\"", "auth.auth_query"),
        (
            "auth.auth_query = \"SELECT 1, 2\"\nauth.auth_user = \"u\"",
            "auth.auth_query",
        ),
        (
            "auth.auth_database = \"b\"\nauth.auth_user = \"u\"",
            "auth.auth_database",
        ),
        (
            "databases.b = { hosts = \"h\", auth_user = \"u\", auth_database = \"c\" }",
            "databases.b.auth_database",
        ),
        ("server_tls = { cert_file = \"c\" }", "server_tls.cert_file"),
        (
            "databases.b = { hosts = \"h\", pool_size = 3, min_pool_size = 4 }",
            "databases.b.min_pool_size",
        ),
        (
            "databases.b = { hosts = \"h\", min_pool_size = 21 }",
            "databases.b.min_pool_size",
        ),
        ("databases.pgweir = { hosts = \"h\" }", "databases.pgweir"),
        ("databases.b = { hosts = [] }", "databases.b.hosts"),
        ("databases.b = \"host=h\"", "databases.b"),
        ("listen.address = [\"[::]:1\", \"[::]:1\"]", "listen.address"),
        ("http.address = \"127.0.0.1:6432\"", "http.address"),
        ("process.workers = 257", "process.workers"),
        ("process.workers = \"4\"", "process.workers"),
        ("pool.query_wait_timeout = -1", "pool.query_wait_timeout"),
        (
            "pool.server_reset_query = \"a\\u0000b\"",
            "pool.server_reset_query",
        ),
        ("log.level = \"pgweir=loud\"", "log.level"),
        ("users.\"\" = {}", "users.\"\""),
        ("auth.ident_file = \"i\"", "auth.ident_file"),
        ("auth.ldap_ca_file = \"i\"", "auth.ldap_ca_file"),
    ] {
        assert_eq!(problems_of(more), [(3, key.to_owned())], "{more}");
    }
}

#[test]
fn settings_that_agree() {
    for more in [
        "listen.tls = { cert_file = \"c\", key_file = \"k\" }",
        "listen.address = [\"127.0.0.1:0\", \"unix:/run/pgweir\"]",
        "http.address = \"127.0.0.2:6432\"",
        "process.workers = 256",
        "log.level = \"pgweir::pool=debug,info\"",
        "pool.min_pool_size = 20",
        "databases.b = { hosts = \"h\", pool_size = 30, min_pool_size = 21 }",
        "pool.server_reset_query = \"\"",
        "listen.client_login_timeout = \"0\"",
        "auth.auth_database = \"a\"\nauth.auth_user = \"u\"",
    ] {
        assert_eq!(problems_of(more), [], "{more}");
    }
}

#[test]
fn an_auth_user_stands_for_a_users_file() {
    parsed("databases.a = { hosts = \"h\", auth_user = \"u\" }");
    parsed("databases.a = { hosts = \"h\" }\nauth.auth_user = \"u\"");
}

#[test]
fn an_hba_file_is_an_auth_type_of_its_own() {
    let auth = |auth: &str| {
        let text = format!("databases.a.hosts = \"h\"\nauth = {{ {auth} }}");
        parse(&text, Path::new(""))
    };
    for said in [
        "hba_file = \"h\"",
        "auth_type = \"hba\", hba_file = \"h\", ident_file = \"i\"",
    ] {
        let settings = auth(said).unwrap().auth;
        assert_eq!(settings.auth_type, AuthType::Hba, "{said}");
        assert_eq!(settings.hba_file.as_deref(), Some(Path::new("h")));
    }
    for (said, key) in [
        ("auth_type = \"hba\"", "auth.hba_file"),
        ("auth_type = \"trust\", hba_file = \"h\"", "auth.auth_type"),
        ("auth_type = \"cert\"", "auth.auth_type"),
        ("auth_type = \"peer\"", "auth.auth_type"),
    ] {
        assert_eq!(places(&auth(said).unwrap_err()), [(2, key)], "{said}");
    }
}

#[test]
fn passwords_in_clear_want_a_decision() {
    let auth = "databases.a.hosts = \"h\"\nauth = { auth_type = \"plain\", users_file = \"u\"";
    let problems = parse(&format!("{auth} }}"), Path::new("")).unwrap_err();
    assert_eq!(places(&problems), [(2, "auth.auth_type")]);
    parsed(&format!("{auth}, allow_plaintext_password = true }}"));
    parsed(&format!(
        "{auth} }}\nlisten.tls = {{ cert_file = \"c\", key_file = \"k\" }}"
    ));
    parsed(&format!("{auth} }}\nlisten.address = \"unix:/run/pgweir\""));
}

#[test]
fn unix_sockets_take_the_port_of_the_first_tcp_address() {
    let text = "auth.auth_type = \"trust\"\ndatabases.a.hosts = \"h\"\nlisten.address = [\"unix:run\", \"[::]:7000\"]";
    let settings = parsed(text);
    assert_eq!(
        settings.listen.addresses[0],
        ListenAddress::Unix("/etc/pgweir/run/.s.PGSQL.7000".into())
    );
}
