//! Whole files: every setting, and what is wrong or otherwise.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::{databases::known_keys, kinds::Kind, main_section::counterpart, settings::*, *};
use crate::config::{self, KEYS, ServerPassword, Settings, Source, overlay, units};

const USERS: &str = "auth_file = users.txt\n";

fn translated(text: &str) -> Translation {
    let content = text.as_bytes().to_vec();
    let ini = Ini::read(Path::new("a.ini"), &|_| Ok(content.clone())).unwrap();
    translate(&ini)
}

/// The settings of an ini without mistakes, but for those of the files that are named.
fn settings(text: &str) -> Settings {
    let translation = translated(text);
    assert_eq!(translation.all_problems(), [], "{text}");
    let toml = translation.to_toml().text;
    parse(&toml, Path::new("")).unwrap_or_else(|problems| panic!("{problems:?}\n{toml}"))
}

fn main_section(more: &str) -> String {
    format!("[pgbouncer]\n{USERS}{more}\n[databases]\na = host=h\n")
}

fn toml(text: &str) -> String {
    translated(text).to_toml().text
}

#[track_caller]
fn has_lines(text: &str, lines: &[&str]) {
    let toml = toml(text);
    for line in lines {
        assert!(
            toml.lines().any(|found| found == *line),
            "{line} is not in\n{toml}"
        );
    }
}

/// The table is that of PgBouncer 1.25's sources, and two settings of the version after it.
#[test]
fn every_setting_is_known_and_something_becomes_of_it() {
    assert_eq!(SETTINGS.len(), 101);
    let names: BTreeSet<_> = SETTINGS.iter().map(|known| known.name).collect();
    assert_eq!(names.len(), SETTINGS.len());
    for known in SETTINGS {
        let value = match known.name {
            "auth_type" => "plain",
            "auth_query" => "SELECT 1, $1",
            "client_tls_sslmode" | "server_tls_sslmode" => "require",
            "pool_mode" => "statement",
            "listen_addr" => "127.0.0.1",
            "unix_socket_dir" => "/run/x",
            "client_tls_protocols" | "server_tls_protocols" => "tlsv1.3",
            _ => "7",
        };
        let text = format!("[pgbouncer]\nauth_user = u\n{} = {value}\n", known.name);
        let with = translated(&text);
        assert_eq!(with.problems, [], "{}", known.name);
        let is_said = with.remarks.iter().any(|remark| {
            remark.name == known.name && remark.place.as_ref().is_some_and(|place| place.line == 3)
        });
        let is_set = toml(&text) != toml("[pgbouncer]\nauth_user = u\n");
        assert!(is_said || is_set, "{} is dropped", known.name);
    }
}

#[test]
fn what_is_the_same_has_a_counterpart() {
    for known in SETTINGS {
        let key = counterpart(known.name);
        match known.rule {
            Rule::Nothing(..) => assert!(
                key.is_none() || known.name == "server_login_retry",
                "{}",
                known.name
            ),
            Rule::Same(_) => assert!(key.is_some(), "{}", known.name),
            Rule::Elsewhere => {}
        }
    }
    let ours = KEYS
        .iter()
        .filter(|key| key.is_global())
        .flat_map(|key| key.pgbouncer);
    for name in ours {
        assert!(find(name).is_some(), "{name} is no setting of PgBouncer's");
    }
    for section in ["databases", "users"] {
        let path = format!("{section}.NAME");
        let named: BTreeSet<_> = KEYS
            .iter()
            .filter(|key| key.section == path)
            .flat_map(|key| key.pgbouncer.iter().copied())
            .collect();
        let known: BTreeSet<_> = known_keys(section).into_iter().collect();
        let without: Vec<_> = known.difference(&named).collect();
        assert_eq!(without, [&"query_wait_timeout"], "{section}");
        assert_eq!(named.difference(&known).count(), 0, "{section}");
    }
}

