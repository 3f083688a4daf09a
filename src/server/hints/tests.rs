//! Texts and what they may do; and that hiding a statement behind anything that SQL has does not hide it.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Reading {
    Scanner::new().read(text.as_bytes())
}

fn hints(text: &str) -> Hints {
    read(text).hints
}

fn names(text: &str) -> Vec<String> {
    let names = read(text).names;
    names.iter().map(ToString::to_string).collect()
}

const OPAQUE_SETTING: Hints = Hints(Hints::SETTINGS.0 | Hints::OPAQUE.0);

#[test]
fn most_statements_do_nothing_to_their_session() {
    for text in [
        "",
        ";",
        " -- nothing",
        "SELECT abalance FROM pgbench_accounts WHERE aid = $1",
        "UPDATE t SET a = 1, temp = 2 WHERE \"hold\" = 'x'; COMMIT",
        "INSERT INTO log VALUES ('do; set x = 1; prepare', $1) ON CONFLICT DO UPDATE SET a = 1",
        "INSERT INTO t SELECT temp FROM weather WHERE temperature > threshold",
        "SELECT 'a; SET app.x = 1' /* ; SET app.x = 1 */ -- ; SET app.x = 1",
        "SELECT $$; SET x = 1;$$, $a$ $$; RESET x $a$, \"; SET x = 1\", E'\\'; SET x = 1'",
        "CREATE FUNCTION f() RETURNS int SET search_path = a AS $$ BEGIN SET x = 1; END $$ LANGUAGE plpgsql",
        "ALTER TABLE t SET (fillfactor = 70); ALTER ROLE app SET work_mem = '1MB'",
        "SHOW settings; select * from pg_settings; SELECT set_config FROM t WHERE setup AND unset",
        "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(2)",
        "DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1",
        "SELECT set_config('search_path', $1, true), pg_catalog.set_config('app.x', $2, TRUE)",
        "PREPARE TRANSACTION 'x'; COMMIT PREPARED 'x'",
        "DISCARD PLANS; discard sequences",
        "SELECT 1; seta x = 1; SELECT '''; SET x = 1; '''",
        "BEGIN; SET CONSTRAINTS ALL DEFERRED; COMMIT",
    ] {
        let reading = Reading {
            hints: hints(text).intersection(Hints(!OPAQUE_SETTING.0)),
            ..read(text)
        };
        // A column called `set_config` is not told from a function.
        let expected = if text.starts_with("SHOW") {
            OPAQUE_SETTING
        } else {
            Hints::NONE
        };
        assert_eq!((reading, hints(text)), (Reading::default(), expected), "{text}");
    }
}

