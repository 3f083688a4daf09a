//! Sets of settings, and what makes one out of another.

use bytes::BytesMut;

use super::*;
use crate::server::inquiry::{Findings, tests::row};

fn set(entries: &[(&str, &str, Source)]) -> Parameters {
    let mut parameters = Parameters::default();
    for (name, value, source) in entries {
        parameters.set(name, value.as_bytes(), *source);
    }
    parameters
}

use Source::{Doubtful, Reported, Session};

#[test]
fn names_are_compared_without_case_and_keep_the_servers_spelling() {
    let mut parameters = set(&[("TimeZone", "UTC", Reported)]);
    parameters.set("timezone", b"Europe/Berlin", Session);
    let only = parameters.iter().next().unwrap();
    assert_eq!(
        (&*only.name, &only.value[..], only.source),
        ("TimeZone", &b"Europe/Berlin"[..], Reported)
    );
    assert_eq!(parameters.get("TIMEZONE").unwrap(), "Europe/Berlin");
}

#[test]
fn equal_sets_need_nothing() {
    let a = set(&[("TimeZone", "UTC", Reported), ("work_mem", "1MB", Session)]);
    assert_eq!(a.difference(&a.clone()), None);
    let b = set(&[("TimeZone", "UTC", Reported), ("work_mem", "1MB", Session)]);
    assert!(!a.is(&b));
    assert_eq!(a.difference(&b), None);
}

#[test]
fn a_client_gets_its_own_and_nothing_of_the_one_before() {
    let server = set(&[
        ("TimeZone", "UTC", Reported),
        ("server_version", "17", Reported),
        ("new_guc", "x", Reported),
        ("work_mem", "1MB", Session),
        ("extra_float_digits", "2", Session),
    ]);
    let client = set(&[
        ("TimeZone", "Europe/Berlin", Reported),
        ("server_version", "16", Reported),
        ("work_mem", "2MB", Session),
    ]);
    let difference = server.difference(&client).unwrap();
    let names = |pairs: &[(Arc<str>, Bytes)]| pairs.iter().map(|(n, _)| n.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&difference.set), ["TimeZone"]);
    assert_eq!(names(&difference.given), ["work_mem"]);
    assert_eq!(difference.reset, ["extra_float_digits".into()]);

    let mut after = server.clone();
    after.apply(&difference);
    assert_eq!(
        after.get("TimeZone").unwrap(),
        "UTC",
        "the server will say what it has become"
    );
    after.set("TimeZone", b"Europe/Berlin", Reported);
    assert_eq!(after.difference(&client), None);
    let mut told = client.clone();
    assert_eq!(names(&told.follow(&after)), ["new_guc", "server_version"]);
    assert_eq!(told, after);
}

#[test]
fn what_a_statement_may_have_changed_is_set_again_or_reset() {
    let client = set(&[("TimeZone", "UTC", Reported), ("work_mem", "1MB", Session)]);
    let mut server = client.clone();
    server.doubt();
    assert!(client.is(&client.clone()) && !server.is(&client));
    let again = server.difference(&client).unwrap();
    assert_eq!(again.given, [("work_mem".into(), Bytes::from_static(b"1MB"))]);
    let other = set(&[("TimeZone", "UTC", Reported)]);
    assert_eq!(server.difference(&other).unwrap().reset, ["work_mem".into()]);
    server.apply(&again);
    assert_eq!(server.difference(&client), None);
    // Nothing to doubt: the allocation stays shared.
    let mut same = other.clone();
    same.doubt();
    assert!(same.is(&other));
}

#[test]
fn plain_values_are_literals_and_the_rest_is_never_quoted() {
    let server = set(&[("a.b", "1", Session)]);
    let difference = server
        .difference(&set(&[("search_path", "\"o'x\", public", Session)]))
        .unwrap();
    let mut out = BytesMut::new();
    assert_eq!(difference.encode(&mut out), b"Q");
    let sql = String::from_utf8_lossy(&out[5..out.len() - 1]).into_owned();
    let expected = "RESET \"a\".\"b\";\
        SELECT pg_catalog.set_config('search_path','\"o''x\", public',false)";
    assert_eq!(sql, expected);

    for value in ["a\\'; drop table x; --", "grün", "line\nbreak"] {
        let difference = server
            .difference(&set(&[("application_name", value, Reported)]))
            .unwrap();
        let mut out = BytesMut::new();
        assert_eq!(difference.encode(&mut out), b"PBEPBES", "{value}");
    }
}