/// Where the defaults differ, PgBouncer's is written out or somebody has decided not to.
#[test]
fn defaults_are_kept() {
    let left = ["listen_backlog", "max_packet_size", "tcp_keepcnt"];
    let written = ["max_client_conn", "pool_mode"];
    let ours = overlay::defaults();
    for known in SETTINGS {
        let (Rule::Same(kind), Some(default), Some(key)) =
            (known.rule, known.default, counterpart(known.name))
        else {
            continue;
        };
        if matches!(kind, Kind::File | Kind::Names | Kind::Name) || left.contains(&known.name) {
            continue;
        }
        let Some(our) = ours.get(&key.path()) else {
            continue;
        };
        let said = translated(&main_section(&format!("{} = {default}", known.name)));
        let section = said
            .document
            .sections()
            .find(|section| section.path.join(".") == key.section);
        let setting =
            section.and_then(|section| section.settings.iter().find(|setting| setting.key == key.name));
        let same = match setting.map(|setting| &setting.value) {
            None => true,
            Some(Value::Text(text)) => our == text || is_same_duration(our, text),
            Some(Value::Number(number)) => *our == number.to_string(),
            Some(Value::Flag(flag)) => *our == flag.to_string(),
            Some(Value::Texts(_)) => false,
        };
        assert_eq!(
            same,
            !written.contains(&known.name),
            "{}: {our} here, {default} there",
            known.name
        );
    }
    let settings = settings(&main_section(""));
    assert_eq!(settings.pool.mode, crate::types::PoolMode::Session);
    assert_eq!(settings.listen.max_client_conn.get(), 100);
    assert_eq!(settings.auth.auth_type, config::AuthType::Md5);
    assert_eq!(
        settings.listen.addresses,
        [config::ListenAddress::Unix("/tmp/.s.PGSQL.6432".into())]
    );
}

fn is_same_duration(one: &str, other: &str) -> bool {
    let read = |text| units::duration(text).ok();
    read(one).is_some() && read(one) == read(other)
}

#[test]
fn values_are_translated() {
    has_lines(
        &main_section(
            "listen_addr = *, 0.0.0.0 ,10.0.0.1, ::1\nlisten_port = 7000\nunix_socket_dir = /run/p/\n\
             unix_socket_mode = 0770\nserver_lifetime = 0\nserver_idle_timeout = 0\nquery_timeout = 1.5\n\
             server_connect_timeout = 0\ndns_max_ttl = 0\ntcp_user_timeout = 2500\ntcp_keepidle = 0\nverbose = 2\n\
             pool_mode = Transaction\nserver_tls_sslmode = allow\nmin_pool_size = 30\nadmin_users = a, b\n\
             max_packet_size = 3000000000\nclient_idle_timeout = 1e11\nserver_check_query =\n",
        ),
        &[
            "address = [\"[::]:7000\", \"10.0.0.1:7000\", \"[::1]:7000\", \"unix:/run/p/.s.PGSQL.7000\"]",
            "unix_socket_mode = \"0770\"",
            "server_lifetime = \"1ms\"",
            "server_idle_timeout = \"0\"",
            "query_timeout = \"1500ms\"",
            "server_connect_timeout = \"1h\"",
            "dns_max_ttl = \"1s\"",
            "tcp_user_timeout = \"2500ms\"",
            "level = \"trace\"",
            "mode = \"transaction\"",
            "mode = \"prefer\"",
            "min_pool_size = 20",
            "admin_users = [\"a\", \"b\"]",
            "max_packet_size = \"2147483647B\"",
            "client_idle_timeout = \"365d\"",
            "server_check_query = \"\"",
        ],
    );
}

