//! The pages of the HTTP server, put together.

use std::sync::Arc;

use bytes::Bytes;
use tokio::{sync::watch, task::spawn_blocking};

use super::{replicas::Replicas, roll_call::RollCall, sights::Sights};
use crate::{
    fleet::{self, AskError, Merged},
    lifecycle::Phase,
    metrics::{self, Kind, Shown},
    status::{self, Reporter},
    telemetry::{
        Registry,
        exposition::{self, Format},
        http::{Answer, Answering, Ask, Guard, HTML, JSON, Page, Site},
    },
};

const UP: Shown = Shown::new(
    "pgweir_fleet_replica_up",
    "Whether a replica has told its metrics; what is shown of the others is not all there is",
    Kind::Gauge,
);
const SECONDS: Shown = Shown::new(
    "pgweir_fleet_replica_scrape_seconds",
    "How long a replica has taken to tell its metrics",
    Kind::Gauge,
);

/// What there is to see of a pooler over HTTP.
pub(super) fn site(
    registry: &Registry,
    reporter: Arc<Reporter<Sights>>,
    replicas: Arc<Replicas>,
    roll_call: Arc<RollCall>,
    phase: watch::Receiver<Phase>,
    guard: Arc<Guard>,
) -> Site {
    let (html, policy) = status::page();
    let page = move |_: Ask| Answer {
        policy: Some(policy.clone()),
        ..Answer::ok(HTML, html)
    };
    let own = OwnMetrics(registry.clone());
    let status = StatusPage { reporter, roll_call };
    let all = FleetMetrics {
        registry: registry.clone(),
        replicas,
    };
    Site::new(phase, guard)
        .with("/", Arc::new(page))
        .with("/status.json", Arc::new(status))
        .with("/metrics", Arc::new(own))
        .with("/metrics/fleet", Arc::new(all))
}

/// `/status.json`
struct StatusPage {
    reporter: Arc<Reporter<Sights>>,
    roll_call: Arc<RollCall>,
}

impl Page for StatusPage {
    fn answer(&self, ask: Ask) -> Answering {
        let reporter = self.reporter.clone();
        if ask.is_fan_out || !self.roll_call.is_wanted() {
            return now(Answer::ok(JSON, reporter.json()));
        }
        let roll_call = self.roll_call.clone();
        Box::pin(async move { Answer::ok(JSON, reporter.json_with(roll_call.take().await)) })
    }
}

/// `/metrics`. Putting them together takes the time of some hundred log-ins where there are many pools: it is not done on
/// the threads that log-ins are made on.
struct OwnMetrics(Registry);

impl Page for OwnMetrics {
    fn answer(&self, ask: Ask) -> Answering {
        let registry = self.0.clone();
        Box::pin(async move {
            let rendering = spawn_blocking(move || registry.render(ask.accept.as_deref()));
            match rendering.await {
                Ok((content_type, text)) => Answer::ok(content_type, text),
                Err(_) => unfinished(),
            }
        })
    }
}

/// `/metrics/fleet`
struct FleetMetrics {
    registry: Registry,
    replicas: Arc<Replicas>,
}

impl Page for FleetMetrics {
    fn answer(&self, ask: Ask) -> Answering {
        if ask.is_fan_out {
            return now(Answer::text(
                508,
                "a replica is asked for its own metrics, at /metrics\n",
            ));
        }
        if !self.replicas.is_set() {
            let what = "there is no fleet: set fleet.service or fleet.replicas\n";
            return now(Answer::text(404, what));
        }
        let (registry, replicas) = (self.registry.clone(), self.replicas.clone());
        Box::pin(async move {
            let format = Format::accepted(ask.accept.as_deref());
            let own = async move {
                let text = spawn_blocking(move || registry.write(format)).await;
                Bytes::from(text.unwrap_or_default())
            };
            // What this one is asked for may be more than one thing; the others are to tell the same.
            let accept = Some(format.media_type());
            let answers = replicas.ask_all("/metrics", accept, own).await;
            match spawn_blocking(move || merge(answers, format)).await {
                Ok(text) => Answer::ok(format.content_type(), text),
                Err(_) => unfinished(),
            }
        })
    }
}

fn now(answer: Answer) -> Answering {
    Box::pin(async { answer })
}

fn unfinished() -> Answer {
    Answer::text(500, "the metrics were not put together\n")
}

/// The metrics of all who have told any, and who has.
fn merge(answers: Vec<fleet::Answer>, format: Format) -> String {
    let mut merged = Merged::default();
    let (mut up, mut seconds) = (Vec::new(), Vec::new());
    for fleet::Answer {
        replica, took, said, ..
    } in answers
    {
        let added = said.and_then(|text| {
            let text = str::from_utf8(&text).map_err(|_| AskError::NotText)?;
            Ok(merged.add(&replica, text)?)
        });
        if let Err(error) = &added {
            tracing::debug!(%replica, %error, "metrics of a replica are missing");
        }
        let labels = || metrics::labels(["replica"], [&replica]);
        up.push(UP.value(labels(), f64::from(u8::from(added.is_ok()))));
        seconds.push(SECONDS.value(labels(), took.as_secs_f64()));
    }
    let mut text = merged.text();
    let own: Vec<_> = [UP.family(up), SECONDS.family(seconds)]
        .into_iter()
        .flatten()
        .collect();
    text.push_str(&exposition::write(&own, format));
    text.push_str(format.end());
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answer(replica: &str, said: Result<&'static str, AskError>) -> fleet::Answer {
        fleet::Answer {
            replica: replica.into(),
            is_own: false,
            took: Duration::from_millis(250),
            said: said.map(|text| Bytes::from_static(text.as_bytes())),
        }
    }

    #[test]
    fn who_has_told_nothing_of_use_is_named() {
        let answers = vec![
            answer("a", Ok("# TYPE x counter\nx_total 1\n# EOF\n")),
            answer("b", Err(AskError::Timeout)),
            answer("c", Ok("<html>")),
        ];
        assert_eq!(
            merge(answers, Format::OpenMetrics),
            "# TYPE x counter\nx_total{replica=\"a\"} 1\n\
             # HELP pgweir_fleet_replica_up Whether a replica has told its metrics; what is shown of the others is not all there is\n\
             # TYPE pgweir_fleet_replica_up gauge\npgweir_fleet_replica_up{replica=\"a\"} 1\n\
             pgweir_fleet_replica_up{replica=\"b\"} 0\npgweir_fleet_replica_up{replica=\"c\"} 0\n\
             # HELP pgweir_fleet_replica_scrape_seconds How long a replica has taken to tell its metrics\n\
             # TYPE pgweir_fleet_replica_scrape_seconds gauge\n\
             pgweir_fleet_replica_scrape_seconds{replica=\"a\"} 0.25\n\
             pgweir_fleet_replica_scrape_seconds{replica=\"b\"} 0.25\n\
             pgweir_fleet_replica_scrape_seconds{replica=\"c\"} 0.25\n# EOF\n"
        );
    }
}
