//! `[databases]` and `[users]`: connection strings as sections of their own.
//!
//! It connects to nothing.

use super::{
    connstr,
    document::{Origin, Value},
    draft::{Draft, Given, Subject},
    kinds::Kind,
    listen::socket_file,
    remark::Weight::{Note, Refusal, Warning},
    values,
};
use crate::config::{hints, keys};

/// What a connection string may have, and how that is read.
const OF_DATABASES: [(&str, Pair); 21] = [
    ("application_name", Pair::Same(Kind::Text)),
    ("auth_dbname", Pair::Same(Kind::Text)),
    ("auth_query", Pair::Same(Kind::Text)),
    ("auth_user", Pair::Same(Kind::Text)),
    ("client_encoding", Pair::Same(Kind::Text)),
    ("connect_query", Pair::ConnectQuery),
    ("datestyle", Pair::Same(Kind::Text)),
    ("dbname", Pair::Same(Kind::Text)),
    ("host", Pair::Host),
    ("load_balance_hosts", Pair::Same(Kind::Word)),
    ("max_db_client_connections", Pair::Limit),
    ("max_db_connections", Pair::Limit),
    ("min_pool_size", Pair::Limit),
    ("password", Pair::Password),
    ("pool_mode", Pair::Same(Kind::Word)),
    ("pool_size", Pair::Limit),
    ("port", Pair::Host),
    ("query_wait_timeout", Pair::QueryWait),
    ("reserve_pool_size", Pair::Limit),
    ("server_lifetime", Pair::Timeout),
    ("timezone", Pair::Same(Kind::Text)),
];
const USER: (&str, Pair) = ("user", Pair::Same(Kind::Text));
const OF_USERS: [(&str, Pair); 10] = [
    ("client_idle_timeout", Pair::Timeout),
    ("idle_transaction_timeout", Pair::Timeout),
    ("max_user_client_connections", Pair::Limit),
    ("max_user_connections", Pair::Limit),
    ("pool_mode", Pair::Same(Kind::Word)),
    ("pool_size", Pair::Limit),
    ("query_timeout", Pair::Timeout),
    ("query_wait_timeout", Pair::QueryWait),
    ("reserve_pool_size", Pair::Limit),
    ("transaction_timeout", Pair::Timeout),
];

/// What becomes of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pair {
    Same(Kind),
    /// A number; a negative one is as if it were not there.
    Limit,
    /// Whole seconds; zero is as if they were not there.
    Timeout,
    ConnectQuery,
    Host,
    Password,
    QueryWait,
}

const INHERITED: &str = "it says nothing: what holds for all holds";
const QUERY_WAIT: &str = "there is one query_wait_timeout for all here";
const FAILING: &str = "if it fails, the connection is not used; PgBouncer uses it all the same";
const USELESS_PASSWORD: &str = "it is of no use without user=";
const ROLE: &str = "Any server, as PgBouncer takes it. With role = \"rw\" pgweir sees to it that it is a primary, and follows \
    it when another server becomes it.";
const NO_SOCKETS: &str = "there is neither a host nor a unix_socket_dir";
const ABSTRACT: &str = "sockets without a file are not supported: name a directory or a host";

/// One `[databases]` line.
pub(super) struct Database<'a> {
    pub(super) name: &'a str,
    pub(super) given: &'a Given,
    pairs: Vec<(String, String)>,
}

impl<'a> Database<'a> {
    /// Takes the connection string apart; what is wrong with it is noted.
    pub(super) fn read(name: &'a str, given: &'a Given, draft: &mut Draft) -> Option<Self> {
        let label = format!("databases.{name}");
        if name == "pgbouncer" {
            let subject = Subject {
                name: &label,
                given: Some(given),
            };
            draft.problem(subject, "the name belongs to the admin console", None);
            return None;
        }
        let pairs = read_pairs(&label, given, draft)?;
        Some(Self { name, given, pairs })
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let mut pairs = self.pairs.iter().rev();
        pairs
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }

    /// Sets what the line says; `directory` is where servers without a host are.
    pub(super) fn translate(&self, directory: &str, is_first: bool, draft: &mut Draft) {
        let path = ["databases", self.name];
        let label = format!("databases.{}", self.name);
        let origin = Origin {
            place: self.given.place.clone(),
            name: label.clone(),
        };
        draft.section(&path).origin = Some(origin);
        self.servers(&path, &label, directory, is_first, draft);
        let table: Vec<_> = OF_DATABASES.into_iter().chain([USER]).collect();
        for (key, value) in &self.pairs {
            let name = if key == "reserve_pool" {
                "reserve_pool_size"
            } else {
                key
            };
            translate_pair(&path, &label, &table, (name, value), self.given, draft);
        }
        if let Some(password) = self.get("password") {
            if self.get("user").is_some() {
                draft.passwords.insert(self.name.to_owned(), password.to_owned());
            } else {
                let name = format!("{label}: password");
                let subject = Subject {
                    name: &name,
                    given: Some(self.given),
                };
                draft.discreet_remark(Note, subject, USELESS_PASSWORD);
            }
        }
    }

