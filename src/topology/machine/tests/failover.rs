//! Primaries that fail, and that are replaced.

use super::*;

fn failing() -> Facts {
    healthy("a").phase(ClusterPhase::FailingOver).pending()
}

#[test]
fn a_crash() {
    let mut play = Play::serving();
    play.at(1000)
        .unreachable("a")
        .expect("limping unreachable a")
        .looks_at("a b c");
    // Whoever has a connection is well.
    assert!(play.shown.phase.is_open());
    play.at(1500)
        .says(&failing().unhealthy("a"))
        .expect("holding failover a")
        .looks_at("b c a");
    play.stands_by("b").stands_by("c").unreachable("a");
    play.at(3000)
        .says(&failing().target("b"))
        .expect("holding failover a")
        .looks_at("b c a");
    play.at(8000)
        .writes("b", 2)
        .expect("holding failover b")
        .generation(2);
    play.at(8100).says(&failing().target("b").current("b"));
    play.at(8400)
        .expect("serving b")
        .held("a", "b", Reason::Failover, 7400);
    play.says(&healthy("b").not_ready("a"))
        .expect("serving b")
        .generation(2);
}

#[test]
fn a_node_is_lost() {
    let mut play = Play::serving();
    play.at(3000).silent("a").expect("limping silent a");
    play.at(9000).silent("a").expect("limping silent a");
    // It takes Kubernetes a while to notice.
    play.at(48_000)
        .says(&healthy("a").not_ready("a"))
        .expect("limping silent a");
    play.at(50_000)
        .says(&failing().not_ready("a"))
        .expect("holding failover a")
        .looks_at("b c a");
    play.at(60_000)
        .says(&failing().target("b").not_ready("a"))
        .writes("b", 2);
    play.says(&failing().target("b").current("b").not_ready("a"));
    play.at(60_300)
        .expect("serving b")
        .held("a", "b", Reason::Failover, 57_300);
}

#[test]
fn a_lease_runs_out() {
    let mut play = Play::serving_with(&healthy("a").lease("a"));
    let failing = failing().unhealthy("a");
    play.at(1000).unreachable("a").says(&failing.clone().lease("a"));
    play.at(5000)
        .says(&failing.clone().target("b").lease("a"))
        .looks_at("b c a");
    play.at(20_000)
        .says(&failing.clone().target("b").lease("b"))
        .writes("b", 2);
    play.at(20_500).says(&failing.target("b").current("b").lease("b"));
    play.at(20_800).expect("serving b");
}

#[test]
fn a_lease_of_one_that_has_failed_points_nowhere() {
    let facts = healthy("a").slices_only().lease("a");
    let mut play = Play::serving_with(&facts);
    play.at(1000).unreachable("a").says(&facts.clone().unhealthy("a"));
    play.expect("holding no_endpoint a").looks_at("b c a");
    play.at(16_000)
        .says(&facts.unhealthy("a").lease("c"))
        .looks_at("c b a");
}

#[test]
fn pending_and_the_old_primary_take_turns() {
    let mut play = Play::serving();
    play.at(1000).unreachable("a");
    for second in 1..20 {
        let at = second * 1000;
        play.at(at + 100)
            .says(&failing().unhealthy("a"))
            .expect("holding failover a");
        play.unreachable("a");
        play.at(at + 600)
            .says(&failing().target("a").not_ready("a"))
            .expect("holding failover a");
        // Even if the phase takes part in that.
        play.at(at + 700)
            .says(&healthy("a").not_ready("a"))
            .expect("holding failover a");
    }
    play.at(21_000).says(&failing().target("b")).writes("b", 2);
    play.says(&failing().current("b").target("b"));
    play.at(21_300).expect("serving b").generation(2);
}

#[test]
fn pending_and_a_primary_that_works_take_turns() {
    let mut play = Play::serving();
    for second in 1..40 {
        let at = second * 1000;
        play.at(at + 100).says(&failing().unhealthy("a")).writes("a", 1);
        play.at(at + 600).says(&failing().target("a")).writes("a", 1);
    }
    // It has been waited for once.
    play.expect("serving a").generation(1);
    assert!(play.shown.last_hold.as_ref().unwrap().took < Duration::from_secs(11));
    // Somebody has been chosen.
    play.says(&failing().target("b")).expect("holding failover a");
}

#[test]
fn it_is_back_before_another_is_promoted() {
    let mut play = Play::serving();
    play.at(1000).refuses("a").says(&failing());
    play.at(3000)
        .writes("a", 1)
        .expect("holding failover a")
        .looks_at("b c");
    play.at(4000)
        .says(&healthy("a"))
        .expect("serving a")
        .generation(1);
}

