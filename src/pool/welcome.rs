//! What a pool can tell a client at log-in without asking a server: the settings of a fresh session, and
//! what became of the startup settings that other clients have asked for before.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};

use crate::server::{
    Notices,
    parameters::{Parameters, Source},
};

/// How many different combinations of startup settings are remembered.
const REMEMBERED: usize = 1024;

/// The settings that a client asks for in its startup packet, names in lower case, ordered, unique.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct StartupSettings(Vec<(String, String)>);

impl StartupSettings {
    /// Orders the settings; of two values for one name the later holds.
    pub fn new(settings: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut by_name = std::collections::BTreeMap::new();
        for (name, value) in settings {
            by_name.insert(name.to_ascii_lowercase(), value);
        }
        Self(by_name.into_iter().collect())
    }

    /// Name and value, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What is asked for by this name, in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(set, _)| *set == name).map(|(_, value)| value)
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a client is told when it is logged in.
#[derive(Debug, Clone)]
pub struct Greeting {
    /// The settings that its session begins with.
    pub parameters: Parameters,
    /// Those of them that are reported, as it is told of them.
    pub reports: Bytes,
    /// What a server says to everybody who logs in.
    pub notices: Arc<Notices>,
    /// What a server has said of the settings that the client asked for.
    pub remarks: Arc<Notices>,
}

#[derive(Debug, Default)]
pub(super) struct Welcome(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    fresh: Option<Parameters>,
    notices: Arc<Notices>,
    proved: HashMap<StartupSettings, Proved>,
}

#[derive(Debug)]
struct Proved {
    parameters: Parameters,
    reports: Bytes,
    remarks: Arc<Notices>,
}

impl Welcome {
    /// Takes the settings of a connection that was just opened, and what was said to it. A change of the settings (a new
    /// server version, say) makes what was proved before worthless.
    pub(super) fn learn(&self, fresh: &Parameters, notices: Notices) {
        let mut known = self.lock();
        if *known.notices != notices {
            known.notices = Arc::new(notices);
        }
        if known.fresh.as_ref() != Some(fresh) {
            known.proved.clear();
            known.fresh = Some(fresh.clone());
        }
    }

    pub(super) fn forget(&self) {
        *self.lock() = Known::default();
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl super::Pool {
    /// The settings of a session before any client has touched it. `None` until a server connection has
    /// been opened.
    pub fn fresh_parameters(&self) -> Option<Parameters> {
        self.welcome.lock().fresh.clone()
    }

    /// The settings of a session that asked for `startup`, where that needs no server: nothing is asked for,
    /// a server has accepted the same before, or it is only a plain `application_name`, which is never
    /// refused and never changed.
    pub fn welcome(&self, startup: &StartupSettings) -> Option<Greeting> {
        let mut known = self.welcome.lock();
        if let Some(greeting) = known.greeting(startup) {
            return Some(greeting);
        }
        let mut parameters = known.fresh.clone()?;
        if !startup
            .iter()
            .all(|(name, value)| name == "application_name" && is_plain_name(value))
        {
            return None;
        }
        for (name, value) in startup.iter() {
            parameters.set(name, value.as_bytes(), Source::Session);
        }
        Some(known.remember(startup, parameters, Notices::default()))
    }

    /// Remembers what a server has made of startup settings, and what it has said of them.
    pub fn proved(&self, startup: &StartupSettings, parameters: Parameters, remarks: Notices) -> Greeting {
        self.welcome.lock().remember(startup, parameters, remarks)
    }
}

impl Known {
    fn greeting(&self, startup: &StartupSettings) -> Option<Greeting> {
        self.proved.get(startup).map(|proved| self.greet(proved))
    }

    fn remember(&mut self, startup: &StartupSettings, parameters: Parameters, remarks: Notices) -> Greeting {
        if self.proved.len() >= REMEMBERED {
            self.proved.clear();
        }
        let mut reports = BytesMut::new();
        parameters.report(&mut reports);
        let proved = Proved {
            parameters,
            reports: reports.freeze(),
            remarks: Arc::new(remarks),
        };
        let greeting = self.greet(&proved);
        self.proved.insert(startup.clone(), proved);
        greeting
    }

    fn greet(&self, proved: &Proved) -> Greeting {
        Greeting {
            parameters: proved.parameters.clone(),
            reports: proved.reports.clone(),
            notices: self.notices.clone(),
            remarks: proved.remarks.clone(),
        }
    }
}

/// What PostgreSQL takes as `application_name` without changing it: printable ASCII, below NAMEDATALEN.
fn is_plain_name(value: &str) -> bool {
    value.len() < 64 && value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn startup_settings_have_one_order_and_the_last_value() {
        let settings = |pairs: &[(&str, &str)]| {
            StartupSettings::new(
                pairs
                    .iter()
                    .map(|(name, value)| ((*name).into(), (*value).into())),
            )
        };
        let a = settings(&[("TimeZone", "UTC"), ("work_mem", "1MB"), ("timezone", "CET")]);
        assert_eq!(a, settings(&[("work_mem", "1MB"), ("TIMEZONE", "CET")]));
        assert_eq!(
            a.iter().collect::<Vec<_>>(),
            [("timezone", "CET"), ("work_mem", "1MB")]
        );
    }

    #[test]
    fn only_short_printable_names_are_taken_without_asking() {
        assert!(is_plain_name("psql") && is_plain_name(""));
        assert!(!is_plain_name("café") && !is_plain_name(&"x".repeat(64)) && !is_plain_name("a\nb"));
    }
}
