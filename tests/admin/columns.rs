//! Every SHOW has PgBouncer's columns, with its types.

use crate::{
    builder, client, console,
    pgbouncer::PgBouncer,
    support::{RawClient, eventually, postgres},
    table::{columns, rows, show},
};

const TEXT: u32 = 25;
const INT4: u32 = 23;
const INT8: u32 = 20;
const NUMERIC: u32 = 1700;
const BYTEA: u32 = 17;

/// The columns of PgBouncer 1.25, from its documentation; the type of a column is that of the one before unless it is
/// said. What is ours follows.
const SHOWN: &[(&str, &str)] = &[
    ("CLIENTS", SOCKET),
    ("SERVERS", SOCKET),
    ("SOCKETS", SOCKET_WITH_BUFFERS),
    ("ACTIVE_SOCKETS", SOCKET_WITH_BUFFERS),
    (
        "POOLS",
        "s:database user i:cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel \
         sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us s:pool_mode load_balance_hosts",
    ),
    (
        "DATABASES",
        "s:name host i:port s:database force_user i:pool_size min_pool_size reserve_pool_size server_lifetime \
         s:pool_mode load_balance_hosts i:max_connections current_connections max_client_connections \
         current_client_connections paused disabled",
    ),
    (
        "USERS",
        "s:name pool_size reserve_pool_size pool_mode i:max_user_connections current_connections \
         max_user_client_connections current_client_connections",
    ),
    (
        "STATS",
        "s:database n:total_server_assignment_count total_xact_count total_query_count total_received total_sent \
         total_xact_time total_query_time total_wait_time total_client_parse_count total_server_parse_count \
         total_bind_count total_client_login_count avg_server_assignment_count avg_xact_count avg_query_count avg_recv \
         avg_sent avg_xact_time avg_query_time avg_wait_time avg_client_parse_count avg_server_parse_count \
         avg_bind_count avg_client_login_count",
    ),
    (
        "STATS_TOTALS",
        "s:database n:server_assignment_count xact_count query_count bytes_received bytes_sent xact_time query_time \
         wait_time client_parse_count server_parse_count bind_count client_login_count",
    ),
    (
        "STATS_AVERAGES",
        "s:database n:server_assignment_count xact_count query_count bytes_received bytes_sent xact_time query_time \
         wait_time avg_client_parse_count avg_server_parse_count avg_bind_count avg_client_login_count",
    ),
    ("TOTALS", "s:name n:value"),
    ("LISTS", "s:list i:items"),
    ("CONFIG", "s:key value default changeable"),
    ("MEM", "s:name i:size used free memtotal"),
    ("DNS_HOSTS", "s:hostname q:ttl s:addrs"),
    ("DNS_ZONES", "s:zonename q:serial i:count"),
    ("PEERS", "i:peer_id s:host i:port pool_size"),
    (
        "PEER_POOLS",
        "i:peer_id cl_active_cancel_req cl_waiting_cancel_req sv_active_cancel sv_login",
    ),
    ("STATE", "s:key value"),
    ("VERSION", "s:version"),
    (
        "FDS",
        "i:fd s:task user database addr i:port q:cancel i:link s:client_encoding std_strings datestyle timezone \
         password b:scram_client_key scram_server_key",
    ),
    ("HELP", ""),
];

const SOCKET: &str = "s:type user database replication state addr i:port s:local_addr i:local_port s:connect_time \
                      request_time i:wait wait_us close_needed s:ptr link i:remote_pid s:tls application_name \
                      i:prepared_statements id";
const SOCKET_WITH_BUFFERS: &str = "s:type user database replication state addr i:port s:local_addr i:local_port \
                                   s:connect_time request_time i:wait wait_us close_needed s:ptr link i:remote_pid \
                                   s:tls application_name i:prepared_statements id recv_pos pkt_pos pkt_remain \
                                   send_pos send_remain pkt_avail send_avail";

fn expected(shown: &str) -> Vec<(String, u32)> {
    let mut kind = TEXT;
    let column = |word: &str| {
        let name = match word.split_once(':') {
            Some((letter, name)) => {
                kind = match letter {
                    "s" => TEXT,
                    "i" => INT4,
                    "q" => INT8,
                    "n" => NUMERIC,
                    "b" => BYTEA,
                    other => panic!("{other}"),
                };
                name
            }
            None => word,
        };
        (name.to_owned(), kind)
    };
    shown.split_whitespace().map(column).collect()
}