#[test]
fn the_label_is_late() {
    let facts = healthy("a").slices_only();
    let mut play = Play::serving_with(&facts);
    // The old one's pod is there, and ready, after the new one was promoted.
    play.at(1000).unreachable("a").writes("b", 2);
    play.expect("holding unreachable b").generation(2);
    assert!(!play.shown.phase.is_open());
    play.at(3000).expect("serving b");
    play.at(4000).says(&facts.not_ready("a")).expect("serving b");
    play.at(9000)
        .says(&healthy("b").slices_only())
        .expect("serving b")
        .generation(2);
}

#[test]
fn the_old_primary_comes_back() {
    let mut play = Play::serving();
    play.at(1000).unreachable("a").says(&failing());
    play.at(3000)
        .writes("b", 2)
        .says(&failing().target("b").current("b"));
    play.at(3300).expect("serving b");
    play.at(4000).writes("a", 1).expect("serving b");
    play.opens("a", Seen::Primary { timeline: None })
        .expect("serving b");
    // Whatever an old slice says.
    let both = healthy("b").edit_instance("a", |instance| instance.rw = Some(READY));
    play.says(&both).writes("a", 1).expect("serving b");
    // And when it is the only one.
    play.at(5000)
        .says(&healthy("b"))
        .unreachable("b")
        .expect("limping unreachable b");
    play.at(9000).writes("a", 1).expect("limping unreachable b");
    play.at(9100).writes("b", 2).expect("serving b");
}

#[test]
fn a_second_primary_makes_connections_to_the_first_prove_themselves() {
    let mut play = Play::serving();
    play.generation(1);
    play.opens("b", Seen::Primary { timeline: None })
        .expect("serving a")
        .generation(2);
    play.opens("b", Seen::Primary { timeline: None })
        .expect("serving a")
        .generation(2);
    // On a later timeline it is the first.
    play.writes("b", 2).expect("holding promoting b").generation(3);
    play.at(2000).expect("serving b");
}

#[test]
fn a_primary_is_demoted_before_anybody_has_heard_of_it() {
    let mut play = Play::serving();
    play.demoted("a")
        .expect("holding not_writable a")
        .generation(2)
        .looks_at("a b c");
    // All its connections say the same.
    play.demoted("a").stands_by("a").demoted("a").generation(2);
    play.writes("b", 2).expect("holding not_writable b").generation(3);
    play.at(2000).expect("serving b");
}

#[test]
fn the_api_is_away() {
    let mut play = Play::serving();
    play.at(1000).unreachable("a").stands_by("b").stands_by("c");
    play.at(5000).writes("b", 2).expect("holding unreachable b");
    // One attempt of many fails.
    play.at(5100).unreachable("b");
    play.at(6000).writes("b", 2);
    play.at(8000)
        .expect("serving b")
        .held("a", "b", Reason::Unreachable, 7000);
    // It is back, with what it knew last, and catches up.
    for facts in [
        healthy("a").not_ready("a"),
        failing(),
        failing().target("b"),
        failing().target("b").current("b"),
        healthy("b"),
    ] {
        play.says(&facts).expect("serving b").generation(2);
    }
}

#[test]
fn a_primary_that_works_is_not_given_up_for_slices_that_are_gone() {
    let mut play = Play::serving();
    let empty = Facts {
        slices_known: true,
        ..Facts::default()
    };
    play.at(1000)
        .says(&healthy("a").edit(|facts| facts.instances.clear()));
    play.expect("serving a").looks_at("a");
    play.unreachable("a")
        .expect("limping unreachable a")
        .looks_at("a");
    play.writes("a", 1).expect("serving a");
    play.says(&empty).expect("holding no_endpoint a").looks_at("a");
    play.at(2000)
        .says(&healthy("a"))
        .writes("a", 1)
        .expect("serving a");
    play.says(&Facts::default()).expect("serving a");
}

#[test]
fn the_pooler_is_started_in_the_middle() {
    let mut play = Play::discovered();
    play.expect("holding unknown").looks_at("");
    play.at(100)
        .says(&failing().unhealthy("a"))
        .expect("holding failover a")
        .looks_at("b c a");
    // It has not gone yet.
    play.at(200).writes("a", 1).expect("holding failover a");
    play.at(1000)
        .says(&failing().target("b"))
        .writes("b", 2)
        .expect("holding failover b");
    play.at(1100).says(&failing().target("b").current("b"));
    play.at(1400).expect("serving b");
}

