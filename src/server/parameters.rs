//! The settings of a session, as a client has them and as a server connection has them.
//!
//! Two kinds: *reported* ones, which the server announces in ParameterStatus (GUC_REPORT), and *extra* ones,
//! which a client asked for in its startup packet and which only the pooler remembers. A set is an immutable,
//! shared value: clients and servers that agree hold the same allocation, so that asking whether there is
//! anything to do is one pointer comparison.

use std::{cmp::Ordering, sync::Arc};

use bytes::{Bytes, BytesMut};

use crate::wire::frontend;

/// Where the pooler knows a setting from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The server announces it in ParameterStatus.
    Reported,
    /// A client's startup packet.
    Startup,
    /// A client's startup packet, and since then a statement that may have changed it on this connection.
    Doubtful,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// The name, as the server spells it where it is reported.
    pub name: Arc<str>,
    /// The value: a reported one in the encoding of the session, a startup packet's as it was sent, in UTF-8.
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

/// What it takes to give a server connection a client's settings.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// To be set on the server: name and value as a server has reported them.
    pub set: Vec<(Arc<str>, Bytes)>,
    /// The same as a startup packet has them: UTF-8, whatever the session's encoding.
    pub given: Vec<(Arc<str>, Bytes)>,
    /// To be set back to the server's default.
    pub reset: Vec<Arc<str>>,
}

/// Reported settings that no client can set: the server's own properties.
const READ_ONLY: [&str; 5] = [
    "in_hot_standby",
    "integer_datetimes",
    "is_superuser",
    "server_encoding",
    "server_version",
];

/// Stub.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Fingerprint(String);

impl Parameters {
    /// Stub.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(format!("{:?}", self.get("search_path")))
    }

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
                    let keeps_source = parameter.source == Source::Reported && source == Source::Startup;
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
        (difference != Difference::default()).then_some(difference)
    }

    /// Notes that the difference is being carried out on the server connection whose settings these are.
    /// Reported settings are left alone: the server itself will say what they have become.
    pub fn apply(&mut self, difference: &Difference) {
        for name in &difference.reset {
            self.remove(name);
        }
        for (name, value) in difference.set.iter().chain(&difference.given) {
            if self
                .find(name)
                .is_none_or(|parameter| parameter.source != Source::Reported)
            {
                self.set(name, value, Source::Startup);
            }
        }
    }

    /// Notes that a statement may have changed what is not reported: the values are known no longer, so each is
    /// set or reset for the next client.
    pub fn doubt(&mut self) {
        if self.iter().any(|parameter| parameter.source == Source::Startup) {
            for parameter in Arc::make_mut(&mut self.0) {
                if parameter.source == Source::Startup {
                    parameter.source = Source::Doubtful;
                }
            }
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

impl Difference {
    /// Adds what follows from one name, as the server and as the client has it.
    fn add(&mut self, present: Option<&Parameter>, wanted: Option<&Parameter>) {
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
                    Source::Startup | Source::Doubtful => self.given.push(setting),
                }
            }
            _ => {}
        }
    }

    /// Appends the messages that carry it out and returns their type bytes. They are answered by one
    /// ReadyForQuery, and either all of it happens or nothing does.
    ///
    /// `set_config` takes a value exactly as ParameterStatus shows it, lists and quotes included, which `SET`
    /// does not. Plain values go as literals in one Query; anything that a literal could mangle (a backslash,
    /// or bytes beyond ASCII, whose meaning depends on the client encoding) goes as parameters of an
    /// extended query, where nothing is quoted at all. What a startup packet gave is in no session's encoding: it
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
        // The values that follow are in the encoding that this one names.
        rows.sort_by_key(|row| row.first().is_none_or(|name| name.as_ref() != b"client_encoding"));
        let resets = self.reset.iter().map(|name| reset(name));
        let given = self
            .given
            .iter()
            .map(|(name, value)| format!("SELECT {}", set_given(name, value)));
        let mut tags = Vec::new();
        // In one batch with the rest: what precedes Sync is one transaction.
        for sql in resets.chain(given) {
            frontend::parse_execute(&sql, out);
            tags.extend([frontend::tag::PARSE, frontend::tag::BIND, frontend::tag::EXECUTE]);
        }
        frontend::execute_each(SET_CONFIG, &rows, out);
        tags.push(frontend::tag::PARSE);
        for _ in &rows {
            tags.extend([frontend::tag::BIND, frontend::tag::EXECUTE]);
        }
        tags.push(frontend::tag::SYNC);
        tags
    }

    fn sql(&self) -> String {
        let mut sql = String::new();
        for name in &self.reset {
            sql.push_str(&reset(name));
            sql.push(';');
        }
        let reported = self.set.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value);
            format!(
                "pg_catalog.set_config({},{},false)",
                literal(name),
                literal(&value)
            )
        });
        let given = self.given.iter().map(|(name, value)| set_given(name, value));
        for (index, set) in reported.chain(given).enumerate() {
            sql.push_str(if index == 0 { "SELECT " } else { "," });
            sql.push_str(&set);
        }
        sql
    }
}

