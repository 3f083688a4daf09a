//! What the machine makes of the orders of events that CloudNativePG, PostgreSQL and networks are known for.

mod failover;
mod hosts;
mod random;
mod restart;
mod services;
mod states;
mod switchover;

use super::*;
use crate::topology::{
    ClusterFacts, ClusterPhase, Condition, Failure, Fenced, Instance, LeaseFacts, Reason, Seen, ServerState,
};

const READY: Condition = Condition {
    ready: true,
    terminating: false,
};
const NOT_READY: Condition = Condition {
    ready: false,
    terminating: false,
};

fn endpoint(name: &str) -> Endpoint {
    Endpoint::Tcp {
        host: name.to_owned(),
        port: 5432,
    }
}

fn host(endpoint: &Endpoint) -> &str {
    match endpoint {
        Endpoint::Tcp { host, .. } => host,
        Endpoint::Unix(_) => "unix",
    }
}

fn timeline(number: u32) -> Option<Timeline> {
    Some(Timeline { system: 7435, number })
}

/// What is said of a cluster of `a`, `b` and `c` in which all is well and this one is the primary.
fn healthy(primary: &str) -> Facts {
    let instance = |name: &str| Instance {
        name: name.into(),
        endpoint: endpoint(name),
        zone: None,
        rw: None,
        ro: Some(READY),
        r: Some(READY),
    };
    let facts = Facts {
        instances: ["a", "b", "c"].map(instance).into(),
        slices_known: true,
        cluster: Some(ClusterFacts {
            phase: ClusterPhase::Healthy,
            ..ClusterFacts::default()
        }),
        lease: None,
    };
    facts.current(primary).target(primary).label(primary)
}

/// How tests say what has changed in the facts.
trait Say: Sized {
    fn edit(self, change: impl FnOnce(&mut Facts)) -> Self;

    fn edit_cluster(self, change: impl FnOnce(&mut ClusterFacts)) -> Self {
        self.edit(|facts| change(facts.cluster.as_mut().unwrap()))
    }

    fn edit_instance(self, name: &str, change: impl FnOnce(&mut Instance)) -> Self {
        self.edit(|facts| {
            let mut instances = facts.instances.iter_mut();
            change(instances.find(|one| &*one.name == name).unwrap());
        })
    }

    fn current(self, name: &str) -> Self {
        self.edit_cluster(|cluster| cluster.current_primary = Some(name.into()))
    }

    fn target(self, name: &str) -> Self {
        self.edit_cluster(|cluster| {
            cluster.target_primary = Some(name.into());
            cluster.is_pending = false;
        })
    }

    fn pending(self) -> Self {
        self.edit_cluster(|cluster| {
            cluster.target_primary = None;
            cluster.is_pending = true;
        })
    }

    fn phase(self, phase: ClusterPhase) -> Self {
        self.edit_cluster(|cluster| cluster.phase = phase)
    }

    /// The label says `primary` at this one, and `replica` at the others.
    fn label(self, name: &str) -> Self {
        self.edit(|facts| {
            for instance in &mut facts.instances {
                let is_primary = &*instance.name == name;
                instance.rw = is_primary.then_some(READY);
                instance.ro = (!is_primary).then_some(READY);
            }
        })
    }

    /// The label says neither.
    fn unhealthy(self, name: &str) -> Self {
        self.edit_instance(name, |instance| {
            instance.rw = None;
            instance.ro = None;
        })
    }

    fn condition(self, name: &str, now: Condition) -> Self {
        self.edit_instance(name, |instance| {
            for condition in [&mut instance.rw, &mut instance.ro, &mut instance.r] {
                *condition = condition.map(|_| now);
            }
        })
    }

    fn not_ready(self, name: &str) -> Self {
        self.condition(name, NOT_READY)
    }

    fn terminating(self, name: &str) -> Self {
        self.condition(
            name,
            Condition {
                ready: false,
                terminating: true,
            },
        )
    }

    fn without(self, name: &str) -> Self {
        self.edit(|facts| facts.instances.retain(|one| &*one.name != name))
    }

    /// Empty where nobody holds it.
    fn lease(self, holder: &str) -> Self {
        self.edit(|facts| {
            facts.lease = Some(LeaseFacts {
                holder: Some(holder).filter(|holder| !holder.is_empty()).map(Into::into),
            });
        })
    }

    fn slices_only(self) -> Self {
        self.edit(|facts| facts.cluster = None)
    }

    fn fenced(self, name: &str) -> Self {
        self.edit_cluster(|cluster| cluster.fenced = Fenced::Some([name.into()].into()))
    }
}

impl Say for Facts {
    fn edit(mut self, change: impl FnOnce(&mut Facts)) -> Self {
        change(&mut self);
        self
    }
}

/// A machine, and the time.
struct Play {
    machine: Machine,
    begin: Instant,
    now: Instant,
    shown: Topology,
}

const RULES: Rules = Rules {
    hold_timeout: Duration::from_secs(90),
    is_replica: false,
};

