//! The metrics of this process and their text form.
//!
//! It is made once and handed down; there is no global registry, so that every test has its own.

use std::time::SystemTime;

use prometheus::{Encoder, Gauge, Opts, TextEncoder, proto::MetricFamily};
use tracing::error;

use super::process;

/// What the name of every metric of pgweir starts with.
const PREFIX: &str = "pgweir";

/// All metrics of this process. Clones share them.
#[derive(Debug, Clone)]
pub struct Registry {
    layers: prometheus::Registry,
    started: SystemTime,
}

impl Registry {
    /// A registry that holds the build's version. `started` is when the process began.
    ///
    /// # Errors
    /// None that a fixed prefix and one fixed metric can cause.
    pub fn new(version: &str, started: SystemTime) -> prometheus::Result<Self> {
        let layers = prometheus::Registry::new_custom(Some(PREFIX.to_owned()), None)?;
        let build = Gauge::with_opts(
            Opts::new("build_info", "The running version; the value is always 1.")
                .const_label("version", version),
        )?;
        build.set(1.0);
        layers.register(Box::new(build))?;
        Ok(Self { layers, started })
    }

    /// Where a layer registers its metrics, without the prefix.
    pub fn layers(&self) -> &prometheus::Registry {
        &self.layers
    }

    /// All metrics in Prometheus' text format, version 0.0.4.
    ///
    /// It reads atomics and `/proc/self`, and takes no lock but the registry's own.
    pub fn render(&self) -> Vec<u8> {
        let mut families = self.layers.gather();
        families.extend(process::families(self.started));
        encode(&families)
    }
}

/// One family that cannot be written does not cost the others.
fn encode(families: &[MetricFamily]) -> Vec<u8> {
    let mut text = Vec::new();
    for family in families {
        let before = text.len();
        if let Err(error) = TextEncoder::new().encode(std::slice::from_ref(family), &mut text) {
            text.truncate(before);
            error!(%error, metric = family.name(), "metric cannot be shown");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use prometheus::IntCounterVec;

    use super::*;

    fn registry() -> Registry {
        Registry::new("1.2.3", SystemTime::UNIX_EPOCH).unwrap()
    }

    fn rendered(registry: &Registry) -> String {
        String::from_utf8(registry.render()).unwrap()
    }

    #[test]
    fn the_version_and_the_process_are_there_from_the_start() {
        let text = rendered(&registry());
        assert!(
            text.contains("pgweir_build_info{version=\"1.2.3\"} 1\n"),
            "{text}"
        );
        assert!(
            text.contains("# TYPE process_cpu_seconds_total counter\n"),
            "{text}"
        );
    }

    #[test]
    fn what_a_layer_registers_is_prefixed_and_escaped() {
        let registry = registry();
        let waits = IntCounterVec::new(Opts::new("waits_total", "Waits."), &["database"]).unwrap();
        registry.layers().register(Box::new(waits.clone())).unwrap();
        waits.with_label_values(&["a\"b\n"]).inc_by(3);
        let text = rendered(&registry);
        assert!(
            text.contains("pgweir_waits_total{database=\"a\\\"b\\n\"} 3\n"),
            "{text}"
        );
    }

    #[test]
    fn registries_share_nothing() {
        let (one, other) = (registry(), registry());
        let counter = prometheus::IntCounter::new("only_one", "One.").unwrap();
        one.layers().register(Box::new(counter)).unwrap();
        assert!(rendered(&one).contains("pgweir_only_one 0\n"));
        assert!(!rendered(&other).contains("only_one"));
    }

    #[test]
    fn a_broken_family_costs_only_itself() {
        let mut families = registry().layers().gather();
        families.insert(0, MetricFamily::default());
        let text = String::from_utf8(encode(&families)).unwrap();
        assert!(text.starts_with("# HELP pgweir_build_info"), "{text}");
    }
}
