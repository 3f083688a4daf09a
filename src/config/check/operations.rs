//! `[http]`, `[log]`, `[shutdown]` and `[process]`: what operators deal with.
//!
//! It starts no server and installs no subscriber.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    time::Duration,
};

use tracing_subscriber::EnvFilter;

use crate::config::{
    address, hints,
    reader::Table,
    settings::{Http, ListenAddress, Log, LogLevel, Process, Shutdown},
};

const DEFAULT_HTTP_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9127);
const DEFAULT_DRAIN_DELAY: Duration = Duration::from_secs(5);
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_FILE_CHECK_INTERVAL: Duration = Duration::from_secs(5);
const MOST_WORKERS: i64 = 256;
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

pub(super) fn http(table: &Table<'_>, listeners: &[ListenAddress]) -> Option<Http> {
    if !table.is_present() {
        return None;
    }
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
    Some(Http { address })
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

pub(super) fn log(table: &Table<'_>) -> Log {
    Log {
        format: table.word("format").unwrap_or_default(),
        level: level(table).unwrap_or_default(),
    }
}

fn level(table: &Table<'_>) -> Option<LogLevel> {
    let text = table.nonempty_string("level")?;
    if let Some(word) = text.split(',').find(|directive| is_misspelt_level(directive)) {
        let hint = match hints::nearest(word, LEVELS.into_iter()) {
            Some(level) => format!("did you mean \"{level}\"?"),
            None => format!(
                "one of {}, or directives such as \"pgweir::pool=debug,info\"",
                LEVELS.join(", ")
            ),
        };
        table.problem("level", format!("{word:?} is not a level"), Some(hint));
    } else if let Err(error) = EnvFilter::try_new(&text) {
        let hint = "such as \"info\" or \"pgweir::pool=debug,info\"".to_owned();
        table.problem("level", format!("{text:?}: {error}"), Some(hint));
    }
    Some(LogLevel(text))
}

/// A filter takes any lone word as the name of a module, so that `debgu` would log nothing.
fn is_misspelt_level(directive: &str) -> bool {
    let is_word = directive.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_word && !LEVELS.contains(&directive.to_ascii_lowercase().as_str())
}

pub(super) fn shutdown(table: &Table<'_>) -> Shutdown {
    Shutdown {
        drain_delay: table.duration("drain_delay").unwrap_or(DEFAULT_DRAIN_DELAY),
        drain_timeout: table.duration("drain_timeout").unwrap_or(DEFAULT_DRAIN_TIMEOUT),
    }
}

pub(super) fn process(table: &Table<'_>) -> Process {
    Process {
        workers: workers(table),
        scheduling: table.word("scheduling").unwrap_or_default(),
        file_check_interval: table
            .duration("file_check_interval")
            .unwrap_or(DEFAULT_FILE_CHECK_INTERVAL),
    }
}

fn workers(table: &Table<'_>) -> Option<NonZeroUsize> {
    match table.if_string("workers").as_deref() {
        Some("auto") => None,
        Some(text) => {
            let hint = format!("\"auto\" or a number without quotes, 1 to {MOST_WORKERS}");
            table.problem(
                "workers",
                format!("{text:?} is not a number of threads"),
                Some(hint),
            );
            None
        }
        None => table.count("workers", MOST_WORKERS),
    }
}
