//! Where connections may go, on a cluster of three.

use std::time::Instant;

use super::*;

fn endpoint(name: &str) -> Endpoint {
    Endpoint::Tcp {
        host: name.to_owned(),
        port: 5432,
    }
}

fn server(name: &str, state: ServerState, zone: &str) -> Server {
    Server {
        name: name.into(),
        endpoint: endpoint(name),
        zone: Some(zone.into()),
        state,
        seen: None,
    }
}

/// `a` is the primary, in zone 1 as `b`; `c` is in zone 2.
fn topology() -> Topology {
    Topology {
        version: 7,
        generation: 3,
        phase: Phase::Serving,
        since: Instant::now(),
        primary: Some(endpoint("a")),
        is_leaving: false,
        candidates: vec![endpoint("a")],
        servers: vec![
            server("a", ServerState::Ready, "1"),
            server("b", ServerState::Ready, "1"),
            server("c", ServerState::Ready, "2"),
        ],
        services: None,
        alias: None,
        is_shared: false,
        is_replica: false,
        timeline_asked: None,
        last_hold: None,
    }
}

fn wish(role: Role) -> Wish {
    Wish {
        role,
        ..Wish::default()
    }
}

fn names(endpoints: &[Endpoint]) -> String {
    let names = endpoints.iter().map(|endpoint| match endpoint {
        Endpoint::Tcp { host, .. } => host.as_str(),
        Endpoint::Unix(_) => "?",
    });
    names.collect()
}

fn found(wish: &Wish, topology: &Topology, load: &[(&str, usize)]) -> String {
    let load = |asked: &Endpoint| {
        let found = load.iter().find(|(name, _)| endpoint(name) == *asked);
        found.map_or(0, |(_, load)| *load)
    };
    names(&wish.candidates(topology, load))
}

#[test]
fn readers_go_where_the_fewest_are_and_not_to_the_primary() {
    let (topology, readers) = (topology(), wish(Role::ReadOnly));
    assert_eq!(found(&readers, &topology, &[("b", 2), ("c", 1)]), "cb");
    assert_eq!(found(&readers, &topology, &[("b", 1), ("c", 2)]), "bc");
    let anybody = wish(Role::Any);
    assert_eq!(found(&anybody, &topology, &[("a", 3), ("b", 1), ("c", 2)]), "bca");
}

#[test]
fn the_own_zone_comes_first_and_what_fails_last() {
    let mut topology = topology();
    let readers = Wish {
        zone: Some("2".into()),
        ..wish(Role::ReadOnly)
    };
    assert_eq!(found(&readers, &topology, &[("c", 9)]), "cb");
    topology.servers[2].state = ServerState::Failing;
    assert_eq!(found(&readers, &topology, &[]), "bc");
    topology.servers[2].state = ServerState::Leaving;
    assert_eq!(found(&readers, &topology, &[]), "b");
    assert_eq!(readers.standing(&topology, &endpoint("c"), 0), Standing::Close);
    assert_eq!(readers.standing(&topology, &endpoint("b"), 0), Standing::Good);
}

#[test]
fn readers_go_to_the_primary_only_if_told_to_and_only_as_long_as_they_must() {
    let mut topology = topology();
    let readers = wish(Role::ReadOnly);
    let told = Wish {
        fall_back: true,
        ..readers.clone()
    };
    assert_eq!(found(&told, &topology, &[]), "bc");
    assert_eq!(told.standing(&topology, &endpoint("a"), 3), Standing::Close);
    for server in &mut topology.servers[1..] {
        server.state = ServerState::Leaving;
    }
    // It is asked whether it is a standby by now, and not used if it is not.
    assert_eq!(found(&readers, &topology, &[]), "a");
    assert_eq!(readers.standing(&topology, &endpoint("a"), 3), Standing::Close);
    assert_eq!(found(&told, &topology, &[]), "a");
    assert_eq!(told.standing(&topology, &endpoint("a"), 3), Standing::Good);
}

#[test]
fn an_old_generation_has_to_prove_itself() {
    let (topology, writers) = (topology(), wish(Role::ReadWrite));
    assert_eq!(writers.standing(&topology, &endpoint("a"), 3), Standing::Good);
    assert_eq!(writers.standing(&topology, &endpoint("a"), 2), Standing::Prove);
    assert_eq!(writers.standing(&topology, &endpoint("b"), 3), Standing::Close);
    assert!(writers.is_fenced(&topology, &endpoint("b")) && !writers.is_fenced(&topology, &endpoint("a")));
}