impl Play {
    fn new(source: Source, rules: Rules) -> Self {
        let now = Instant::now();
        let mut machine = Machine::new(source, rules, now);
        let shown = machine.first(now);
        Self {
            machine,
            begin: now,
            now,
            shown,
        }
    }

    fn discovered() -> Self {
        Self::new(Source::Facts(Facts::default()), RULES)
    }

    /// The primary is `a`, on timeline 1, and has been used.
    fn serving() -> Self {
        Self::serving_with(&healthy("a"))
    }

    fn serving_with(facts: &Facts) -> Self {
        let mut play = Self::discovered();
        play.says(facts).writes("a", 1).expect("serving a");
        play
    }

    fn hosts(names: &[&str]) -> Self {
        let hosts = names.iter().map(|name| endpoint(name)).collect();
        Self::new(
            Source::Hosts {
                hosts,
                is_shared: false,
            },
            RULES,
        )
    }

    /// So many milliseconds after the beginning.
    fn at(&mut self, ms: u64) -> &mut Self {
        let then = self.begin + Duration::from_millis(ms);
        assert!(then >= self.now, "time goes back");
        while let Some(due) = self.machine.next_tick(self.now).filter(|due| *due <= then) {
            self.now = due;
            self.act(Machine::tick);
        }
        self.now = then;
        self
    }

    fn act(&mut self, act: impl FnOnce(&mut Machine, Instant)) -> &mut Self {
        act(&mut self.machine, self.now);
        if let Some(shown) = self.machine.show(self.now) {
            assert_eq!(shown.version, self.shown.version + 1);
            assert!(shown.generation >= self.shown.generation);
            if shown.primary != self.shown.primary {
                assert!(
                    shown.generation > self.shown.generation,
                    "{shown:?} after {:?}",
                    self.shown
                );
            }
            self.shown = shown;
        }
        assert!(self.machine.next_tick(self.now).is_none_or(|due| due > self.now));
        self
    }

    fn says(&mut self, facts: &Facts) -> &mut Self {
        self.act(|machine, now| machine.learn(facts.clone(), now))
    }

    fn observes(&mut self, observation: &Observation) -> &mut Self {
        self.act(|machine, now| machine.observe(observation, now))
    }

    fn opens(&mut self, name: &str, seen: Seen) -> &mut Self {
        self.observes(&Observation::Opened {
            endpoint: endpoint(name),
            seen,
        })
    }

    fn writes(&mut self, name: &str, timeline: u32) -> &mut Self {
        self.opens(
            name,
            Seen::Primary {
                timeline: self::timeline(timeline),
            },
        )
    }

    fn stands_by(&mut self, name: &str) -> &mut Self {
        self.opens(name, Seen::Standby)
    }

    fn fails(&mut self, name: &str, failure: Failure) -> &mut Self {
        self.observes(&Observation::Failed {
            endpoint: endpoint(name),
            failure,
        })
    }

    /// 57P03
    fn refuses(&mut self, name: &str) -> &mut Self {
        self.fails(name, Failure::CannotConnectNow)
    }

    fn unreachable(&mut self, name: &str) -> &mut Self {
        self.fails(name, Failure::Unreachable)
    }

    fn silent(&mut self, name: &str) -> &mut Self {
        self.fails(name, Failure::Silent)
    }

    /// 57P01 on an idle connection
    fn drops(&mut self, name: &str) -> &mut Self {
        self.observes(&Observation::Dropped {
            endpoint: endpoint(name),
        })
    }

    fn demoted(&mut self, name: &str) -> &mut Self {
        self.observes(&Observation::Demoted {
            endpoint: endpoint(name),
        })
    }

    /// Phase, reason and primary.
    #[track_caller]
    fn expect(&mut self, expected: &str) -> &mut Self {
        // Time is part of what is seen.
        self.act(Machine::tick);
        let phase = self.shown.phase;
        let primary = self.shown.primary.as_ref().map(host);
        let words = [Some(phase.as_str()), phase.reason().map(Reason::as_str), primary];
        let words: Vec<&str> = words.into_iter().flatten().collect();
        assert_eq!(
            words.join(" "),
            expected,
            "at {:?}: {:#?}",
            self.now - self.begin,
            self.machine
        );
        self
    }

    #[track_caller]
    fn looks_at(&mut self, expected: &str) -> &mut Self {
        let candidates: Vec<&str> = self.shown.candidates.iter().map(host).collect();
        assert_eq!(candidates.join(" "), expected, "{:#?}", self.machine);
        self
    }

    #[track_caller]
    fn generation(&mut self, expected: u64) -> &mut Self {
        assert_eq!(self.shown.generation, expected);
        self
    }

    #[track_caller]
    fn held(&mut self, from: &str, to: &str, reason: Reason, ms: u64) -> &mut Self {
        let expected = Hold {
            from: Some(endpoint(from)),
            to: endpoint(to),
            reason,
            took: Duration::from_millis(ms),
        };
        assert_eq!(self.shown.last_hold, Some(expected));
        self
    }
}
