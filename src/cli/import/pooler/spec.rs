//! `spec` of a Pooler: the cluster, PgBouncer's settings, secrets, monitoring.

use std::path::Path;

use serde_json::{Value, json};

use super::{manifest::Manifest, pod, values::Values};
use crate::config::pgbouncer::{self, Weight};

/// What the operator gives PgBouncer where a Pooler does not say otherwise.
const CLIENT_TLS_MODE: &str = "prefer";
const SERVER_TLS_MODE: &str = "verify-ca";
const EVERYBODY: &str = "host all all all md5";
/// Parameters that are values of their own in the chart.
const APART: [&str; 4] = [
    "auth_type",
    "auth_user",
    "client_tls_sslmode",
    "server_tls_sslmode",
];

const MODE: &str =
    "As the operator has it; verify-full is possible, because the certificate has the cluster's name.";
const OPERATORS_NAMES: &str = "the cluster's own certificate, as the operator does: this Service's name is not in it, so that \
    clients cannot ask for verify-full (certManager, or a secret of your own, makes one that has it)";
const DATABASE: &str = "it is postgres, as the operator has it from 1.28 on; before that the function is in the database that the client \
    wants: auth.database: \"\"";

pub(super) fn translate(pooler: &Manifest<'_>, path: &Path, values: &mut Values) -> Result<(), String> {
    let name = pooler.name();
    let Some(cluster) = pooler.text(&["spec", "cluster", "name"]) else {
        return Err(format!(
            "{}: spec.cluster.name: the Pooler {name} has none",
            path.display()
        ));
    };
    values.set(&["service", "name"], name);
    values.set(
        &["replicaCount"],
        pooler.get(&["spec", "instances"]).cloned().unwrap_or(json!(1)),
    );
    values.set(&["cluster", "name"], cluster);
    values.set(
        &["cluster", "role"],
        pooler.text(&["spec", "type"]).unwrap_or("rw"),
    );
    parameters(pooler, path, values)?;
    authentication(pooler, values);
    tls(pooler, cluster, values);
    monitoring(pooler, values);
    pod::translate(pooler, values);
    unknown(pooler, values);
    Ok(())
}

/// `poolMode` and `parameters`, by way of what a `pgbouncer.ini` with them comes to.
fn parameters(pooler: &Manifest<'_>, path: &Path, values: &mut Values) -> Result<(), String> {
    let mode = pooler
        .text(&["spec", "pgbouncer", "poolMode"])
        .unwrap_or("session");
    let written = pooler.fields(&["spec", "pgbouncer", "parameters"]);
    let written = written.filter(|(name, _)| !APART.contains(&name.as_str()));
    let settings = written.map(|(name, value)| (0, name.clone(), as_text(value)));
    let mode = std::iter::once((0, "pool_mode".to_owned(), mode.to_owned()));
    let translation = pgbouncer::of_settings(path, mode.chain(settings));
    if !translation.problems.is_empty() {
        let place = format!("{}: spec.pgbouncer.parameters", path.display());
        let problems = translation.problems.iter().map(|problem| {
            let hint = problem
                .hint
                .as_ref()
                .map(|hint| format!("\n  hint: {hint}"))
                .unwrap_or_default();
            format!("{place}: {}: {}{hint}", problem.key, problem.message)
        });
        return Err(problems.collect::<Vec<_>>().join("\n"));
    }
    for remark in &translation.remarks {
        let text = format!("spec.pgbouncer.parameters: {remark}");
        match remark.weight {
            Weight::Note => values.note(text),
            _ => values.warn(text),
        }
    }
    values.set(&["config", "databases", "*"], json!({}));
    values.set(&["config", "log", "format"], "json");
    for section in translation.document.sections() {
        let section_path = section.path.iter().map(String::as_str);
        for setting in &section.settings {
            if section.path == ["listen", "tls"] && setting.key == "mode" {
                continue;
            }
            let path: Vec<_> = std::iter::once("config")
                .chain(section_path.clone())
                .chain([setting.key])
                .collect();
            values.set(&path, as_json(&setting.value));
        }
    }
    values.comment(
        "config",
        "PgBouncer's settings, where it has others than pgweir by default.",
    );
    Ok(())
}

/// Parameters are texts in a manifest, whatever they mean.
fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn as_json(value: &pgbouncer::Value) -> Value {
    match value {
        pgbouncer::Value::Text(text) => json!(text),
        pgbouncer::Value::Number(number) => json!(number),
        pgbouncer::Value::Flag(flag) => json!(flag),
        pgbouncer::Value::Texts(texts) => json!(texts),
    }
}

fn parameter<'a>(pooler: &Manifest<'a>, name: &str) -> Option<&'a str> {
    pooler.text(&["spec", "pgbouncer", "parameters", name])
}

fn secret<'a>(pooler: &Manifest<'a>, field: &str) -> Option<&'a str> {
    pooler.text(&["spec", "pgbouncer", field, "name"])
}

