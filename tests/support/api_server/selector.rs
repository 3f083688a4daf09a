//! `labelSelector` and `fieldSelector`, as far as anybody uses them here.

use serde_json::Value;

/// What a request asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct Selector {
    /// Label and the values that it may have.
    labels: Vec<(String, Vec<String>)>,
    name: Option<String>,
}

impl Selector {
    /// An error is what a real server answers with 400 to.
    pub(super) fn parse(labels: &str, fields: &str) -> Result<Self, String> {
        let mut selector = Self::default();
        let mut rest = labels.trim();
        while !rest.is_empty() {
            let (requirement, after) = split_requirement(rest);
            selector.labels.push(label(requirement)?);
            rest = after.trim();
        }
        for field in fields.split(',').filter(|field| !field.is_empty()) {
            match field.split_once('=') {
                Some(("metadata.name", name)) => {
                    selector.name = Some(name.trim_start_matches('=').to_owned());
                }
                Some(("metadata.namespace", _)) => {}
                _ => return Err(format!("field label not supported: {field}")),
            }
        }
        Ok(selector)
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let has = |(key, values): &(String, Vec<String>)| {
            labels[key]
                .as_str()
                .is_some_and(|value| values.iter().any(|wanted| wanted == value))
        };
        self.labels.iter().all(has)
            && self
                .name
                .as_deref()
                .is_none_or(|name| object["metadata"]["name"] == name)
    }
}

/// Up to the first comma that is in no parentheses.
fn split_requirement(text: &str) -> (&str, &str) {
    let mut depth = 0;
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => return (&text[..at], &text[at + 1..]),
            _ => {}
        }
    }
    (text, "")
}

fn label(requirement: &str) -> Result<(String, Vec<String>), String> {
    if let Some((key, values)) = requirement.split_once(" in ") {
        let values = values
            .trim()
            .strip_prefix('(')
            .and_then(|values| values.strip_suffix(')'))
            .ok_or_else(|| format!("unable to parse requirement: {requirement}"))?;
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        return Ok((key.trim().to_owned(), values));
    }
    let (key, value) = requirement
        .split_once("==")
        .or_else(|| requirement.split_once('='))
        .ok_or_else(|| format!("unable to parse requirement: {requirement}"))?;
    Ok((key.trim().to_owned(), vec![value.trim().to_owned()]))
}
