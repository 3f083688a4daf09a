//! The metrics of this process and their text form.
//!
//! It is made once and handed down; there is no global registry, so that every test has its own.

use std::time::SystemTime;

use prometheus::{Gauge, Opts};

use super::{
    exposition::{self, Format},
    process,
};

/// What the name of every metric of pgweir starts with.
const PREFIX: &str = "pgweir";

/// All metrics of this process. Clones share them.
#[derive(Debug, Clone)]
pub struct Registry {
    layers: prometheus::Registry,
    foreign: prometheus::Registry,
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
        let foreign = prometheus::Registry::new();
        Ok(Self {
            layers,
            foreign,
            started,
        })
    }

    /// Where a layer registers its metrics, without the prefix.
    pub fn layers(&self) -> &prometheus::Registry {
        &self.layers
    }

    /// Where metrics are registered whose names are not ours to prefix.
    pub fn foreign(&self) -> &prometheus::Registry {
        &self.foreign
    }

    /// All metrics as text, as an `Accept` header wants it, and the type of that.
    pub fn render(&self, accept: Option<&str>) -> (&'static str, String) {
        let format = Format::accepted(accept);
        let mut text = self.write(format);
        text.push_str(format.end());
        (format.content_type(), text)
    }

    /// All metrics, without what ends the text.
    ///
    /// It reads atomics and `/proc/self`, and takes no lock for long that anybody else takes.
    pub fn write(&self, format: Format) -> String {
        let mut families = self.layers.gather();
        families.extend(self.foreign.gather());
        families.extend(process::families(self.started));
        exposition::write(&families, format)
    }
}

#[cfg(test)]
mod tests {
    use prometheus::IntCounterVec;

    use super::*;

    fn registry() -> Registry {
        Registry::new("1.2.3", SystemTime::UNIX_EPOCH).unwrap()
    }

    fn rendered(registry: &Registry) -> String {
        registry.render(None).1
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
    fn open_metrics_has_an_end() {
        let (content_type, text) = registry().render(Some("application/openmetrics-text"));
        assert!(content_type.starts_with("application/openmetrics-text; version=1.0.0"));
        assert!(text.ends_with("\n# EOF\n"), "{text}");
    }
}
