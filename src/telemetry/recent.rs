//! The last errors and warnings, for the status page: what clients were told by the pooler, and what was logged.
//!
//! It takes the fields that it knows by name and no others, so that no text of a query gets here.

use std::{
    collections::VecDeque,
    fmt::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, filter_fn},
    layer::Context,
    registry::LookupSpan,
};

/// So many different ones of each kind are remembered.
const LENGTH: usize = 32;
/// No text is kept beyond this.
const TEXT: usize = 600;
/// The field that tells what was said to a client from everything else on its level.
const SAID: &str = "sqlstate";

/// The last messages of the process. Clones share them.
#[derive(Clone, Default)]
pub struct Recent(Arc<Mutex<Kinds>>);

/// Clients cannot push out warnings, however many of them are refused.
#[derive(Default)]
struct Kinds {
    said: VecDeque<Message>,
    warned: VecDeque<Message>,
}

/// What has happened, once or several times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The first time.
    pub first: SystemTime,
    /// The last time.
    pub last: SystemTime,
    /// How many times.
    pub count: u64,
    /// `ERROR`, `WARN` or `INFO`
    pub level: Level,
    /// What it says of the last time.
    pub words: Words,
}

/// What a message says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// What has happened.
    pub what: String,
    /// Why.
    pub error: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// The code that the client got.
    pub sqlstate: Option<String>,
    /// Who has to act.
    pub blame: Option<String>,
    /// Whose it was.
    pub database: Option<String>,
    /// Whose it was.
    pub user: Option<String>,
    /// The cluster that it is about.
    pub cluster: Option<String>,
}

impl Recent {
    /// The messages, the last one first.
    pub fn messages(&self) -> Vec<Message> {
        let kinds = self.lock();
        let mut all: Vec<_> = kinds.said.iter().chain(&kinds.warned).cloned().collect();
        drop(kinds);
        all.sort_by_key(|message| std::cmp::Reverse(message.last));
        all
    }

    /// What listens to the process's events for it.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let filter = filter_fn(is_kept).with_max_level_hint(LevelFilter::INFO);
        Listener(self.clone()).with_filter(filter)
    }

    fn note(&self, level: Level, words: Words, now: SystemTime) {
        let mut kinds = self.lock();
        let kind = if level > Level::WARN {
            &mut kinds.said
        } else {
            &mut kinds.warned
        };
        let same = kind
            .iter()
            .position(|message| message.level == level && message.words.is_like(&words));
        let (first, count) = match same.and_then(|at| kind.remove(at)) {
            Some(before) => (before.first, before.count.saturating_add(1)),
            None => (now, 1),
        };
        if kind.len() == LENGTH {
            kind.pop_front();
        }
        kind.push_back(Message {
            first,
            last: now,
            count,
            level,
            words,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Kinds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").finish_non_exhaustive()
    }
}

/// Warnings, errors, what is said to clients, and the spans that say whose it is.
fn is_kept(metadata: &Metadata<'_>) -> bool {
    let is_ours = metadata.target().starts_with("pgweir");
    is_ours
        && match metadata.is_span() {
            true => *metadata.level() <= Level::INFO,
            false => *metadata.level() <= Level::WARN || metadata.fields().field(SAID).is_some(),
        }
}

struct Listener(Recent);

impl<S> Layer<S> for Listener
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut words = Words::default();
            attributes.record(&mut words);
            span.extensions_mut().insert(words);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Words>() {
                words.adopt(outer);
            }
        }
        self.0.note(*event.metadata().level(), words, SystemTime::now());
    }
}

impl Words {
    fn field(&mut self, name: &str) -> Option<&mut Option<String>> {
        match name {
            "error" => Some(&mut self.error),
            "hint" => Some(&mut self.hint),
            SAID => Some(&mut self.sqlstate),
            "blame" => Some(&mut self.blame),
            "db" => Some(&mut self.database),
            "user" => Some(&mut self.user),
            "cluster" => Some(&mut self.cluster),
            _ => None,
        }
    }

