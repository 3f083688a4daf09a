//! Reads a value of each kind, or notes what is wrong with it.
//!
//! It knows no setting; what is absent is `None`, and defaults are for the caller.

use std::{num::NonZeroUsize, ops::RangeInclusive, path::PathBuf, time::Duration};

use serde::de::{DeserializeOwned, IntoDeserializer, value::StrDeserializer};
use toml::de::DeValue;

use super::{Item, Table, with_article};
use crate::config::units::{self, DurationError, SizeError};

/// One text out of a setting that takes a text or a list of them.
pub(crate) struct Text {
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl<'a> Table<'a> {
    pub(crate) fn string(&self, key: &str) -> Option<String> {
        self.text(key, self.item(key)?)
    }

    /// The text of a setting that may also be something else.
    pub(crate) fn if_string(&self, key: &str) -> Option<String> {
        let item = self.item(key)?;
        self.text(key, item.value.get_ref().is_str().then_some(item)?)
    }

    pub(crate) fn nonempty_string(&self, key: &str) -> Option<String> {
        let text = self.string(key)?;
        if text.is_empty() {
            self.problem(key, "must not be empty", Some("leave the line out".to_owned()));
            return None;
        }
        Some(text)
    }

    /// A text or a list of texts, of which there must be one.
    pub(crate) fn strings(&self, key: &str) -> Option<Vec<Text>> {
        let texts = self.list(key);
        let is_empty =
            |item: Item<'a>| matches!(item.value.get_ref(), DeValue::Array(values) if values.is_empty());
        if self.item(key).is_some_and(is_empty) {
            self.problem(key, "must not be empty", None);
        }
        texts
    }

    /// A text or a list of texts, which may be none.
    pub(crate) fn list(&self, key: &str) -> Option<Vec<Text>> {
        let item = self.item(key)?;
        let items: Vec<Item<'a>> = match item.value.get_ref() {
            DeValue::Array(values) => values
                .iter()
                .map(|value| self.item_of(value.span().start, value))
                .collect(),
            _ => vec![item],
        };
        let texts = items.iter().filter_map(|item| {
            let text = self.text(key, *item)?;
            Some(Text {
                line: item.line,
                text,
            })
        });
        Some(texts.collect())
    }

    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.leaf(key, self.item(key)?, "true or false")
    }

    /// One of the words of an enum.
    pub(crate) fn word<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        self.word_or(key, |_| None)
    }

    /// One of the words of an enum, or what to do instead of another one.
    pub(crate) fn word_or<T: DeserializeOwned>(
        &self,
        key: &str,
        instead: impl FnOnce(&str) -> Option<&'static str>,
    ) -> Option<T> {
        let text = self.string(key)?;
        let deserializer: StrDeserializer<'_, serde::de::value::Error> = text.as_str().into_deserializer();
        T::deserialize(deserializer)
            .map_err(|error| {
                let message = error.to_string().replacen("unknown variant", "unknown value", 1);
                self.problem(key, message, instead(&text).map(str::to_owned));
            })
            .ok()
    }

    /// A number of things.
    pub(crate) fn number<T: TryFrom<i64>>(&self, key: &str, range: RangeInclusive<i64>) -> Option<T> {
        let item = self.item(key)?;
        let DeValue::Integer(written) = item.value.get_ref() else {
            return self.leaf::<i64>(key, item, "an integer").and(None);
        };
        let number: Option<i64> = item.read().filter(|number| range.contains(number));
        if number.is_none() {
            let message = format!(
                "must be between {} and {}, not {written}",
                range.start(),
                range.end()
            );
            self.problem(key, message, None);
        }
        number.and_then(|number| T::try_from(number).ok())
    }

    /// A number of things, of which there must be one.
    pub(crate) fn count(&self, key: &str, most: i64) -> Option<NonZeroUsize> {
        self.number(key, 1..=most).and_then(NonZeroUsize::new)
    }

    pub(crate) fn duration(&self, key: &str) -> Option<Duration> {
        let item = self.item(key)?;
        if let DeValue::Integer(number) = item.value.get_ref() {
            if number.as_str().starts_with('-') {
                self.problem(key, DurationError::Negative, None);
                return None;
            }
            let hint = format!("write \"{number}s\" for seconds, \"{number}ms\" for milliseconds");
            self.problem(key, DurationError::NoUnit, Some(hint));
            return None;
        }
        let text = self.text(key, item)?;
        units::duration(&text)
            .map_err(|error| {
                let hint = "such as \"500ms\", \"30s\", \"5m\", \"1h\", \"7d\" or \"0\"".to_owned();
                self.problem(key, format!("{text:?}: {error}"), Some(hint));
            })
            .ok()
    }

    /// A number of bytes.
    pub(crate) fn size(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let item = self.item(key)?;
        if let DeValue::Integer(number) = item.value.get_ref() {
            let hint = format!("write \"{number}B\" for bytes, \"{number}KiB\" for times 1024");
            self.problem(key, SizeError::NoUnit, Some(hint));
            return None;
        }
        let text = self.text(key, item)?;
        let size = units::size(&text)
            .map_err(|error| {
                let hint = "such as \"512B\", \"64KiB\", \"16MiB\", \"1GiB\" or \"0\"".to_owned();
                self.problem(key, format!("{text:?}: {error}"), Some(hint));
            })
            .ok()?;
        if !range.contains(&size) {
            let message = format!(
                "must be between {} and {} bytes, not {text:?}",
                range.start(),
                range.end()
            );
            self.problem(key, message, None);
            return None;
        }
        Some(size)
    }

    /// The path of a file that has to be there.
    pub(crate) fn file(&self, key: &str) -> Option<PathBuf> {
        let path = self.nonempty_string(key)?;
        let line = self.item(key)?.line;
        Some(self.report.file(line, self.path_of(key), &path))
    }

    fn leaf<T: DeserializeOwned>(&self, key: &str, item: Item<'a>, expected: &str) -> Option<T> {
        let value = item.read();
        if value.is_none() {
            let message = format!("expected {expected}, not {}", with_article(item.kind()));
            self.report.add(item.line, &self.path_of(key), message, None);
        }
        value
    }

    fn text(&self, key: &str, item: Item<'a>) -> Option<String> {
        let text: String = self.leaf(key, item, "a string")?;
        if text.contains('\0') {
            let message = "must not contain a zero character";
            self.report.add(item.line, &self.path_of(key), message, None);
            return None;
        }
        Some(text)
    }
}
