//! The metrics that every process has, under the names that Prometheus' own clients use.
//!
//! They are read when somebody looks; a value that the kernel does not tell is left out.

use std::{
    fs, io,
    time::{SystemTime, UNIX_EPOCH},
};

use nix::sys::{
    resource::{Resource, UsageWho, getrlimit, getrusage},
    time::TimeValLike,
};
use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};

/// The process as it is now. `started` is told as it is: the kernel's own figure counts from a boot time
/// that containers do not always see.
pub(super) fn families(started: SystemTime) -> Vec<MetricFamily> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let known = [
        cpu_seconds().map(|value| {
            counter(
                "process_cpu_seconds_total",
                "CPU time, user and system, in seconds.",
                value,
            )
        }),
        max_open_files().map(|value| gauge("process_max_fds", "Limit of open file descriptors.", value)),
        open_files()
            .ok()
            .map(|value| gauge("process_open_fds", "Open file descriptors.", value)),
        resident_bytes(&status).map(|value| {
            gauge(
                "process_resident_memory_bytes",
                "Resident memory in bytes.",
                value,
            )
        }),
        started.duration_since(UNIX_EPOCH).ok().map(|since| {
            let help = "When the process started, in seconds since 1970.";
            gauge("process_start_time_seconds", help, since.as_secs_f64())
        }),
    ];
    known.into_iter().flatten().collect()
}

fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Some(micros as f64 / 1e6)
}

fn max_open_files() -> Option<f64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    Some(soft as f64)
}

fn open_files() -> io::Result<f64> {
    let entries = fs::read_dir("/proc/self/fd")?.count();
    // The directory itself is open while it is read.
    Ok(entries.saturating_sub(1) as f64)
}

/// `VmRSS:     1234 kB` of `/proc/self/status`.
fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kilobytes as f64 * 1024.0)
}

fn gauge(name: &str, help: &str, value: f64) -> MetricFamily {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::default();
    metric.set_gauge(gauge);
    family(name, help, MetricType::GAUGE, metric)
}

fn counter(name: &str, help: &str, value: f64) -> MetricFamily {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = Metric::default();
    metric.set_counter(counter);
    family(name, help, MetricType::COUNTER, metric)
}

fn family(name: &str, help: &str, kind: MetricType, metric: Metric) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    family
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_running_process_tells_everything() {
        let families = families(UNIX_EPOCH + Duration::from_secs(7));
        let value = |name: &str| {
            let family = families.iter().find(|family| family.name() == name).unwrap();
            let metric = &family.get_metric()[0];
            metric.get_gauge().get_value() + metric.get_counter().get_value()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_open_fds") >= 1.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!((value("process_start_time_seconds") - 7.0).abs() < f64::EPSILON);
    }

    #[test]
    fn resident_memory_is_read_from_its_own_line() {
        let status = "VmHWM:\t    9999 kB\nVmRSS:\t    2048 kB\nRssAnon:\t 1 kB\n";
        assert_eq!(resident_bytes(status), Some(2_097_152.0));
        assert_eq!(resident_bytes(""), None);
        assert_eq!(resident_bytes("VmRSS: many kB"), None);
    }
}