#[test]
fn what_a_startup_packet_gave_is_sent_in_ascii_name_and_value() {
    let sql = |name: &str, value: &str| {
        let difference = Parameters::default().difference(&set(&[(name, value, Session)]));
        let mut out = BytesMut::new();
        assert_eq!(difference.unwrap().encode(&mut out), b"Q");
        String::from_utf8(out[5..out.len() - 1].to_vec()).unwrap()
    };
    assert_eq!(
        sql("a.b", "it's"),
        "SELECT pg_catalog.set_config('a.b','it''s',false)"
    );
    let hex = |digits: &str| format!("pg_catalog.convert_from(pg_catalog.decode('{digits}','hex'),'UTF8')");
    assert_eq!(
        sql("a.b", "\u{fc}\\"),
        format!(
            "SELECT pg_catalog.set_config('a.b',{},false) IS NULL",
            hex("c3bc5c")
        )
    );
    assert_eq!(
        sql("a\\'", "x"),
        format!("SELECT pg_catalog.set_config({},'x',false)", hex("615c27"))
    );
    // Beside a reported value that is not plain, in a statement of its own.
    let both = [
        ("application_name", "\u{fc}", Reported),
        ("a.b", "\u{fc}", Session),
    ];
    let difference = Parameters::default().difference(&set(&both)).unwrap();
    assert_eq!(difference.encode(&mut BytesMut::new()), b"PBEPBES");
}

/// The answer of a server to a question about all settings: these are set, these were asked for and are not.
fn findings(set: &[(&str, &str)], unset: &[&str], role: &str) -> Findings {
    let mut findings = Findings::default();
    let rows = set
        .iter()
        .map(|(name, value)| row("setting", Some(name), Some(value)));
    let rows = rows.chain(unset.iter().map(|name| row("custom", Some(name), None)));
    for row in rows.chain([row("role", None, Some(role))]) {
        findings.row(&row).unwrap();
    }
    findings
}

/// Names and values of what is not reported.
fn unreported(parameters: &Parameters) -> Vec<(&str, &str)> {
    let unreported = parameters.iter().filter(|known| known.source != Reported);
    unreported
        .map(|known| (&*known.name, std::str::from_utf8(&known.value).unwrap()))
        .collect()
}

#[test]
fn a_client_has_what_was_found_and_what_it_began_with() {
    let base = set(&[
        ("TimeZone", "UTC", Reported),
        ("work_mem", "1MB", Session),
        ("a.kept", "1", Session),
    ]);
    // SET of three settings, one of which it began with.
    let found = findings(
        &[("jit", "off"), ("work_mem", "2048"), ("a.b", "x")],
        &["a.gone"],
        "reader",
    );
    let learned = base.learn(&found, &base, Some(&base));
    let all = [
        ("a.b", "x"),
        ("a.kept", "1"),
        ("jit", "off"),
        ("role", "reader"),
        ("work_mem", "2048"),
    ];
    assert_eq!(unreported(&learned), all);
    // RESET ALL and RESET ROLE: back to the startup packet. What was not asked for stays.
    let reset = learned.learn(&findings(&[], &["a.b"], "none"), &base, Some(&base));
    assert_eq!(unreported(&reset), [("a.kept", "1"), ("work_mem", "1MB")]);
    // The same answer again: nothing is copied.
    assert!(
        reset
            .learn(&findings(&[("work_mem", "1MB")], &["a.b"], "none"), &base, None)
            .is(&reset)
    );
    // An answer to another question says nothing about settings.
    let mut pins = Findings::default();
    pins.row(&row("pin", Some("temp"), None)).unwrap();
    assert!(learned.learn(&pins, &base, None).is(&learned));
}

#[test]
fn a_reported_setting_that_was_reset_is_what_the_client_began_with() {
    let fresh = set(&[
        ("TimeZone", "UTC", Reported),
        ("DateStyle", "ISO", Reported),
        ("is_superuser", "on", Reported),
    ]);
    let mut base = fresh.clone();
    base.set("TimeZone", b"Europe/Berlin", Reported);
    // After RESET the server has said its own default; its default of another setting has changed meanwhile.
    let mut now = base.clone();
    now.set("TimeZone", b"UTC", Reported);
    now.set("DateStyle", b"SQL", Reported);
    now.set("is_superuser", b"off", Reported);
    let learned = now.learn(&findings(&[], &[], "none"), &base, Some(&fresh));
    assert_eq!(learned.get("TimeZone").unwrap(), "Europe/Berlin");
    assert_eq!(
        (
            learned.get("DateStyle").unwrap(),
            learned.get("is_superuser").unwrap()
        ),
        (&"SQL".into(), &"off".into())
    );
    assert_eq!(
        now.clone().follow(&learned),
        [("TimeZone".into(), "Europe/Berlin".into())]
    );
    // Set to the default on purpose.
    let set_to_default = now.learn(
        &findings(&[("TimeZone", "UTC")], &[], "none"),
        &base,
        Some(&fresh),
    );
    assert!(set_to_default.is(&now));
    assert_eq!(unreported(&set_to_default), []);
}

