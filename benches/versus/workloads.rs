//! Which load, with which pool, and what pgweir must reach there. Data only.

use super::{
    error::BenchError,
    metrics::{Metric, Unit},
};

/// Pool of the workloads that are not about the pool.
const POOL: u32 = 20;
/// A workload that `--quick` leaves out.
const MANY: u32 = 10_000;

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// `pgbench -S`, with the simple or the extended protocol.
    Select { extended: bool },
    /// pgbench's own script.
    TpcB,
    /// `pgbench -S -C`: a connection for each transaction.
    Storm,
    /// One client that reads results of 100 MB.
    Stream,
    /// Clients that have logged in and do nothing.
    Idle,
}

#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) load: Load,
    pub(crate) clients: u32,
    pub(crate) pool: u32,
    /// Between clients and pooler.
    pub(crate) tls: bool,
}

/// What the median ratio pgweir/PgBouncer must be: at least this for what is better when it is more, else at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Goal(pub(crate) f64);

impl Workload {
    pub(crate) fn title(&self) -> String {
        let what = match self.load {
            Load::Select { extended: false } => "select-only, simple protocol",
            Load::Select { extended: true } => "select-only, extended protocol",
            Load::TpcB => "TPC-B",
            Load::Storm => "a connection for each select",
            Load::Stream => "results of 100 MB",
            Load::Idle => "idle clients",
        };
        let clients = match self.clients {
            1 => "1 client".to_owned(),
            many => format!("{many} clients"),
        };
        let tls = if self.tls { ", TLS" } else { "" };
        format!("{what}: {clients}, pool {}{tls}", self.pool)
    }

    pub(crate) fn unit(&self) -> Unit {
        match self.load {
            Load::Select { .. } | Load::TpcB => Unit::Transaction,
            Load::Storm => Unit::Connection,
            Load::Stream => Unit::Bytes,
            Load::Idle => Unit::Client,
        }
    }

    pub(crate) fn goal(&self, metric: Metric) -> Option<Goal> {
        let is_select = matches!(self.load, Load::Select { .. });
        match metric {
            Metric::Throughput => Some(Goal(1.0)),
            Metric::Cpu if is_select && self.clients == 64 && self.pool == POOL => {
                Some(Goal(if self.tls { 0.65 } else { 0.85 }))
            }
            Metric::P99 if is_select && self.clients == 700 && self.pool == POOL => Some(Goal(1.0)),
            Metric::Memory => Some(Goal(if self.tls { 1.0 } else { 1.5 })),
            _ => None,
        }
    }
}

impl Goal {
    pub(crate) fn is_reached(self, metric: Metric, ratio: f64) -> bool {
        if metric.more_is_better() {
            ratio >= self.0
        } else {
            ratio <= self.0
        }
    }
}

/// All of them, in the order of the table.
pub(crate) fn all() -> Vec<Workload> {
    let mut all = Vec::new();
    for extended in [false, true] {
        let load = Load::Select { extended };
        for pool in [20, 150] {
            all.extend([8, 64, 700].map(|clients| workload(load, clients, pool, false)));
        }
        all.push(workload(load, 64, POOL, true));
    }
    all.push(workload(Load::TpcB, 64, POOL, false));
    for tls in [false, true] {
        all.push(workload(Load::Storm, 8, POOL, tls));
    }
    all.push(workload(Load::Stream, 1, POOL, false));
    for clients in [2_000, MANY] {
        all.extend([false, true].map(|tls| workload(Load::Idle, clients, POOL, tls)));
    }
    all
}

/// Those that `only` asks for: by their whole name, or else by a part of it. Nothing asks for all.
pub(crate) fn choose(only: &[String], quick: bool) -> Result<Vec<Workload>, BenchError> {
    let mut chosen = all();
    if !only.is_empty() {
        let names: Vec<String> = chosen.iter().map(|workload| workload.name.clone()).collect();
        chosen.retain(|workload| {
            only.iter().any(|wanted| {
                let exact = names.contains(wanted);
                workload.name == *wanted || (!exact && workload.name.contains(wanted.as_str()))
            })
        });
    } else if quick {
        chosen.retain(|workload| workload.clients < MANY);
    }
    if chosen.is_empty() {
        return Err(BenchError::NoWorkload {
            wanted: only.to_vec(),
        });
    }
    Ok(chosen)
}

fn workload(load: Load, clients: u32, pool: u32, tls: bool) -> Workload {
    let kind = match load {
        Load::Select { extended: false } => format!("simple-{clients}x{pool}"),
        Load::Select { extended: true } => format!("extended-{clients}x{pool}"),
        Load::TpcB => format!("tpcb-{clients}x{pool}"),
        Load::Storm => "connect".to_owned(),
        Load::Stream => "result".to_owned(),
        Load::Idle => format!("idle-{clients}"),
    };
    let name = if tls { format!("{kind}-tls") } else { kind };
    Workload {
        name,
        load,
        clients,
        pool,
        tls,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(only: &[&str], quick: bool) -> Vec<String> {
        let only: Vec<String> = only.iter().map(|&text| text.to_owned()).collect();
        let chosen = choose(&only, quick).unwrap();
        chosen.into_iter().map(|workload| workload.name).collect()
    }

    #[test]
    fn every_name_is_there_once() {
        let all = names(&[], false);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn a_whole_name_goes_before_a_part() {
        assert_eq!(names(&["simple-64x20"], false), ["simple-64x20"]);
        assert_eq!(
            names(&["simple-64x2"], false),
            ["simple-64x20", "simple-64x20-tls"]
        );
        assert_eq!(names(&["tpcb", "result"], true), ["tpcb-64x20", "result"]);
        assert!(choose(&["nothing".to_owned()], false).is_err());
    }

    #[test]
    fn quick_leaves_out_the_largest_unless_it_is_named() {
        assert!(!names(&[], true).contains(&"idle-10000".to_owned()));
        assert_eq!(names(&["idle-10000-tls"], true), ["idle-10000-tls"]);
    }

    #[test]
    fn the_goals_are_those_of_the_contract() {
        let goal = |name: &str, metric| {
            let found = all().into_iter().find(|workload| workload.name == name).unwrap();
            found.goal(metric).map(|goal| goal.0)
        };
        assert_eq!(goal("simple-64x20", Metric::Cpu), Some(0.85));
        assert_eq!(goal("extended-64x20-tls", Metric::Cpu), Some(0.65));
        assert_eq!(goal("simple-64x150", Metric::Cpu), None);
        assert_eq!(goal("extended-700x20", Metric::P99), Some(1.0));
        assert_eq!(goal("simple-700x150", Metric::P99), None);
        assert_eq!(goal("idle-2000", Metric::Memory), Some(1.5));
        assert_eq!(goal("idle-10000-tls", Metric::Memory), Some(1.0));
        assert_eq!(goal("result", Metric::Throughput), Some(1.0));
    }
}
