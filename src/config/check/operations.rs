//! `[log]`, `[shutdown]` and `[process]`: what operators deal with.
//!
//! It installs no subscriber.

use std::{num::NonZeroUsize, time::Duration};

use tracing_subscriber::EnvFilter;

use crate::config::{
    hints,
    reader::Table,
    settings::{Log, LogLevel, Process, Shutdown},
};

const DEFAULT_DRAIN_DELAY: Duration = Duration::from_secs(5);
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_FILE_CHECK_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_STATS_PERIOD: Duration = Duration::from_secs(60);
const MOST_WORKERS: i64 = 256;
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

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
        stats_period: stats_period(table).unwrap_or(DEFAULT_STATS_PERIOD),
    }
}

fn stats_period(table: &Table<'_>) -> Option<Duration> {
    let period = table.duration("stats_period")?;
    if period < Duration::from_secs(1) {
        let hint = "at least \"1s\"".to_owned();
        table.problem("stats_period", "is too short to count anything in", Some(hint));
    }
    Some(period)
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
