//! What turns a server connection's settings into a client's, and the messages that do it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{Parameter, Parameters, Source, is_read_only};
use crate::wire::frontend;

/// What it takes to give a server connection a client's settings.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// To be set on the server: name and value as a server has reported them.
    pub set: Vec<(Arc<str>, Bytes)>,
    /// The same in UTF-8, whatever the session's encoding.
    pub given: Vec<(Arc<str>, Bytes)>,
    /// To be set back to the server's default.
    pub reset: Vec<Arc<str>>,
}

impl Difference {
    /// Adds what follows from one name, as the server and as the client has it.
    pub(super) fn add(&mut self, present: Option<&Parameter>, wanted: Option<&Parameter>) {
        match (present, wanted) {
            (Some(present), None) if present.source != Source::Reported => {
                self.reset.push(present.name.clone());
            }
            (_, Some(wanted))
                if present.is_none_or(|present| present.is_doubtful() || present.value != wanted.value)
                    && !is_read_only(&wanted.name) =>
            {
                let setting = (wanted.name.clone(), wanted.value.clone());
                match wanted.source {
                    Source::Reported => self.set.push(setting),
                    Source::Session | Source::Doubtful => self.given.push(setting),
                }
            }
            _ => {}
        }
    }

    /// Who the session is decides what it may set and reset: where there is anything to be done, it is done by the one who
    /// has logged in, and each becomes who it is at the end. A role does not outlive a change of the session's user.
    pub(super) fn assume_identity(&mut self, server: &Parameters, client: &Parameters) {
        if *self == Self::default() {
            return;
        }
        let role = |parameters: &Parameters| {
            let found = parameters
                .find(ROLE)
                .filter(|role| role.source != Source::Reported);
            found.map(|role| (role.name.clone(), role.value.clone()))
        };
        if let Some((name, _)) = role(server)
            && !self.reset.iter().any(|reset| is_role(reset))
        {
            self.reset.push(name);
        }
        if let Some(role) = role(client)
            && !self.given.iter().any(|(name, _)| is_role(name))
        {
            self.given.push(role);
        }
        let becomes_another = self.set.iter().any(|(name, _)| is_user(name));
        if becomes_another && server.find(USER).is_some() {
            self.reset.push(USER.into());
        }
    }

    /// Appends the messages that carry it out and returns their type bytes. They are answered by one
    /// ReadyForQuery, and either all of it happens or nothing does.
    ///
    /// `set_config` takes a value exactly as ParameterStatus shows it, lists and quotes included, which `SET`
    /// does not. Plain values go as literals in one Query; anything that a literal could mangle (a backslash,
    /// or bytes beyond ASCII, whose meaning depends on the client encoding) goes as parameters of an
    /// extended query, where nothing is quoted at all. What is given in UTF-8 is in no session's encoding: it
    /// goes as hexadecimal digits where it is not plain.
    pub fn encode(&self, out: &mut BytesMut) -> Vec<u8> {
        if self.set.iter().all(|(_, value)| is_plain(value)) {
            frontend::query(&self.sql(), out);
            return vec![frontend::tag::QUERY];
        }
        let mut rows: Vec<Vec<Bytes>> = self
            .set
            .iter()
            .map(|(name, value)| vec![text(name), value.clone()])
            .collect();
        // The values that follow are in the encoding that the first names; the user of the session is changed last.
        rows.sort_by_key(|row| match row.first().map(Bytes::as_ref) {
            Some(b"client_encoding") => 0,
            Some(name) if name == USER.as_bytes() => 2,
            _ => 1,
        });
        let resets = self.resets().map(|name| reset(name));
        let select = |(name, value): &(Arc<str>, Bytes)| format!("SELECT {}", set_given(name, value));
        let mut tags = Vec::new();
        // In one batch: what precedes Sync is one transaction.
        for sql in resets.chain(self.given_others().map(select)) {
            execute(&sql, &mut tags, out);
        }
        frontend::execute_each(SET_CONFIG, &rows, out);
        tags.push(frontend::tag::PARSE);
        for _ in &rows {
            tags.extend([frontend::tag::BIND, frontend::tag::EXECUTE]);
        }
        for sql in self.given_identity().map(select) {
            execute(&sql, &mut tags, out);
        }
        out.extend_from_slice(&frontend::SYNC);
        tags.push(frontend::tag::SYNC);
        tags
    }

