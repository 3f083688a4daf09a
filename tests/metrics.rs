//! What `/metrics` and `/metrics/fleet` show of running processes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use pgweir::cli::demo::ports;
use support::{
    LIMIT, Pooler, PoolerBuilder, Postgres, RawClient,
    api_server::{ApiServer, Resource},
    eventually, fleet, frames, postgres, postgres_with, sum_of_samples,
};

fn builder(postgres: &Postgres) -> PoolerBuilder {
    Pooler::builder(&format!("127.0.0.1:{}", postgres.port()))
}

fn log_in(pooler: &Pooler) -> RawClient {
    RawClient::log_in(pooler.address(), "app", "secret", "app")
}

/// GET with headers: the head and the body.
fn get(address: &str, path: &str, headers: &[&str]) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n");
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// What promtool finds wrong; `None` where there is no promtool.
fn promtool(metrics: &str) -> Option<String> {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take().unwrap();
    let text = metrics.to_owned();
    let writer = thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    Some(if output.status.success() && said.trim().is_empty() {
        String::new()
    } else {
        format!("{}: {said}", output.status)
    })
}

#[track_caller]
fn assert_metric(text: &str, sample: &str, expected: f64) {
    let value = sum_of_samples(text, sample);
    assert!(
        (value - expected).abs() < 1e-9,
        "{sample} is {value}, not {expected}:\n{text}"
    );
}

/// Does a bit of everything that is counted.
fn use_it(pooler: &Pooler) {
    let mut client = log_in(pooler);
    client.query("BEGIN");
    client.query("SELECT 1");
    client.query("COMMIT");
    client.query("SELECT nothing");
    client.send(frames::parse("", "SELECT 1"));
    client.send(frames::bind("", "", &[]));
    client.send(frames::execute(""));
    client.send(frames::sync());
    client.read_until_ready();
    client.send(frames::terminate());
    eventually("the client has left", || pooler.metric("pgweir_clients") < 0.5);
}

// --- one replica ---

#[test]
fn what_was_done_is_counted() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    use_it(&pooler);
    let text = pooler.metrics();
    assert_metric(
        &text,
        "pgweir_query_seconds_count{database=\"app\",user=\"app\",role=\"rw\"}",
        5.0,
    );
    assert_metric(&text, "pgweir_transaction_seconds_count", 3.0);
    assert_metric(&text, "pgweir_errors_total{class=\"42\",blame=\"client\"}", 1.0);
    for name in ["client_parses", "server_parses", "binds"] {
        assert_metric(&text, &format!("pgweir_{name}_total"), 1.0);
    }
    for name in ["server_connect", "server_login", "client_login"] {
        assert!(
            sum_of_samples(&text, &format!("pgweir_{name}_seconds_count")) >= 1.0,
            "{name}:\n{text}"
        );
        assert!(
            sum_of_samples(&text, &format!("pgweir_{name}_seconds_sum")) > 0.0,
            "{name}:\n{text}"
        );
    }
    let queries = sum_of_samples(&text, "pgweir_query_seconds_sum");
    let transactions = sum_of_samples(&text, "pgweir_transaction_seconds_sum");
    assert!(
        queries > 0.0 && queries <= transactions,
        "{queries} of {transactions}"
    );
    assert!(
        sum_of_samples(&text, "pgweir_runtime_busy_seconds_total{runtime=\"worker-0\"}") > 0.0,
        "{text}"
    );
    assert!(
        sum_of_samples(&text, "pgweir_runtime_busy_seconds_total{runtime=\"control\"}") > 0.0,
        "{text}"
    );
}

#[test]
fn the_time_of_a_query_is_the_servers_and_not_the_clients() {
    let postgres = postgres();
    for mode in ["transaction", "session"] {
        let pooler = builder(&postgres).set("pool.mode", format!("'{mode}'")).start();
        let mut client = log_in(&pooler);
        client.query("BEGIN");
        client.query("SELECT pg_sleep(0.3)");
        thread::sleep(Duration::from_millis(700));
        client.query("COMMIT");
        client.send(frames::terminate());
        eventually("the client has left", || pooler.metric("pgweir_clients") < 0.5);
        let text = pooler.metrics();
        assert_metric(&text, "pgweir_query_seconds_count", 3.0);
        let seconds = sum_of_samples(&text, "pgweir_query_seconds_sum");
        assert!((0.3..0.8).contains(&seconds), "{mode}: {seconds}");
        let lent = sum_of_samples(&text, "pgweir_transaction_seconds_sum");
        assert!(lent >= 0.99, "{mode}: {lent}");
    }
}