#[test]
fn databases_and_users() {
    let text = format!(
        "[databases]\na = host=h1,::1,/run/pg port=6000 dbname=b user=u password='it''s' pool_size=5 min_pool_size=9 \
         reserve_pool=1 max_db_connections=-1 server_lifetime=0 connect_query='set x to ''y'''\n\
         b = host=h load_balance_hosts=disable pool_mode=SESSION auth_dbname=a timezone=UTC\n'c d' =\n\
         [users]\nu = pool_mode=transaction query_timeout=0 transaction_timeout=90 max_user_connections=0\n\
         [peers]\n1 = host=/tmp/p\n[pgbouncer]\n{USERS}"
    );
    let settings = settings(&text);
    let a = &settings.databases["a"];
    let hosts: Vec<_> = a.servers.hosts().iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["h1:6000", "[::1]:6000", "unix:/run/pg/.s.PGSQL.6000"]);
    assert_eq!(a.load_balance_hosts, config::LoadBalance::RoundRobin);
    assert_eq!(a.role, crate::types::Role::Any);
    assert_eq!((a.pool_size.unwrap().get(), a.min_pool_size), (5, Some(5)));
    assert_eq!((a.reserve_pool_size, a.max_db_connections), (Some(1), None));
    assert_eq!(a.connect_query.as_deref(), Some("set x to 'y'"));
    assert_eq!(a.server_lifetime, None);
    let c = settings.databases["c d"].servers.hosts();
    assert_eq!(c[0].to_string(), "unix:/tmp/.s.PGSQL.5432");
    let user = &settings.users["u"];
    assert_eq!(user.timeouts.query, None);
    assert_eq!(user.timeouts.transaction.unwrap().as_secs(), 90);
    assert_eq!(user.max_user_connections, Some(None));
    let translation = translated(&text);
    assert_eq!(translation.passwords["a"], "it's");
    let printed = translation.to_text(Path::new("a.ini"));
    assert!(
        printed.contains("password_file = \"a.password\"") && !printed.contains("it's"),
        "{printed}"
    );
    parse(&printed, Path::new("")).unwrap();
    assert!(!format!("{:?}", ServerPassword::Written("hunter2".into())).contains("hunter"));
}

#[test]
fn ways_to_log_in() {
    let with = |more: &str| main_section(more);
    has_lines(
        &with("auth_type = Plain"),
        &["auth_type = \"password\"", "allow_plaintext_password = true"],
    );
    has_lines(
        &with("auth_type = hba\nauth_hba_file = /etc/hba\nauth_ident_file = ident"),
        &[
            "auth_type = \"hba\"",
            "hba_file = \"/etc/hba\"",
            "ident_file = \"ident\"",
            "users_file = \"users.txt\"",
        ],
    );
    assert!(!toml(&with("auth_hba_file = hba")).contains("hba_file"));
    let any = "[pgbouncer]\nauth_type = any\nauth_file = f\nauth_user = q\nauth_query = SELECT $1\n[databases]\na = host=h user=u\n";
    let found = settings(any);
    assert_eq!(found.auth.auth_type, config::AuthType::Trust);
    assert_eq!((found.auth.users_file, found.auth.look_up.user), (None, None));
}

#[test]
fn files_that_are_not_read_need_not_be_there() {
    let files = "client_tls_cert_file = c\nclient_tls_key_file = k\nserver_tls_ca_file = s\n";
    let off = format!("{files}server_tls_sslmode = Disable\n");
    let found = settings(&main_section(&off));
    assert_eq!(
        (found.listen.tls.identity, found.server_tls.ca_file),
        (None, None)
    );
    let on = format!("{files}client_tls_sslmode = allow\n");
    let found = settings(&main_section(&on));
    assert!(found.listen.tls.identity.is_some() && found.server_tls.ca_file.is_some());
}

