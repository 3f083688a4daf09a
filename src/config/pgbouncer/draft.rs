//! What becomes of a `pgbouncer.ini` while it is translated: a document, remarks and problems.
//!
//! It knows no setting.

use std::collections::BTreeMap;

use super::{
    document::{Document, Origin, Section, Setting, Value},
    ini::Place,
    remark::{Remark, Weight},
};
use crate::config::problem::Problem;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) place: Place,
    pub(super) value: String,
}

/// Something that has a name and, if it is said at all, a place and a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    /// `pool_mode`, `databases.app: pool_size`
    pub(super) name: &'a str,
    pub(super) given: Option<&'a Given>,
}

impl Subject<'_> {
    pub(super) fn origin(&self) -> Option<Origin> {
        self.given.map(|given| Origin {
            place: given.place.clone(),
            name: self.name.to_owned(),
        })
    }
}

#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) document: Document,
    pub(super) remarks: Vec<Remark>,
    pub(super) problems: Vec<Problem>,
    /// What databases log in to servers with, by their names.
    pub(super) passwords: BTreeMap<String, String>,
}

impl Draft {
    pub(super) fn remark(&mut self, weight: Weight, subject: Subject<'_>, text: impl Into<String>) {
        self.remarks.push(Remark {
            place: subject.given.map(|given| given.place.clone()),
            name: subject.name.to_owned(),
            written: subject.given.map(|given| given.value.clone()),
            text: text.into(),
            weight,
        });
    }

    /// The same about what may have a secret in it.
    pub(super) fn discreet_remark(&mut self, weight: Weight, subject: Subject<'_>, text: impl Into<String>) {
        self.remark(weight, subject, text);
        if let Some(remark) = self.remarks.last_mut() {
            remark.written = None;
        }
    }

    pub(super) fn problem(&mut self, subject: Subject<'_>, message: impl Into<String>, hint: Option<&str>) {
        if let Some(given) = subject.given {
            let problem = given.place.problem(subject.name, message, hint);
            self.problems.push(problem);
        }
    }

    pub(super) fn section(&mut self, path: &[&str]) -> &mut Section {
        self.document.section(path)
    }

    /// Sets the key of a section whose name has no names of the user's.
    pub(super) fn set(
        &mut self,
        section: &str,
        key: &'static str,
        value: Value,
        subject: Subject<'_>,
    ) -> &mut Setting {
        let path: Vec<_> = section.split('.').collect();
        self.section(&path).set(key, value, subject.origin())
    }
}
