//! `spec.template`, `spec.serviceTemplate` and `spec.deploymentStrategy`: what pods and the Service have besides.

use serde_json::Value;

use super::{manifest::Manifest, values::Values};

/// Fields of a pod that the chart has under the same name.
const SAME: [&str; 11] = [
    "affinity",
    "dnsConfig",
    "dnsPolicy",
    "hostAliases",
    "imagePullSecrets",
    "nodeSelector",
    "priorityClassName",
    "runtimeClassName",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
];
/// Fields of a pod that have another name in the chart.
const RENAMED: [(&str, &str); 2] = [("initContainers", "initContainers"), ("volumes", "extraVolumes")];
/// The same of PgBouncer's container.
const OF_CONTAINER: [(&str, &str); 2] = [("resources", "resources"), ("volumeMounts", "extraVolumeMounts")];
/// Said of security contexts.
const OWN: &str = "the chart has its own, as pgweir needs no more";

pub(super) fn translate(pooler: &Manifest<'_>, values: &mut Values) {
    for (field, key) in [("labels", "podLabels"), ("annotations", "podAnnotations")] {
        if let Some(found) = pooler.get(&["spec", "template", "metadata", field]) {
            values.set(&[key], found.clone());
        }
    }
    for (field, value) in pooler.fields(&["spec", "template", "spec"]) {
        let renamed = RENAMED.iter().find(|(name, _)| name == field);
        let place = format!("spec.template.spec.{field}");
        match field.as_str() {
            "containers" => containers(value, values),
            "serviceAccountName" => service_account(value, values),
            "securityContext" => values.warn(format!("{place}: {OWN} (podSecurityContext)")),
            field if SAME.contains(&field) => values.set(&[field], value.clone()),
            _ => match renamed {
                Some((_, key)) => values.set(&[key], value.clone()),
                None => values.warn(format!("{place}: the chart has no value for it")),
            },
        }
    }
    if let Some(name) = pooler.get(&["spec", "serviceAccountName"]) {
        service_account(name, values);
    }
    if let Some(strategy) = pooler.get(&["spec", "deploymentStrategy"]) {
        values.set(&["updateStrategy"], strategy.clone());
    }
    service(pooler, values);
}

fn service_account(name: &Value, values: &mut Values) {
    values.set(&["serviceAccount", "create"], false);
    values.set(&["serviceAccount", "name"], name.clone());
}

fn containers(containers: &Value, values: &mut Values) {
    let mut others = Vec::new();
    for container in containers.as_array().into_iter().flatten() {
        let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
        if name == "pgbouncer" {
            own_container(container, values);
        } else {
            others.push(container.clone());
        }
    }
    if !others.is_empty() {
        values.set(&["extraContainers"], others);
    }
}

fn own_container(container: &Value, values: &mut Values) {
    for (field, value) in Manifest::new(container).fields(&[]) {
        let renamed = OF_CONTAINER.iter().find(|(name, _)| name == field);
        let place = format!("spec.template.spec.containers (pgbouncer): {field}");
        match (field.as_str(), renamed) {
            ("name", _) => {}
            (_, Some((_, key))) => values.set(&[key], value.clone()),
            ("image", _) => values.note(format!("{place}: pgweir's is in image")),
            ("securityContext", _) => values.warn(format!("{place}: {OWN} (securityContext)")),
            ("env" | "envFrom", _) => {
                values.warn(format!(
                    "{place}: what PgBouncer's container reads means nothing to pgweir (extraEnv)"
                ));
            }
            _ => values.warn(format!("{place}: the chart has no value for it")),
        }
    }
}

fn service(pooler: &Manifest<'_>, values: &mut Values) {
    let template = ["spec", "serviceTemplate"];
    for field in ["labels", "annotations"] {
        if let Some(found) = pooler.get(&[template[0], template[1], "metadata", field]) {
            values.set(&["service", field], found.clone());
        }
    }
    for (field, value) in pooler.fields(&[template[0], template[1], "spec"]) {
        match field.as_str() {
            "type" | "sessionAffinity" | "internalTrafficPolicy" | "trafficDistribution" => {
                values.set(&["service", field], value.clone());
            }
            "ports" => ports(value, values),
            "selector" => values.warn("spec.serviceTemplate.spec.selector: the chart selects its own pods"),
            field => values.set(&["service", "extraSpec", field], value.clone()),
        }
    }
}

fn ports(ports: &Value, values: &mut Values) {
    let ports: Vec<_> = ports.as_array().into_iter().flatten().collect();
    if let [port] = ports[..] {
        for (field, key) in [("port", "port"), ("nodePort", "nodePort")] {
            if let Some(number) = port.get(field) {
                values.set(&["service", key], number.clone());
            }
        }
    } else {
        values.warn("spec.serviceTemplate.spec.ports: the Service has one port here (service.port)");
    }
}