    /// Says whose it is, if it has not been said.
    fn adopt(&mut self, outer: &Self) {
        for (mine, theirs) in [
            (&mut self.database, &outer.database),
            (&mut self.user, &outer.user),
            (&mut self.cluster, &outer.cluster),
        ] {
            if mine.is_none() {
                mine.clone_from(theirs);
            }
        }
    }

    /// Whether it is the same again: times and numbers may differ.
    fn is_like(&self, other: &Self) -> bool {
        let text = |words: &Self| -> String {
            let error = words.error.as_deref().unwrap_or_default();
            error.chars().filter(|char| !char.is_ascii_digit()).collect()
        };
        self.what == other.what
            && self.sqlstate == other.sqlstate
            && self.database == other.database
            && self.user == other.user
            && self.cluster == other.cluster
            && text(self) == text(other)
    }
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Short::default();
        // What does not fit is left out.
        if field.name() == "message" {
            let _ = write!(text, "{value:?}");
            self.what = text.0;
        } else if let Some(word) = self.field(field.name()) {
            let _ = write!(text, "{value:?}");
            *word = Some(text.0);
        }
    }
}

/// A text that ends where it becomes too long.
#[derive(Default)]
struct Short(String);

impl Write for Short {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        for char in more.chars() {
            if self.0.len() >= TEXT {
                self.0.push('…');
                return Err(fmt::Error);
            }
            self.0.push(char);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing::{debug, error, info, info_span, subscriber, warn};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn heard(speak: impl FnOnce()) -> Vec<Message> {
        let recent = Recent::default();
        let subscriber = tracing_subscriber::registry().with(recent.layer());
        subscriber::with_default(subscriber, speak);
        recent.messages()
    }

    #[test]
    #[allow(
        clippy::cognitive_complexity,
        reason = "the branches are those of the macros that log"
    )]
    fn warnings_and_what_is_said_to_clients_are_kept() {
        let messages = heard(|| {
            info!("ready");
            debug!(sqlstate_like = "57P03", "detail");
            warn!(error = "no route", "cannot open a server connection");
            let _span = info_span!("session", db = %"shop", user = "ann", peer = "10.0.0.1:5").entered();
            info!(
                sqlstate = "57014",
                hint = "Wait.",
                query = "SELECT 'secret'",
                "request refused"
            );
        });
        assert_eq!(messages.len(), 2, "{messages:?}");
        let refused = &messages[0].words;
        assert_eq!(refused.what, "request refused");
        assert_eq!(refused.database.as_deref(), Some("shop"));
        assert_eq!(refused.user.as_deref(), Some("ann"));
        assert_eq!(refused.hint.as_deref(), Some("Wait."));
        assert_eq!(messages[1].words.error.as_deref(), Some("no route"));
        assert!(!format!("{messages:?}").contains("SELECT"), "{messages:?}");
    }

    #[test]
    fn a_repetition_is_counted_whatever_its_numbers_are() {
        let messages = heard(|| {
            for seconds in [1, 20, 300] {
                warn!(error = format!("timeout after {seconds} s"), "cannot connect");
            }
            warn!(error = "refused", "cannot connect");
        });
        assert_eq!(messages.len(), 2, "{messages:?}");
        assert_eq!(messages[1].count, 3);
        assert_eq!(messages[1].words.error.as_deref(), Some("timeout after 300 s"));
        assert!(messages[1].first <= messages[1].last);
    }

    #[test]
    fn clients_push_out_no_warning_and_nothing_grows() {
        let messages = heard(|| {
            error!("a task panicked");
            for user in ('a'..='z').flat_map(|one| ('a'..='z').map(move |two| format!("{one}{two}"))) {
                info!(user, sqlstate = "28P01", "log-in failed");
            }
            info!(sqlstate = "28P01", error = "x".repeat(9 * TEXT), "log-in failed");
        });
        assert_eq!(messages.len(), LENGTH + 1);
        assert!(messages.iter().any(|message| message.level == Level::ERROR));
        let longest = messages.iter().filter_map(|message| message.words.error.as_ref());
        assert!(longest.map(String::len).max() < Some(TEXT + 10));
    }
}
