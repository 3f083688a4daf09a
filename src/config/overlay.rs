//! Settings that are said beside the file (the console's SET), and all settings as text (its SHOW CONFIG).
//!
//! What is said beside the file is put into the tree before anything is checked, so that it is held to the same rules.

use std::collections::BTreeMap;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    diff::RESTART,
    hints,
    keys::{KEYS, Key},
};

/// The sample has every setting with its default in a comment; a test holds it to that.
const REFERENCE: &str = include_str!("../../config/pgweir.toml");
/// A line of it that is no default ends so.
const EXAMPLE: &str = "# example";

/// Values by path, each a TOML literal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay(BTreeMap<String, String>);

/// Values by path, as text.
pub type Values = BTreeMap<String, String>;

/// Why there is no setting of a name that can be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoKey {
    /// None has this name; this one is like it.
    Unknown(Option<String>),
    /// Several have, in these sections.
    Ambiguous(Vec<String>),
    /// It takes effect only after a restart.
    Fixed,
}

impl Key {
    /// Whether a reload can change it.
    pub fn is_changeable(&self) -> bool {
        !RESTART.contains(&&*self.path())
    }

    /// Whether it is a setting of its own, and not one of each database or user.
    pub fn is_global(&self) -> bool {
        !self.section.contains("NAME")
    }
}

/// The setting that can be set by this name: PgBouncer's, or ours with or without the section.
///
/// # Errors
/// There is none, or it is not clear which.
pub fn find_key(name: &str) -> Result<&'static Key, NoKey> {
    let globals = || KEYS.iter().filter(|key| key.is_global());
    let name = name.to_ascii_lowercase();
    let exact = globals()
        .find(|key| key.path() == name)
        .or_else(|| globals().find(|key| key.pgbouncer.contains(&&*name)));
    let named: Vec<_> = globals().filter(|key| key.name == name).collect();
    let found = match (exact, &named[..]) {
        (Some(key), _) => key,
        (None, [key]) => key,
        (None, []) => {
            let names = globals().flat_map(|key| key.pgbouncer.iter().copied().chain([key.name]));
            return Err(NoKey::Unknown(hints::nearest(&name, names).map(str::to_owned)));
        }
        (None, several) => return Err(NoKey::Ambiguous(several.iter().map(|key| key.path()).collect())),
    };
    if found.is_changeable() {
        Ok(found)
    } else {
        Err(NoKey::Fixed)
    }
}

/// What a value may be in a file: as it is; PgBouncer's seconds, bytes, flags and lists; a text. The most likely first.
pub fn literals(value: &str) -> Vec<String> {
    let text = |value: &str| toml_string(value);
    let mut literals = Vec::new();
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    if is_number || matches!(value, "true" | "false") {
        literals.push(value.to_owned());
    }
    if is_number {
        literals.extend([text(&format!("{value}s")), text(&format!("{value}B"))]);
    }
    if value.contains(',') {
        let items: Vec<_> = value.split(',').map(|item| text(item.trim())).collect();
        literals.push(format!("[{}]", items.join(", ")));
    }
    literals.push(text(value));
    match value.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" => literals.push("true".to_owned()),
        "0" | "off" | "no" => literals.push("false".to_owned()),
        _ => {}
    }
    literals
}

/// A string of TOML.
pub(super) fn toml_string(text: &str) -> String {
    let mut literal = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => literal.extend(['\\', character]),
            character if character.is_control() => {
                literal.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            character => literal.push(character),
        }
    }
    literal.push('"');
    literal
}

impl Overlay {
    /// The same with another value for one setting.
    #[must_use]
    pub fn with(&self, key: &Key, literal: String) -> Self {
        let mut values = self.0.clone();
        values.insert(key.path(), literal);
        Self(values)
    }

    /// Puts the values into the tree of a file.
    pub(super) fn apply<'a>(&'a self, document: &mut DeTable<'a>) {
        for (path, literal) in &self.0 {
            let Some((sections, name)) = path.rsplit_once('.') else {
                continue;
            };
            let Some(value) = parse(literal) else { continue };
            let mut table = &mut *document;
            for section in sections.split('.') {
                let nothing = || Spanned::new(0..0, DeValue::Table(DeTable::new()));
                let inner = table
                    .entry(Spanned::new(0..0, section.into()))
                    .or_insert_with(nothing);
                // What is no section is reported for what it is.
                let DeValue::Table(inner) = inner.get_mut() else {
                    return;
                };
                table = inner;
            }
            table.remove(name);
            table.insert(Spanned::new(0..0, name.into()), Spanned::new(0..0, value));
        }
    }
}

fn parse(literal: &str) -> Option<DeValue<'_>> {
    DeValue::parse(literal).ok().map(Spanned::into_inner)
}

