//! Metric families as text: Prometheus' format 0.0.4, and OpenMetrics 1.0 for those who ask for it.
//!
//! It knows no metric by name.

use std::fmt::Write;

use prometheus::proto::{Histogram, LabelPair, Metric, MetricFamily, MetricType};
use tracing::error;

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own.
    Prometheus,
    /// OpenMetrics.
    OpenMetrics,
}

const OPEN_METRICS: &str = "application/openmetrics-text";
const TOTAL: &str = "_total";

impl Format {
    /// The one that an `Accept` header prefers; Prometheus' own where it has no preference, or there is none.
    pub fn accepted(accept: Option<&str>) -> Self {
        let (mut open, mut plain) = (0.0, 0.0_f64);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
            let quality: f64 = quality.unwrap_or(1.0);
            match media.as_str() {
                OPEN_METRICS => open = quality,
                "text/plain" => plain = plain.max(quality),
                _ => {}
            }
        }
        if open > 0.0 && open >= plain {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Its name in HTTP.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What to ask others for, to be told this one.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain",
            Self::OpenMetrics => OPEN_METRICS,
        }
    }

    /// What is written behind the last metric.
    pub fn end(self) -> &'static str {
        match self {
            Self::Prometheus => "",
            Self::OpenMetrics => "# EOF\n",
        }
    }

    /// What a header calls a family.
    pub fn family_name(self, name: &str, kind: MetricType) -> &str {
        match (self, kind) {
            (Self::OpenMetrics, MetricType::COUNTER) => name.strip_suffix(TOTAL).unwrap_or(name),
            _ => name,
        }
    }
}

/// The families one after the other, without what ends the text.
pub fn write(families: &[MetricFamily], format: Format) -> String {
    let mut text = String::new();
    for family in families {
        // One that cannot be written does not cost the others.
        if family.name().is_empty() || family.get_metric().is_empty() {
            error!(metric = family.name(), "metric cannot be shown");
            continue;
        }
        // A string takes everything.
        let _ = Writer {
            out: &mut text,
            format,
            name: family.name(),
        }
        .family(family);
    }
    text
}

struct Writer<'a> {
    out: &'a mut String,
    format: Format,
    name: &'a str,
}

impl Writer<'_> {
    fn family(&mut self, family: &MetricFamily) -> std::fmt::Result {
        let kind = family.get_field_type();
        let shown = self.format.family_name(self.name, kind);
        write!(self.out, "# HELP {shown} ")?;
        escape(family.help(), self.format == Format::OpenMetrics, self.out);
        let word = match kind {
            MetricType::COUNTER => "counter",
            MetricType::HISTOGRAM => "histogram",
            // Nothing here makes a summary.
            _ => "gauge",
        };
        writeln!(self.out, "\n# TYPE {shown} {word}")?;
        for metric in family.get_metric() {
            match kind {
                MetricType::COUNTER => self.sample("", metric, metric.get_counter().get_value())?,
                MetricType::HISTOGRAM => self.histogram(metric, metric.get_histogram())?,
                _ => self.sample("", metric, metric.get_gauge().get_value())?,
            }
        }
        Ok(())
    }

    fn sample(&mut self, suffix: &str, metric: &Metric, value: f64) -> std::fmt::Result {
        write!(self.out, "{}{suffix}", self.name)?;
        labels(metric.get_label(), self.out);
        if !metric.get_label().is_empty() {
            self.out.push('}');
        }
        self.value(value)
    }

    fn histogram(&mut self, metric: &Metric, histogram: &Histogram) -> std::fmt::Result {
        // They are the same for every line, and written once.
        let mut pairs = String::new();
        labels(metric.get_label(), &mut pairs);
        pairs.push(if pairs.is_empty() { '{' } else { ',' });
        let count = histogram.get_sample_count();
        for bucket in histogram.get_bucket() {
            write!(self.out, "{}_bucket{pairs}le=\"", self.name)?;
            self.bound(bucket.upper_bound())?;
            writeln!(self.out, "\"}} {}", bucket.cumulative_count())?;
        }
        writeln!(self.out, "{}_bucket{pairs}le=\"+Inf\"}} {count}", self.name)?;
        self.sample("_sum", metric, histogram.get_sample_sum())?;
        write!(self.out, "{}_count", self.name)?;
        pairs.pop();
        if !pairs.is_empty() {
            pairs.push('}');
        }
        writeln!(self.out, "{pairs} {count}")
    }

    /// OpenMetrics wants bounds to look like the floating-point numbers that they are.
    fn bound(&mut self, bound: f64) -> std::fmt::Result {
        match self.format {
            Format::Prometheus => write!(self.out, "{bound}"),
            Format::OpenMetrics => write!(self.out, "{bound:?}"),
        }
    }

    fn value(&mut self, value: f64) -> std::fmt::Result {
        if value.is_nan() {
            writeln!(self.out, " NaN")
        } else if value.is_infinite() {
            writeln!(self.out, " {}Inf", if value > 0.0 { '+' } else { '-' })
        } else {
            writeln!(self.out, " {value}")
        }
    }
}

