//! Log lines on standard error, as text for people or JSON for collectors.
//!
//! It decides how a line looks, never whether something is worth one.

use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing::{Subscriber, subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter,
    filter::FilterExt,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
};

use super::{recent::Recent, throttle::Throttle};
use crate::config::{Log, LogFormat, LogLevel};

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// `log.level` is not a filter.
    #[error("log.level {level:?} is not a level or a list of directives")]
    Level {
        /// What the configuration says.
        level: String,
        /// What is wrong with it.
        #[source]
        source: filter::ParseError,
    },
    /// The subscriber is gone.
    #[error("logging has ended")]
    Gone(#[from] reload::Error),
    /// It was called before.
    #[error("logging is already set up")]
    AlreadySet(#[from] subscriber::SetGlobalDefaultError),
}

/// What the process says of itself.
#[derive(Debug, Clone)]
pub struct Logging {
    /// What is logged.
    pub level: Level,
    /// The last errors and warnings, whatever is logged.
    pub recent: Recent,
    /// What was not written because there was too much of it.
    pub throttle: Throttle,
}

/// What is logged, and a way to change it while the process runs.
#[derive(Debug, Clone)]
pub struct Level(reload::Handle<EnvFilter, Registry>);

impl Level {
    /// From now on logs what `level` says.
    ///
    /// # Errors
    /// The level cannot be parsed; nothing is changed.
    pub fn set(&self, level: &LogLevel) -> Result<(), LoggingError> {
        Ok(self.0.reload(filter(level)?)?)
    }
}

/// Sends the events of the whole process to standard error.
///
/// # Errors
/// The level cannot be parsed, or logging is set up already.
pub fn init(log: &Log) -> Result<Logging, LoggingError> {
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    let throttle = Throttle::default();
    let (subscriber, level) = subscriber(log, throttle.clone(), io::stderr, colours)?;
    let recent = Recent::default();
    subscriber::set_global_default(subscriber.with(recent.layer()))?;
    Ok(Logging {
        level,
        recent,
        throttle,
    })
}

fn filter(level: &LogLevel) -> Result<EnvFilter, LoggingError> {
    EnvFilter::try_new(&level.0).map_err(|source| LoggingError::Level {
        level: level.0.clone(),
        source,
    })
}

fn subscriber<W>(
    log: &Log,
    throttle: Throttle,
    writer: W,
    colours: bool,
) -> Result<
    (
        impl Subscriber + for<'span> LookupSpan<'span> + Send + Sync + use<W>,
        Level,
    ),
    LoggingError,
>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(&log.level)?);
    let lines = fmt::layer().with_writer(writer);
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(colours).compact().boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    Ok((
        // The filter is the lines' own: what is not logged may be worth remembering.
        tracing_subscriber::registry().with(lines.with_filter(filter.and(throttle))),
        Level(handle),
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{debug, info, info_span};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that one session's events make.
    fn logged(format: LogFormat, level: &str) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let log = Log {
            format,
            level: LogLevel(level.to_owned()),
        };
        let (subscriber, _level) =
            subscriber(&log, Throttle::default(), move || writer.clone(), false).unwrap();
        subscriber::with_default(subscriber, || {
            let _client = info_span!("session", client = 7).entered();
            info!(pool = "shop", "client waits");
            debug!("detail");
        });
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_level_can_be_changed_and_a_wrong_one_changes_nothing() {
        let memory = Memory::default();
        let writer = memory.clone();
        let (subscriber, level) = subscriber(
            &Log::default(),
            Throttle::default(),
            move || writer.clone(),
            false,
        )
        .unwrap();
        subscriber::with_default(subscriber, || {
            debug!("before");
            level.set(&LogLevel("debug".to_owned())).unwrap();
            level.set(&LogLevel("a=b=c".to_owned())).unwrap_err();
            debug!("after");
        });
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("after") && !text.contains("before"), "{text}");
    }

    #[test]
    fn text_has_time_level_target_and_the_fields_of_the_span() {
        let line = logged(LogFormat::Text, "info");
        assert_eq!(line.lines().count(), 1, "{line}");
        for part in [
            "INFO",
            "telemetry::logging",
            "client waits",
            "pool=\"shop\"",
            "client=7",
        ] {
            assert!(line.contains(part), "{part} is missing: {line}");
        }
        let time = line.split(' ').next().unwrap();
        assert!(time.ends_with('Z') && time.contains('T'), "{line}");
        assert!(!line.contains('\x1b'), "colours in a file: {line:?}");
    }

    #[test]
    fn json_is_one_object_a_line_with_the_span() {
        let lines = logged(LogFormat::Json, "debug");
        assert_eq!(lines.lines().count(), 2, "{lines}");
        for part in [
            r#""level":"INFO""#,
            r#""fields":{"message":"client waits","pool":"shop"}"#,
            r#""span":{"client":7,"name":"session"}"#,
        ] {
            assert!(lines.contains(part), "{part} is missing: {lines}");
        }
        assert!(
            lines
                .lines()
                .all(|line| line.starts_with('{') && line.ends_with('}'))
        );
    }

    #[test]
    fn directives_choose_by_target() {
        assert_eq!(logged(LogFormat::Text, "warn"), "");
        let detailed = logged(LogFormat::Text, "warn,pgweir::telemetry=debug");
        assert_eq!(detailed.lines().count(), 2, "{detailed}");
    }

    #[test]
    fn a_level_that_is_none_is_refused() {
        let log = Log {
            level: LogLevel("info,pgweir=loud".to_owned()),
            ..Log::default()
        };
        let error = subscriber(&log, Throttle::default(), io::sink, false)
            .err()
            .unwrap();
        assert!(matches!(error, LoggingError::Level { .. }), "{error:?}");
    }
}