#[test]
fn while_requests_wait_what_leaves_is_closed_and_what_comes_is_kept() {
    let (mut topology, writers) = (topology(), wish(Role::ReadWrite));
    topology.phase = Phase::Holding(Reason::Switchover);
    topology.is_leaving = true;
    assert_eq!(writers.standing(&topology, &endpoint("a"), 3), Standing::Close);
    assert!(!writers.is_fenced(&topology, &endpoint("a")));
    assert_eq!(writers.gate(&topology), Gate::Held(Reason::Switchover));
    assert_eq!(wish(Role::ReadOnly).gate(&topology), Gate::Open);
    (topology.primary, topology.is_leaving) = (Some(endpoint("b")), false);
    assert_eq!(writers.standing(&topology, &endpoint("b"), 4), Standing::Keep);
    assert!(writers.is_fenced(&topology, &endpoint("a")));
}

#[test]
fn servers_that_share_the_work_are_good_as_long_as_they_can_be_written_to() {
    let (mut topology, writers) = (topology(), wish(Role::ReadWrite));
    (topology.is_shared, topology.primary) = (true, None);
    assert_eq!(writers.standing(&topology, &endpoint("b"), 0), Standing::Good);
    topology.servers[1].seen = Some(Seen::Standby);
    assert_eq!(writers.standing(&topology, &endpoint("b"), 0), Standing::Close);
    assert_eq!(writers.standing(&topology, &endpoint("x"), 0), Standing::Close);
    assert!(!writers.is_fenced(&topology, &endpoint("b")));
}

#[test]
fn where_no_standby_is_known_one_at_a_time_looks_for_one() {
    let mut topology = topology();
    for server in &mut topology.servers[1..] {
        server.state = ServerState::Leaving;
    }
    let limping = Gate::Limping(Reason::NoEndpoint);
    assert_eq!(wish(Role::ReadOnly).gate(&topology), limping);
    assert_eq!(wish(Role::Any).gate(&topology), Gate::Open);
    let lenient = Wish {
        fall_back: true,
        ..wish(Role::ReadOnly)
    };
    assert_eq!(lenient.gate(&topology), Gate::Open);
    topology.servers[1].state = ServerState::NotAccepting;
    assert_eq!(
        wish(Role::ReadOnly).gate(&topology),
        Gate::Open,
        "it is to be tried"
    );
}

#[test]
fn a_standby_that_is_not_ready_for_a_moment_is_left_only_for_another() {
    let (reader, anybody) = (wish(Role::ReadOnly), wish(Role::Any));
    let mut topology = topology();
    topology.servers[1].state = ServerState::NotReady;
    let (b, c) = (endpoint("b"), endpoint("c"));
    assert_eq!(names(&reader.candidates(&topology, |_| 0)), "cb");
    assert_eq!(reader.standing(&topology, &b, 3), Standing::Close);
    topology.servers[2].state = ServerState::NotReady;
    assert_eq!(names(&reader.candidates(&topology, |_| 0)), "bc");
    assert_eq!(reader.standing(&topology, &b, 3), Standing::Good);
    assert_eq!(reader.standing(&topology, &c, 3), Standing::Good);
    // Nothing is listed any more, and the primary works.
    topology.servers.clear();
    assert_eq!(names(&anybody.candidates(&topology, |_| 0)), "a");
    assert_eq!(anybody.standing(&topology, &endpoint("a"), 3), Standing::Good);
    assert_eq!(anybody.standing(&topology, &b, 3), Standing::Close);
    assert_eq!(reader.standing(&topology, &endpoint("a"), 3), Standing::Close);
}

#[test]
fn services_lead_to_what_nobody_lists() {
    let mut topology = topology();
    topology.servers.clear();
    topology.services = Some(Services {
        rw: endpoint("rw"),
        ro: endpoint("ro"),
        r: endpoint("r"),
    });
    (topology.primary, topology.candidates) = (Some(endpoint("rw")), vec![endpoint("rw")]);
    let lenient = Wish {
        fall_back: true,
        ..wish(Role::ReadOnly)
    };
    for (wish, expected) in [
        (wish(Role::ReadWrite), &["rw"][..]),
        (wish(Role::ReadOnly), &["ro"]),
        (wish(Role::Any), &["r"]),
        (lenient, &["ro", "rw"]),
    ] {
        let expected: Vec<_> = expected.iter().map(|name| endpoint(name)).collect();
        assert_eq!(wish.candidates(&topology, |_| 0), expected);
        assert_eq!(wish.gate(&topology), Gate::Open);
        for name in ["rw", "ro", "r", "a"].map(endpoint) {
            let is_good = wish.standing(&topology, &name, 3) == Standing::Good;
            assert_eq!(is_good, expected.contains(&name), "{:?} {name}", wish.role);
        }
    }
}

#[test]
fn what_works_by_way_of_the_service_goes_on_when_the_primary_is_listed() {
    let (mut topology, writers) = (topology(), wish(Role::ReadWrite));
    let service = endpoint("rw");
    topology.alias = Some(service.clone());
    assert_eq!(writers.standing(&topology, &service, 3), Standing::Close);
    assert!(!writers.is_fenced(&topology, &service));
    assert!(writers.is_fenced(&topology, &endpoint("b")));
    topology.alias = None;
    assert!(writers.is_fenced(&topology, &service));
}
