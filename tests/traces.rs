//! Traces: spans of what a transaction has waited for and what its server has done, at a collector that speaks OTLP.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use std::{
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use support::{
    Authority, Pooler, PoolerBuilder, Postgres, RawClient,
    collector::{Answer, Collector, Span},
    eventually, frames, postgres, sqlstates, tags,
};

/// A caller's span; the last two digits of the trace tell tests' traces apart.
fn context(trace: u8, span: u8) -> (String, String, String) {
    let trace = format!("0af7651916cd43dd8448eb211c8031{trace:02x}");
    let span = format!("b7ad6b71692033{span:02x}");
    let comment = format!("/*db_driver='test',traceparent='00-{trace}-{span}-01'*/");
    (trace, span, comment)
}

fn traced(postgres: &Postgres, collector: &Collector) -> PoolerBuilder {
    Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", "1")
        .set("traces.endpoint", format!("'http://{}'", collector.address()))
}

fn log_in(pooler: &Pooler) -> RawClient {
    RawClient::log_in(pooler.address(), "app", "secret", "app")
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn only<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found = named(spans, name);
    assert_eq!(found.len(), 1, "{name}: {spans:#?}");
    found[0]
}

fn millis(span: &Span) -> u64 {
    (span.end - span.start) / 1_000_000
}

#[test]
fn a_query_is_a_child_of_its_caller() {
    let (postgres, collector) = (postgres(), Collector::start());
    for mode in ["transaction", "session"] {
        let pooler = traced(&postgres, &collector)
            .set("pool.mode", format!("'{mode}'"))
            .set("traces.query_text", "true")
            .start();
        let mut client = log_in(&pooler);
        let (trace, span, comment) = context(u8::from(mode == "session"), 1);
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        client.query("SELECT 'nobody asks for this'");
        let server_pid = client.value(&format!("SELECT pg_backend_pid(), pg_sleep(0.05) {comment}"));
        let spans = collector.wait_for(&trace, 2);
        let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let (transaction, server) = (only(&spans, "transaction"), only(&spans, "server"));
        assert_eq!((&transaction.parent, &server.parent), (&span, &transaction.id));
        assert!((before..after).contains(&transaction.start.into()));
        assert!((50..5000).contains(&millis(server)) && millis(transaction) >= millis(server));
        assert!(!server.failed && !transaction.failed);
        assert_eq!(server.get("db.system.name"), "postgresql");
        assert_eq!(server.get("db.namespace"), "app");
        assert_eq!(server.get("pgweir.user"), "app");
        assert_eq!(server.get("pgweir.server_pid"), server_pid);
        assert_eq!(server.get("server.port"), postgres.port().to_string());
        assert!(server.get("db.query.text").starts_with("SELECT pg_backend_pid()"));
        let heard = collector.requests().pop().unwrap();
        assert_eq!(
            (heard.path.as_str(), heard.content_type.as_str()),
            ("/v1/traces", "application/x-protobuf")
        );
        assert_eq!(heard.resource["service.name"], "pgweir");
        assert!(heard.resource.contains_key("service.instance.id"));
    }
    assert!(
        collector
            .spans()
            .iter()
            .all(|span| !span.get("db.query.text").contains("nobody"))
    );
}

#[test]
fn a_transaction_of_several_queries_is_one_span_and_its_wait_is_another() {
    let (postgres, collector) = (postgres(), Collector::start());
    let pooler = traced(&postgres, &collector).start();
    let (mut holder, mut waiter) = (log_in(&pooler), log_in(&pooler));
    let (trace, first, comment) = context(0, 1);
    let (_, second, next) = context(0, 2);
    holder.query("BEGIN");
    waiter.send(frames::query(&format!("BEGIN {comment}")));
    eventually("somebody waits", || pooler.metric("pgweir_waiting_clients") > 0.5);
    thread::sleep(Duration::from_millis(60));
    holder.query("COMMIT");
    waiter.read_until_ready();
    // The unnamed statement, a batch without a context, and an error.
    waiter.send(frames::extended(&format!("SELECT $1::int {next}"), &[Some("1")]));
    waiter.read_until_ready();
    waiter.query("SELECT 2");
    assert_eq!(sqlstates(&waiter.query(&format!("SELECT 1/0 {next}"))), ["22012"]);
    assert!(collector.spans().is_empty());
    waiter.query("ROLLBACK");
    let spans = collector.wait_for(&trace, 7);
    let transaction = only(&spans, "transaction");
    let wait = only(&spans, "wait");
    assert_eq!((&transaction.parent, &wait.parent), (&first, &transaction.id));
    assert!(millis(wait) >= 60, "{wait:?}");
    assert_eq!(wait.start, transaction.start);
    let servers = named(&spans, "server");
    let parents: Vec<_> = servers.iter().map(|span| span.parent.as_str()).collect();
    let own = transaction.id.as_str();
    assert_eq!(parents, [own, &second, own, &second, own]);
    let failed: Vec<_> = servers.iter().map(|span| span.get("error.type")).collect();
    assert_eq!(failed, ["", "", "", "22012", ""]);
    assert!(
        servers
            .iter()
            .all(|span| span.start >= wait.end && span.end <= transaction.end)
    );
    assert!(!transaction.failed);
    // Nobody has asked for texts.
    assert!(spans.iter().all(|span| span.get("db.query.text").is_empty()));
}