#[test]
fn what_each_statement_may_do() {
    for (text, expected) in [
        ("SET TimeZone = 'UTC'", Hints::SETTINGS),
        ("set session work_mem to '1MB'", Hints::SETTINGS),
        ("SET SESSION AUTHORIZATION x", Hints::SETTINGS),
        ("SET ROLE x", Hints::SETTINGS),
        ("SET TIME ZONE LOCAL", Hints::SETTINGS),
        ("SET NAMES 'UTF8'", Hints::SETTINGS),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            Hints::SETTINGS,
        ),
        ("RESET ALL", Hints::SETTINGS),
        ("SELECT 1;\tReset x", Hints::SETTINGS),
        (
            "UPDATE pg_settings SET setting = '1' WHERE name = 'x'",
            Hints::SETTINGS,
        ),
        ("PREPARE p AS SELECT 1", Hints::PREPARED),
        ("DEALLOCATE ALL", Hints::PREPARED),
        ("LISTEN a", Hints::LISTEN),
        ("UNLISTEN *", Hints::LISTEN),
        ("LOAD 'auto_explain'", Hints::LOAD),
        ("CREATE TEMP TABLE t (a int)", Hints::TEMP),
        ("CREATE OR REPLACE TEMPORARY VIEW v AS SELECT 1", Hints::TEMP),
        ("create local temporary table t()", Hints::TEMP),
        ("SELECT 1 AS a INTO TEMP t", Hints::TEMP),
        ("CREATE TABLE pg_temp.t ()", Hints::TEMP),
        ("CREATE TABLE \"pg_temp\".t ()", Hints::TEMP),
        ("SELECT run('SELECT 1 AS a INTO pg_temp.t')", Hints::TEMP),
        (
            "SET search_path = 'public, pg_temp'",
            Hints::SETTINGS.union(Hints::TEMP),
        ),
        ("DISCARD TEMP", Hints::TEMP),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", Hints::CURSOR),
        ("SELECT pg_advisory_lock(1)", Hints::LOCKS),
        (
            "select pg_catalog.PG_TRY_ADVISORY_LOCK_SHARED(1, 2)",
            Hints::LOCKS,
        ),
        ("SELECT \"pg_advisory_unlock_all\"()", Hints::LOCKS),
        ("SELECT run('SELECT pg_advisory_lock(1)')", Hints::LOCKS),
        ("DO $$ BEGIN END $$", Hints::ASKABLE),
        ("CALL p()", Hints::ASKABLE),
        ("DISCARD ALL", Hints::ASKABLE),
        ("SELECT dblink_connect('x', 'y')", Hints::LOAD),
        ("SELECT set_config('work_mem', '1MB', false)", Hints::SETTINGS),
        ("SELECT set_config('work_mem', f(a, ')'), $1)", Hints::SETTINGS),
        ("SELECT set_config($1, $2, $3)", OPAQUE_SETTING),
        ("SELECT set_config($1, $2, true)", Hints::NONE),
        ("SELECT set_config('app.' || x, '1', false)", OPAQUE_SETTING),
        ("SELECT set_config(E'app\\x2ex', '1', false)", OPAQUE_SETTING),
        ("SELECT set_config('a', 'b', not true)", Hints::SETTINGS),
        ("SELECT set_config('a', 'b', true or x)", Hints::SETTINGS),
        (
            "SELECT set_config(is_local => false, setting_name => 'a.b', new_value => 'c')",
            OPAQUE_SETTING,
        ),
        ("SET U&\"app\".\"x\" = 1", OPAQUE_SETTING),
    ] {
        assert_eq!(hints(text), expected, "{text}");
    }
}

#[test]
fn custom_settings_are_named() {
    for (text, expected) in [
        ("SET app.x = '1'", vec!["app.x"]),
        (
            "SET SESSION App.\"X\" TO 1; RESET app.x; RESET a . /* */ b.c",
            vec!["App.X", "a.b.c"],
        ),
        ("SET local.x = 1; SET session.y = 2", vec!["local.x", "session.y"]),
        ("SET LOCAL app.x = 1", vec![]),
        (
            "SELECT set_config('app.x'::text, $1, false), set_config('b.c', '1', true)",
            vec!["app.x"],
        ),
        (
            "DO $$ BEGIN SET app.x = 1; PERFORM set_config('app.y', '2', false); END $$",
            vec!["app.x", "app.y"],
        ),
        (
            "DO 'BEGIN PERFORM set_config(''app.y'', ''2'', false); END'",
            vec!["app.y"],
        ),
        ("SET x = 1", vec![]),
    ] {
        assert_eq!(names(text), expected, "{text}");
    }
    let many: String = (0..=64).map(|n| format!("SET a.b{n} = 1;")).collect();
    assert!(names(&many).len() == 64 && hints(&many).contains(Hints::OPAQUE));
}

#[test]
fn what_lasts_for_a_transaction_is_counted() {
    let text = "BEGIN; SET LOCAL a = 1; SET TRANSACTION READ ONLY; set local time zone 'UTC'; COMMIT";
    let expected = Reading {
        local_sets: 3,
        ..Reading::default()
    };
    assert_eq!(read(text), expected);
    // Not in a function, whose statements have no command tags.
    assert_eq!(read("DO $$ BEGIN SET LOCAL a = 1; END $$").local_sets, 0);
}

