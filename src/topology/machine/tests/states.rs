//! Clusters that are stopped, asleep, or standbys of others.

use super::*;

#[test]
fn a_fenced_primary() {
    let mut play = Play::serving();
    play.at(1000)
        .says(&healthy("a").fenced("a"))
        .expect("holding fenced a");
    play.at(1500)
        .refuses("a")
        .says(&healthy("a").fenced("a").not_ready("a"))
        .expect("holding fenced a");
    play.at(91_000).expect("degraded fenced a");
    // An hour later it is to start again, and may take its time.
    play.at(3_600_000)
        .says(&healthy("a").not_ready("a"))
        .expect("holding restart a");
    play.at(3_602_000).refuses("a");
    play.at(3_603_000)
        .writes("a", 1)
        .expect("serving a")
        .generation(1);
}

#[test]
fn fenced_standbys_are_their_own_business() {
    let mut play = Play::serving();
    play.says(&healthy("a").fenced("b").not_ready("b"))
        .expect("serving a");
    let state = |name: &str| play.shown.server(&endpoint(name)).unwrap().state;
    assert_eq!(
        (state("b"), state("c")),
        (ServerState::NotReady, ServerState::Ready)
    );
}

#[test]
fn a_cluster_that_is_all_fenced() {
    let mut play = Play::serving();
    play.says(&healthy("a").edit_cluster(|cluster| cluster.fenced = Fenced::All));
    play.expect("holding fenced a");
}

#[test]
fn hibernation() {
    let asleep = healthy("a").edit_cluster(|cluster| cluster.is_hibernated = true);
    let mut play = Play::serving();
    play.at(1000).says(&asleep).expect("degraded hibernated a");
    assert!(!play.shown.phase.is_open());
    play.at(2000).writes("a", 1).expect("degraded hibernated a");
    play.at(3000).refuses("a");
    let gone = asleep.edit(|facts| facts.instances.clear());
    play.at(9000).says(&gone).expect("degraded hibernated a");
    // Days later the pods come back, with other addresses.
    let awake = healthy("a").edit_instance("a", |a| a.endpoint = endpoint("a2"));
    let day = 86_400_000;
    play.at(day)
        .says(&gone.edit_cluster(|cluster| cluster.is_hibernated = false))
        .expect("holding restart a");
    play.at(day + 5000)
        .says(&awake.clone().not_ready("a"))
        .expect("holding restart a2")
        .looks_at("a2 b c");
    play.at(day + 7000).writes("a2", 1).expect("serving a2");
    play.says(&awake).expect("serving a2");
}

#[test]
fn a_pooler_that_starts_while_the_cluster_sleeps() {
    let asleep = healthy("a").edit(|facts| facts.instances.clear());
    let mut play = Play::discovered();
    play.at(1000)
        .says(&asleep.edit_cluster(|cluster| cluster.is_hibernated = true))
        .expect("degraded hibernated");
    play.at(500_000).says(&healthy("a").not_ready("a"));
    play.expect("holding restart a").looks_at("a b c");
    play.at(501_000).writes("a", 1).expect("serving a");
}

fn replica(primary: &str) -> Facts {
    healthy(primary).edit_cluster(|cluster| cluster.is_replica = true)
}

#[test]
fn a_replica_cluster_that_nobody_has_told_of() {
    let mut play = Play::discovered();
    play.says(&replica("a")).expect("degraded replica_cluster");
    let version = play.shown.version;
    play.says(&replica("a").not_ready("c"));
    play.stands_by("a").expect("degraded replica_cluster");
    assert!(play.shown.version <= version + 2);
    // A reload tells.
    let rules = Rules {
        is_replica: true,
        ..RULES
    };
    play.act(|machine, now| machine.set_rules(rules, now));
    play.stands_by("a").expect("serving a");
    // Or it is promoted.
    let mut play = Play::discovered();
    play.says(&replica("a")).stands_by("a");
    play.at(100_000).says(&healthy("a")).expect("holding restart a");
    play.at(101_000).writes("a", 2).expect("serving a");
}

#[test]
fn a_primary_that_becomes_a_standby_of_another_cluster() {
    let mut play = Play::serving();
    play.says(&replica("a")).expect("degraded replica_cluster a");
    let version = play.shown.version;
    for _ in 0..3 {
        play.says(&replica("a").not_ready("c")).says(&replica("a"));
    }
    assert_eq!(play.shown.last_hold, None);
    assert_eq!(play.shown.version, version + 6);
}

#[test]
fn a_replica_cluster() {
    let rules = Rules {
        is_replica: true,
        ..RULES
    };
    let mut play = Play::new(Source::Facts(Facts::default()), rules);
    play.says(&replica("a")).expect("serving a");
    play.stands_by("a").stands_by("b").demoted("a");
    play.expect("serving a").generation(1);
    // Its primary restarts.
    play.at(1000).refuses("a").expect("holding not_accepting a");
    play.at(2000)
        .stands_by("b")
        .stands_by("c")
        .expect("holding not_accepting a");
    play.at(3000).stands_by("a").expect("serving a");
    // And is replaced.
    let switching = replica("a").phase(ClusterPhase::Switchover).target("b");
    play.at(4000).says(&switching).stands_by("b").refuses("a");
    play.at(4500)
        .stands_by("b")
        .stands_by("c")
        .expect("holding switchover a");
    play.at(5000)
        .says(&switching.current("b"))
        .stands_by("c")
        .stands_by("b");
    play.at(5299).expect("holding switchover b");
    play.at(5300).expect("serving b").generation(2);
    // And becomes a cluster of its own.
    play.says(&healthy("b")).writes("b", 2).expect("serving b");
}

#[test]
fn a_cluster_that_is_made_anew() {
    let mut play = Play::discovered();
    play.says(&healthy("a")).writes("a", 7);
    let gone = Facts {
        slices_known: true,
        ..Facts::default()
    };
    play.at(1000)
        .unreachable("a")
        .says(&gone)
        .expect("holding no_endpoint a");
    // The same names, other servers, and a history that begins again.
    let mut anew = healthy("a");
    for instance in &mut anew.instances {
        instance.endpoint = endpoint(&format!("{}-new", instance.name));
    }
    play.at(60_000)
        .says(&anew)
        .writes("a-new", 1)
        .expect("serving a-new");
}

#[test]
fn a_cluster_that_is_just_being_made() {
    let mut play = Play::discovered();
    let young = Facts {
        slices_known: true,
        cluster: Some(ClusterFacts::default()),
        ..Facts::default()
    };
    play.says(&young).expect("holding no_endpoint").looks_at("");
    play.at(30_000)
        .says(&healthy("a").not_ready("a"))
        .looks_at("a b c");
    play.expect("holding no_endpoint a");
    play.at(31_000).writes("a", 1).expect("serving a");
}

/// No earlier one; zero is any.
fn asked(number: u32) -> Option<TimelineAsked> {
    Some(TimelineAsked {
        at_least: timeline(number).filter(|timeline| timeline.number > 0),
    })
}

#[test]
fn timelines_are_asked_for_when_they_tell_something() {
    let mut play = Play::discovered();
    assert_eq!(play.shown.timeline_asked, asked(0));
    play.says(&healthy("a"));
    assert_eq!(play.shown.timeline_asked, asked(0));
    play.writes("a", 7);
    assert_eq!(play.shown.timeline_asked, None);
    play.unreachable("a");
    assert_eq!(play.shown.timeline_asked, asked(7));
    assert_eq!(Play::hosts(&["a"]).shown.timeline_asked, None);
    assert_eq!(Play::hosts(&["a", "b"]).shown.timeline_asked, asked(0));
}
