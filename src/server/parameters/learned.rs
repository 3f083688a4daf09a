//! What an inquiry teaches about the settings of a client and of a server connection.

use std::sync::Arc;

use super::{Parameter, Parameters, Source, is_read_only};
use crate::server::inquiry::Findings;

/// Whose value is always the session's own: the server says it, and a reset is one of the session's user.
const FOLLOWED: &str = "session_authorization";

impl Parameters {
    /// What a client has after the server has been asked, `self` being what it had before.
    ///
    /// What was found set is the client's. What it began with (`base`, from its startup packet) and is not set any more was
    /// reset: then it has what it began with, as in a connection of its own, where a startup packet is what a reset goes
    /// back to. Reported settings are as the server has said them, but for those: the server went back to its own default,
    /// which `fresh` shows. [`Parameters::follow`] says which of them are news to the client.
    ///
    /// Nothing changes where the findings say nothing.
    #[must_use]
    pub fn learn(&self, findings: &Findings, base: &Self, fresh: Option<&Self>) -> Self {
        if !findings.has_settings() {
            return self.clone();
        }
        let mut learned = self.with_found(findings);
        for begun in base.iter() {
            let is_reset = match begun.source {
                Source::Reported => {
                    findings.get(&begun.name) == Some(None)
                        && !is_read_only(&begun.name)
                        && begun.name.as_ref() != FOLLOWED
                        && fresh.is_none_or(|fresh| fresh.get(&begun.name) != Some(&begun.value))
                }
                Source::Session | Source::Doubtful => learned.find(&begun.name).is_none(),
            };
            if is_reset {
                learned.set(&begun.name, &begun.value, begun.source);
            }
        }
        // Who has learned nothing keeps the allocation that others may share.
        if learned == *self { self.clone() } else { learned }
    }

    /// Notes what was found to be set on the server connection whose settings these are.
    pub fn found(&mut self, findings: &Findings) {
        if findings.has_settings() {
            let found = self.with_found(findings);
            if found != *self {
                *self = found;
            }
        }
    }

    /// The custom settings among these: a server has to be asked for each by its name.
    pub fn custom_names(&self) -> impl Iterator<Item = &Arc<str>> {
        let unreported = self.0.iter().filter(|known| known.source != Source::Reported);
        unreported
            .map(|known| &known.name)
            .filter(|name| name.contains('.'))
    }

    /// What is reported as it is, and of the rest what was found; custom settings that were not asked for as they are.
    fn with_found(&self, findings: &Findings) -> Self {
        let is_kept =
            |known: &&Parameter| known.source == Source::Reported || findings.get(&known.name).is_none();
        let mut found = Self(Arc::new(self.0.iter().filter(is_kept).cloned().collect()));
        for (name, value) in findings.settings() {
            if found.find(name).is_none() {
                let name = self.find(name).map_or(name, |known| &known.name);
                found.set(name, value, Source::Session);
            }
        }
        found
    }
}