#[test]
fn where_a_string_ends_that_depends_on_settings_every_word_counts() {
    for text in [
        "SELECT 'a\\'; SET app.x = 1; SELECT '",
        "SELECT 'a\\' , '; SET app.x = 1; --'",
        "SELECT E'\u{8868}\\'; SET app.x = 1; --'",
        "SELECT 'no end; SET app.x = 1",
        "/* no end; SET app.x = 1",
        "SELECT $a$ no end; SET app.x = 1",
    ] {
        assert_eq!(
            (hints(text), names(text)),
            (Hints::SETTINGS, vec!["app.x".into()]),
            "{text}"
        );
    }
    assert_eq!(
        hints("SELECT 'a\\', ';set'; LOAD 'x'; do"),
        Hints::ASKABLE.union(Hints::LOAD)
    );
    assert_eq!(
        hints("SELECT '/*', 'a\\', 'b'; SET /**/ app.x = 1"),
        OPAQUE_SETTING
    );
}

#[test]
fn functions_of_the_users_are_found_by_name() {
    let effect = |hints, names: &[&str]| Effect {
        hints,
        names: names.iter().map(|&name| name.into()).collect(),
    };
    let scanner = Scanner::with_functions([
        ("Take_Lock", effect(Hints::LOCKS, &[])),
        ("enter", effect(Hints::SETTINGS, &["app.x"])),
        ("", effect(Hints::LOAD, &[])),
    ]);
    assert_eq!(scanner.read(b"SELECT enter(1)").names, ["app.x".into()]);
    let hints = |text: &str| scanner.read(text.as_bytes()).hints;
    assert_eq!(hints("SELECT app.take_lock(1)"), Hints::LOCKS);
    assert_eq!(
        hints("SELECT \"enter\"(1), TAKE_LOCK(2)"),
        Hints::SETTINGS.union(Hints::LOCKS)
    );
    assert_eq!(hints("SELECT take_locks(1), center"), Hints::NONE);
}

#[test]
fn strings_in_strings_are_looked_into_only_so_deep() {
    let mut text = "SELECT set_config('a.b', 'c', false)".to_owned();
    for _ in 0..8 {
        text = format!("SELECT '{}', set_config", text.replace('\'', "''"));
    }
    assert!(hints(&text).contains(OPAQUE_SETTING));
    let calls = "set_config(".repeat(100_000);
    assert_eq!(hints(&calls), OPAQUE_SETTING);
}

#[test]
fn command_tags() {
    for tag in [
        "SELECT 1",
        "INSERT 0 1",
        "UPDATE 2",
        "DELETE 3",
        "BEGIN",
        "COMMIT",
        "CREATE TABLE",
        "FETCH 1",
    ] {
        assert_eq!(of_tag(format!("{tag}\0").as_bytes()), Hints::NONE, "{tag}");
        assert_eq!(may_release(tag.as_bytes()), Hints::NONE);
    }
    for (tag, expected, released) in [
        ("SET", Hints::SETTINGS, Hints::NONE),
        ("RESET", Hints::SETTINGS, Hints::NONE),
        ("SET CONSTRAINTS", Hints::NONE, Hints::NONE),
        ("PREPARE", Hints::PREPARED, Hints::NONE),
        ("PREPARE TRANSACTION", Hints::NONE, Hints::NONE),
        ("DEALLOCATE", Hints::PREPARED, Hints::PREPARED),
        ("LISTEN", Hints::LISTEN, Hints::NONE),
        ("UNLISTEN", Hints::LISTEN, Hints::LISTEN),
        ("LOAD", Hints::LOAD, Hints::NONE),
        ("DO", Hints::ASKABLE, Hints::ASKABLE),
        ("DISCARD ALL", Hints::ASKABLE, Hints::ASKABLE),
        ("DISCARD TEMP", Hints::TEMP, Hints::TEMP),
        ("DISCARD PLANS", Hints::NONE, Hints::NONE),
        ("CLOSE CURSOR", Hints::NONE, Hints::CURSOR),
        ("DROP TABLE", Hints::NONE, Hints::TEMP),
    ] {
        let tag = format!("{tag}\0");
        assert_eq!(
            (of_tag(tag.as_bytes()), may_release(tag.as_bytes())),
            (expected, released),
            "{tag}"
        );
    }
}

