//! A transaction as spans of OpenTelemetry: one for all of it, one for the wait for a server connection, one for each time
//! that the server worked.
//!
//! The attributes are those of <https://opentelemetry.io/docs/specs/semconv/database/>, and ours begin with `pgweir.`. It
//! sends nothing.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode},
};

use super::{
    context::Context,
    recorder::{Ending, Query, Transaction},
};
use crate::{
    fault::SqlState,
    types::{Endpoint, PoolKey},
};

/// Bits of a span's flags: those of the W3C, and where its parent is.
const SAMPLED: u32 = 0x01;
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// A transaction that is over, and where it took place.
#[derive(Debug)]
pub struct Happened {
    pub(super) transaction: Transaction,
    key: PoolKey,
    /// The server, and its process; absent if there was none.
    server: Option<(Endpoint, i32)>,
    /// The process id that the client was told.
    client_pid: i32,
}

impl Happened {
    /// A transaction of this pool.
    pub fn new(
        transaction: Transaction,
        key: PoolKey,
        server: Option<(Endpoint, i32)>,
        client_pid: i32,
    ) -> Self {
        Self {
            transaction,
            key,
            server,
            client_pid,
        }
    }

    /// How many spans it is.
    pub(super) fn count(&self) -> u64 {
        let wait = u64::from(self.transaction.asked.is_some());
        1 + wait + self.transaction.recorded.queries.len() as u64
    }
}

/// Two clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) system: SystemTime,
}