#[test]
fn every_show_has_the_columns_of_pgbouncer_1_25_and_then_ours() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let mut client = client(&pooler);
    client.query("BEGIN");
    let mut console = console(&pooler);
    for (topic, shown) in SHOWN {
        let messages = console.query(&format!("SHOW {topic}"));
        let (found, expected) = (columns(&messages), expected(shown));
        assert_eq!(found[..expected.len()], expected, "SHOW {topic}");
        rows(&messages);
    }
    for topic in [
        "TOPOLOGY",
        "PREPARED",
        "PINS",
        "CERTIFICATES",
        "WAITERS",
        "TRANSACTIONS",
    ] {
        assert!(
            !columns(&console.query(&format!("SHOW {topic}"))).is_empty(),
            "{topic}"
        );
    }
    let help = console.query("SHOW HELP");
    let notice = help.iter().find(|message| message.tag == b'N').unwrap();
    assert!(notice.field(b'M').unwrap().contains("SHOW"), "{notice:?}");
}

/// Column by column: whatever reads a PgBouncer's answers finds the same here, if perhaps more.
#[test]
fn whatever_a_real_pgbouncer_shows_is_shown_with_the_same_type() {
    let postgres = postgres();
    let Some(pgbouncer) = PgBouncer::start(&postgres.address()) else {
        eprintln!("left out: no pgbouncer is installed");
        return;
    };
    let pooler = builder(&postgres).start();
    let mut theirs = RawClient::log_in(&pgbouncer.address, "app", "secret", "pgbouncer");
    let mut ours = console(&pooler);
    let mut compared = 0;
    for (topic, _) in SHOWN {
        let answer = theirs.query(&format!("SHOW {topic}"));
        if answer.iter().any(|message| message.tag == b'E') {
            // It is younger than this PgBouncer.
            continue;
        }
        let found = columns(&ours.query(&format!("SHOW {topic}")));
        for (name, kind) in columns(&answer) {
            assert!(
                found.contains(&(name.clone(), kind)),
                "SHOW {topic} has no {name} of type {kind}: {found:?}"
            );
            compared += 1;
        }
        let notices = |messages: &[crate::support::Frame]| messages.iter().any(|message| message.tag == b'N');
        assert_eq!(
            notices(&answer),
            notices(&ours.query(&format!("SHOW {topic}"))),
            "{topic}"
        );
    }
    assert!(compared > 100, "{compared}");
}

/// The numbers mean the same, too: after the same work both count the same.
#[test]
fn a_real_pgbouncer_counts_the_same() {
    let postgres = postgres();
    let Some(pgbouncer) = PgBouncer::start(&postgres.address()) else {
        eprintln!("left out: no pgbouncer is installed");
        return;
    };
    let pooler = builder(&postgres).start();
    let counted = |address: &str| {
        let mut client = RawClient::log_in(address, "app", "secret", "app");
        for _ in 0..5 {
            client.query("SELECT 1");
        }
        client.query("BEGIN");
        client.query("SELECT 2");
        client.query("COMMIT");
        let mut console = RawClient::log_in(address, "app", "secret", "pgbouncer");
        let mut found = Vec::new();
        eventually("everything is counted", || {
            let stats = show(&mut console, "STATS_TOTALS");
            let app = stats.iter().find(|row| row["database"].as_deref() == Some("app"));
            found = app.map_or(Vec::new(), |row| {
                ["xact_count", "query_count"]
                    .map(|column| row[column].clone())
                    .to_vec()
            });
            // Whoever looks between the two sees the transaction without its last query.
            found == ["6", "8"].map(|count| Some(count.to_owned()))
        });
        let pools = show(&mut console, "POOLS");
        let pool = pools
            .iter()
            .find(|row| row["database"].as_deref() == Some("app"))
            .unwrap();
        found.extend(
            [
                "cl_active",
                "cl_waiting",
                "sv_active",
                "sv_idle",
                "sv_login",
                "pool_mode",
            ]
            .map(|column| pool[column].clone()),
        );
        found
    };
    let (ours, theirs) = (counted(pooler.address()), counted(&pgbouncer.address));
    assert_eq!(ours, theirs);
}