#[test]
fn sets_of_hints() {
    let mut hints = Hints::LOCKS;
    hints.insert(Hints::TEMP);
    assert!(hints.contains(Hints::TEMP) && !hints.contains(Hints::SETTINGS) && hints.contains(Hints::NONE));
    assert_eq!(hints.iter().collect::<Vec<_>>(), [Hints::TEMP, Hints::LOCKS]);
    assert_eq!(hints.intersection(Hints::LOCKS), Hints::LOCKS);
    assert!(Hints::NONE.is_empty() && !Hints::ASKABLE.contains(Hints::LOAD));
}

/// What may stand before a statement without being part of it.
fn before() -> impl Strategy<Value = String> {
    let inside = "[a-z;'\"$ *-]{0,12}";
    prop_oneof![
        Just(" \t\r\n".to_owned()),
        "[a-z;'\"$*/ -]{0,12}".prop_map(|text| format!("--{text}\n")),
        inside.prop_map(|text| format!("/*{text} */")),
        inside.prop_map(|text| format!("/*{text} /*{text} */{text} */")),
        inside.prop_map(|text| format!("SELECT '{}';", text.replace('\'', "''"))),
        inside.prop_map(|text| format!("SELECT E'\\'{}';", text.replace('\'', "\\'"))),
        inside.prop_map(|text| format!("SELECT 1 AS \"x{}\";", text.replace('"', "\"\""))),
        "[a-z;'\" *-]{0,12}".prop_map(|text| format!("SELECT $$ $ {text} $b$;$$;")),
        "[a-z;'\" *-]{0,12}".prop_map(|text| format!("SELECT $1, a$b, $a$ $$ {text} $b$; $a$;")),
    ]
}

#[test]
fn the_quick_look_passes_by_nothing() {
    for keyword in look::KEYWORDS {
        for text in [keyword.to_owned(), keyword.to_uppercase(), format!("{keyword} x")] {
            assert!(may_begin_with_keyword(text.as_bytes()), "{text}");
        }
    }
    for part in PARTS {
        for (before, behind) in (0..5).flat_map(|before| (0..5).map(move |behind| (before, behind))) {
            let text = [&b"tedho"[..before], &part, &b"tedho"[..behind]].concat();
            assert!(
                has_part(&text) && has_part(&text.to_ascii_uppercase()),
                "{text:?}"
            );
        }
    }
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text in prop::collection::vec(any::<u8>(), 0..200)) {
        Scanner::new().read(&text);
    }

    #[test]
    fn no_sql_is_too_strange(text in "(set|;|'|\"|[$]|[$]a[$]|E'|/[*]|[*]/|--|\n| |[.]|[(]|[)]|,|set_config|temp|do|\\\\|é){0,40}") {
        Scanner::new().read(text.as_bytes());
    }

    #[test]
    fn a_statement_is_found_wherever_it_hides(hiding in prop::collection::vec(before(), 0..5)) {
        // What only stands before a statement must not end in one.
        let text = format!("{};SET app.x = 1;{}", hiding.concat(), hiding.concat());
        let reading = read(&text);
        prop_assert!(reading.hints.contains(Hints::SETTINGS), "{text}");
        prop_assert_eq!(reading.names, ["app.x".into()], "{}", text);
        let text = format!("{} SET app.x = 1", hiding.concat());
        prop_assert_eq!(names(&text), ["app.x"], "{}", text);
    }

    #[test]
    fn a_call_is_found_wherever_it_hides(hiding in prop::collection::vec(before(), 0..5)) {
        let text = format!("{} SELECT a.set_config /* */ ('app.x', '1', false)", hiding.concat());
        prop_assert_eq!(names(&text), ["app.x"], "{}", text);
    }
}