    fn servers(&self, path: &[&str], label: &str, directory: &str, is_first: bool, draft: &mut Draft) {
        let name = format!("{label}: host");
        let given = Given {
            place: self.given.place.clone(),
            value: self.get("host").unwrap_or_default().to_owned(),
        };
        let subject = Subject {
            name: &name,
            given: Some(&given),
        };
        let port = self.get("port").unwrap_or("5432");
        let Some(port) = port.parse::<u16>().ok().filter(|port| *port != 0) else {
            return draft.problem(subject, format!("{port:?} is not a port, 1 to 65535"), None);
        };
        let hosts = self
            .get("host")
            .map_or_else(|| vec![directory.to_owned()], values::names);
        let mut addresses = Vec::new();
        for host in hosts {
            match address(&host, port) {
                Ok(address) => addresses.push(address),
                Err(why) => draft.remark(Refusal, subject, why),
            }
        }
        let several = addresses.len() > 1;
        let section = draft.section(path);
        section.set("hosts", Value::Texts(addresses), subject.origin());
        let role = section.set("role", Value::Text("r".to_owned()), None);
        role.comment = is_first.then(|| ROLE.to_owned());
        if several && self.get("load_balance_hosts").is_none() {
            let value = Value::Text("round-robin".to_owned());
            section.set("load_balance_hosts", value, None);
        }
    }
}

fn address(host: &str, port: u16) -> Result<String, &'static str> {
    match host.chars().next() {
        None => Err(NO_SOCKETS),
        Some('@') => Err(ABSTRACT),
        Some('/') => socket_file(host, port).ok_or(NO_SOCKETS),
        Some(_) if host.contains(':') => Ok(format!("[{host}]:{port}")),
        Some(_) => Ok(format!("{host}:{port}")),
    }
}

/// One `[users]` line.
pub(super) fn translate_user(name: &str, given: &Given, draft: &mut Draft) {
    let label = format!("users.{name}");
    let Some(pairs) = read_pairs(&label, given, draft) else {
        return;
    };
    let path = ["users", name];
    draft.section(&path).origin = Some(Origin {
        place: given.place.clone(),
        name: label.clone(),
    });
    for (key, value) in &pairs {
        translate_pair(&path, &label, &OF_USERS, (key, value), given, draft);
    }
}

/// The pairs of a connection string; what is wrong with it is noted.
pub(super) fn read_pairs(label: &str, given: &Given, draft: &mut Draft) -> Option<Vec<(String, String)>> {
    let pairs = connstr::pairs(&given.value);
    let note = |error: &connstr::PairError| {
        let subject = Subject {
            name: label,
            given: Some(given),
        };
        draft.problem(subject, error.to_string(), None);
    };
    pairs.inspect_err(note).ok()
}

fn translate_pair(
    path: &[&str],
    label: &str,
    table: &[(&str, Pair)],
    (key, value): (&str, &str),
    line: &Given,
    draft: &mut Draft,
) {
    let name = format!("{label}: {key}");
    let given = Given {
        place: line.place.clone(),
        value: value.to_owned(),
    };
    let subject = Subject {
        name: &name,
        given: Some(&given),
    };
    let Some((_, pair)) = table.iter().find(|(known, _)| *known == key) else {
        let near = hints::nearest(key, table.iter().map(|(known, _)| *known));
        let hint = near.map(|near| format!("did you mean `{near}`?"));
        return draft.problem(subject, "unknown setting", hint.as_deref());
    };
    let translated = match pair {
        Pair::Same(kind) => kind.translate(draft, subject),
        Pair::ConnectQuery => Some((Value::Text(value.to_owned()), Some(FAILING.to_owned()))),
        Pair::Limit => limit(value, subject, draft),
        Pair::Timeout if values::integer(value) == Ok(0) => inherited(subject, draft),
        Pair::Timeout => Kind::WholeSeconds.translate(draft, subject),
        Pair::QueryWait if value == "-1" => inherited(subject, draft),
        Pair::QueryWait => {
            draft.remark(Warning, subject, QUERY_WAIT);
            None
        }
        // They are seen together, and apart from the others.
        Pair::Host | Pair::Password => None,
    };
    let section = match path {
        ["users", ..] => "users.NAME",
        _ => "databases.NAME",
    };
    let known = keys::in_section(section).find(|known| known.pgbouncer.contains(&key));
    if let (Some((value, comment)), Some(known)) = (translated, known) {
        draft
            .section(path)
            .set(known.name, value, subject.origin())
            .comment = comment;
    }
}

fn limit(value: &str, subject: Subject<'_>, draft: &mut Draft) -> Option<(Value, Option<String>)> {
    match values::integer(value) {
        Ok(..0) => inherited(subject, draft),
        _ => Kind::Number.translate(draft, subject),
    }
}

fn inherited(subject: Subject<'_>, draft: &mut Draft) -> Option<(Value, Option<String>)> {
    draft.remark(Note, subject, INHERITED);
    None
}

/// All keys that a line of the section may have.
#[cfg(test)]
pub(super) fn known_keys(section: &str) -> Vec<&'static str> {
    let names = |table: &[(&'static str, Pair)]| table.iter().map(|(name, _)| *name).collect();
    match section {
        "users" => names(&OF_USERS),
        _ => names(&[&OF_DATABASES[..], &[USER]].concat()),
    }
}