const SET_CONFIG: &str = "SELECT pg_catalog.set_config($1,$2,false)";

fn text(name: &str) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
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

fn is_plain(value: &[u8]) -> bool {
    value
        .iter()
        .all(|&byte| (b' '..=b'~').contains(&byte) && byte != b'\\')
}

fn reset(name: &str) -> String {
    format!("RESET {}", identifier(name))
}

/// The call that sets what a startup packet gave. Its name is no more to be trusted than its value.
fn set_given(name: &str, value: &[u8]) -> String {
    // The session's encoding may not have the characters of what the function returns.
    let unseen = if is_plain(value) { "" } else { " IS NULL" };
    let (name, value) = (expression(name.as_bytes()), expression(value));
    format!("pg_catalog.set_config({name},{value},false){unseen}")
}

/// Text in UTF-8 as an expression that is ASCII and has no backslash.
pub(super) fn expression(text: &[u8]) -> String {
    if is_plain(text) {
        return literal(&String::from_utf8_lossy(text));
    }
    let digits: String = text.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("pg_catalog.convert_from(pg_catalog.decode('{digits}','hex'),'UTF8')")
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

#[cfg(test)]
mod tests {
    use super::*;

    fn set(entries: &[(&str, &str, Source)]) -> Parameters {
        let mut parameters = Parameters::default();
        for (name, value, source) in entries {
            parameters.set(name, value.as_bytes(), *source);
        }
        parameters
    }

    use Source::{Reported, Startup};

    #[test]
    fn names_are_compared_without_case_and_keep_the_servers_spelling() {
        let mut parameters = set(&[("TimeZone", "UTC", Reported)]);
        parameters.set("timezone", b"Europe/Berlin", Startup);
        let only = parameters.iter().next().unwrap();
        assert_eq!(
            (&*only.name, &only.value[..], only.source),
            ("TimeZone", &b"Europe/Berlin"[..], Reported)
        );
        assert_eq!(parameters.get("TIMEZONE").unwrap(), "Europe/Berlin");
    }

    #[test]
    fn equal_sets_need_nothing() {
        let a = set(&[("TimeZone", "UTC", Reported), ("work_mem", "1MB", Startup)]);
        assert_eq!(a.difference(&a.clone()), None);
        let b = set(&[("TimeZone", "UTC", Reported), ("work_mem", "1MB", Startup)]);
        assert!(!a.is(&b));
        assert_eq!(a.difference(&b), None);
    }

    #[test]
    fn a_client_gets_its_own_and_nothing_of_the_one_before() {
        let server = set(&[
            ("TimeZone", "UTC", Reported),
            ("server_version", "17", Reported),
            ("new_guc", "x", Reported),
            ("work_mem", "1MB", Startup),
            ("extra_float_digits", "2", Startup),
        ]);
        let client = set(&[
            ("TimeZone", "Europe/Berlin", Reported),
            ("server_version", "16", Reported),
            ("work_mem", "2MB", Startup),
        ]);
        let difference = server.difference(&client).unwrap();
        let names =
            |pairs: &[(Arc<str>, Bytes)]| pairs.iter().map(|(n, _)| n.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&difference.set), ["TimeZone"]);
        assert_eq!(names(&difference.given), ["work_mem"]);
        assert_eq!(difference.reset, ["extra_float_digits".into()]);

        let mut after = server.clone();
        after.apply(&difference);
        assert_eq!(
            after.get("TimeZone").unwrap(),
            "UTC",
            "the server will say what it has become"
        );
        after.set("TimeZone", b"Europe/Berlin", Reported);
        assert_eq!(after.difference(&client), None);
        let mut told = client.clone();
        assert_eq!(names(&told.follow(&after)), ["new_guc", "server_version"]);
        assert_eq!(told, after);
    }

    #[test]
    fn what_a_statement_may_have_changed_is_set_again_or_reset() {
        let client = set(&[("TimeZone", "UTC", Reported), ("work_mem", "1MB", Startup)]);
        let mut server = client.clone();
        server.doubt();
        assert!(client.is(&client.clone()) && !server.is(&client));
        let again = server.difference(&client).unwrap();
        assert_eq!(again.given, [("work_mem".into(), Bytes::from_static(b"1MB"))]);
        let other = set(&[("TimeZone", "UTC", Reported)]);
        assert_eq!(server.difference(&other).unwrap().reset, ["work_mem".into()]);
        server.apply(&again);
        assert_eq!(server.difference(&client), None);
        // Nothing to doubt: the allocation stays shared.
        let mut same = other.clone();
        same.doubt();
        assert!(same.is(&other));
    }

    #[test]
    fn plain_values_are_literals_and_the_rest_is_never_quoted() {
        let server = set(&[("a.b", "1", Startup)]);
        let difference = server
            .difference(&set(&[("search_path", "\"o'x\", public", Startup)]))
            .unwrap();
        let mut out = BytesMut::new();
        assert_eq!(difference.encode(&mut out), b"Q");
        let sql = String::from_utf8_lossy(&out[5..out.len() - 1]).into_owned();
        let expected = "RESET \"a\".\"b\";\
            SELECT pg_catalog.set_config('search_path','\"o''x\", public',false)";
        assert_eq!(sql, expected);

        for value in ["a\\'; drop table x; --", "grün", "line\nbreak"] {
            let difference = server
                .difference(&set(&[("application_name", value, Reported)]))
                .unwrap();
            let mut out = BytesMut::new();
            assert_eq!(difference.encode(&mut out), b"PBEPBES", "{value}");
        }
    }

    #[test]
    fn what_a_startup_packet_gave_is_sent_in_ascii_name_and_value() {
        let sql = |name: &str, value: &str| {
            let difference = Parameters::default().difference(&set(&[(name, value, Startup)]));
            let mut out = BytesMut::new();
            assert_eq!(difference.unwrap().encode(&mut out), b"Q");
            String::from_utf8(out[5..out.len() - 1].to_vec()).unwrap()
        };
        assert_eq!(
            sql("a.b", "it's"),
            "SELECT pg_catalog.set_config('a.b','it''s',false)"
        );
        let hex =
            |digits: &str| format!("pg_catalog.convert_from(pg_catalog.decode('{digits}','hex'),'UTF8')");
        assert_eq!(
            sql("a.b", "\u{fc}\\"),
            format!(
                "SELECT pg_catalog.set_config('a.b',{},false) IS NULL",
                hex("c3bc5c")
            )
        );
        assert_eq!(
            sql("a\\'", "x"),
            format!("SELECT pg_catalog.set_config({},'x',false)", hex("615c27"))
        );
        // Beside a reported value that is not plain, in a statement of its own.
        let both = [
            ("application_name", "\u{fc}", Reported),
            ("a.b", "\u{fc}", Startup),
        ];
        let difference = Parameters::default().difference(&set(&both)).unwrap();
        assert_eq!(difference.encode(&mut BytesMut::new()), b"PBEPBES");
    }
}
