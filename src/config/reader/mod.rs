//! Typed access to the TOML tree that notes problems and goes on.
//!
//! It knows which keys exist and how to read a value of each kind, but no setting's meaning or default.

mod report;
mod values;

use std::fmt::Display;

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

pub(super) use report::Report;
pub(super) use values::Text;

use super::{hints, keys};

/// One value, with the line it is on.
#[derive(Clone, Copy)]
struct Item<'a> {
    line: usize,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Item<'a> {
    fn kind(self) -> &'static str {
        self.value.get_ref().type_str()
    }

    fn read<T: DeserializeOwned>(self) -> Option<T> {
        T::deserialize(toml::de::ValueDeserializer::from(self.value.clone())).ok()
    }

    fn as_table(self) -> Option<&'a DeTable<'a>> {
        self.value.get_ref().as_table()
    }
}

/// One section of the file, or the absence of it: then every key is absent too.
pub(super) struct Table<'a> {
    report: &'a Report<'a>,
    section: &'static str,
    path: String,
    line: usize,
    entries: Option<&'a DeTable<'a>>,
}

impl<'a> Table<'a> {
    /// The whole file.
    pub(super) fn root(report: &'a Report<'a>, document: &'a DeTable<'a>) -> Self {
        Self::new(report, "", String::new(), 1, Some(document))
    }

    fn new(
        report: &'a Report<'a>,
        section: &'static str,
        path: String,
        line: usize,
        entries: Option<&'a DeTable<'a>>,
    ) -> Self {
        let table = Self {
            report,
            section,
            path,
            line,
            entries,
        };
        table.report_unknown_keys();
        table
    }

    pub(super) fn report(&self) -> &'a Report<'a> {
        self.report
    }

    /// Whether the file has this section.
    pub(super) fn is_present(&self) -> bool {
        self.entries.is_some()
    }

    /// Whether the key is given, rightly or wrongly.
    pub(super) fn has(&self, key: &str) -> bool {
        self.item(key).is_some()
    }

    /// [`Report::is_sound`] for keys of this section.
    pub(super) fn is_sound(&self, keys: &[&str]) -> bool {
        keys.iter().all(|key| self.report.is_sound(&[&self.path_of(key)]))
    }

    /// The section called `name` in this one.
    pub(super) fn table(&self, name: &str, section: &'static str) -> Table<'a> {
        let path = self.path_of(name);
        let Some(item) = self.item(name) else {
            return Self::new(self.report, section, path, self.line, None);
        };
        let entries = self.expect_table(item, &path, || format!("it is a section: [{section}]"));
        Self::new(self.report, section, path, item.line, entries)
    }

    /// The sections inside the one called `name`, whose names the user chose.
    pub(super) fn named_tables(&self, name: &str, section: &'static str) -> Vec<(String, Table<'a>)> {
        let path = self.path_of(name);
        let Some(item) = self.item(name) else {
            return Vec::new();
        };
        let outer = self.expect_table(item, &path, || format!("it is a section: [{section}]"));
        let mut tables = Vec::new();
        for (key, value) in outer.into_iter().flat_map(DeTable::iter) {
            let name = key.get_ref().as_ref();
            let path = join(&path, name);
            let item = self.item_of(key.span().start, value);
            if let Some(entries) = self.expect_table(item, &path, || format!("it is a section: [{path}]")) {
                let table = Self::new(self.report, section, path, item.line, Some(entries));
                tables.push((name.to_owned(), table));
            }
        }
        tables
    }

    /// Notes what is wrong with the value of `key`, or with the section when it is not given.
    pub(super) fn problem(&self, key: &str, message: impl Display, hint: Option<String>) {
        let line = self.item(key).map_or(self.line, |item| item.line);
        self.report.add(line, &self.path_of(key), message, hint);
    }

    /// Notes what is wrong with one text of several.
    pub(super) fn problem_in(&self, key: &str, text: &Text, message: impl Display, hint: Option<String>) {
        self.report.add(text.line, &self.path_of(key), message, hint);
    }

    /// Notes that a key is missing, unless a syntax error may have swallowed it.
    pub(super) fn missing(&self, key: &str, message: impl Display, hint: &str) {
        if self.report.is_complete() {
            self.problem(key, message, Some(hint.to_owned()));
        }
    }

    /// Notes what is wrong with the section itself.
    pub(super) fn problem_here(&self, message: impl Display, hint: Option<String>) {
        self.report.add(self.line, &self.path, message, hint);
    }

    fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    fn item(&self, key: &str) -> Option<Item<'a>> {
        let (key, value) = self.entries?.get_key_value(key)?;
        Some(self.item_of(key.span().start, value))
    }

    fn item_of(&self, key_start: usize, value: &'a Spanned<DeValue<'a>>) -> Item<'a> {
        // A section's key may stand in the header of one inside it; its value is where its own header is.
        let offset = if value.get_ref().is_table() {
            value.span().start
        } else {
            key_start
        };
        Item {
            line: self.report.line(offset),
            value,
        }
    }

    fn expect_table(&self, item: Item<'a>, path: &str, hint: impl Fn() -> String) -> Option<&'a DeTable<'a>> {
        let table = item.as_table();
        if table.is_none() {
            let message = format!("expected a table, not {}", with_article(item.kind()));
            self.report.add(item.line, path, message, Some(hint()));
        }
        table
    }

    fn report_unknown_keys(&self) {
        for (key, value) in self.entries.into_iter().flat_map(DeTable::iter) {
            let name = key.get_ref().as_ref();
            let known = keys::in_section(self.section).any(|key| key.name == name)
                || keys::subsections(self.section).any(|section| section == name);
            if !known {
                let item = self.item_of(key.span().start, value);
                let what = if item.as_table().is_some() {
                    "section"
                } else {
                    "key"
                };
                let hint = hints::for_unknown(self.section, name);
                let message = format!("unknown {what}");
                self.report.add(item.line, &self.path_of(name), message, hint);
            }
        }
    }
}

/// `path.key`, the key in quotes where TOML wants them.
fn join(path: &str, key: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let dot = if path.is_empty() { "" } else { "." };
    if !key.is_empty() && key.bytes().all(is_bare) {
        format!("{path}{dot}{key}")
    } else {
        format!("{path}{dot}{key:?}")
    }
}

fn with_article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {kind}")
}
