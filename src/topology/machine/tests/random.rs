//! Whatever may be said and seen, in any order.

use proptest::{collection::vec, prelude::*};

use super::*;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// What happens to a machine.
#[derive(Debug, Clone)]
enum Event {
    Says(Box<Facts>),
    Observes(Observation),
    Waits(u64),
    Rules(Rules),
}

fn names() -> impl Strategy<Value = &'static str> {
    prop::sample::select(NAMES.to_vec())
}

fn conditions() -> impl Strategy<Value = Option<Condition>> {
    let some = (any::<bool>(), prop::bool::weighted(0.1))
        .prop_map(|(ready, terminating)| Condition { ready, terminating });
    prop::option::of(some)
}

fn instances() -> impl Strategy<Value = Vec<Instance>> {
    let instance = |name: &'static str| {
        let address = prop_oneof![9 => Just(name.to_owned()), 1 => Just(format!("{name}-new"))];
        let listed = (
            conditions(),
            conditions(),
            conditions(),
            prop::bool::weighted(0.9),
        );
        (address, listed).prop_map(move |(address, (rw, ro, r, is_there))| {
            is_there.then(|| Instance {
                name: name.into(),
                endpoint: endpoint(&address),
                zone: None,
                rw,
                ro,
                r,
            })
        })
    };
    NAMES
        .map(instance)
        .prop_map(|all| all.into_iter().flatten().collect())
}

fn clusters() -> impl Strategy<Value = ClusterFacts> {
    let phases = [
        ClusterPhase::Healthy,
        ClusterPhase::Switchover,
        ClusterPhase::FailingOver,
        ClusterPhase::PrimaryRestart,
        ClusterPhase::Other,
    ];
    let name = || prop::option::weighted(0.9, names().prop_map(Box::<str>::from));
    let fenced = prop_oneof![
        9 => Just(Fenced::None),
        1 => names().prop_map(|name| Fenced::Some([name.into()].into())),
    ];
    (
        name(),
        name(),
        prop::bool::weighted(0.1),
        prop::sample::select(phases.to_vec()),
        fenced,
        prop::bool::weighted(0.05),
    )
        .prop_map(
            |(current, target, is_pending, phase, fenced, is_hibernated)| ClusterFacts {
                current_primary: current,
                target_primary: target.filter(|_| !is_pending),
                is_pending,
                phase,
                fenced,
                is_hibernated,
                is_replica: false,
            },
        )
}

fn facts() -> impl Strategy<Value = Facts> {
    let holder = prop::option::of(names().prop_map(Box::<str>::from));
    (
        instances(),
        prop::option::weighted(0.8, clusters()),
        prop::option::of(holder.prop_map(|holder| LeaseFacts { holder })),
    )
        .prop_map(|(instances, cluster, lease)| Facts {
            instances,
            slices_known: true,
            cluster,
            lease,
        })
}

/// The same before and after the servers are listed; once they are, they are.
fn with_services() -> impl Strategy<Value = Vec<Event>> {
    let unlisted = |event| match event {
        Event::Says(facts) => Event::Says(Box::new(Facts {
            instances: Vec::new(),
            slices_known: false,
            ..*facts
        })),
        Event::Observes(Observation::Opened { seen, .. }) => Event::Observes(Observation::Opened {
            endpoint: endpoint("rw"),
            seen,
        }),
        Event::Observes(Observation::Failed { failure, .. }) => Event::Observes(Observation::Failed {
            endpoint: endpoint("rw"),
            failure,
        }),
        other => other,
    };
    let before = events().prop_map(move |events| events.into_iter().map(unlisted).collect::<Vec<_>>());
    (before, events()).prop_map(|(before, after)| [before, after].concat())
}

fn observations() -> impl Strategy<Value = Observation> {
    let seen = prop_oneof![
        Just(Seen::Standby),
        prop::option::of(1u32..4).prop_map(|number| Seen::Primary {
            timeline: number.and_then(timeline),
        }),
    ];
    let failures = [Failure::CannotConnectNow, Failure::Unreachable, Failure::Silent];
    let where_to = || names().prop_map(endpoint);
    prop_oneof![
        (where_to(), seen).prop_map(|(endpoint, seen)| Observation::Opened { endpoint, seen }),
        (where_to(), prop::sample::select(failures.to_vec()))
            .prop_map(|(endpoint, failure)| Observation::Failed { endpoint, failure }),
        where_to().prop_map(|endpoint| Observation::Dropped { endpoint }),
        where_to().prop_map(|endpoint| Observation::Demoted { endpoint }),
    ]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let rules = any::<bool>().prop_map(|is_replica| Rules { is_replica, ..RULES });
    let event = prop_oneof![
        10 => facts().prop_map(|facts| Event::Says(Box::new(facts))),
        20 => observations().prop_map(Event::Observes),
        10 => (1u64..5000).prop_map(Event::Waits),
        1 => rules.prop_map(Event::Rules),
    ];
    vec(event, 0..40)
}