/// `{a="1",b="2"`, without the brace at the end; nothing where there are none.
fn labels(pairs: &[LabelPair], out: &mut String) {
    let mut before = '{';
    for pair in pairs {
        out.push(before);
        out.push_str(pair.name());
        out.push_str("=\"");
        escape(pair.value(), true, out);
        out.push('"');
        before = ',';
    }
}

fn escape(text: &str, quotes: bool, out: &mut String) {
    for char in text.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            char => out.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

    use super::*;

    fn families() -> Vec<MetricFamily> {
        let registry = Registry::new();
        let waits =
            IntCounterVec::new(Opts::new("waits_total", "Waits of \"one\" \\ more."), &["db"]).unwrap();
        waits.with_label_values(&["a\"b\n\\c"]).inc_by(3);
        let size = IntGauge::new("size", "Size.").unwrap();
        size.set(-7);
        let options = HistogramOpts::new("time_seconds", "Time.").buckets(vec![0.25, 1.0]);
        let time = HistogramVec::new(options, &["db"]).unwrap();
        time.with_label_values(&["x"]).observe(0.5);
        time.with_label_values(&["x"]).observe(9.0);
        registry.register(Box::new(waits)).unwrap();
        registry.register(Box::new(size)).unwrap();
        registry.register(Box::new(time)).unwrap();
        registry.gather()
    }

    #[test]
    fn prometheus_text() {
        assert_eq!(
            write(&families(), Format::Prometheus),
            "# HELP size Size.\n# TYPE size gauge\nsize -7\n\
             # HELP time_seconds Time.\n# TYPE time_seconds histogram\n\
             time_seconds_bucket{db=\"x\",le=\"0.25\"} 0\n\
             time_seconds_bucket{db=\"x\",le=\"1\"} 1\n\
             time_seconds_bucket{db=\"x\",le=\"+Inf\"} 2\n\
             time_seconds_sum{db=\"x\"} 9.5\ntime_seconds_count{db=\"x\"} 2\n\
             # HELP waits_total Waits of \"one\" \\\\ more.\n# TYPE waits_total counter\n\
             waits_total{db=\"a\\\"b\\n\\\\c\"} 3\n"
        );
    }

    #[test]
    fn open_metrics_names_counters_without_total_and_quotes_more() {
        let text = write(&families(), Format::OpenMetrics);
        assert!(
            text.contains("# HELP waits Waits of \\\"one\\\" \\\\ more.\n# TYPE waits counter\nwaits_total{"),
            "{text}"
        );
        assert!(text.contains("le=\"1.0\"} 1\n"), "{text}");
    }

    #[test]
    fn a_histogram_without_labels_is_well_formed() {
        let histogram =
            prometheus::Histogram::with_opts(HistogramOpts::new("h", "H.").buckets(vec![1.0])).unwrap();
        let registry = Registry::new();
        registry.register(Box::new(histogram)).unwrap();
        let text = write(&registry.gather(), Format::Prometheus);
        assert!(
            text.ends_with("h_bucket{le=\"1\"} 0\nh_bucket{le=\"+Inf\"} 0\nh_sum 0\nh_count 0\n"),
            "{text}"
        );
    }

    #[test]
    fn a_broken_family_costs_only_itself() {
        let mut all = families();
        all.insert(0, MetricFamily::default());
        assert!(write(&all, Format::Prometheus).starts_with("# HELP size"));
    }

    #[test]
    fn the_format_is_the_one_that_is_preferred() {
        let format = |accept| Format::accepted(Some(accept));
        // What Prometheus 2.42 sends.
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(format(prometheus), Format::OpenMetrics);
        assert_eq!(format("application/openmetrics-text"), Format::OpenMetrics);
        assert_eq!(
            format("text/plain, application/openmetrics-text;q=0.5"),
            Format::Prometheus
        );
        assert_eq!(format("application/openmetrics-text;q=0"), Format::Prometheus);
        assert_eq!(format("*/*"), Format::Prometheus);
        assert_eq!(Format::accepted(None), Format::Prometheus);
    }
}