#[test]
fn what_would_let_in_others_is_refused() {
    for (text, line, key) in [
        (
            "[pgbouncer]\nauth_type = trust\n[databases]\na = host=h\n",
            2,
            "auth_type",
        ),
        ("[pgbouncer]\n[databases]\na = host=h\n", 1, "auth_type"),
        (
            "[pgbouncer]\nauth_type = hba\nauth_hba_file = h\n[databases]\na = host=h\n",
            2,
            "auth_type",
        ),
        (
            "[pgbouncer]\nauth_type = any\n[databases]\na = host=h user=u auth_user=x\n",
            2,
            "auth_type",
        ),
        (
            "[pgbouncer]\nauth_type = any\n[databases]\na = host=h user=u\nb = host=h\n",
            2,
            "auth_type",
        ),
        (
            "[pgbouncer]\n\nauth_type = pam\n[databases]\na = host=h\n",
            3,
            "auth_type",
        ),
        (
            "[pgbouncer]\nauth_type = ldap\n[databases]\na = host=h\n",
            2,
            "auth_type",
        ),
        (
            "[pgbouncer]\nlisten_addr = myhost\nauth_file = f\n[databases]\na = host=h\n",
            2,
            "listen_addr",
        ),
        (
            "[pgbouncer]\nunix_socket_dir =\nauth_file = f\n[databases]\na = host=h\n",
            2,
            "unix_socket_dir",
        ),
        (
            "[pgbouncer]\nauth_file = f\n[databases]\na = host=@h\n",
            4,
            "databases.a: host",
        ),
    ] {
        let found: Vec<_> = translated(text)
            .all_problems()
            .into_iter()
            .map(|problem| (problem.line, problem.key))
            .collect();
        assert_eq!(found, [(line, key.to_owned())], "{text}");
        let printed = toml(text);
        for open in ["trust", "hba_file", "allow_plaintext_password"] {
            assert!(!printed.contains(open), "{text} becomes {printed}");
        }
    }
}

#[test]
fn what_has_no_counterpart_is_said_and_secrets_are_not() {
    let text = main_section(
        "pidfile = /run/p.pid\ndisable_pqexec = 1\nauth_ldap_options = ldapbindpasswd=secret\nlogfile =\n\
         client_tls_protocols = all\n",
    );
    let translation = translated(&text);
    let weight = |name: &str| {
        translation
            .remarks
            .iter()
            .find(|remark| remark.name == name)
            .map(|remark| remark.weight)
    };
    assert_eq!(weight("pidfile"), Some(Weight::Warning));
    assert_eq!(weight("disable_pqexec"), Some(Weight::Warning));
    assert_eq!(weight("auth_ldap_options"), Some(Weight::Note));
    assert_eq!(weight("logfile"), Some(Weight::Note));
    assert_eq!(weight("client_tls_protocols"), Some(Weight::Warning));
    let printed = translation.to_text(Path::new("a.ini"));
    assert!(
        printed.contains("line 3: pidfile = /run/p.pid: ") && !printed.contains("secret"),
        "{printed}"
    );
}

#[test]
fn another_main_section_begins_anew() {
    let text = "[pgbouncer]\nauth_file = f\ndefault_pool_size = 5\n[databases]\na = host=h\n[pgbouncer]\npool_mode = statement\n";
    let settings = settings(text);
    assert_eq!(settings.pool.default_pool_size.get(), 20);
    assert_eq!(
        settings.auth.users_file,
        Some(PathBuf::from("f")),
        "it has no default to go back to"
    );
    let translation = translated(text);
    assert!(
        translation
            .remarks
            .iter()
            .any(|remark| remark.name == "default_pool_size")
    );
    let twice =
        translated("[pgbouncer]\nauth_file = f\nauth_file = g\n[databases]\na = host=h\na = host=i\n");
    assert_eq!(
        twice
            .remarks
            .iter()
            .filter(|remark| remark.weight == Weight::Warning)
            .count(),
        2
    );
    assert!(twice.to_toml().text.contains("hosts = \"i:5432\""));
}

fn problems(text: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.ini");
    fs::write(&path, text).unwrap();
    let error = Source::PgBouncer(path)
        .load(&config::Overlay::default())
        .unwrap_err();
    let mut found: Vec<_> = error.problems().iter().map(ToString::to_string).collect();
    found.retain(|problem| !problem.contains("cannot read"));
    found
}