#[test]
fn limits_stand_beside_what_is_used() {
    let postgres = postgres();
    let pooler = builder(&postgres)
        .set("listen.max_client_conn", "77")
        .set("listen.max_unauthenticated_clients", "55")
        .set("pool.default_pool_size", "3")
        .set("pool.min_pool_size", "1")
        .set("pool.reserve_pool_size", "2")
        .set("pool.max_db_connections", "9")
        .set("pool.max_user_connections", "8")
        .set("pool.max_db_client_connections", "7")
        .set("pool.max_user_client_connections", "6")
        .start();
    let mut client = log_in(&pooler);
    client.query("SELECT 1");
    let text = pooler.metrics();
    for (sample, value) in [
        ("pgweir_max_client_connections", 77.0),
        ("pgweir_client_connections", 1.0),
        ("pgweir_max_unauthenticated_clients", 55.0),
        ("pgweir_pool_size", 3.0),
        ("pgweir_min_pool_size", 1.0),
        ("pgweir_reserve_pool_size", 2.0),
        ("pgweir_database_max_server_connections{database=\"app\"}", 9.0),
        ("pgweir_user_max_server_connections{user=\"app\"}", 8.0),
        ("pgweir_user_server_connections{user=\"app\"}", 1.0),
        ("pgweir_database_max_clients{database=\"app\"}", 7.0),
        ("pgweir_user_max_clients{user=\"app\"}", 6.0),
        ("pgweir_database_clients{database=\"app\"}", 1.0),
    ] {
        assert_metric(&text, sample, value);
    }
}

#[test]
fn names_beyond_max_series_are_other() {
    let postgres = postgres();
    let mut setup = builder(&postgres)
        .set("metrics.max_series", "2")
        .set(r#"databases."*".dbname"#, "'app'")
        .set("listen.max_client_conn", "40");
    setup = setup.user("app", "secret");
    let pooler = setup.start();
    let mut clients = Vec::new();
    for number in 0..12 {
        let name = format!("made_up_{number}");
        let mut client = RawClient::log_in(pooler.address(), "app", "secret", &name);
        client.query("SELECT 1");
        clients.push(client);
    }
    let text = pooler.metrics();
    let lines = text
        .lines()
        .filter(|line| line.starts_with("pgweir_transactions_total{"));
    assert_eq!(lines.count(), 3, "{text}");
    assert_metric(&text, "pgweir_transactions_total{database=\"made_up_0\"}", 1.0);
    assert_metric(
        &text,
        "pgweir_transactions_total{database=\"other\",user=\"other\"}",
        10.0,
    );
    assert_metric(&text, "pgweir_clients{database=\"other\"}", 10.0);
    assert_metric(&text, "pgweir_query_seconds_count{database=\"other\"}", 10.0);
    assert_metric(
        &text,
        "pgweir_database_server_connections{database=\"other\"}",
        10.0,
    );
    assert!(!text.contains("made_up_7"), "{text}");
}

#[test]
fn promtool_has_nothing_to_say() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    use_it(&pooler);
    let Some(said) = promtool(&pooler.metrics()) else {
        eprintln!("there is no promtool");
        return;
    };
    assert_eq!(said, "");
}