    fn sql(&self) -> String {
        let mut sql = String::new();
        for name in self.resets() {
            sql.push_str(&reset(name));
            sql.push(';');
        }
        let (user, others): (Vec<_>, Vec<_>) = self.set.iter().partition(|(name, _)| is_user(name));
        let reported = |(name, value): &(Arc<str>, Bytes)| {
            let value = String::from_utf8_lossy(value);
            format!(
                "pg_catalog.set_config({},{},false)",
                literal(name),
                literal(&value)
            )
        };
        let given = |(name, value): &(Arc<str>, Bytes)| set_given(name, value);
        // The calls are made from left to right.
        let calls = others
            .into_iter()
            .map(reported)
            .chain(self.given_others().map(given))
            .chain(user.into_iter().map(reported))
            .chain(self.given_identity().map(given));
        for (index, call) in calls.enumerate() {
            sql.push_str(if index == 0 { "SELECT " } else { "," });
            sql.push_str(&call);
        }
        sql
    }

    /// What is reset, the role and the user of the session first.
    fn resets(&self) -> impl Iterator<Item = &Arc<str>> {
        let role = self.reset.iter().filter(|name| is_role(name));
        let user = self.reset.iter().filter(|name| is_user(name));
        let others = self.reset.iter().filter(|name| !is_role(name) && !is_user(name));
        role.chain(user).chain(others)
    }

    fn given_others(&self) -> impl Iterator<Item = &(Arc<str>, Bytes)> {
        self.given
            .iter()
            .filter(|(name, _)| !is_role(name) && !is_user(name))
    }

    /// Who the session is to be: the user first, which ends a role.
    fn given_identity(&self) -> impl Iterator<Item = &(Arc<str>, Bytes)> {
        let user = self.given.iter().filter(|(name, _)| is_user(name));
        user.chain(self.given.iter().filter(|(name, _)| is_role(name)))
    }
}

const ROLE: &str = "role";
const USER: &str = "session_authorization";
const SET_CONFIG: &str = "SELECT pg_catalog.set_config($1,$2,false)";

fn execute(sql: &str, tags: &mut Vec<u8>, out: &mut BytesMut) {
    frontend::parse_execute(sql, out);
    tags.extend([frontend::tag::PARSE, frontend::tag::BIND, frontend::tag::EXECUTE]);
}

fn is_role(name: &str) -> bool {
    name.eq_ignore_ascii_case(ROLE)
}

fn is_user(name: &str) -> bool {
    name.eq_ignore_ascii_case(USER)
}

fn text(name: &str) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

fn is_plain(value: &[u8]) -> bool {
    value
        .iter()
        .all(|&byte| (b' '..=b'~').contains(&byte) && byte != b'\\')
}

fn reset(name: &str) -> String {
    format!("RESET {}", identifier(name))
}

/// The call that sets what is given in UTF-8. Its name is no more to be trusted than its value.
fn set_given(name: &str, value: &[u8]) -> String {
    // The session's encoding may not have the characters of what the function returns.
    let unseen = if is_plain(value) { "" } else { " IS NULL" };
    let (name, value) = (expression(name.as_bytes()), expression(value));
    format!("pg_catalog.set_config({name},{value},false){unseen}")
}

/// Text in UTF-8 as an expression that is ASCII and has no backslash. What is not UTF-8 is of a database without an encoding.
pub(in crate::server) fn expression(text: &[u8]) -> String {
    if is_plain(text) {
        return literal(&String::from_utf8_lossy(text));
    }
    let digits: String = text.iter().map(|byte| format!("{byte:02x}")).collect();
    let encoding = if std::str::from_utf8(text).is_ok() {
        "UTF8"
    } else {
        "SQL_ASCII"
    };
    format!("pg_catalog.convert_from(pg_catalog.decode('{digits}','hex'),'{encoding}')")
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A setting's name as an identifier; names with a dot belong to extensions and are two identifiers.
fn identifier(name: &str) -> String {
    name.split('.')
        .map(|part| format!("\"{}\"", part.replace('"', "\"\"")))
        .collect::<Vec<_>>()
        .join(".")
}