#[test]
fn the_pooler_is_started_while_nobody_is_announced() {
    let mut play = Play::discovered();
    play.says(&healthy("a").slices_only().unhealthy("a"));
    play.expect("holding no_endpoint").looks_at("a b c");
    play.at(100).writes("a", 1).expect("holding no_endpoint a");
    play.at(500).writes("b", 2).expect("holding no_endpoint b");
    play.at(2400).expect("holding no_endpoint b");
    play.at(2500).expect("serving b");
}

#[test]
fn the_pooler_is_started_after_it_and_the_api_is_late() {
    let mut play = Play::discovered();
    play.says(&healthy("a")).expect("serving a");
    play.unreachable("a")
        .writes("b", 2)
        .expect("holding unreachable b");
    play.at(2000).expect("serving b");
    // The other order.
    let mut play = Play::discovered();
    play.says(&healthy("a")).writes("b", 2).expect("serving a");
    play.writes("a", 1).expect("holding not_writable a");
    play.writes("b", 2).expect("holding not_writable b");
    play.at(2000).expect("serving b");
}

#[test]
fn waiting_ends() {
    let mut play = Play::serving();
    play.at(1000).says(&failing()).unreachable("a");
    play.at(90_999).expect("holding failover a");
    play.at(91_000).expect("degraded failover a").looks_at("b c a");
    assert!(!play.shown.phase.is_open());
    assert_eq!(play.shown.since, play.now);
    play.at(200_000)
        .says(&failing().target("b"))
        .expect("degraded failover a");
    play.writes("b", 2).says(&healthy("b"));
    play.expect("serving b").held("a", "b", Reason::Failover, 199_000);
}

#[test]
fn what_the_new_primary_was_before_it_was_named_does_not_bring_the_old_one_back() {
    // Whoever looks for the primary logs in to the next one while that is a standby still. The old one, cut off from all
    // but the pooler, goes on accepting writes.
    let mut play = Play::serving();
    let switching = healthy("a").phase(ClusterPhase::Switchover).target("b");
    play.at(1000).says(&switching).stands_by("b");
    play.at(2000)
        .says(&switching.clone().current("b"))
        .expect("holding switchover b");
    play.at(2100).writes("a", 1).expect("holding switchover b");
    play.at(2200).opens("a", Seen::Primary { timeline: None });
    play.expect("holding switchover b");
    play.at(3000).writes("b", 2).expect("serving b");
    play.writes("a", 1).expect("serving b");
}

#[test]
fn a_name_that_is_wrong_is_wrong_once() {
    // What Kubernetes knows was restored from an old copy, and names the standby that once was the primary.
    let mut play = Play::serving();
    play.at(1000).says(&healthy("b")).expect("holding promoting b");
    play.stands_by("b").writes("a", 1).expect("serving a");
    let generation = play.shown.generation;
    play.at(2000)
        .says(&healthy("b").not_ready("c"))
        .expect("serving a")
        .says(&healthy("b"))
        .expect("serving a")
        .generation(generation);
    // It is promoted after all.
    play.at(9000).unreachable("a").writes("b", 2);
    play.at(12_000).expect("serving b");
}

#[test]
fn a_pod_that_is_gone_is_not_used_for_what_it_did_before() {
    // The pod of the primary is deleted, works until its checkpoint is done, and leaves the lists.
    let mut play = Play::serving();
    play.at(1000)
        .says(&healthy("a").terminating("a"))
        .expect("holding terminating a");
    play.stands_by("b").stands_by("c").writes("a", 1);
    play.at(3000)
        .says(&healthy("a").without("a"))
        .expect("holding terminating a");
    play.at(3500).says(&failing().without("a"));
    play.expect("holding failover a").looks_at("b c");
    // As in a switchover of which the lists say nothing but that it has left them.
    let mut play = Play::serving();
    let switching = healthy("a").phase(ClusterPhase::Switchover).target("b");
    play.at(1000).says(&switching).stands_by("b").writes("a", 1);
    play.at(2000)
        .says(&switching.without("a"))
        .expect("holding switchover a");
}

#[test]
fn connections_to_a_node_that_falls_silent_have_to_prove_themselves() {
    let mut play = Play::serving();
    let before = play.shown.generation;
    play.at(3000).silent("a").expect("limping silent a");
    play.generation(before + 1);
    play.at(4000).silent("a").generation(before + 1);
    play.writes("a", 1).expect("serving a").generation(before + 1);
}

#[test]
fn a_checkpoint_of_the_new_primary_is_waited_for_while_a_change_is_announced() {
    let mut play = Play::serving();
    play.at(1000).says(&failing().target("b")).unreachable("a");
    play.at(2000).writes("b", 2).expect("holding failover b");
    play.at(6999).expect("holding failover b");
    // Nobody says that it is over: what is announced may never be.
    play.at(7000).expect("serving b");
}