/// Dashboards and alerts go by these.
#[test]
fn names_are_kept() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    use_it(&pooler);
    let text = pooler.metrics();
    for (name, kind) in [
        ("pgweir_build_info", "gauge"),
        ("pgweir_clients", "gauge"),
        ("pgweir_waiting_clients", "gauge"),
        ("pgweir_servers", "gauge"),
        ("pgweir_pool_size", "gauge"),
        ("pgweir_transactions_total", "counter"),
        ("pgweir_received_bytes_total", "counter"),
        ("pgweir_sent_bytes_total", "counter"),
        ("pgweir_server_connects_total", "counter"),
        ("pgweir_server_connect_failures_total", "counter"),
        ("pgweir_pinned_clients", "gauge"),
        ("pgweir_pins_total", "counter"),
        ("pgweir_prepared_statement_hits_total", "counter"),
        ("pgweir_prepared_statement_misses_total", "counter"),
        ("pgweir_prepared_statement_evictions_total", "counter"),
        ("pgweir_wait_seconds", "histogram"),
        ("pgweir_query_seconds", "histogram"),
        ("pgweir_transaction_seconds", "histogram"),
        ("pgweir_server_connect_seconds", "histogram"),
        ("pgweir_server_login_seconds", "histogram"),
        ("pgweir_client_login_seconds", "histogram"),
        ("pgweir_errors_total", "counter"),
        ("pgweir_longest_wait_seconds", "gauge"),
        ("pgweir_auth_failures_total", "counter"),
        ("pgweir_auth_queries_total", "counter"),
        ("pgweir_file_reload_failed", "gauge"),
        ("pgweir_file_reload_success_timestamp_seconds", "gauge"),
        ("pgweir_topology_phase", "gauge"),
        ("pgweir_topology_held_clients", "gauge"),
        ("pgweir_topology_servers", "gauge"),
        ("pgweir_topology_changes_total", "counter"),
        ("pgweir_topology_primary_info", "gauge"),
        ("pgweir_runtime_busy_seconds_total", "counter"),
        ("pgweir_unauthenticated_clients", "gauge"),
        ("process_cpu_seconds_total", "counter"),
        ("process_resident_memory_bytes", "gauge"),
        ("process_open_fds", "gauge"),
        ("process_max_fds", "gauge"),
        ("process_threads", "gauge"),
        ("process_start_time_seconds", "gauge"),
    ] {
        assert!(
            text.contains(&format!("\n# TYPE {name} {kind}\n")),
            "{name}:\n{text}"
        );
    }
}

#[test]
fn names_of_others_are_there_when_they_are_wanted() {
    let postgres = postgres();
    let mut pooler = builder(&postgres)
        .set("metrics.compatibility", "['pgbouncer_exporter']")
        .set("pool.max_db_connections", "9")
        .start();
    use_it(&pooler);
    let text = pooler.metrics();
    for (sample, value) in [
        ("pgbouncer_up", 1.0),
        (
            "pgbouncer_pools_client_active_connections{database=\"app\",user=\"app\"}",
            0.0,
        ),
        (
            "pgbouncer_pools_server_idle_connections{database=\"app\",user=\"app\"}",
            1.0,
        ),
        (
            "pgbouncer_stats_sql_transactions_pooled_total{database=\"app\"}",
            3.0,
        ),
        ("pgbouncer_stats_queries_pooled_total{database=\"app\"}", 5.0),
        ("pgbouncer_stats_binds_total{database=\"app\"}", 1.0),
        (
            "pgbouncer_databases_max_connections{name=\"app\",pool_mode=\"transaction\"}",
            9.0,
        ),
        ("pgbouncer_databases_current_connections{name=\"app\"}", 1.0),
        ("pgbouncer_config_max_client_connections", 1000.0),
    ] {
        assert_metric(&text, sample, value);
    }
    assert!(!text.contains("cnpg_pgbouncer"), "{text}");
    let position = pooler.log_position();
    pooler.reconfigure(|builder| builder.set("metrics.compatibility", "['cnpg', 'pgbouncer_exporter']"));
    pooler.reload();
    pooler.wait_for_log(position, " reloaded");
    let text = pooler.metrics();
    for (sample, value) in [
        (
            "cnpg_pgbouncer_pools_cl_active{database=\"app\",user=\"app\"}",
            0.0,
        ),
        ("cnpg_pgbouncer_pools_sv_idle{database=\"app\",user=\"app\"}", 1.0),
        ("cnpg_pgbouncer_pools_maxwait", 0.0),
        ("cnpg_pgbouncer_pools_pool_mode", 2.0),
        ("cnpg_pgbouncer_stats_total_xact_count{database=\"app\"}", 3.0),
        ("cnpg_pgbouncer_stats_total_query_count{database=\"app\"}", 5.0),
        ("cnpg_pgbouncer_lists_pools", 1.0),
        ("cnpg_pgbouncer_lists_used_servers", 1.0),
    ] {
        assert_metric(&text, sample, value);
    }
    assert!(
        sum_of_samples(&text, "cnpg_pgbouncer_stats_avg_query_time") > 0.0,
        "{text}"
    );
}

