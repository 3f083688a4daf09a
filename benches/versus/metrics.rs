//! What is measured, and how it is called.

use std::collections::BTreeMap;

/// One number of a measurement, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Units of work per second.
    Throughput,
    /// Milliseconds.
    P50,
    /// Milliseconds.
    P99,
    /// Of the pooler per unit of work, user and system.
    Cpu,
    CpuUser,
    CpuSystem,
    /// Context switches of the pooler per unit of work.
    Switches,
    /// Resident bytes of the pooler per client.
    Memory,
}

/// The unit of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Transaction,
    Connection,
    /// Of a result: megabytes per second, seconds per gigabyte.
    Bytes,
    Client,
}

/// The numbers of one measurement.
pub(crate) type Sample = BTreeMap<Metric, f64>;

impl Metric {
    /// How the table calls it.
    pub(crate) fn label(self, unit: Unit) -> &'static str {
        match (self, unit) {
            (Self::Throughput, Unit::Transaction | Unit::Client) => "tps",
            (Self::Throughput, Unit::Connection) => "connections/s",
            (Self::Throughput, Unit::Bytes) => "MB/s",
            (Self::P50, _) => "p50 ms",
            (Self::P99, _) => "p99 ms",
            (Self::Cpu, Unit::Transaction | Unit::Client) => "CPU us/tx",
            (Self::Cpu, Unit::Connection) => "CPU us/connection",
            (Self::Cpu, Unit::Bytes) => "CPU s/GB",
            (Self::CpuUser, _) => "  user",
            (Self::CpuSystem, _) => "  system",
            (Self::Switches, Unit::Transaction | Unit::Client) => "switches/tx",
            (Self::Switches, Unit::Connection) => "switches/connection",
            (Self::Switches, Unit::Bytes) => "switches/MB",
            (Self::Memory, _) => "bytes/idle client",
        }
    }

    /// How the raw numbers call it.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::P50 => "p50_ms",
            Self::P99 => "p99_ms",
            Self::Cpu => "cpu",
            Self::CpuUser => "cpu_user",
            Self::CpuSystem => "cpu_system",
            Self::Switches => "switches",
            Self::Memory => "memory_bytes",
        }
    }

    /// Whether more is better.
    pub(crate) fn more_is_better(self) -> bool {
        self == Self::Throughput
    }
}
