//! `[pgbouncer]`: what it says, by name, and what is the same in pgweir or has no counterpart there.

use std::collections::BTreeMap;

use super::{
    document::Value,
    draft::{Draft, Given, Subject},
    kinds::Kind,
    remark::Weight::{self, Note, Warning},
    settings::{self, Known, Rule, SETTINGS},
};
use crate::config::{
    hints,
    keys::{KEYS, Key},
};

/// Defaults that pgweir has otherwise and clients would notice.
const WRITTEN: [&str; 2] = ["max_client_conn", "pool_mode"];

/// What a `[pgbouncer]` section says.
#[derive(Debug, Default)]
pub(super) struct Main {
    given: BTreeMap<&'static str, Given>,
}

impl Main {
    /// What is said about a setting.
    pub(super) fn subject(&self, name: &'static str) -> Subject<'_> {
        Subject {
            name,
            given: self.given.get(name),
        }
    }

    /// What is said, unless it is nothing.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let given = self.given.get(name)?;
        Some(given.value.as_str()).filter(|text| !text.is_empty())
    }

    /// The value that is in force; `""` where there is none.
    pub(super) fn in_force(&self, name: &str) -> &str {
        let default = || settings::find(name).and_then(|known| known.default);
        let given = self.given.get(name).map(|given| given.value.as_str());
        given.or_else(default).unwrap_or_default()
    }

    /// Notes one line of the section.
    pub(super) fn note(&mut self, name: &str, given: Given, draft: &mut Draft) {
        let subject = Subject {
            name,
            given: Some(&given),
        };
        let Some(known) = settings::find(name) else {
            return draft.problem(subject, "unknown setting", hint(name).as_deref());
        };
        let line = given.place.to_string();
        if let Some(earlier) = self.given.insert(known.name, given) {
            forgotten(draft, known.name, &earlier, &format!("what {line} says counts"));
        }
    }

    /// Another `[pgbouncer]` begins: PgBouncer then goes back to the defaults that there are.
    pub(super) fn start_over(&mut self, draft: &mut Draft) {
        let why = "another [pgbouncer] section follows, at whose beginning PgBouncer forgets it";
        for known in SETTINGS.iter().filter(|known| known.default.is_some()) {
            if let Some(earlier) = self.given.remove(known.name) {
                forgotten(draft, known.name, &earlier, why);
            }
        }
    }

    /// Sets what is the same, and says what there is nothing for.
    pub(super) fn translate(&self, draft: &mut Draft) {
        for known in SETTINGS {
            let subject = self.subject(known.name);
            match known.rule {
                Rule::Same(kind) => same(draft, known, kind, subject),
                Rule::Nothing(weight, text) => nothing(draft, known, weight, text, subject),
                Rule::Elsewhere => {}
            }
        }
    }
}

fn forgotten(draft: &mut Draft, name: &str, given: &Given, why: &str) {
    let subject = Subject {
        name,
        given: Some(given),
    };
    draft.discreet_remark(Warning, subject, why);
}

/// Where a setting of PgBouncer's is here.
pub(super) fn counterpart(name: &str) -> Option<&'static Key> {
    KEYS.iter()
        .find(|key| key.is_global() && key.pgbouncer.contains(&name))
}

/// What a `pgbouncer.ini` calls a setting of ours.
pub(super) fn name_of(path: &str) -> Option<String> {
    let key = KEYS.iter().find(|key| key.path() == path)?;
    key.pgbouncer.first().map(|&name| name.to_owned())
}

fn same(draft: &mut Draft, known: &Known, kind: Kind, subject: Subject<'_>) {
    let Some(key) = counterpart(known.name) else {
        return;
    };
    match (kind.translate(draft, subject), known.default) {
        (Some((value, comment)), _) => {
            draft.set(key.section, key.name, value, subject).comment = comment;
        }
        (None, Some(default)) if subject.given.is_none() && WRITTEN.contains(&known.name) => {
            let value = default
                .parse()
                .map_or_else(|_| Value::Text(default.to_owned()), Value::Number);
            draft.set(key.section, key.name, value, subject).comment =
                Some("PgBouncer's default.".to_owned());
        }
        (None, _) => {}
    }
}

fn nothing(draft: &mut Draft, known: &Known, weight: Weight, text: &str, subject: Subject<'_>) {
    let Some(given) = subject.given else { return };
    let is_default = given.value == known.default.unwrap_or_default();
    draft.remark(if is_default { Note } else { weight }, subject, text);
}

fn hint(name: &str) -> Option<String> {
    let sections = ["databases.NAME", "users.NAME"];
    let of_others = KEYS.iter().filter(|key| sections.contains(&key.section));
    if of_others
        .flat_map(|key| key.pgbouncer)
        .any(|known| *known == name)
    {
        return Some("it is for the lines of [databases] or [users]".to_owned());
    }
    let near = hints::nearest(name, SETTINGS.iter().map(|known| known.name))?;
    Some(format!("did you mean `{near}`?"))
}