#[test]
fn open_metrics_for_whoever_asks_for_it() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    use_it(&pooler);
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let (head, text) = get(pooler.http_address(), "/metrics", &[accept]);
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    let mut families = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(families.insert(name.to_owned()), "twice: {line}");
            assert!(kind != "counter" || !name.ends_with("_total"), "{line}");
        }
    }
    assert!(families.contains("pgweir_transactions"), "{families:?}");
    assert_metric(&text, "pgweir_transactions_total", 3.0);
}

#[test]
fn http_auth_is_asked_for_everything_but_probes_and_reloads() {
    let postgres = postgres();
    let mut pooler = builder(&postgres)
        .file("token", "t0ken\n")
        .set("http.auth.token_file", "'token'")
        .start();
    let address = pooler.http_address().to_owned();
    for path in ["/", "/metrics", "/metrics/fleet"] {
        let (head, _) = get(&address, path, &[]);
        assert!(
            head.starts_with("HTTP/1.1 401 ") && head.contains("www-authenticate: Bearer"),
            "{head}"
        );
    }
    assert!(get(&address, "/readyz", &[]).0.starts_with("HTTP/1.1 200 "));
    assert!(
        get(&address, "/metrics", &["Authorization: Bearer t0ken"])
            .0
            .starts_with("HTTP/1.1 200 ")
    );
    assert!(!pooler.logs().contains("t0ken"));
    let position = pooler.log_position();
    pooler.reconfigure(|builder| {
        let builder = builder.without("http.auth").file("password", "s3cret");
        builder
            .set("http.auth.user", "'scraper'")
            .set("http.auth.password_file", "'password'")
    });
    pooler.reload();
    pooler.wait_for_log(position, " reloaded");
    // scraper:s3cret
    let basic = "Authorization: Basic c2NyYXBlcjpzM2NyZXQ=";
    assert!(get(&address, "/metrics", &[basic]).0.starts_with("HTTP/1.1 200 "));
    assert!(
        get(&address, "/metrics", &["Authorization: Bearer t0ken"])
            .0
            .starts_with("HTTP/1.1 401 ")
    );
}

/// How long queries take, the shortest first.
fn latencies(client: &mut RawClient, until: impl Fn(Instant) -> bool) -> Vec<Duration> {
    let mut took = Vec::new();
    loop {
        let begun = Instant::now();
        client.query("SELECT 1");
        took.push(begun.elapsed());
        if until(begun) {
            took.sort();
            return took;
        }
    }
}

