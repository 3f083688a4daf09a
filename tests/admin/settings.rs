//! RELOAD, SET and SHOW CONFIG.

use crate::{
    builder, client, console,
    support::{postgres, sqlstates},
    table::{error, number, row_where, show, tags_of_commands, value},
};

#[test]
fn reload_reads_the_file_and_says_what_is_wrong_with_it() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let mut console = console(&pooler);
    let file = pooler.file("pgweir.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        text.replace("default_pool_size = 2", "default_pool_size = 9"),
    )
    .unwrap();
    assert_eq!(tags_of_commands(&console.query("RELOAD")), ["RELOAD"]);
    let config = show(&mut console, "CONFIG");
    assert_eq!(
        value(&row_where(&config, "key", "default_pool_size"), "value"),
        "9"
    );
    std::fs::write(
        &file,
        text.replace("default_pool_size = 2", "default_pool_size = 'x'"),
    )
    .unwrap();
    let (code, message, more) = error(&console.query("RELOAD"));
    assert_eq!(code, "F0000");
    assert!(more.contains("pool.default_pool_size"), "{message} {more}");
    let config = show(&mut console, "CONFIG");
    assert_eq!(
        value(&row_where(&config, "key", "default_pool_size"), "value"),
        "9"
    );
}

#[test]
fn set_changes_a_setting_until_the_file_is_read_again() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let (mut console, _client) = (console(&pooler), client(&pooler));
    for (command, tag) in [
        ("SET default_pool_size = 5", "SET default_pool_size=5"),
        ("SET query_wait_timeout TO '90'", "SET query_wait_timeout=90"),
        (
            "set pool.server_reset_query = 'select 1, 2'",
            "SET pool.server_reset_query=select 1, 2",
        ),
        ("SET server_round_robin = 1", "SET server_round_robin=1"),
    ] {
        let answer = console.query(command);
        assert!(sqlstates(&answer).is_empty(), "{command}: {answer:?}");
        assert_eq!(tags_of_commands(&answer), [tag]);
    }
    let pools = show(&mut console, "POOLS");
    assert_eq!(number(&row_where(&pools, "database", "app"), "pool_size"), 5);
    let config = show(&mut console, "CONFIG");
    for (key, expected) in [
        ("default_pool_size", "5"),
        ("pool.default_pool_size", "5"),
        ("query_wait_timeout", "90s"),
        ("server_reset_query", "select 1, 2"),
        ("server_round_robin", "true"),
        ("max_client_conn", "1000"),
    ] {
        assert_eq!(value(&row_where(&config, "key", key), "value"), expected, "{key}");
    }
    assert_eq!(console.value("SHOW default_pool_size"), "5");
    console.query("RELOAD");
    assert_eq!(console.value("SHOW default_pool_size"), "2");
    let pools = show(&mut console, "POOLS");
    assert_eq!(number(&row_where(&pools, "database", "app"), "pool_size"), 2);
}

#[test]
fn a_value_is_checked_as_in_the_file() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let mut console = console(&pooler);
    for (command, code, said) in [
        ("SET default_pool_size = 0", "22023", "pool.default_pool_size"),
        ("SET pool_mode = sesion", "22023", "session"),
        ("SET default_pol_size = 3", "42704", "default_pool_size"),
        ("SET listen_port = 7000", "55P02", "restart"),
        ("SET hba_file = '/nowhere'", "22023", "/nowhere"),
    ] {
        let (found, message, more) = error(&console.query(command));
        assert_eq!(found, code, "{command}: {message} {more}");
        assert!(
            format!("{message} {more}").contains(said),
            "{command}: {message} {more}"
        );
    }
    let config = show(&mut console, "CONFIG");
    assert_eq!(
        value(&row_where(&config, "key", "default_pool_size"), "value"),
        "2"
    );
    let listen = row_where(&config, "key", "listen.address");
    assert_eq!(value(&listen, "changeable"), "no");
    let size = row_where(&config, "key", "default_pool_size");
    assert_eq!(
        (value(&size, "default"), value(&size, "changeable")),
        ("20", "yes")
    );
}

/// Whoever has lost the right to give orders has lost it also where it is logged in: at the next log-in at the latest.
#[test]
fn rights_follow_the_configuration() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let mut first = console(&pooler);
    assert!(sqlstates(&first.query("SET admin_users = 'eve'")).is_empty());
    let mut eve = crate::support::RawClient::log_in(pooler.address(), "eve", "eve", "pgbouncer");
    assert!(sqlstates(&eve.query("RELOAD")).is_empty());
}
