//! Primaries that stop for a while and are the primary again.

use super::*;

#[test]
fn in_place() {
    let restarting = healthy("a").phase(ClusterPhase::PrimaryRestart);
    let mut play = Play::serving();
    play.at(1000)
        .says(&restarting)
        .expect("holding restart a")
        .looks_at("a b c");
    assert!(play.shown.is_leaving);
    // It makes a checkpoint first; then idle connections keep it from stopping.
    play.at(1100)
        .writes("a", 1)
        .expect("holding restart a")
        .looks_at("a b c");
    play.at(2000)
        .refuses("a")
        .says(&restarting.clone().not_ready("a"));
    play.at(2500).refuses("a").expect("holding restart a");
    play.at(3000)
        .writes("a", 1)
        .expect("serving a")
        .generation(1)
        .held("a", "a", Reason::Restart, 2000);
    play.says(&restarting).says(&healthy("a")).expect("serving a");
    // The next one is another.
    play.says(&restarting).expect("holding restart a");
}

#[test]
fn in_place_before_kubernetes_has_told() {
    let mut play = Play::serving();
    play.at(1000)
        .refuses("a")
        .expect("holding not_accepting a")
        .looks_at("a b c");
    play.at(1200)
        .says(&healthy("a").phase(ClusterPhase::PrimaryRestart))
        .expect("holding restart a");
    play.at(2000).writes("a", 1).expect("serving a");
}

#[test]
fn nothing_comes_of_it() {
    let mut play = Play::serving();
    play.at(1000)
        .says(&healthy("a").phase(ClusterPhase::PrimaryRestart))
        .writes("a", 1);
    play.at(5000).says(&healthy("a")).expect("serving a");
}

#[test]
fn with_a_new_pod() {
    let restarting = healthy("a").phase(ClusterPhase::PrimaryRestart);
    let mut play = Play::serving();
    play.at(1000)
        .says(&restarting.clone().terminating("a"))
        .expect("holding restart a");
    play.at(2000).refuses("a").says(&restarting.clone().without("a"));
    play.expect("holding restart a").looks_at("b c");
    let elsewhere = |facts: Facts| facts.edit_instance("a", |a| a.endpoint = endpoint("a2"));
    play.at(4000)
        .says(&elsewhere(restarting.not_ready("a")))
        .expect("holding restart a2")
        .looks_at("a2 b c")
        .generation(2);
    play.at(5000).refuses("a2");
    play.at(6000)
        .writes("a2", 1)
        .expect("serving a2")
        .held("a", "a2", Reason::Restart, 5000);
    play.says(&elsewhere(healthy("a")))
        .expect("serving a2")
        .generation(2);
}

#[test]
fn a_pod_that_is_deleted_is_left_at_once() {
    let facts = healthy("a").terminating("a");
    let mut play = Play::serving();
    play.at(1000)
        .says(&facts)
        .expect("holding terminating a")
        .looks_at("b c a");
    // A smart shutdown: who is there may stay, nobody else may come.
    play.at(1100).refuses("a").expect("holding terminating a");
    let failing = facts.phase(ClusterPhase::FailingOver);
    play.at(2000)
        .says(&failing.clone().pending())
        .expect("holding failover a");
    play.at(4000).says(&failing.clone().target("b")).writes("b", 2);
    // Its checkpoint takes a while.
    play.at(8999).expect("holding failover b");
    play.at(9000).expect("serving b");
    play.says(&failing.clone().target("b").not_ready("a"))
        .expect("serving b");
    play.says(&failing.target("b").current("b"))
        .says(&healthy("b"))
        .expect("serving b")
        .generation(2);
}

#[test]
fn those_who_are_there_stay_when_no_one_can_be_added() {
    let mut play = Play::serving();
    play.at(1000).unreachable("a").expect("limping unreachable a");
    play.at(2000).writes("a", 1).expect("serving a").generation(1);
    assert_eq!(play.shown.last_hold, None);
    play.at(3000).unreachable("a");
    play.at(93_000).expect("degraded unreachable a");
    assert!(play.shown.phase.is_open());
}
