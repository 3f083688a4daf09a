//! The dashboard and the alert rules that the chart brings: they are about metrics that there are.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use regex::Regex;
use serde_json::Value;
use support::{Authority, Pooler, RawClient, api_server::ApiServer, eventually, frames, postgres};

/// What others measure: Prometheus itself, the nodes, CloudNativePG's instances.
const FOREIGN: [&str; 4] = [
    "up",
    "container_cpu_cfs_periods_total",
    "container_cpu_cfs_throttled_periods_total",
    "cnpg_pg_settings_setting",
];

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap()
}

/// The expressions of the rules, whose YAML has them folded below `expr: >-`.
fn rules() -> Vec<String> {
    let text = read("chart/rules/pgweir.yaml");
    let expressions = text.split("        expr: >-\n").skip(1).map(|rest| {
        let lines = rest.lines().take_while(|line| line.starts_with("          "));
        lines.map(str::trim).collect::<Vec<_>>().join(" ")
    });
    expressions.collect()
}

/// Every `expr`, and every query of a variable, wherever it stands.
fn dashboard() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    match (name.as_str(), field) {
                        ("expr" | "definition", Value::String(text)) => found.push(text.clone()),
                        _ => collect(field, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    let dashboard: Value = serde_json::from_str(&read("chart/dashboards/pgweir.json")).unwrap();
    collect(&dashboard, &mut found);
    found
}

/// The metrics that an expression names, with the labels that it asks for. Every name of one has an underscore, but `up`.
fn named(expression: &str) -> Vec<(String, Vec<String>)> {
    let selector =
        Regex::new(r"\b(up|(?:pgweir|process|container|cnpg)_[a-z0-9_]+)\b(?:\{([^}]*)\})?").unwrap();
    let label = Regex::new(r#"([a-z_]+)\s*(?:=~|!~|!=|=)\s*""#).unwrap();
    let found = selector.captures_iter(expression).map(|captures| {
        let labels = captures.get(2).map_or("", |labels| labels.as_str());
        let labels = label.captures_iter(labels).map(|label| label[1].to_owned());
        (captures[1].to_owned(), labels.collect())
    });
    found.collect()
}

/// What a pooler shows that has TLS, a cluster in Kubernetes and one that is a list of hosts, and has told
/// a client an error. Each sample as its name and its labels.
fn samples() -> Vec<(String, BTreeSet<String>)> {
    let postgres = postgres();
    let api = ApiServer::start();
    let ca = Authority::new("ca").unwrap();
    let mut builder = Pooler::builder(&postgres.address())
        .client_tls("allow", &ca.server(&["localhost"]).unwrap())
        .set("databases.discovered.cluster", "'pg'")
        .set("pool.server_connection_budget", "50");
    for (key, value) in api.settings() {
        builder = builder.set(key, value);
    }
    let pooler = builder.start();
    RawClient::log_in(pooler.address(), "app", "secret", "app").query("SELECT 1; SELECT 1/0");
    let mut unknown = RawClient::connect(pooler.address());
    unknown.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", "nobody"), ("database", "app")],
    ));
    unknown.read_to_end();
    // It waits for a cluster that nobody has heard of.
    let mut held = RawClient::connect(pooler.address());
    held.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", "app"), ("database", "discovered")],
    ));
    let mut text = String::new();
    eventually("everything is measured", || {
        text = pooler.metrics();
        [
            "pgweir_kubernetes_watch_up",
            "pgweir_errors_total",
            "pgweir_topology_reason",
        ]
        .iter()
        .all(|name| text.contains(name))
    });
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(sample).collect()
}

fn sample(line: &str) -> (String, BTreeSet<String>) {
    let (name, labels) = line
        .split_once('{')
        .unwrap_or((line.split(' ').next().unwrap(), ""));
    let label = Regex::new(r#"([a-z_]+)=""#).unwrap();
    let labels = label.captures_iter(labels).map(|label| label[1].to_owned());
    (name.to_owned(), labels.collect())
}

/// Labels that Prometheus adds.
const ADDED: [&str; 5] = ["namespace", "pod", "job", "instance", "container"];

#[test]
fn every_expression_is_about_metrics_that_there_are() {
    let (rules, dashboard) = (rules(), dashboard());
    assert!(
        rules.len() >= 20 && dashboard.len() >= 50,
        "{} {}",
        rules.len(),
        dashboard.len()
    );
    let samples = samples();
    // Families that this scene does not bring about, by the places that register them.
    let elsewhere = [
        ("pgweir_tls_crl_next_update_seconds", "src/app/certificates.rs"),
        ("pgweir_topology_last_hold_seconds", "src/app/clusters/metrics.rs"),
    ];
    for (name, source) in elsewhere {
        let short = name.trim_start_matches("pgweir_");
        assert!(
            read(source).contains(&format!("\"{short}\"")),
            "{name} is not in {source}"
        );
    }
    let mut missing_names = BTreeSet::new();
    for expression in rules.iter().chain(&dashboard) {
        let named = named(expression);
        assert!(!named.is_empty(), "{expression}");
        for (name, labels) in named {
            let is_foreign = FOREIGN.contains(&&*name);
            if is_foreign || elsewhere.iter().any(|(known, _)| *known == name) {
                continue;
            }
            let mut of_name = samples.iter().filter(|(sample, _)| *sample == name).peekable();
            if of_name.peek().is_none() {
                missing_names.insert(name);
                continue;
            }
            let missing = |label: &&String| !ADDED.contains(&label.as_str());
            let labels: Vec<_> = labels.iter().filter(missing).collect();
            let has_all = of_name.any(|(_, has)| labels.iter().all(|label| has.contains(*label)));
            assert!(has_all, "{name} has no {labels:?}: {expression}");
        }
    }
    assert!(missing_names.is_empty(), "not there: {missing_names:?}");
}

#[test]
fn every_alert_fires_when_it_should_and_every_panel_can_be_asked() {
    let promtool = |arguments: &[&str]| {
        let output = Command::new("promtool")
            .args(arguments)
            .current_dir(root(""))
            .output();
        output.ok().map(|output| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert!(
                output.status.success(),
                "{}{}",
                text(&output.stdout),
                text(&output.stderr)
            );
        })
    };
    if promtool(&["check", "rules", "chart/rules/pgweir.yaml"]).is_none() {
        eprintln!("left out: promtool (Debian: prometheus) is not installed");
        return;
    }
    promtool(&["test", "rules", "tests/alerts/pgweir.yaml"]);
    // Grafana would put something like this in its place.
    let panels = dashboard()
        .into_iter()
        .filter(|expression| !expression.starts_with("label_values"));
    let panels = panels.map(|expression| expression.replace("$__rate_interval", "5m"));
    let mut file = "groups:\n  - name: panels\n    rules:\n".to_owned();
    for expression in panels {
        let quoted = Value::String(expression);
        file.push_str(&format!("      - record: panel\n        expr: {quoted}\n"));
    }
    let directory = tempfile::tempdir().unwrap();
    let panels = directory.path().join("panels.yaml");
    fs::write(&panels, file).unwrap();
    promtool(&["check", "rules", "--lint=none", panels.to_str().unwrap()]);
    let tests = read("tests/alerts/pgweir.yaml");
    let rules = read("chart/rules/pgweir.yaml");
    let alerts = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    for alert in alerts {
        for case in [
            format!("name: {alert} fires\n"),
            format!("name: {alert} does not\n"),
        ] {
            assert!(tests.contains(&case), "{case}");
        }
    }
}