/// What the text of a file says, and what is said beside it.
pub(super) fn values(text: &str, overlay: &Overlay) -> Values {
    let (document, _) = DeTable::parse_recoverable(text);
    let mut values = Values::new();
    collect(document.get_ref(), "", &mut values);
    for (path, literal) in &overlay.0 {
        if let Some(value) = parse(literal) {
            values.insert(path.clone(), show(&value));
        }
    }
    values
}

/// What is in force where nothing is said.
pub fn defaults() -> Values {
    let line = |line: &'static str| {
        let setting = line.strip_prefix('#')?;
        let is_setting = setting.starts_with(|first: char| first.is_ascii_lowercase() || first == '[');
        (is_setting && !setting.ends_with(EXAMPLE)).then_some(setting)
    };
    let section = |line: &'static str| line.starts_with('[').then_some(line);
    let lines: Vec<_> = REFERENCE
        .lines()
        .filter_map(|text| line(text).or_else(|| section(text)))
        .collect();
    values(&lines.join("\n"), &Overlay::default())
}

fn collect(table: &DeTable<'_>, path: &str, values: &mut Values) {
    for (name, value) in table {
        let path = match path {
            "" => name.get_ref().to_string(),
            path => format!("{path}.{}", name.get_ref()),
        };
        match value.get_ref() {
            DeValue::Table(inner) => collect(inner, &path, values),
            value => {
                values.insert(path, show(value));
            }
        }
    }
}

fn show(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(moment) => moment.to_string(),
        DeValue::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| show(item.get_ref())).collect();
            items.join(", ")
        }
        DeValue::Table(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse_with;

    const FILE: &str =
        "[auth]\nauth_type = \"trust\"\n[databases.a]\nhosts = \"h\"\n[pool]\ndefault_pool_size = 7\n";

    fn set(name: &str, value: &str) -> Result<crate::config::Settings, String> {
        let key = find_key(name).map_err(|error| format!("{error:?}"))?;
        let mut first = None;
        for literal in literals(value) {
            let overlay = Overlay::default().with(key, literal);
            match parse_with(FILE, Path::new(""), &overlay) {
                Ok(settings) => return Ok(settings),
                Err(problems) => drop(first.get_or_insert(problems[0].to_string())),
            }
        }
        Err(first.unwrap())
    }

    #[test]
    fn values_are_taken_as_pgbouncer_takes_them() {
        assert_eq!(
            set("default_pool_size", "3")
                .unwrap()
                .pool
                .default_pool_size
                .get(),
            3
        );
        let wait = set("query_wait_timeout", "90").unwrap().pool.query_wait_timeout;
        assert_eq!(wait.as_secs(), 90);
        assert_eq!(
            set("query_wait_timeout", "90ms")
                .unwrap()
                .pool
                .query_wait_timeout
                .as_millis(),
            90
        );
        assert!(set("server_round_robin", "1").unwrap().pool.server_round_robin);
        assert_eq!(set("stats_users", "a, b").unwrap().auth.stats_users, ["a", "b"]);
        assert_eq!(
            set("server_reset_query", "select 1, 2")
                .unwrap()
                .pool
                .server_reset_query,
            "select 1, 2"
        );
        assert_eq!(
            set("pool_mode", "session").unwrap().pool.mode,
            crate::types::PoolMode::Session
        );
        assert_eq!(set("tcp_keepalive", "0").unwrap().databases.len(), 1);
    }

    #[test]
    fn values_are_checked_as_in_the_file() {
        assert!(
            set("default_pool_size", "0")
                .unwrap_err()
                .contains("default_pool_size")
        );
        assert!(set("pool_mode", "sesion").unwrap_err().contains("sesion"));
        assert_eq!(
            find_key("default_pol_size"),
            Err(NoKey::Unknown(Some("default_pool_size".to_owned())))
        );
        assert_eq!(find_key("listen_port"), Err(NoKey::Fixed));
        assert!(matches!(find_key("cert_file"), Err(NoKey::Ambiguous(_))));
        assert_eq!(
            find_key("listen.tls.cert_file").map(Key::path).as_deref(),
            Ok("listen.tls.cert_file")
        );
    }

    #[test]
    fn everything_is_shown_with_its_default() {
        let values = values(
            FILE,
            &Overlay::default().with(find_key("min_pool_size").unwrap(), "2".to_owned()),
        );
        assert_eq!(values["pool.default_pool_size"], "7");
        assert_eq!(values["pool.min_pool_size"], "2");
        let defaults = defaults();
        assert_eq!(defaults["pool.default_pool_size"], "20");
        assert_eq!(defaults["process.stats_period"], "60s");
        assert!(!defaults.contains_key("auth.stats_users"));
    }
}
