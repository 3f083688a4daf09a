//! The metrics of several replicas as one text: each series with a label `replica`, each family once. Pure.
//!
//! It works on lines, and on both text formats alike. What is not such a text is refused as a whole.

use std::collections::HashMap;

/// A text is not one of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is none of a text of metrics")]
pub struct NotMetrics {
    /// Counted from one.
    pub line: usize,
}

/// Families in the order in which they came.
#[derive(Debug, Default)]
pub struct Merged {
    families: Vec<Family>,
    /// Their places, by name.
    places: HashMap<String, usize>,
}

#[derive(Debug, Default)]
struct Family {
    headers: String,
    /// What the samples of later replicas follow.
    samples: String,
}

/// One line of a text.
#[derive(Debug, Clone, Copy)]
enum Line<'a> {
    /// `# TYPE name kind` and its like: the family's name.
    Header(&'a str),
    /// The name of a sample, what stands between its braces, and what follows.
    Sample {
        name: &'a str,
        labels: &'a str,
        rest: &'a str,
    },
    Nothing,
}

impl Merged {
    /// Adds what a replica has said.
    ///
    /// # Errors
    /// It is something else; nothing of it is added.
    pub fn add(&mut self, replica: &str, text: &str) -> Result<(), NotMetrics> {
        check(text)?;
        let label = escaped(replica);
        let (mut at, mut has_headers) = (None, false);
        let mut family_name = "";
        for line in text.lines() {
            match read(line) {
                Some(Line::Header(name)) => {
                    if name != family_name || at.is_none() {
                        family_name = name;
                        let place = self.place(name);
                        has_headers = self
                            .families
                            .get(place)
                            .is_some_and(|family| !family.headers.is_empty());
                        at = Some(place);
                    }
                    if let (false, Some(family)) = (has_headers, at.and_then(|at| self.families.get_mut(at)))
                    {
                        family.headers.push_str(line);
                        family.headers.push('\n');
                    }
                }
                Some(Line::Sample { name, labels, rest }) => {
                    if let Some(family) = at.and_then(|at| self.families.get_mut(at)) {
                        let comma = if labels.is_empty() { "" } else { "," };
                        let parts = [name, "{replica=\"", &label, "\"", comma, labels, "}", rest, "\n"];
                        parts.iter().for_each(|part| family.samples.push_str(part));
                    }
                }
                Some(Line::Nothing) | None => {}
            }
        }
        Ok(())
    }

    /// All of it.
    pub fn text(&self) -> String {
        let length = |family: &Family| family.headers.len() + family.samples.len();
        let mut text = String::with_capacity(self.families.iter().map(length).sum());
        for family in self.families.iter().filter(|family| !family.samples.is_empty()) {
            text.push_str(&family.headers);
            text.push_str(&family.samples);
        }
        text
    }

    fn place(&mut self, name: &str) -> usize {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let place = self.families.len();
        self.families.push(Family::default());
        self.places.insert(name.to_owned(), place);
        place
    }
}

fn check(text: &str) -> Result<(), NotMetrics> {
    let mut family = None;
    for (line, number) in text.lines().zip(1..) {
        let wrong = NotMetrics { line: number };
        match read(line).ok_or(wrong)? {
            Line::Header(name) => family = Some(name),
            Line::Sample { name, .. } => {
                let family = family.ok_or(wrong)?;
                name.strip_prefix(family).ok_or(wrong)?;
            }
            Line::Nothing => {}
        }
    }
    Ok(())
}