/// The text of a prepared statement is what runs, whoever has prepared it when.
#[test]
fn a_prepared_statement_has_the_context_of_its_text() {
    let (postgres, collector) = (postgres(), Collector::start());
    let pooler = traced(&postgres, &collector).start();
    let mut client = log_in(&pooler);
    let (trace, span, comment) = context(0, 1);
    client.send([frames::parse("s", &format!("SELECT 1 {comment}")), frames::sync()].concat());
    client.read_until_ready();
    collector.wait_for(&trace, 2);
    log_in(&pooler).query("SELECT 'another client'");
    client.send([frames::bind("", "s", &[]), frames::execute(""), frames::sync()].concat());
    assert_eq!(tags(&client.read_until_ready()), "2DCZ");
    let spans = collector.wait_for(&trace, 4);
    assert!(
        named(&spans, "transaction")
            .iter()
            .all(|transaction| transaction.parent == span)
    );
}

/// Whoever has waited in vain wants to know as well.
#[test]
fn a_wait_that_ends_with_an_error_is_traced() {
    let (postgres, collector) = (postgres(), Collector::start());
    let pooler = traced(&postgres, &collector)
        .set("pool.query_wait_timeout", "'150ms'")
        .start();
    let (mut holder, mut waiter) = (log_in(&pooler), log_in(&pooler));
    holder.query("BEGIN");
    for (trace, request) in [
        (0, frames::query as fn(&str) -> Vec<u8>),
        (1, |sql: &str| frames::extended(sql, &[])),
    ] {
        let (trace, span, comment) = context(trace, 1);
        waiter.send(request(&format!("SELECT 1 {comment}")));
        let refused = sqlstates(&waiter.read_until_ready());
        let spans = collector.wait_for(&trace, 2);
        let (transaction, wait) = (only(&spans, "transaction"), only(&spans, "wait"));
        assert_eq!((&transaction.parent, &wait.parent), (&span, &transaction.id));
        assert!(millis(wait) >= 150 && wait.failed && transaction.failed);
        assert_eq!(refused, [wait.get("error.type")]);
        assert_eq!(wait.get("server.address"), "");
    }
}

/// A transaction that never ends by itself is traced when it is cut.
#[test]
fn a_transaction_that_is_cut_is_traced_as_failed() {
    let (postgres, collector) = (postgres(), Collector::start());
    let pooler = traced(&postgres, &collector).start();
    // By its client, between two queries.
    let (trace, _, comment) = context(0, 1);
    let mut client = log_in(&pooler);
    client.query(&format!("BEGIN {comment}"));
    drop(client);
    let spans = collector.wait_for(&trace, 2);
    assert!(only(&spans, "transaction").failed && !only(&spans, "server").failed);
    // By the server, in the middle of one.
    let (trace, _, comment) = context(1, 1);
    let mut client = log_in(&pooler);
    let own = client.value("SELECT 'who'");
    assert_eq!(own, "who");
    client.send(frames::query(&format!(
        "SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(1) {comment}"
    )));
    client.read_to_end();
    let spans = collector.wait_for(&trace, 2);
    let (transaction, server) = (only(&spans, "transaction"), only(&spans, "server"));
    assert!(transaction.failed && server.failed, "{spans:?}");
    assert_eq!(server.get("db.response.status_code"), "57P01");
}

