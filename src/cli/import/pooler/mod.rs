//! A CloudNativePG `Pooler` manifest in, values for pgweir's Helm chart out.
//!
//! It asks no cluster: what a manifest leaves to the operator's defaults is what those are.

mod manifest;
mod pod;
mod spec;
mod values;

use std::path::Path;

use serde_json::Value;

use self::{manifest::Manifest, values::Values};
use super::Imported;

/// Reads the text of a file with one or more manifests, of which one is a Pooler's, or that of the name.
pub(super) fn import(text: &str, path: &Path, name: Option<&str>) -> Result<Imported, String> {
    let place = path.display();
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| format!("{place}: {error}"))?;
    let poolers: Vec<&Value> = documents
        .iter()
        .flat_map(manifest::objects)
        .filter(manifest::is_pooler)
        .collect();
    let wanted: Vec<_> = poolers
        .iter()
        .filter(|pooler| name.is_none_or(|name| manifest::name(pooler) == name))
        .collect();
    let pooler = match wanted[..] {
        [pooler] => *pooler,
        [] if poolers.is_empty() => {
            return Err(format!(
                "{place}: there is no Pooler in it (apiVersion: {}, kind: Pooler)",
                manifest::API_VERSION
            ));
        }
        _ => {
            let names: Vec<_> = poolers.iter().map(|pooler| manifest::name(pooler)).collect();
            return Err(format!(
                "{place}: choose one of its Poolers with --name: {}\n  hint: each has a release of its own, or \
                 databases of its own in one (cluster and role)",
                names.join(", ")
            ));
        }
    };
    let others = documents.iter().flat_map(manifest::objects).count() - poolers.len();
    let mut values = Values::default();
    if others > 0 {
        values.note(format!("{others} other objects of the file are not looked at"));
    }
    spec::translate(&Manifest::new(pooler), path, &mut values)?;
    let mut warnings: Vec<_> = values
        .warnings
        .iter()
        .map(|warning| format!("{place}: warning: {warning}"))
        .collect();
    let header = header(&Manifest::new(pooler), path);
    warnings.sort();
    Ok(Imported {
        text: values.to_yaml(&header),
        warnings,
    })
}

fn header(pooler: &Manifest<'_>, path: &Path) -> Vec<String> {
    let name = pooler.name();
    let namespace = pooler.text(&["metadata", "namespace"]);
    let namespace = namespace.map_or_else(String::new, |namespace| format!(" --namespace {namespace}"));
    vec![
        format!(
            "{}: the Pooler {name} as values of pgweir's chart.",
            path.display()
        ),
        format!(
            "`helm install {name} chart --values THIS-FILE{namespace}` takes its place; chart/README.md says how the"
        ),
        "Service of its name, and a load balancer's address, survive the change.".to_owned(),
    ]
}

#[cfg(test)]
mod tests;
