//! The settings of a session, as a client has them and as a server connection has them.
//!
//! Two kinds: *reported* ones, which the server announces in ParameterStatus (GUC_REPORT), and those of the session that
//! it does not report, which the pooler remembers: from a startup packet, from what it has set itself, or because it has
//! asked. A set is an immutable, shared value: clients and servers that agree hold the same allocation, so that asking
//! whether there is anything to do is one pointer comparison.

mod difference;
mod learned;
mod planning;

use std::{cmp::Ordering, sync::Arc};

use bytes::{Bytes, BytesMut};

pub use self::{difference::Difference, planning::Planning};
use crate::wire::reply;
pub(super) use difference::expression;

/// Where the pooler knows a setting from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The server announces it in ParameterStatus.
    Reported,
    /// It is set in the session, and the server does not announce it: a startup packet asked for it, the pooler has set it,
    /// or the server was asked.
    Session,
    /// It was set, and since then a statement may have changed it on this connection.
    Doubtful,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// The name, as the server spells it where it is reported.
    pub name: Arc<str>,
    /// The value: a reported one in the encoding of the session, any other in UTF-8.
    pub value: Bytes,
    /// Where it is known from.
    pub source: Source,
}

impl Parameter {
    fn is_doubtful(&self) -> bool {
        self.source == Source::Doubtful
    }
}

/// A set of settings, ordered by name without regard to case.
#[derive(Debug, Clone, Default)]
pub struct Parameters(Arc<Vec<Parameter>>);

/// Reported settings that no client can set: the server's own properties.
const READ_ONLY: [&str; 5] = [
    "in_hot_standby",
    "integer_datetimes",
    "is_superuser",
    "server_encoding",
    "server_version",
];

impl Parameters {
    /// Whether both are the very same allocation (and so equal).
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The settings in order.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.0.iter()
    }

    /// The value of a setting.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.find(name).map(|parameter| &parameter.value)
    }

    fn find(&self, name: &str) -> Option<&Parameter> {
        self.position(name).ok().and_then(|index| self.0.get(index))
    }

    /// Adds or changes a setting; the set is copied if it is shared. A reported one stays reported.
    pub fn set(&mut self, name: &str, value: &[u8], source: Source) {
        match self.position(name) {
            Ok(index) => {
                let same = self.0.get(index).is_some_and(|parameter| {
                    let keeps_source = parameter.source == Source::Reported && source == Source::Session;
                    parameter.value == value && (parameter.source == source || keeps_source)
                });
                if same {
                    return;
                }
                if let Some(parameter) = Arc::make_mut(&mut self.0).get_mut(index) {
                    parameter.value = Bytes::copy_from_slice(value);
                    if source == Source::Reported {
                        parameter.name = name.into();
                    }
                    if parameter.source != Source::Reported {
                        parameter.source = source;
                    }
                }
            }
            Err(index) => Arc::make_mut(&mut self.0).insert(
                index,
                Parameter {
                    name: name.into(),
                    value: Bytes::copy_from_slice(value),
                    source,
                },
            ),
        }
    }

    fn remove(&mut self, name: &str) {
        if let Ok(index) = self.position(name) {
            Arc::make_mut(&mut self.0).remove(index);
        }
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.0
            .binary_search_by(|parameter| compare(&parameter.name, name))
    }

    /// What turns `self`, a server connection's settings, into `client`'s. `None` when there is nothing to
    /// ask the server for.
    pub fn difference(&self, client: &Self) -> Option<Difference> {
        if self.is(client) {
            return None;
        }
        let mut difference = Difference::default();
        // Both are in the same order, so one walk sees every name once.
        let (mut present, mut wanted) = (self.0.iter().peekable(), client.0.iter().peekable());
        loop {
            let order = match (present.peek(), wanted.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(present), Some(wanted)) => compare(&present.name, &wanted.name),
            };
            let present = if order.is_le() { present.next() } else { None };
            let wanted = if order.is_ge() { wanted.next() } else { None };
            difference.add(present, wanted);
        }
        difference.assume_identity(self, client);
        (difference != Difference::default()).then_some(difference)
    }

    /// Notes that the difference is being carried out on the server connection whose settings these are.
    /// Reported settings are left alone: the server itself will say what they have become.
    pub fn apply(&mut self, difference: &Difference) {
        for name in &difference.reset {
            if self
                .find(name)
                .is_some_and(|parameter| parameter.source != Source::Reported)
            {
                self.remove(name);
            }
        }
        for (name, value) in difference.set.iter().chain(&difference.given) {
            if self
                .find(name)
                .is_none_or(|parameter| parameter.source != Source::Reported)
            {
                self.set(name, value, Source::Session);
            }
        }
    }

    /// Notes that a statement may have changed what is not reported: the values are known no longer, so each is
    /// set or reset for the next client.
    pub fn doubt(&mut self) {
        if self.iter().any(|parameter| parameter.source == Source::Session) {
            for parameter in Arc::make_mut(&mut self.0) {
                if parameter.source == Source::Session {
                    parameter.source = Source::Doubtful;
                }
            }
        }
    }

    /// Appends a ParameterStatus for each setting that is reported.
    pub fn report(&self, out: &mut BytesMut) {
        for parameter in self
            .iter()
            .filter(|parameter| parameter.source == Source::Reported)
        {
            reply::parameter_status(&parameter.name, &parameter.value, out);
        }
    }

    /// Takes over the reported settings of `server` and returns those that are news, which the client has
    /// to be told.
    pub fn follow(&mut self, server: &Self) -> Vec<(Arc<str>, Bytes)> {
        let mut news = Vec::new();
        for parameter in server
            .iter()
            .filter(|parameter| parameter.source == Source::Reported)
        {
            if self.get(&parameter.name) != Some(&parameter.value) {
                self.set(&parameter.name, &parameter.value, Source::Reported);
                news.push((parameter.name.clone(), parameter.value.clone()));
            }
        }
        news
    }
}

impl PartialEq for Parameters {
    fn eq(&self, other: &Self) -> bool {
        self.is(other) || self.0 == other.0
    }
}

/// The order of names. Most are spelt alike on both sides.
fn compare(a: &str, b: &str) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    a.bytes()
        .map(|byte| byte.to_ascii_lowercase())
        .cmp(b.bytes().map(|byte| byte.to_ascii_lowercase()))
}

fn is_read_only(name: &str) -> bool {
    READ_ONLY.contains(&name)
}

#[cfg(test)]
mod tests;
