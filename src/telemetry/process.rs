//! The metrics that every process has, under the names that Prometheus' own clients use.
//!
//! They are read when somebody looks; a value that the kernel does not tell is left out.

use std::{
    fs, io,
    time::{SystemTime, UNIX_EPOCH},
};

use nix::sys::{
    resource::{Resource, UsageWho, getrlimit, getrusage},
    time::{TimeVal, TimeValLike},
};
use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};

/// What the process uses. What the kernel does not tell is absent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// CPU time since its start, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Resident memory.
    pub resident_bytes: Option<f64>,
    /// Open file descriptors.
    pub open_files: Option<f64>,
    /// How many it may have.
    pub max_open_files: Option<f64>,
}

impl Usage {
    /// What it uses now.
    pub fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            cpu_seconds: cpu_seconds().map(|(user, system)| user + system),
            resident_bytes: line(&status, "VmRSS").map(|value| value * 1024.0),
            open_files: open_files().ok(),
            max_open_files: max_open_files(),
        }
    }
}

/// The process as it is now. `started` is told as it is: the kernel's own figure counts from a boot time
/// that containers do not always see.
pub(super) fn families(started: SystemTime) -> Vec<MetricFamily> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cpu = cpu_seconds();
    let known = [
        cpu.map(|(user, system)| {
            let help = "CPU time, user and system, in seconds.";
            counter("process_cpu_seconds_total", help, user + system)
        }),
        cpu.map(|(user, _)| {
            let help = "CPU time that the process itself has used, in seconds.";
            counter("process_cpu_user_seconds_total", help, user)
        }),
        cpu.map(|(_, system)| {
            let help = "CPU time that the kernel has used for the process, in seconds.";
            counter("process_cpu_system_seconds_total", help, system)
        }),
        max_open_files().map(|value| gauge("process_max_fds", "Limit of open file descriptors.", value)),
        open_files()
            .ok()
            .map(|value| gauge("process_open_fds", "Open file descriptors.", value)),
        line(&status, "VmRSS").map(|value| {
            let help = "Resident memory in bytes.";
            gauge("process_resident_memory_bytes", help, value * 1024.0)
        }),
        line(&status, "VmSize").map(|value| {
            let help = "Virtual memory in bytes.";
            gauge("process_virtual_memory_bytes", help, value * 1024.0)
        }),
        line(&status, "Threads").map(|value| gauge("process_threads", "Threads of the process.", value)),
        started.duration_since(UNIX_EPOCH).ok().map(|since| {
            let help = "When the process started, in seconds since 1970.";
            gauge("process_start_time_seconds", help, since.as_secs_f64())
        }),
    ];
    known.into_iter().flatten().collect()
}

/// The process's own and the kernel's for it.
fn cpu_seconds() -> Option<(f64, f64)> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let seconds = |time: TimeVal| time.num_microseconds() as f64 / 1e6;
    Some((seconds(usage.user_time()), seconds(usage.system_time())))
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

/// The number in a line such as `VmRSS:     1234 kB` of `/proc/self/status`.
fn line(status: &str, name: &str) -> Option<f64> {
    let rest = |line: &str| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned);
    let rest = status.lines().find_map(rest)?;
    let number: u64 = rest.split_whitespace().next()?.parse().ok()?;
    Some(number as f64)
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
        let (user, system) = (
            "process_cpu_user_seconds_total",
            "process_cpu_system_seconds_total",
        );
        let cpu = value("process_cpu_seconds_total");
        assert!(cpu >= 0.0 && (cpu - value(user) - value(system)).abs() < 1e-3);
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!((value("process_start_time_seconds") - 7.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_number_is_read_from_its_own_line() {
        let status = "VmHWM:\t    9999 kB\nVmRSS:\t    2048 kB\nThreads:\t7\nRssAnon:\t 1 kB\n";
        assert_eq!(line(status, "VmRSS"), Some(2048.0));
        assert_eq!(line(status, "Threads"), Some(7.0));
        assert_eq!(line(status, "VmSize"), None);
        assert_eq!(line("VmRSS: many kB", "VmRSS"), None);
    }
}