#[test]
fn a_server_has_exactly_what_was_found() {
    let mut server = set(&[
        ("TimeZone", "UTC", Reported),
        ("role", "reader", Session),
        ("work_mem", "1MB", Doubtful),
        ("a.b", "1", Session),
        ("a.c", "1", Session),
    ]);
    assert_eq!(
        server.custom_names().map(|name| &**name).collect::<Vec<_>>(),
        ["a.b", "a.c"]
    );
    server.found(&findings(
        &[("JIT", "off"), ("timezone", "UTC")],
        &["A.B"],
        "none",
    ));
    assert_eq!(unreported(&server), [("a.c", "1"), ("JIT", "off")]);
    let same = server.clone();
    server.found(&findings(&[("jit", "off"), ("TimeZone", "UTC")], &[], "none"));
    assert!(server.is(&same));
    server.found(&Findings::default());
    assert!(server.is(&same));
}

fn sql(difference: &Difference) -> String {
    let mut out = BytesMut::new();
    assert_eq!(difference.encode(&mut out), b"Q");
    String::from_utf8(out[5..out.len() - 1].to_vec()).unwrap()
}

#[test]
fn a_role_is_left_first_and_taken_last() {
    let plain = set(&[("log_statement", "all", Session), ("TimeZone", "UTC", Reported)]);
    let role = |name: &str| set(&[("role", name, Session), ("TimeZone", "UTC", Reported)]);
    for (server, client, expected) in [
        (
            role("a"),
            plain.clone(),
            "RESET \"role\";SELECT pg_catalog.set_config('log_statement','all',false)",
        ),
        (
            plain.clone(),
            role("b"),
            "RESET \"log_statement\";SELECT pg_catalog.set_config('role','b',false)",
        ),
        (
            role("a"),
            role("b"),
            "RESET \"role\";SELECT pg_catalog.set_config('role','b',false)",
        ),
        // Nobody sets or resets anything in a role, not even in the same one.
        (
            set(&[("role", "a", Session), ("a.b", "1", Session)]),
            set(&[("role", "a", Session), ("zero", "1", Session)]),
            "RESET \"role\";RESET \"a\".\"b\";SELECT pg_catalog.set_config('zero','1',false),\
             pg_catalog.set_config('role','a',false)",
        ),
    ] {
        let difference = server.difference(&client).unwrap();
        assert_eq!(sql(&difference), expected);
        let mut after = server.clone();
        after.apply(&difference);
        assert_eq!(after.difference(&client), None, "{expected}");
    }
    assert_eq!(role("a").difference(&role("a")), None);
}

#[test]
fn another_user_of_the_session_is_left_first_and_taken_before_the_role() {
    let user = |name: &str| set(&[("session_authorization", name, Reported), ("role", "r", Session)]);
    let (server, mut client) = (user("a"), user("b"));
    client.set("zone", b"z", Reported);
    let difference = server.difference(&client).unwrap();
    let expected = "RESET \"role\";RESET \"session_authorization\";SELECT pg_catalog.set_config('zone','z',false),\
        pg_catalog.set_config('session_authorization','b',false),pg_catalog.set_config('role','r',false)";
    assert_eq!(sql(&difference), expected);
    let mut after = server.clone();
    after.apply(&difference);
    assert_eq!(
        after.get("session_authorization").unwrap(),
        "a",
        "the server will say it"
    );
    // The same as an extended query: three statements, four rows in two of them, and the role.
    client.set("zone", b"\\", Reported);
    let mut out = BytesMut::new();
    let tags = server.difference(&client).unwrap().encode(&mut out);
    assert_eq!(tags, b"PBEPBEPBEBEPBES");
    let place = |text: &[u8]| {
        out.windows(text.len())
            .rposition(|window| window == text)
            .unwrap()
    };
    assert!(
        place(b"zone") < place(b"session_authorization")
            && place(b"session_authorization") < place(b"'role'")
    );
}

#[test]
fn plans_depend_on_some_settings() {
    let one = set(&[
        ("TimeZone", "UTC", Reported),
        ("application_name", "a", Reported),
        ("server_version", "16", Reported),
        ("search_path", "a", Session),
        ("app.tenant", "1", Session),
        ("statement_timeout", "1", Session),
        ("log_statement", "all", Session),
    ]);
    let mut other = set(&[("timezone", "UTC", Session), ("SEARCH_PATH", "a", Reported)]);
    assert_eq!(one.planning(), other.planning());
    other.set("search_path", b"b", Reported);
    assert_ne!(one.planning(), other.planning());
    let mut role = one.clone();
    role.set("role", b"r", Session);
    assert_ne!(one.planning(), role.planning());
}
