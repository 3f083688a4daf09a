//! A values file: a tree with comments, written as YAML.
//!
//! It knows no key.

use serde_json::{Map, Value};

/// The values, and what there is to say about what is none of them.
#[derive(Debug, Default)]
pub(super) struct Values {
    entries: Vec<Entry>,
    pub(super) warnings: Vec<String>,
    notes: Vec<String>,
}

#[derive(Debug)]
struct Entry {
    key: String,
    value: Value,
    comment: Option<&'static str>,
}

impl Values {
    pub(super) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Sets what is at a path.
    pub(super) fn set(&mut self, path: &[&str], value: impl Into<Value>) {
        let Some((first, rest)) = path.split_first() else {
            return;
        };
        let entry = self.entry(first);
        let mut place = &mut entry.value;
        for key in rest {
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            place = &mut place[*key];
        }
        *place = value.into();
    }

    /// Says something about a key at the top.
    pub(super) fn comment(&mut self, key: &str, comment: &'static str) {
        self.entry(key).comment = Some(comment);
    }

    fn entry(&mut self, key: &str) -> &mut Entry {
        let at = self.entries.iter().position(|entry| entry.key == key);
        let at = at.unwrap_or_else(|| {
            self.entries.push(Entry {
                key: key.to_owned(),
                value: Value::Null,
                comment: None,
            });
            self.entries.len() - 1
        });
        &mut self.entries[at]
    }

    pub(super) fn to_yaml(&self, header: &[String]) -> String {
        let mut text = String::new();
        for line in header {
            comment(&mut text, line);
        }
        for (title, lines) in [
            ("What is otherwise:", &self.warnings),
            ("What needs nothing here:", &self.notes),
        ] {
            if !lines.is_empty() {
                comment(&mut text, "");
                comment(&mut text, title);
                lines
                    .iter()
                    .for_each(|line| comment(&mut text, &format!("  {line}")));
            }
        }
        for entry in &self.entries {
            text.push('\n');
            if let Some(line) = entry.comment {
                comment(&mut text, line);
            }
            pair(&mut text, 0, &entry.key, &entry.value);
        }
        text
    }
}

fn comment(text: &mut String, line: &str) {
    let line: String = line
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    text.push_str(format!("# {line}").trim_end());
    text.push('\n');
}

fn pair(text: &mut String, depth: usize, key: &str, value: &Value) {
    text.push_str(&"  ".repeat(depth));
    text.push_str(&name(key));
    text.push(':');
    after(text, depth, value);
}

/// What stands behind a colon or a dash.
fn after(text: &mut String, depth: usize, value: &Value) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            for (key, value) in fields {
                pair(text, depth + 1, key, value);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            for item in items {
                text.push_str(&"  ".repeat(depth + 1));
                text.push('-');
                let mut written = String::new();
                after(&mut written, depth + 1, item);
                // The first pair of an object stands behind the dash.
                match written.strip_prefix('\n') {
                    Some(lines) if item.is_object() => {
                        text.push(' ');
                        text.push_str(lines.trim_start_matches(' '));
                    }
                    _ => text.push_str(&written),
                }
            }
        }
        leaf => {
            text.push(' ');
            text.push_str(&scalar(leaf));
            text.push('\n');
        }
    }
}

/// All of JSON is YAML, but for a few characters that YAML wants to be escaped.
fn scalar(leaf: &Value) -> String {
    let escaped = |character: char| match character {
        '\u{7f}'..='\u{9f}' | '\u{feff}' => format!("\\u{:04x}", u32::from(character)),
        character => character.to_string(),
    };
    leaf.to_string().chars().map(escaped).collect()
}

fn name(key: &str) -> String {
    let is_plain = key.starts_with(|first: char| first.is_ascii_alphabetic())
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte));
    // Words that mean something else.
    let is_word = matches!(
        key.to_ascii_lowercase().as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null"
    );
    match is_plain && !is_word {
        true => key.to_owned(),
        false => scalar(&Value::from(key)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut values = Values::default();
        values.set(&["a", "b"], 1);
        values.set(&["a", "c"], json!([{"x": "y: #\n", "on": [1, [2], {}]}, [], "é"]));
        values.set(&["cnpg.io/x"], json!({"1": null, "": true, "a b": "\u{7f}'\""}));
        values.comment("a", "what a is");
        let text = values.to_yaml(&["head".to_owned()]);
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(
            read,
            json!({
                "a": {"b": 1, "c": [{"x": "y: #\n", "on": [1, [2], {}]}, [], "é"]},
                "cnpg.io/x": {"1": null, "": true, "a b": "\u{7f}'\""},
            }),
            "{text}"
        );
        assert!(text.starts_with("# head\n\n# what a is\na:\n  b: 1\n"), "{text}");
    }
}