fn authentication(pooler: &Manifest<'_>, values: &mut Values) {
    let given = |field: &str| pooler.text(&["spec", "pgbouncer", field]);
    if let Some(user) = parameter(pooler, "auth_user") {
        values.set(&["auth", "user"], user);
    }
    if let Some(query) = given("authQuery") {
        values.set(&["auth", "query"], query);
    }
    let certificate = secret(pooler, "serverTLSSecret").or_else(|| secret(pooler, "authQuerySecret"));
    match (certificate, given("authQuery")) {
        // The operator has made the function, where it looks for it.
        (None, None) => values.note(format!("auth.database: {DATABASE}")),
        _ => values.warn(format!("auth.database: {DATABASE}")),
    }
    match certificate {
        Some(name) => values.set(&["auth", "secret"], name),
        // The operator makes role, function and certificate for as long as there is a Pooler of any kind.
        None if given("authQuery").is_none() => {
            values.set(&["shimPooler", "enabled"], true);
            values.comment(
                "shimPooler",
                "A Pooler with no instances: the operator goes on making the role's certificate.",
            );
        }
        None => {}
    }
    match parameter(pooler, "auth_type") {
        None | Some("hba") => {
            let lines = pooler
                .get(&["spec", "pgbouncer", "pg_hba"])
                .and_then(Value::as_array);
            let lines = lines.into_iter().flatten().cloned();
            let lines: Vec<_> = lines.chain([json!(EVERYBODY)]).collect();
            values.set(&["auth", "hba"], lines);
        }
        Some(word) => values.set(&["config", "auth", "auth_type"], word),
    }
    if pooler.get(&["spec", "pgbouncer", "paused"]) == Some(&json!(true)) {
        values.warn("spec.pgbouncer.paused: say PAUSE on the console (database pgweir) of each pod instead");
    }
}

fn tls(pooler: &Manifest<'_>, cluster: &str, values: &mut Values) {
    let mode = parameter(pooler, "client_tls_sslmode").unwrap_or(CLIENT_TLS_MODE);
    values.set(&["tls", "enabled"], mode != "disable");
    if mode != "disable" {
        values.set(&["tls", "mode"], mode);
        let own = secret(pooler, "clientTLSSecret");
        let operators = format!("{cluster}-server");
        values.set(&["tls", "secret"], own.unwrap_or(&operators));
        if own.is_none() {
            values.warn(format!("tls.secret: {OPERATORS_NAMES}"));
        }
        let operators = format!("{cluster}-ca");
        let ca = secret(pooler, "clientCASecret").unwrap_or(&operators);
        values.set(&["tls", "clientCA", "secret"], ca);
    }
    let mode = match parameter(pooler, "server_tls_sslmode") {
        // As PgBouncer does.
        Some("allow") => "prefer",
        mode => mode.unwrap_or(SERVER_TLS_MODE),
    };
    values.set(&["serverTLS", "mode"], mode);
    values.comment("serverTLS", MODE);
    if let Some(ca) = secret(pooler, "serverCASecret") {
        values.set(&["serverTLS", "ca", "secret"], ca);
    }
}

fn monitoring(pooler: &Manifest<'_>, values: &mut Values) {
    values.set(&["config", "metrics", "compatibility"], json!(["cnpg"]));
    values.note("config.metrics.compatibility: dashboards go on finding cnpg_pgbouncer_*");
    for (field, value) in pooler.fields(&["spec", "monitoring"]) {
        match field.as_str() {
            "enablePodMonitor" => values.set(&["podMonitor", "enabled"], value.clone()),
            "podMonitorMetricRelabelings" => values.set(&["podMonitor", "metricRelabelings"], value.clone()),
            "podMonitorRelabelings" => values.set(&["podMonitor", "relabelings"], value.clone()),
            field => values.warn(format!(
                "spec.monitoring.{field}: metrics are plain HTTP here (config.http.auth guards them)"
            )),
        }
    }
}

/// Whatever else there is is not dropped without a word.
fn unknown(pooler: &Manifest<'_>, values: &mut Values) {
    const SPEC: [&str; 9] = [
        "cluster",
        "type",
        "instances",
        "pgbouncer",
        "template",
        "monitoring",
        "serviceTemplate",
        "deploymentStrategy",
        "serviceAccountName",
    ];
    const PGBOUNCER: [&str; 9] = [
        "poolMode",
        "parameters",
        "authQuery",
        "authQuerySecret",
        "pg_hba",
        "paused",
        "clientTLSSecret",
        "clientCASecret",
        "serverTLSSecret",
    ];
    for (field, _) in pooler
        .fields(&["spec"])
        .filter(|(field, _)| !SPEC.contains(&field.as_str()))
    {
        values.warn(format!("spec.{field}: it is not known, and not taken over"));
    }
    for (field, _) in pooler.fields(&["spec", "pgbouncer"]) {
        match field.as_str() {
            "image" | "imageCatalogRef" => {
                values.note(format!("spec.pgbouncer.{field}: pgweir's is in image"));
            }
            "serverCASecret" => {}
            field if PGBOUNCER.contains(&field) => {}
            field => values.warn(format!(
                "spec.pgbouncer.{field}: it is not known, and not taken over"
            )),
        }
    }
    for field in ["labels", "annotations"] {
        if pooler.get(&["metadata", field]).is_some() {
            values.note(format!(
                "metadata.{field}: those of the chart's objects are in commonLabels and commonAnnotations"
            ));
        }
    }
}