fn sources() -> impl Strategy<Value = Source> {
    let hosts = |count: usize| NAMES[..count].iter().map(|name| endpoint(name)).collect();
    prop_oneof![
        3 => Just(Source::Facts(Facts::default())),
        1 => (1usize..4, any::<bool>()).prop_map(move |(count, is_shared)| Source::Hosts {
            hosts: hosts(count),
            is_shared,
        }),
    ]
}

impl Play {
    fn ms(&self) -> u64 {
        u64::try_from((self.now - self.begin).as_millis()).unwrap()
    }

    /// [`Play::act`] holds the rest: versions, generations.
    fn happens(&mut self, event: &Event) {
        match event {
            Event::Says(facts) => self.says(facts),
            Event::Observes(observation) => self.observes(observation),
            Event::Waits(ms) => self.at(self.ms() + ms),
            Event::Rules(rules) => self.act(|machine, now| machine.set_rules(*rules, now)),
        };
    }

    fn promise(&self) -> bool {
        let absence = self.machine.absence.as_ref();
        absence.is_some_and(|absence| absence.promise.is_some())
    }
}

/// Tries all candidates in turn, as scouts do. Only `primary` is one.
fn look_around(play: &mut Play, primary: &str, timeline: u32) {
    for candidate in play.shown.candidates.clone() {
        match host(&candidate) {
            name if name == primary => play.writes(name, timeline),
            name if name.ends_with("-new") => play.silent(name),
            name => play.stands_by(name),
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_shown_is_in_order(source in sources(), events in events()) {
        let mut play = Play::new(source, RULES);
        for event in &events {
            let before = play.shown.clone();
            play.happens(event);
            let shown = &play.shown;
            prop_assert_eq!(shown.version == before.version, *shown == before);
            prop_assert!(shown.phase == before.phase || shown.since >= before.since);
            // There is somewhere to look, unless somebody has been found or nobody is known.
            let is_known = !shown.servers.is_empty() || shown.primary.is_some();
            if shown.phase != Phase::Serving && is_known && !play.promise() {
                prop_assert!(!shown.candidates.is_empty(), "{:#?}", play.machine);
            }
            let mut candidates = shown.candidates.clone();
            candidates.sort_by_key(ToString::to_string);
            candidates.dedup();
            prop_assert_eq!(candidates.len(), shown.candidates.len());
        }
    }

    #[test]
    fn a_standby_does_not_become_the_primary(source in sources(), events in events()) {
        let mut play = Play::new(source, RULES);
        for event in events.iter().filter(|event| !matches!(event, Event::Rules(_))) {
            let before = play.shown.clone();
            play.happens(event);
            let shown = &play.shown;
            let began = before.phase != Phase::Serving && shown.phase == Phase::Serving;
            if began && let Some(primary) = &shown.primary {
                let seen = shown.server(primary).and_then(|server| server.seen);
                prop_assert!(seen != Some(Seen::Standby), "{event:?} {:#?}", play.machine);
            }
        }
    }

    #[test]
    fn when_all_is_well_it_is_found_out(events in events(), primary in names()) {
        let mut play = Play::discovered();
        for event in events.iter().filter(|event| !matches!(event, Event::Rules(_))) {
            play.happens(event);
        }
        play.says(&healthy(primary));
        for _ in 0..200 {
            if play.shown.phase == Phase::Serving && play.shown.primary == Some(endpoint(primary)) {
                return Ok(());
            }
            play.at(play.ms() + 100);
            // Who is not the primary shows it to those who have connections, too.
            if let Some(wrong) = play.shown.primary.clone().filter(|one| *one != endpoint(primary)) {
                play.demoted(host(&wrong));
            }
            look_around(&mut play, primary, 4);
        }
        prop_assert!(false, "{:#?}", play.machine);
    }

    #[test]
    fn the_primary_is_found_wherever_it_was_before_it_was_listed(
        events in with_services(),
        primary in names(),
        is_listed in any::<bool>(),
    ) {
        let mut play = Play::reached_by_services();
        for event in events.iter().filter(|event| !matches!(event, Event::Rules(_))) {
            play.happens(event);
        }
        let was_listed = play.machine.services_in_use().is_none();
        let expected = if is_listed || was_listed {
            play.says(&healthy(primary));
            primary
        } else {
            play.says(&Facts::default());
            "rw"
        };
        for _ in 0..200 {
            if play.shown.phase == Phase::Serving && play.shown.primary == Some(endpoint(expected)) {
                return Ok(());
            }
            play.at(play.ms() + 100);
            if let Some(wrong) = play.shown.primary.clone().filter(|one| *one != endpoint(expected)) {
                play.demoted(host(&wrong));
            }
            look_around(&mut play, expected, 4);
        }
        prop_assert!(false, "{:#?}", play.machine);
    }

    #[test]
    fn a_list_finds_whoever_writes(events in events(), primary in names()) {
        let mut play = Play::hosts(&NAMES);
        for event in events.iter().filter(|event| !matches!(event, Event::Rules(_))) {
            play.happens(event);
        }
        look_around(&mut play, primary, 4);
        if let Some(wrong) = play.shown.primary.clone().filter(|one| *one != endpoint(primary)) {
            play.demoted(host(&wrong));
        }
        look_around(&mut play, primary, 4);
        play.expect(&format!("serving {primary}"));
    }
}
