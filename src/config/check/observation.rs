//! `[http]`, `[metrics]` and `[fleet]`: how the process is looked at.
//!
//! It starts no server and asks nobody.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    time::Duration,
};

use super::servers::is_label;
use crate::config::{
    address, hints,
    observation::{BasicAuth, Compatibility, Fleet, Http, HttpAuth, Metrics, ReplicaAddress, ServiceRef},
    reader::Table,
    settings::ListenAddress,
};

const DEFAULT_HTTP_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9127);
const DEFAULT_MAX_SERIES: NonZeroUsize = NonZeroUsize::new(500).expect("not zero");
const MOST_SERIES: i64 = 1_000_000;
const DEFAULT_FLEET_TIMEOUT: Duration = Duration::from_secs(2);
/// A scrape has to be over before whoever scrapes gives up.
const LONGEST_FLEET_TIMEOUT: Duration = Duration::from_secs(20);
const MOST_REPLICAS: usize = 256;
const COMPATIBILITY: [(&str, Compatibility); 2] = [
    ("cnpg", Compatibility::Cnpg),
    ("pgbouncer_exporter", Compatibility::PgbouncerExporter),
];

pub(super) fn http(table: &Table<'_>, listeners: &[ListenAddress]) -> Option<Http> {
    if !table.is_present() {
        return None;
    }
    let auth = auth(&table.table("auth", "http.auth"));
    let address = match table.string("address") {
        None => DEFAULT_HTTP_ADDRESS,
        Some(text) => address::socket_address(&text)
            .map_err(|error| {
                let hint = "such as \"0.0.0.0:9127\"".to_owned();
                table.problem("address", format!("{text:?} {error}"), Some(hint));
            })
            .ok()?,
    };
    if listeners.iter().any(|listener| collide(listener, address)) {
        let hint = "give it another port".to_owned();
        table.problem("address", "is taken by listen.address", Some(hint));
    }
    Some(Http { address, auth })
}

/// Whether one socket could not be bound beside the other.
fn collide(listener: &ListenAddress, address: SocketAddr) -> bool {
    let ListenAddress::Tcp(listener) = listener else {
        return false;
    };
    let same_ip =
        listener.ip() == address.ip() || listener.ip().is_unspecified() || address.ip().is_unspecified();
    let same_family = listener.is_ipv4() == address.is_ipv4();
    same_ip && same_family && listener.port() == address.port() && address.port() != 0
}

fn auth(table: &Table<'_>) -> HttpAuth {
    let user = table.nonempty_string("user");
    let password_file = table.file("password_file");
    let token_file = table.file("token_file");
    if let Some(user) = user.as_deref().filter(|user| user.contains(':')) {
        let message = format!("{user:?} has a colon in it");
        table.problem("user", message, Some("HTTP has no way to say that".to_owned()));
    }
    let alone = |key, other: &str| table.problem(key, format!("needs {other} as well"), None);
    match (table.has("user"), table.has("password_file")) {
        (true, false) => alone("user", "password_file"),
        (false, true) => alone("password_file", "user"),
        (false, false) if table.is_present() && !table.has("token_file") => {
            let hint = "set token_file, or user and password_file".to_owned();
            table.problem_here("says nothing of who may see the pages", Some(hint));
        }
        _ => {}
    }
    HttpAuth {
        basic: user
            .zip(password_file)
            .map(|(user, password_file)| BasicAuth { user, password_file }),
        token_file,
    }
}

pub(super) fn metrics(table: &Table<'_>) -> Metrics {
    Metrics {
        max_series: table
            .count("max_series", MOST_SERIES)
            .unwrap_or(DEFAULT_MAX_SERIES),
        compatibility: compatibility(table),
    }
}

fn compatibility(table: &Table<'_>) -> Vec<Compatibility> {
    let mut found = Vec::new();
    // None is the default, and may be written.
    for text in table.list("compatibility").unwrap_or_default() {
        match COMPATIBILITY.iter().find(|(word, _)| *word == text.text) {
            Some((_, known)) if !found.contains(known) => found.push(*known),
            Some(_) => {}
            None => {
                let words = COMPATIBILITY.map(|(word, _)| word);
                let hint = match hints::nearest(&text.text, words.into_iter()) {
                    Some(word) => format!("did you mean \"{word}\"?"),
                    None => format!("one of {}", words.join(", ")),
                };
                let message = format!("{:?} is nobody whose names are known", text.text);
                table.problem_in("compatibility", &text, message, Some(hint));
            }
        }
    }
    found
}

pub(super) fn fleet(table: &Table<'_>, http: Option<&Http>) -> Option<Fleet> {
    let fleet = Fleet {
        service: table.string("service").and_then(|text| service(table, &text)),
        replicas: replicas(table),
        timeout: timeout(table),
    };
    if fleet.service.is_none() && fleet.replicas.is_empty() {
        return None;
    }
    if http.is_none() {
        let hint = "add a section [http]: it is over HTTP that replicas ask each other".to_owned();
        table.problem_here("needs [http]", Some(hint));
    }
    Some(fleet)
}

fn timeout(table: &Table<'_>) -> Duration {
    let timeout = table.duration("timeout").unwrap_or(DEFAULT_FLEET_TIMEOUT);
    if timeout.is_zero() || timeout > LONGEST_FLEET_TIMEOUT {
        let message = format!("must be between 1ms and {}s", LONGEST_FLEET_TIMEOUT.as_secs());
        let hint = "Prometheus waits for ten seconds unless it is told otherwise".to_owned();
        table.problem("timeout", message, Some(hint));
    }
    timeout
}

fn service(table: &Table<'_>, text: &str) -> Option<ServiceRef> {
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, text),
    };
    if !is_label(name) || namespace.is_some_and(|namespace| !is_label(namespace)) {
        let hint = "such as \"pgweir-headless\" or \"db/pgweir-headless\"".to_owned();
        table.problem(
            "service",
            format!("{text:?} is not the name of a service"),
            Some(hint),
        );
        return None;
    }
    Some(ServiceRef {
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
    })
}

fn replicas(table: &Table<'_>) -> Vec<ReplicaAddress> {
    let texts = table.strings("replicas").unwrap_or_default();
    if texts.len() > MOST_REPLICAS {
        table.problem("replicas", format!("are more than {MOST_REPLICAS}"), None);
    }
    let mut replicas = Vec::new();
    for text in &texts {
        match address::host_with_port(&text.text) {
            Ok((host, port)) => replicas.push(ReplicaAddress { host, port }),
            Err(error) => {
                let hint = "the address of a replica's HTTP server, such as \"10.0.0.7:9127\"".to_owned();
                table.problem_in("replicas", text, format!("{:?} {error}", text.text), Some(hint));
            }
        }
    }
    replicas
}
