//! The configuration that a translation writes: sections, settings and what is said of them, as TOML with the place
//! from which each line comes.
//!
//! It knows no setting.

use super::ini::{Place, one_line};
use crate::config::overlay::toml_string;

/// Where comments are broken.
const WIDTH: usize = 110;
/// The order of the sections in the file.
const ORDER: [&str; 9] = [
    "listen",
    "auth",
    "pool",
    "databases",
    "users",
    "server_tls",
    "tcp",
    "log",
    "process",
];

/// A value of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `"text"`
    Text(String),
    /// `7`
    Number(i64),
    /// `true`
    Flag(bool),
    /// `["a", "b"]`, or the only one without brackets.
    Texts(Vec<String>),
}

/// Where a line comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) place: Place,
    /// What it is called there.
    pub(super) name: String,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its key.
    pub key: &'static str,
    /// Its value.
    pub value: Value,
    /// What there is to say about it.
    pub comment: Option<String>,
    pub(super) origin: Option<Origin>,
}

/// One section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its path: `["listen", "tls"]`, `["databases", "app"]`.
    pub path: Vec<String>,
    /// What it has.
    pub settings: Vec<Setting>,
    pub(super) origin: Option<Origin>,
}

/// A configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    pub(super) header: Vec<String>,
    sections: Vec<Section>,
}

impl Document {
    /// The sections in the order in which they are written.
    pub fn sections(&self) -> impl Iterator<Item = &Section> {
        let rank = |section: &&Section| {
            let first = section.path.first().map(String::as_str);
            ORDER.iter().position(|name| Some(*name) == first)
        };
        let mut sections: Vec<_> = self.sections.iter().collect();
        sections.sort_by_key(rank);
        sections.into_iter()
    }

    /// The section at this path, made if there is none.
    pub(super) fn section(&mut self, path: &[&str]) -> &mut Section {
        let at = self.sections.iter().position(|section| section.path == path);
        let at = at.unwrap_or_else(|| {
            self.sections.push(Section {
                path: path.iter().map(|&part| part.to_owned()).collect(),
                settings: Vec::new(),
                origin: None,
            });
            self.sections.len() - 1
        });
        &mut self.sections[at]
    }

    /// The sections inside this one.
    pub(super) fn named_mut(&mut self, outer: &str) -> impl Iterator<Item = &mut Section> {
        let sections = self.sections.iter_mut();
        sections.filter(move |section| {
            section.path.len() > 1 && section.path.first().is_some_and(|first| first == outer)
        })
    }

    /// The text, and for each line where it comes from.
    pub(super) fn to_toml(&self) -> Toml {
        let mut toml = Toml::default();
        for paragraph in &self.header {
            toml.comment(paragraph);
        }
        for section in self.sections() {
            toml.line("", None);
            let path: Vec<_> = section.path.iter().map(|part| bare(part)).collect();
            toml.line(&format!("[{}]", path.join(".")), section.origin.as_ref());
            for setting in &section.settings {
                if let Some(comment) = &setting.comment {
                    toml.comment(&sentence(comment));
                }
                let line = format!("{} = {}", setting.key, literal(&setting.value));
                toml.line(&line, setting.origin.as_ref().or(section.origin.as_ref()));
            }
        }
        toml
    }
}

impl Section {
    pub(super) fn number(&self, key: &str) -> Option<i64> {
        let setting = self.settings.iter().find(|setting| setting.key == key)?;
        match setting.value {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(super) fn set(&mut self, key: &'static str, value: Value, origin: Option<Origin>) -> &mut Setting {
        self.settings.retain(|setting| setting.key != key);
        self.settings.push(Setting {
            key,
            value,
            comment: None,
            origin,
        });
        let last = self.settings.len() - 1;
        &mut self.settings[last]
    }
}

/// A text of TOML.
#[derive(Debug, Default)]
pub(in crate::config) struct Toml {
    pub(in crate::config) text: String,
    /// Where its lines come from, the first line first.
    pub(super) origins: Vec<Option<Origin>>,
}

impl Toml {
    fn line(&mut self, line: &str, origin: Option<&Origin>) {
        self.text.push_str(line);
        self.text.push('\n');
        self.origins.push(origin.cloned());
    }

    fn comment(&mut self, text: &str) {
        for line in wrapped(&one_line(text)) {
            let line = format!("# {line}");
            self.line(line.trim_end(), None);
        }
    }
}

fn sentence(text: &str) -> String {
    let mut rest = text.chars();
    let first = rest.next().map(|first| first.to_ascii_uppercase());
    let stop = if text.ends_with('.') { "" } else { "." };
    first.into_iter().chain(rest).chain(stop.chars()).collect()
}

/// The text in lines; an item of a list, which begins further in, goes on further in than it begins.
fn wrapped(text: &str) -> Vec<String> {
    let indent: String = text.chars().take_while(|character| *character == ' ').collect();
    let further = if indent.is_empty() { "" } else { "  " };
    let mut lines = vec![indent.clone()];
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let is_full = |line: &String| line.chars().count() + word.chars().count() >= WIDTH;
        if lines
            .last()
            .is_some_and(|line| line.len() > indent.len() && is_full(line))
        {
            lines.push(format!("{indent}{further}"));
        }
        if let Some(line) = lines.last_mut() {
            if !line.trim().is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

fn bare(name: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    match !name.is_empty() && name.bytes().all(is_bare) {
        true => name.to_owned(),
        false => toml_string(name),
    }
}

fn literal(value: &Value) -> String {
    match value {
        Value::Text(text) => toml_string(text),
        Value::Number(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::Texts(texts) => match &texts[..] {
            [text] => toml_string(text),
            texts => {
                let texts: Vec<_> = texts.iter().map(|text| toml_string(text)).collect();
                format!("[{}]", texts.join(", "))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn lines_know_where_they_come_from() {
        let origin = |line| Origin {
            place: Place {
                file: Path::new("a.ini").into(),
                line,
            },
            name: "x".to_owned(),
        };
        let mut document = Document::default();
        document.header.push(format!("{} end", "word ".repeat(30)));
        let section = document.section(&["databases", "a b"]);
        section.origin = Some(origin(3));
        section.set("hosts", Value::Texts(vec!["h".to_owned()]), Some(origin(4)));
        let pool = document.section(&["pool"]);
        pool.set("mode", Value::Text("q\"\n".to_owned()), None).comment = Some("why\n\tthis".to_owned());
        pool.set("server_round_robin", Value::Flag(true), Some(origin(7)));
        let toml = document.to_toml();
        let lines: Vec<_> = toml.text.lines().collect();
        assert_eq!(
            lines[2..],
            [
                "",
                "[pool]",
                "# Why\\n\\tthis.",
                "mode = \"q\\\"\\u000a\"",
                "server_round_robin = true",
                "",
                "[databases.\"a b\"]",
                "hosts = \"h\"",
            ]
        );
        assert_eq!(lines.len(), toml.origins.len());
        let origins: Vec<_> = toml
            .origins
            .iter()
            .flatten()
            .map(|origin| origin.place.line)
            .collect();
        assert_eq!(origins, [7, 3, 4]);
        assert!(lines.iter().all(|line| line.len() <= WIDTH + 2), "{lines:?}");
    }
}
