//! The Helm chart: what it makes of every file with values, by Kubernetes' schemas, by pgweir, and by what pgweir asks of
//! Kubernetes. The checks themselves are tests/helm/check.py; here they get the program and what it has asked for.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;
use support::{
    Authority, Pooler,
    api_server::{ApiServer, NAMESPACE},
    eventually, postgres,
};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs the checks with these arguments and this input. Nothing is checked where Helm is not installed.
fn check(arguments: &[&str], input: &str) {
    let python = root(".dev/helm/python/bin/python");
    if !python.exists() {
        eprintln!("left out: Helm is not installed here; ./dev test installs it");
        return;
    }
    let mut child = Command::new(python)
        .arg(root("tests/helm/check.py"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Helm logs each refusal that the checks provoke.
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

#[test]
fn whatever_is_turned_on_and_off_is_an_installation_that_works() {
    let files = tempfile::tempdir().unwrap();
    let ca = Authority::new("ca").unwrap();
    let certificate = ca.server(&["pgweir"]).unwrap();
    for (name, text) in [
        ("ca.crt", ca.certificate_pem()),
        ("tls.crt", &certificate.certificate_pem),
        ("tls.key", &certificate.key_pem),
        ("users.txt", "\"cnpg_pooler_pgbouncer\" \"secret\"\n"),
        ("token", "secret\n"),
    ] {
        fs::write(files.path().join(name), text).unwrap();
    }
    let crds = root(".dev/helm/node");
    let mut arguments = vec!["all", "--pgweir", env!("CARGO_BIN_EXE_pgweir")];
    arguments.extend(["--files", files.path().to_str().unwrap()]);
    if crds.join("node_modules").exists() {
        arguments.extend(["--crds", crds.to_str().unwrap()]);
    } else {
        eprintln!("left out: schemas of cert-manager and the Prometheus operator; ./dev test installs them");
    }
    check(&arguments, "");
}

#[test]
fn the_role_allows_what_pgweir_asks_for_and_nothing_else() {
    let postgres = postgres();
    let api = ApiServer::start();
    // As the chart says it; the release is called like that in the checks.
    let mut builder = Pooler::builder(&postgres.address())
        .set("databases.discovered.cluster", "'bank'")
        .set("fleet.service", "'pooler-pgweir-fleet'");
    for (key, value) in api.settings() {
        builder = builder.set(key, value);
    }
    let _pooler = builder.start();
    eventually("everything is watched", || api.watches() == 4);
    // Watches are cut, and what they knew is too old.
    let before = api.requests().len();
    api.compact();
    eventually("everything is watched again", || {
        api.watches() == 4 && api.requests().len() >= before + 4
    });
    let requests = api.requests().into_iter().map(|request| {
        json!({
            "verb": request.verb,
            "group": request.resource.group(),
            "resource": request.resource.plural(),
            "namespace": request.namespace,
            "field_selector": request.field_selector,
        })
    });
    let requests = json!(requests.collect::<Vec<_>>()).to_string();
    let values = json!({ "cluster": { "name": "bank" } }).to_string();
    check(
        &["rights", "--namespace", NAMESPACE, "--values", &values],
        &requests,
    );
}