fn read(line: &str) -> Option<Line<'_>> {
    if let Some(comment) = line.strip_prefix('#') {
        let mut words = comment.trim_start().splitn(3, ' ');
        return Some(match (words.next(), words.next()) {
            (Some("HELP" | "TYPE" | "UNIT"), Some(name)) => {
                let (whole, rest) = name_of(name)?;
                rest.is_empty().then_some(Line::Header(whole))?
            }
            _ => Line::Nothing,
        });
    }
    if line.is_empty() {
        return Some(Line::Nothing);
    }
    let (name, rest) = name_of(line)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels_of(inside)?,
        None => ("", rest),
    };
    let value = rest.strip_prefix(' ')?;
    let is_plain = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    (is_plain && !value.trim().is_empty()).then_some(Line::Sample { name, labels, rest })
}

/// The name at the beginning, and what follows.
fn name_of(text: &str) -> Option<(&str, &str)> {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    let end = text.bytes().position(|byte| !inside(byte)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let first = name.bytes().next()?;
    (!first.is_ascii_digit()).then_some((name, rest))
}

/// The labels up to the brace that ends them, and what follows it.
fn labels_of(text: &str) -> Option<(&str, &str)> {
    let mut rest = text;
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            let length = text.len() - rest.len();
            let labels = text.get(..length)?;
            return Some((labels.strip_suffix(',').unwrap_or(labels), after));
        }
        let (_, after) = name_of(rest)?;
        rest = value_of(after.strip_prefix("=\"")?)?;
        rest = match rest.strip_prefix(',') {
            Some(after) => after,
            None if rest.starts_with('}') => rest,
            None => return None,
        };
    }
}

/// What follows the quote that ends a value.
fn value_of(text: &str) -> Option<&str> {
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next()?;
            }
            b'"' => return text.get(at + 1..),
            _ => {}
        }
    }
    None
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: &str = "# HELP up Up.\n# TYPE up gauge\nup 1\n# HELP waits_total Waits.\n# TYPE waits_total counter\n\
                       waits_total{db=\"a}\\\"b\",} 3 1700000000\nwaits_total{} 4\n";
    const TWO: &str = "# HELP up Another.\n# TYPE up gauge\nup 0\n# TYPE new histogram\nnew_bucket{le=\"+Inf\"} 1\nnew_sum 1e-9\n# EOF\n";

    #[test]
    fn families_are_one_and_series_have_their_replica() {
        let mut merged = Merged::default();
        merged.add("a", ONE).unwrap();
        merged.add("b\"1", TWO).unwrap();
        assert_eq!(
            merged.text(),
            "# HELP up Up.\n# TYPE up gauge\nup{replica=\"a\"} 1\nup{replica=\"b\\\"1\"} 0\n\
             # HELP waits_total Waits.\n# TYPE waits_total counter\n\
             waits_total{replica=\"a\",db=\"a}\\\"b\"} 3 1700000000\nwaits_total{replica=\"a\"} 4\n\
             # TYPE new histogram\nnew_bucket{replica=\"b\\\"1\",le=\"+Inf\"} 1\nnew_sum{replica=\"b\\\"1\"} 1e-9\n"
        );
    }

    #[test]
    fn what_is_something_else_adds_nothing() {
        let mut merged = Merged::default();
        for (text, line) in [
            ("<html>", 1),
            ("up 1\n", 1),
            ("# TYPE up gauge\nup 1\nother 1\n", 3),
            ("# TYPE up gauge\nup{a=\"1} 1\n", 2),
            ("# TYPE up gauge\nup{a=\"1\"b=\"2\"} 1\n", 2),
            ("# TYPE up gauge\nup\n", 2),
            ("# TYPE up gauge\nup 1\u{7}\n", 2),
            ("# TYPE <b> gauge\n", 1),
        ] {
            assert_eq!(merged.add("a", text), Err(NotMetrics { line }), "{text}");
        }
        assert_eq!(merged.text(), "");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(# TYPE a b\n)?([a#{}=\",\\\\\n 1]|TYPE|é){0,40}") {
            let mut merged = Merged::default();
            let added = merged.add("r", &text);
            // What was taken is such a text itself.
            prop_assert!(added.is_err() || check(&merged.text()).is_ok());
        }
    }
}