/// What a scrape costs where there is a lot to show, and what those notice who work meanwhile. Run it by hand, on a
/// release build.
#[test]
#[ignore = "a measurement"]
fn many_pools_are_shown_quickly() {
    let postgres = postgres_with(|builder| builder.setting("max_connections", "300"));
    let pooler = builder(&postgres)
        .set("listen.max_client_conn", "3000")
        .set("pool.default_pool_size", "1")
        .set(r#"databases."*".dbname"#, "'app'")
        .set("log.level", "'info'")
        .start();
    let mut clients = Vec::new();
    for number in 0..2000 {
        let name = format!("database_{}", number % 200);
        let mut client = RawClient::log_in(pooler.address(), "app", "secret", &name);
        client.query("SELECT 1");
        client.query("SELECT nothing");
        clients.push(client);
    }
    let mut took: Vec<_> = (0..21)
        .map(|_| {
            let begun = Instant::now();
            let text = pooler.metrics();
            (begun.elapsed(), text.len(), text.lines().count())
        })
        .collect();
    took.sort();
    let (median, bytes, lines) = took[10];
    println!(
        "200 pools, 2000 clients: {median:?} (most {:?}), {bytes} bytes, {lines} lines",
        took[20].0
    );
    for round in 1..=5 {
        let begun = Instant::now();
        let alone = latencies(&mut clients[0], |now| now - begun > Duration::from_secs(2));
        let is_done = AtomicBool::new(false);
        let beside = thread::scope(|scope| {
            scope.spawn(|| {
                // Four times a second: a fleet's worth of impatient Prometheuses.
                for _ in 0..8 {
                    let next = Instant::now() + Duration::from_millis(250);
                    pooler.metrics();
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                is_done.store(true, Ordering::Relaxed);
            });
            latencies(&mut clients[0], |_| is_done.load(Ordering::Relaxed))
        });
        let at = |took: &[Duration], part: usize| took[(took.len() - 1) * part / 1000];
        println!(
            "round {round}: a query takes p50 {:?} p99 {:?} p99.9 {:?}; beside scrapes p50 {:?} p99 {:?} p99.9 {:?}",
            at(&alone, 500),
            at(&alone, 990),
            at(&alone, 999),
            at(&beside, 500),
            at(&beside, 990),
            at(&beside, 999),
        );
    }
    assert!(median < Duration::from_millis(50), "{took:?}");
}

// --- the fleet ---

/// Accepts connections and never says anything.
struct Silent(TcpListener);

impl Silent {
    fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }
}

#[test]
fn one_scrape_of_any_replica_shows_all_that_answer() {
    let postgres = postgres();
    let silent = Silent::start();
    let poolers = fleet(
        &postgres.address(),
        2,
        &[&silent.address(), "127.0.0.1:1"],
        |builder| builder,
    );
    for (pooler, times) in poolers.iter().zip(1..) {
        let mut client = log_in(pooler);
        for _ in 0..times {
            client.query("SELECT 1");
        }
    }
    for pooler in &poolers {
        let begun = Instant::now();
        let (status, text) = pooler.http_get("/metrics/fleet");
        assert_eq!(status, 200, "{text}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        for (replica, times) in poolers.iter().zip([1.0, 2.0]) {
            let label = format!("replica=\"{}\"", replica.http_address());
            assert_metric(
                &text,
                &format!("pgweir_transactions_total{{{label},database=\"app\"}}"),
                times,
            );
            assert_metric(&text, &format!("pgweir_fleet_replica_up{{{label}}}"), 1.0);
        }
        assert_metric(
            &text,
            &format!("pgweir_fleet_replica_up{{replica=\"{}\"}}", silent.address()),
            0.0,
        );
        assert_metric(&text, "pgweir_fleet_replica_up{replica=\"127.0.0.1:1\"}", 0.0);
        let headers = text
            .lines()
            .filter(|line| line.starts_with("# TYPE pgweir_transactions_total "));
        assert_eq!(headers.count(), 1, "{text}");
        if let Some(said) = promtool(&text) {
            assert_eq!(said, "");
        }
    }
    let log = poolers[0].logs();
    assert!(log.contains("replica does not answer"), "{log}");
    // What was asked of the other has asked nobody else.
    assert_eq!(
        get(
            poolers[0].http_address(),
            "/metrics/fleet",
            &["x-pgweir-fan-out: 1"]
        )
        .0
        .split(' ')
        .nth(1),
        Some("508")
    );
}

#[test]
fn a_fleet_speaks_open_metrics_and_has_one_secret() {
    let postgres = postgres();
    let poolers = fleet(&postgres.address(), 2, &[], |builder| {
        builder
            .file("token", "t0ken\n")
            .set("http.auth.token_file", "'token'")
    });
    let (accept, shown) = (
        "Accept: application/openmetrics-text",
        "Authorization: Bearer t0ken",
    );
    let (head, text) = get(poolers[0].http_address(), "/metrics/fleet", &[accept, shown]);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}\n{text}");
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert_eq!(text.matches("# EOF").count(), 1, "{text}");
    assert!(
        text.ends_with("\n# EOF\n") && text.contains("# TYPE pgweir_auth_cache_hits counter\n"),
        "{text}"
    );
    assert_metric(&text, "pgweir_fleet_replica_up", 2.0);
    let (head, _) = get(poolers[0].http_address(), "/metrics/fleet", &[]);
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
}

/// As a headless service lists pods: one port, an address for each.
fn headless(port: u16, pods: &[(&str, &str)]) -> serde_json::Value {
    let endpoint = |(name, address): &(&str, &str)| serde_json::json!({ "addresses": [address], "targetRef": { "kind": "Pod", "name": name } });
    serde_json::json!({
        "metadata": { "name": "pgweir-headless-abc", "labels": { "kubernetes.io/service-name": "pgweir-headless" } },
        "addressType": "IPv4",
        "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{ "name": "http", "port": port }],
    })
}

