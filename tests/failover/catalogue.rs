//! Which timelines there are, and through which poolers each is played.

use std::time::Duration;

use super::{cnpg, goals::Goals, mishaps, options::Options, poolers::Kind, scene::Scene, support::Network};

/// Whose order of events it is. What differs between versions is asked here and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// 1.22: the old primary keeps its label until the new one gets it.
    V122,
    /// From 1.28.3: the old primary loses its label first.
    V128,
    /// From 1.30: there is a lease, which only its holder may be promoted with.
    V130,
    /// 1.31: the lease is the truth, and nobody waits for WAL receivers to end.
    V131,
}

impl Version {
    pub(super) fn relabels_first(self) -> bool {
        self >= Self::V128
    }

    pub(super) fn has_lease(self) -> bool {
        self >= Self::V130
    }

    pub(super) fn waits_for_receivers(self) -> bool {
        self < Self::V131
    }
}

/// A script, and what it takes.
pub(super) struct Timeline {
    pub(super) name: &'static str,
    pub(super) version: Version,
    pub(super) servers: usize,
    pub(super) network: Network,
    /// Commits wait for the standby: what a crash would lose otherwise would not be the pooler's fault.
    pub(super) is_synchronous: bool,
    /// How long pgweir's clients are held at most; otherwise longer than anything takes.
    pub(super) hold: Option<Duration>,
    pub(super) script: fn(&mut Scene, Version),
    pub(super) goals: Goals,
    /// Through which kinds of pgweir it is tested.
    tested: &'static [Kind],
}

/// A timeline through one pooler.
pub(super) struct Run {
    /// In the table.
    pub(super) position: usize,
    pub(super) timeline: &'static Timeline,
    pub(super) pooler: Kind,
}

impl Run {
    pub(super) fn name(&self) -> String {
        format!("{}: {}", self.timeline.name, self.pooler.name())
    }
}

/// Shorter than what is to come.
pub(super) const HOLD: Duration = Duration::from_secs(2);

/// A switchover on loopback with two servers; the others are said by what differs.
const PLANNED: Timeline = Timeline {
    name: "planned switchover, CNPG 1.22",
    version: Version::V122,
    servers: 2,
    network: Network::Loopback,
    is_synchronous: false,
    hold: None,
    script: cnpg::planned,
    goals: Goals::PLANNED,
    tested: &[Kind::Cluster, Kind::Hosts, Kind::Service],
};

const CRASH: Timeline = Timeline {
    name: "crash, CNPG 1.22",
    is_synchronous: true,
    script: cnpg::crash,
    goals: Goals::CRASH,
    tested: &[Kind::Hosts],
    ..PLANNED
};

const TIMELINES: &[Timeline] = &[
    PLANNED,
    Timeline {
        name: "planned switchover, CNPG 1.28",
        version: Version::V128,
        tested: &[Kind::Cluster],
        ..PLANNED
    },
    Timeline {
        name: "planned switchover, CNPG 1.30",
        version: Version::V130,
        tested: &[],
        ..PLANNED
    },
    Timeline {
        name: "planned switchover, CNPG 1.31",
        version: Version::V131,
        tested: &[Kind::Cluster],
        ..PLANNED
    },
    Timeline {
        name: "planned switchover, three servers",
        version: Version::V130,
        servers: 3,
        tested: &[],
        ..PLANNED
    },
    CRASH,
    Timeline {
        name: "crash, CNPG 1.28",
        version: Version::V128,
        tested: &[],
        ..CRASH
    },
    Timeline {
        name: "crash, CNPG 1.30",
        version: Version::V130,
        tested: &[Kind::Cluster],
        ..CRASH
    },
    Timeline {
        name: "crash, CNPG 1.31",
        version: Version::V131,
        tested: &[],
        ..CRASH
    },
    Timeline {
        name: "node loss",
        version: Version::V130,
        network: Network::FirstBehindWire,
        script: cnpg::node_loss,
        tested: &[Kind::Cluster],
        ..CRASH
    },
    Timeline {
        name: "restart in place",
        version: Version::V130,
        script: cnpg::restart_in_place,
        goals: Goals::RESTART,
        tested: &[Kind::Cluster, Kind::Hosts],
        ..PLANNED
    },
    Timeline {
        name: "pod deleted",
        version: Version::V130,
        script: cnpg::pod_deleted,
        goals: Goals::RESTART,
        tested: &[Kind::Cluster],
        ..PLANNED
    },
    Timeline {
        name: "flapping target",
        version: Version::V130,
        script: mishaps::flapping,
        tested: &[Kind::Cluster],
        ..CRASH
    },
    Timeline {
        name: "late label",
        version: Version::V130,
        script: mishaps::late_label,
        tested: &[Kind::Cluster],
        ..PLANNED
    },
    Timeline {
        name: "old primary comes back",
        version: Version::V122,
        script: mishaps::old_primary_comes_back,
        goals: Goals::OLD_ONE_BACK,
        tested: &[Kind::Cluster, Kind::Hosts],
        ..CRASH
    },
    Timeline {
        name: "two primaries",
        version: Version::V131,
        script: mishaps::two_primaries,
        is_synchronous: false,
        tested: &[Kind::Cluster],
        ..CRASH
    },
    Timeline {
        name: "nobody is promoted for long",
        version: Version::V130,
        hold: Some(HOLD),
        script: mishaps::nobody_is_promoted,
        goals: Goals::TOLD_WHY,
        tested: &[Kind::Hosts],
        ..CRASH
    },
    Timeline {
        name: "fenced",
        version: Version::V130,
        hold: Some(HOLD),
        script: mishaps::fenced,
        goals: Goals::TOLD_WHY,
        tested: &[Kind::Cluster],
        ..PLANNED
    },
    Timeline {
        name: "switchover, no API server",
        version: Version::V130,
        script: mishaps::api_server_away,
        goals: Goals::UNHEARD,
        tested: &[Kind::Cluster],
        ..PLANNED
    },
    Timeline {
        name: "crash, no API server",
        version: Version::V130,
        script: mishaps::crash_without_api_server,
        goals: Goals::UNHEARD,
        tested: &[],
        ..CRASH
    },
    Timeline {
        name: "promoted without a word",
        version: Version::V122,
        script: mishaps::without_a_word,
        goals: Goals::CRASH,
        tested: &[Kind::Hosts],
        ..PLANNED
    },
];

/// What is wanted, in the order of the table.
pub(super) fn runs(options: &Options) -> Vec<Run> {
    let all = TIMELINES.iter().flat_map(|timeline| {
        let poolers: &[Kind] = match options.is_table {
            true => &[Kind::Cluster, Kind::Hosts, Kind::Service, Kind::PgBouncer],
            false => timeline.tested,
        };
        poolers.iter().map(move |&pooler| (timeline, pooler))
    });
    let runs = all.enumerate().map(|(position, (timeline, pooler))| Run {
        position,
        timeline,
        pooler,
    });
    runs.filter(|run| options.wants(&run.name())).collect()
}
