//! Looking into a manifest.

use serde_json::{Map, Value};

pub(super) const API_VERSION: &str = "postgresql.cnpg.io/v1";

/// The objects of a document, which may be a list of them.
pub(super) fn objects(document: &Value) -> Vec<&Value> {
    match document.get("items").and_then(Value::as_array) {
        Some(items) => items.iter().collect(),
        None if document.is_object() => vec![document],
        None => Vec::new(),
    }
}

pub(super) fn is_pooler(object: &&Value) -> bool {
    let is = |key: &str, value: &str| object.get(key).and_then(Value::as_str) == Some(value);
    is("apiVersion", API_VERSION) && is("kind", "Pooler")
}

pub(super) fn name(object: &Value) -> &str {
    object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// One object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manifest<'a>(&'a Value);

impl<'a> Manifest<'a> {
    pub(super) fn new(object: &'a Value) -> Self {
        Self(object)
    }

    pub(super) fn name(&self) -> &'a str {
        name(self.0)
    }

    /// What is at a path, if it is anything.
    pub(super) fn get(&self, path: &[&str]) -> Option<&'a Value> {
        let step = |value: &'a Value, key: &&str| value.get(*key);
        path.iter()
            .try_fold(self.0, step)
            .filter(|value| !is_nothing(value))
    }

    pub(super) fn text(&self, path: &[&str]) -> Option<&'a str> {
        self.get(path)?.as_str()
    }

    /// The fields of what is at a path.
    pub(super) fn fields(&self, path: &[&str]) -> impl Iterator<Item = (&'a String, &'a Value)> {
        let fields = self.get(path).and_then(Value::as_object);
        fields
            .into_iter()
            .flat_map(Map::iter)
            .filter(|(_, value)| !is_nothing(value))
    }
}

/// What an API server writes for what nobody has set.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}