impl Now {
    /// Nanoseconds since 1970.
    fn nanos(&self, at: Instant) -> u64 {
        let ago = self.instant.saturating_duration_since(at);
        let at = self.system.checked_sub(ago).unwrap_or(UNIX_EPOCH);
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Where numbers of spans and traces come from.
pub(super) trait Ids {
    /// A number of a span; not zero.
    fn span(&mut self) -> u64;
    /// A number of a trace; not zero.
    fn trace(&mut self) -> u128;
}

/// The spans of a transaction, that of all of it first.
pub(super) fn spans(happened: &Happened, now: Now, ids: &mut impl Ids) -> Vec<Span> {
    let Happened { transaction, .. } = happened;
    let parent = transaction.recorded.parent;
    let own = Context {
        trace: parent.map_or_else(|| ids.trace(), |parent| parent.trace),
        span: ids.span(),
        sampled: true,
    };
    let mut whole = span("transaction", SpanKind::Server, own, parent.map(Parent::Remote));
    let began = transaction.asked.unwrap_or(transaction.began);
    (whole.start_time_unix_nano, whole.end_time_unix_nano) = (now.nanos(began), now.nanos(transaction.until));
    whole.attributes = attributes(happened);
    let left_out = transaction.recorded.left_out;
    if left_out > 0 {
        whole
            .attributes
            .push(number("pgweir.queries_left_out", left_out.into()));
    }
    let last_error = transaction.recorded.queries.last().and_then(|query| query.error);
    whole.status = match (transaction.ending, last_error) {
        (Ending::Cut, _) => Some(failure("ended with its session or its server connection")),
        (Ending::Refused(code), _) => Some(failed(&mut whole.attributes, code)),
        (Ending::Finished, Some(code)) => Some(failed(&mut whole.attributes, code)),
        (Ending::Finished, None) => None,
    };
    let mut spans = vec![whole];
    if let Some(asked) = transaction.asked {
        let mut wait = child("wait", SpanKind::Internal, own, ids);
        wait.start_time_unix_nano = now.nanos(asked);
        wait.end_time_unix_nano = now.nanos(transaction.began);
        if let Ending::Refused(code) = transaction.ending {
            wait.status = Some(failed(&mut wait.attributes, code));
        }
        spans.push(wait);
    }
    let queries = transaction.recorded.queries.iter();
    spans.extend(queries.map(|query| worked(query, happened, own, now, ids)));
    spans
}

/// The server at work. A query that has another caller than the transaction belongs to that one.
fn worked(query: &Query, happened: &Happened, own: Context, now: Now, ids: &mut impl Ids) -> Span {
    let caller = query
        .context
        .filter(|_| query.context != happened.transaction.recorded.parent);
    let mut worked = match caller {
        None => child("server", SpanKind::Client, own, ids),
        Some(caller) => {
            let its = Context {
                span: ids.span(),
                ..caller
            };
            span("server", SpanKind::Client, its, Some(Parent::Remote(caller)))
        }
    };
    worked.start_time_unix_nano = now.nanos(query.since);
    worked.end_time_unix_nano = now.nanos(query.until);
    worked.attributes = attributes(happened);
    if let Some(text) = &query.text {
        worked.attributes.push(string("db.query.text", text));
    }
    worked.status = query.error.map(|code| failed(&mut worked.attributes, code));
    worked
}

/// Whose child a span is.
#[derive(Clone, Copy)]
enum Parent {
    /// Of one that the application has told of.
    Remote(Context),
    /// Of one of ours.
    Local(Context),
}

fn child(name: &str, kind: SpanKind, parent: Context, ids: &mut impl Ids) -> Span {
    let own = Context {
        span: ids.span(),
        ..parent
    };
    span(name, kind, own, Some(Parent::Local(parent)))
}

fn span(name: &str, kind: SpanKind, own: Context, parent: Option<Parent>) -> Span {
    let (parent, origin) = match parent {
        None => (None, 0),
        Some(Parent::Local(parent)) => (Some(parent), HAS_IS_REMOTE),
        Some(Parent::Remote(parent)) => (Some(parent), HAS_IS_REMOTE | IS_REMOTE),
    };
    Span {
        trace_id: own.trace.to_be_bytes().to_vec(),
        span_id: own.span.to_be_bytes().to_vec(),
        parent_span_id: parent.map_or_else(Vec::new, |parent| parent.span.to_be_bytes().to_vec()),
        flags: SAMPLED | origin,
        name: name.to_owned(),
        kind: kind.into(),
        ..Span::default()
    }
}

fn attributes(happened: &Happened) -> Vec<KeyValue> {
    let key = &happened.key;
    let mut attributes = vec![
        string("db.system.name", "postgresql"),
        string("db.namespace", key.database.as_str()),
        string("pgweir.user", key.user.as_str()),
        number("pgweir.client_pid", happened.client_pid.into()),
    ];
    if let Some((endpoint, pid)) = &happened.server {
        match endpoint {
            Endpoint::Tcp { host, port } => {
                attributes.push(string("server.address", host));
                attributes.push(number("server.port", (*port).into()));
            }
            Endpoint::Unix(path) => attributes.push(string("server.address", &path.to_string_lossy())),
        }
        attributes.push(number("pgweir.server_pid", (*pid).into()));
    }
    attributes
}

/// Notes the error of a span.
fn failed(attributes: &mut Vec<KeyValue>, code: SqlState) -> Status {
    attributes.push(string("db.response.status_code", code.as_str()));
    attributes.push(string("error.type", code.as_str()));
    failure("")
}

fn failure(message: &str) -> Status {
    Status {
        message: message.to_owned(),
        code: StatusCode::Error.into(),
    }
}

fn string(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// What a collector is sent: spans, and whose they are.
pub(super) fn request(service: &str, instance: Option<&str>, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let version = env!("CARGO_PKG_VERSION");
    let mut attributes = vec![
        string("service.name", service),
        string("service.version", version),
    ];
    attributes.extend(instance.map(|instance| string("service.instance.id", instance)));
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes,
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "pgweir".to_owned(),
                    version: version.to_owned(),
                    ..InstrumentationScope::default()
                }),
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::{
        traces::recorder::Recorder,
        types::{DatabaseName, Role, UserName},
    };

    const PARENT: Context = Context {
        trace: 0xabc,
        span: 0xdef,
        sampled: true,
    };

    /// One after the other.
    #[derive(Default)]
    struct Counted(u64);

    impl Ids for Counted {
        fn span(&mut self) -> u64 {
            self.0 += 1;
            self.0
        }

        fn trace(&mut self) -> u128 {
            u128::from(self.span()) << 64
        }
    }

    fn query(since: Instant, context: Option<Context>, error: Option<SqlState>) -> Query {
        Query {
            since,
            until: since + Duration::from_millis(2),
            context,
            text: Some("SELECT 1".into()),
            error,
        }
    }

    fn happened(transaction: Transaction, server: Option<(Endpoint, i32)>) -> Happened {
        Happened {
            transaction,
            key: PoolKey {
                database: DatabaseName::from("app"),
                user: UserName::from("bob"),
                role: Role::ReadWrite,
            },
            server,
            client_pid: 42,
        }
    }

    /// The spans, of a moment one second after 1970 and ten milliseconds after `base`.
    fn shown(happened: &Happened, base: Instant) -> Vec<Span> {
        let now = Now {
            instant: base + Duration::from_millis(10),
            system: UNIX_EPOCH + Duration::from_secs(1),
        };
        spans(happened, now, &mut Counted::default())
    }

    fn text(span: &Span) -> BTreeMap<&str, String> {
        let value = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::IntValue(number)) => number.to_string(),
            other => format!("{other:?}"),
        };
        let attributes = span.attributes.iter();
        attributes
            .map(|attribute| (attribute.key.as_str(), value(&attribute.value)))
            .collect()
    }

    #[test]
    fn a_transaction_is_a_child_of_its_caller_and_the_parent_of_the_rest() {
        let base = Instant::now();
        let at = |millis| base + Duration::from_millis(millis);
        let mut recorder = Recorder::default();
        recorder.lend(Some(at(0)));
        recorder.begin(at(4));
        recorder.note(query(at(4), Some(PARENT), None), || false);
        let other = Context {
            span: 0x111,
            ..PARENT
        };
        recorder.note(query(at(7), Some(other), Some(SqlState::QUERY_CANCELED)), || {
            false
        });
        let transaction = recorder.end(at(10), Ending::Finished).unwrap();
        let endpoint = Endpoint::Tcp {
            host: "db".to_owned(),
            port: 5432,
        };
        let spans = shown(&happened(transaction, Some((endpoint, 7))), base);
        let [whole, wait, first, second] = &spans[..] else {
            panic!("{spans:?}");
        };
        let trace = PARENT.trace.to_be_bytes().to_vec();
        assert!(
            spans
                .iter()
                .all(|span| span.trace_id == trace && span.flags & SAMPLED != 0)
        );
        assert_eq!(
            spans.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(),
            ["transaction", "wait", "server", "server"]
        );
        let parents = spans
            .iter()
            .map(|span| span.parent_span_id.clone())
            .collect::<Vec<_>>();
        let own = whole.span_id.clone();
        let bytes = |span: u64| span.to_be_bytes().to_vec();
        assert_eq!(parents, [bytes(PARENT.span), own.clone(), own, bytes(other.span)]);
        let remote = spans
            .iter()
            .map(|span| span.flags & IS_REMOTE != 0)
            .collect::<Vec<_>>();
        assert_eq!(remote, [true, false, false, true]);
        let times = |span: &Span| (span.start_time_unix_nano, span.end_time_unix_nano);
        assert_eq!(times(whole), (990_000_000, 1_000_000_000));
        assert_eq!(times(wait), (990_000_000, 994_000_000));
        assert_eq!(times(first), (994_000_000, 996_000_000));
        let attributes = text(second);
        for (key, value) in [
            ("db.system.name", "postgresql"),
            ("db.namespace", "app"),
            ("pgweir.user", "bob"),
            ("pgweir.client_pid", "42"),
            ("server.address", "db"),
            ("server.port", "5432"),
            ("pgweir.server_pid", "7"),
            ("db.query.text", "SELECT 1"),
            ("db.response.status_code", "57014"),
        ] {
            assert_eq!(attributes.get(key).map(String::as_str), Some(value), "{key}");
        }
        let errors = spans.iter().map(|span| span.status.is_some()).collect::<Vec<_>>();
        assert_eq!(errors, [true, false, false, true]);
    }

    #[test]
    fn who_has_waited_in_vain_has_waited_all_the_time() {
        let base = Instant::now();
        let until = base + Duration::from_millis(10);
        let code = SqlState::QUERY_CANCELED;
        let refused = Transaction::refused(base, until, None, code);
        let spans = shown(&happened(refused, None), base);
        assert_eq!(spans.len(), 2);
        assert!(
            spans
                .iter()
                .all(|span| span.end_time_unix_nano - span.start_time_unix_nano == 10_000_000)
        );
        assert!(
            spans
                .iter()
                .all(|span| text(span).get("error.type").map(String::as_str) == Some("57014"))
        );
        assert!(spans[0].parent_span_id.is_empty());
    }
}