#[test]
fn a_service_tells_who_the_replicas_are() {
    let (postgres, api) = (postgres(), ApiServer::start());
    let port = ports::free(None).unwrap();
    let start = |address: &str| {
        let mut builder = builder(&postgres)
            .set("http.address", format!("'{address}:{port}'"))
            .set("fleet.service", "'pgweir-headless'");
        for (key, value) in api.settings() {
            builder = builder.set(key, value);
        }
        builder.start()
    };
    api.apply(
        Resource::EndpointSlices,
        headless(port, &[("pgweir-a", "127.0.0.1"), ("pgweir-b", "127.0.0.2")]),
    );
    let (one, _two) = (start("127.0.0.1"), start("127.0.0.2"));
    let up = |replica: &str| {
        let (_, text) = one.http_get("/metrics/fleet");
        sum_of_samples(
            &text,
            &format!("pgweir_fleet_replica_up{{replica=\"{replica}\"}}"),
        )
    };
    eventually("both replicas are known by their pods", || {
        up("pgweir-a") > 0.5 && up("pgweir-b") > 0.5
    });
    api.apply(
        Resource::EndpointSlices,
        headless(port, &[("pgweir-a", "127.0.0.1"), ("pgweir-c", "127.0.0.3")]),
    );
    eventually("one is gone and the new one is not there yet", || {
        up("pgweir-b").is_nan() && up("pgweir-c").abs() < 0.5 && up("pgweir-a") > 0.5
    });
}

#[test]
fn without_a_fleet_nobody_is_asked_until_a_reload_names_one() {
    let postgres = postgres();
    let mut pooler = builder(&postgres).start();
    let (status, text) = pooler.http_get("/metrics/fleet");
    assert!(status == 404 && text.contains("fleet.service"), "{text}");
    let position = pooler.log_position();
    let address = format!("['{}']", pooler.http_address());
    pooler.reconfigure(|builder| builder.set("fleet.replicas", address));
    pooler.reload();
    pooler.wait_for_log(position, " reloaded");
    let (status, text) = pooler.http_get("/metrics/fleet");
    assert_eq!(status, 200, "{text}");
    assert_metric(&text, "pgweir_fleet_replica_up", 1.0);
}

#[test]
fn a_secret_that_cannot_be_read_is_told_at_the_start() {
    let builder = Pooler::builder("127.0.0.1:1")
        .file("token", "\n")
        .set("http.auth.token_file", "'token'");
    let (_, errors, status) = Pooler::run_command(&builder, &["check", "--config", "CONFIG"]);
    assert!(
        !status.success() && errors.contains("http.auth cannot be used"),
        "{errors}"
    );
}

#[test]
fn the_console_of_any_replica_shows_all_of_them() {
    let postgres = postgres();
    let poolers = fleet(&postgres.address(), 2, &["127.0.0.1:1"], |builder| {
        builder.set("auth.stats_users", "['app']")
    });
    let _client = log_in(&poolers[1]);
    let mut console = RawClient::log_in(poolers[0].address(), "app", "secret", "pgweir");
    let shown = console.query("SHOW FLEET");
    let rows: Vec<_> = shown.iter().filter(|frame| frame.tag == b'D').collect();
    let row = |address: &str| {
        let columns = rows.iter().map(|row| row.columns());
        let mut found = columns.filter(|columns| columns[0].as_deref() == Some(address));
        found.next().unwrap_or_else(|| panic!("no {address}: {rows:?}"))
    };
    assert_eq!(rows.len(), 3, "{rows:?}");
    let (own, other) = (row(poolers[0].http_address()), row(poolers[1].http_address()));
    assert_eq!(
        (own[1].as_deref(), other[1].as_deref()),
        (Some("yes"), Some("no"))
    );
    assert_eq!(other[3].as_deref(), Some("running"));
    assert_eq!(other[4].as_deref(), Some("1"), "{other:?}");
    let silent = row("127.0.0.1:1");
    assert!(silent[8].is_some() && silent[4].is_none(), "{silent:?}");
}
