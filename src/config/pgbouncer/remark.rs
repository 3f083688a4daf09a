//! What there is to say about a setting that is not simply taken over.

use std::fmt;

use super::ini::{Place, one_line};

/// How much somebody who moves over has to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Nothing is missed.
    Note,
    /// Something is otherwise than it was.
    Warning,
    /// It cannot be otherwise, so that pgweir does not run with it.
    Refusal,
}

/// What is said about one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Where it is said; `None` for what is not.
    pub place: Option<Place>,
    /// Its name in the `pgbouncer.ini`.
    pub name: String,
    /// As it is written there, unless that may be a secret.
    pub written: Option<String>,
    /// What there is to know, and what to do.
    pub text: String,
    /// How much.
    pub weight: Weight,
}

impl Remark {
    /// `name = value`
    pub(super) fn subject(&self) -> String {
        match &self.written {
            Some(written) => format!("{} = {}", self.name, one_line(written)),
            None => self.name.clone(),
        }
    }
}

/// `name = value: text`
impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject(), self.text)
    }
}