#[test]
fn mistakes_are_told_by_the_line_of_the_ini() {
    let found = problems(
        "x = 1\n[pgbouncer]\nauth_file = f\npool_mod = session\npool_size = 5\nmax_client_conn = 5 ; five\n\
         query_timeout = 5s\ntcp_keepalive = yes\nlisten_port = 0\n[database]\n[databases]\na = host=h prt=1\n\
         pgbouncer = host=h\nb = host\n[users]\nu = pool_size=a\n[open\n",
    );
    let expected = [
        "1: x: stands before the first section",
        "4: pool_mod: unknown setting\n  hint: did you mean `pool_mode`?",
        "5: pool_size: unknown setting\n  hint: it is for the lines of [databases] or [users]",
        "6: max_client_conn: \"5 ; five\" is not a whole number\n  hint: a comment has a line of its own in a pgbouncer.ini",
        "7: query_timeout: \"5s\" is not a number of seconds",
        "8: tcp_keepalive: \"yes\" is neither 1 nor 0",
        "9: listen_port: is not a port, 1 to 65535",
        "10: unknown section [database]\n  hint: did you mean [databases]?",
        "12: databases.a: prt: unknown setting\n  hint: did you mean `port`?",
        "13: databases.pgbouncer: the name belongs to the admin console",
        "14: databases.b: it does not begin with key=value",
        "16: users.u: pool_size: \"a\" is not a whole number",
        "17: a section's name is not closed with ]",
    ];
    assert_eq!(found, expected);
    // What the checker finds.
    let found = problems(
        "[databases]\na = host=h pool_size=0\n[pgbouncer]\nauth_file = f\npool_mode = sesion\nclient_tls_sslmode = require\n",
    );
    assert!(
        found[0].starts_with("2: databases.a: pool_size: must be between 1 and"),
        "{found:?}"
    );
    assert!(
        found[1].starts_with("5: pool_mode: unknown value `sesion`"),
        "{found:?}"
    );
    assert!(
        found[2].starts_with("6: client_tls_sslmode: needs a certificate"),
        "{found:?}"
    );
    assert_eq!(
        problems("[databases]\na = host=h\n")[0].lines().next(),
        Some("1: there is no [pgbouncer] section")
    );
    let nothing = problems("\n[pgbouncer]\nauth_file = f\n");
    assert!(
        nothing[0].starts_with("2: databases: at least one database"),
        "{nothing:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text_is_translated_or_refused(lines in proptest::collection::vec(line(), 0..12)) {
        let translation = translated(&lines.join("\n"));
        let toml = translation.to_toml();
        prop_assert_eq!(toml.text.lines().count(), toml.origins.len());
        prop_assert!(toml.text.parse::<toml::Table>().is_ok(), "{}", toml.text);
        prop_assert!(translation.to_text(Path::new("a.ini")).parse::<toml::Table>().is_ok());
        for problem in parse(&toml.text, Path::new("")).err().unwrap_or_default() {
            prop_assert!(translation.located(problem, &toml).line <= lines.len().max(1));
        }
    }

    #[test]
    fn any_bytes_are_a_file_or_not(content in proptest::collection::vec(any::<u8>(), 0..200)) {
        let ini = Ini::read(Path::new("a.ini"), &|_| Ok(content.clone())).unwrap();
        let _ = translate(&ini).to_text(Path::new("a.ini"));
    }
}

/// Lines that are likely to mean something.
fn line() -> impl Strategy<Value = String> {
    let name = prop::sample::select(SETTINGS).prop_map(|known| known.name);
    let value = prop_oneof![
        "[0-9.-]{0,5}",
        "[a-z*@/:,' ]{0,12}",
        "\\PC{0,8}",
        Just("host=h user=u".to_owned())
    ];
    let section = prop::sample::select(&["[pgbouncer]", "[databases]", "[users]", "[peers]", "[x"][..]);
    let pair = prop::sample::select(known_keys("databases"));
    prop_oneof![
        section.prop_map(str::to_owned),
        (name, value.clone()).prop_map(|(name, value)| format!("{name} = {value}")),
        ("[a-c*]", pair, value).prop_map(|(name, key, value)| format!("{name} = {key}={value}")),
        "\\PC{0,20}",
    ]
}