#[test]
fn a_part_of_what_nobody_asks_for_is_traced_and_what_a_caller_does_not_record_is_not() {
    let (postgres, collector) = (postgres(), Collector::start());
    let mut pooler = traced(&postgres, &collector)
        .set("traces.sample_rate", "'25%'")
        .start();
    let mut client = log_in(&pooler);
    let (unsampled, _, comment) = context(0, 1);
    let comment = comment.replace("-01'", "-00'");
    for _ in 0..40 {
        client.query("SELECT 1");
        client.query(&format!("SELECT 2 {comment}"));
    }
    let transactions = || named(&collector.spans(), "transaction").len();
    // Spread evenly, and not by chance: of the first forty it is these.
    eventually("a quarter of forty", || transactions() >= 12);
    let spans = collector.spans();
    assert!(spans.iter().all(|span| span.trace != unsampled));
    assert!(
        named(&spans, "transaction")
            .iter()
            .all(|transaction| transaction.parent.is_empty())
    );
    assert_eq!(transactions(), 12);
    // A reload turns it off, and on again with another collector, without a client noticing.
    let other = Collector::start();
    for (endpoint, expected) in [(None, 0), (Some(other.address()), 5)] {
        let position = pooler.log_position();
        pooler.reconfigure(|builder| match &endpoint {
            None => builder.without("traces"),
            Some(address) => builder
                .set("traces.endpoint", format!("'http://{address}'"))
                .set("traces.sample_rate", "'100%'"),
        });
        pooler.reload();
        pooler.wait_for_log(position, "configuration reloaded");
        for _ in 0..5 {
            client.query("SELECT 3");
        }
        eventually("the spans are there", || {
            named(&other.spans(), "transaction").len() == expected
        });
    }
    assert_eq!(transactions(), 12);
}

/// A collector that has no time is asked again, one that does not want a batch is not, and no client waits for either.
#[test]
fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let (postgres, collector) = (postgres(), Collector::start());
    let pooler = traced(&postgres, &collector)
        .set("traces.timeout", "'2s'")
        .start();
    let mut client = log_in(&pooler);
    let counts = || {
        ["sent", "failed", "dropped"].map(|outcome| {
            let sample = format!("pgweir_trace_spans_total{{outcome=\"{outcome}\"}}");
            format!("{}", pooler.metric(&sample))
        })
    };
    let counted = |expected: [&str; 3]| eventually("they are counted", || counts() == expected);
    // Again after a second, as it wants.
    collector.answer(&[Answer::Later(1)]);
    let (trace, _, comment) = context(0, 1);
    client.query(&format!("SELECT 1 {comment}"));
    collector.wait_for(&trace, 2);
    assert_eq!(collector.requests().len(), 2);
    counted(["2", "0", "0"]);
    // Not again.
    let position = pooler.log_position();
    collector.answer(&[Answer::Status(400)]);
    client.query(&format!("SELECT 1 {comment}"));
    pooler.wait_for_log(position, "the collector takes no traces");
    counted(["2", "2", "0"]);
    assert_eq!(collector.requests().len(), 3);
    // All but one.
    collector.answer(&[Answer::Rejected(1)]);
    client.query(&format!("SELECT 1 {comment}"));
    pooler.wait_for_log(position, "the collector takes traces again");
    pooler.wait_for_log(position, "too old");
    counted(["3", "3", "0"]);
    // Nobody is there any more.
    drop(collector);
    client.query(&format!("SELECT 1 {comment}"));
    counted(["3", "5", "0"]);
}

#[test]
fn what_is_under_way_is_sent_before_the_end() {
    let (postgres, collector) = (postgres(), Collector::start());
    let mut pooler = traced(&postgres, &collector).start();
    let (trace, _, comment) = context(0, 1);
    log_in(&pooler).query(&format!("SELECT 1 {comment}"));
    pooler.terminate();
    assert!(pooler.wait().success());
    assert_eq!(
        collector
            .spans()
            .iter()
            .filter(|span| span.trace == trace)
            .count(),
        2
    );
}

/// Over TLS the collector has to be who it should be, and only then is it shown the token.
#[test]
fn a_collector_is_verified_and_shown_a_token() {
    let postgres = postgres();
    let (authority, stranger) = (
        Authority::new("collector ca").unwrap(),
        Authority::new("stranger").unwrap(),
    );
    let certificate = authority.server(&["localhost", "127.0.0.1"]).unwrap();
    let collector = Collector::with_tls(&certificate);
    let mut pooler = Pooler::builder(&postgres.address())
        .file("collector-ca.crt", stranger.certificate_pem())
        .file("token", "s3cret\n")
        .set(
            "traces.endpoint",
            format!("'https://{}/otlp'", collector.address()),
        )
        .set("traces.ca_file", "'collector-ca.crt'")
        .set("traces.token_file", "'token'")
        .start();
    let mut client = log_in(&pooler);
    let (trace, _, comment) = context(0, 1);
    client.query(&format!("SELECT 1 {comment}"));
    pooler.wait_for_log(0, "the collector takes no traces");
    assert!(collector.requests().is_empty());
    // The right CA counts from the next connection on, without a reload.
    pooler.reconfigure(|builder| builder.file("collector-ca.crt", authority.certificate_pem()));
    client.query(&format!("SELECT 1 {comment}"));
    collector.wait_for(&trace, 2);
    let heard = collector.requests().pop().unwrap();
    assert_eq!(heard.path, "/otlp/v1/traces");
    assert_eq!(heard.authorization.as_deref(), Some("Bearer s3cret"));
    assert!(!pooler.logs().contains("s3cret"));
}
