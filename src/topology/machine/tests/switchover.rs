//! Planned switchovers from `a` to `b`: the phase and the target first, then whatever the operator's version does.

use super::*;

/// What 1.22 says: the label is kept until the end.
fn switching() -> Facts {
    healthy("a").phase(ClusterPhase::Switchover).target("b")
}

/// `b` is the primary, and everything else follows later.
fn switched() -> Facts {
    switching().current("b")
}

#[test]
fn the_label_is_kept_until_the_end() {
    let mut play = Play::serving();
    play.at(1000)
        .says(&switching())
        .expect("holding switchover a")
        .looks_at("b c a");
    assert!(play.shown.is_leaving);
    assert_eq!(
        play.shown.timeline_asked.and_then(|asked| asked.at_least),
        timeline(1)
    );
    // It checkpoints, and works until then.
    play.at(1050).writes("a", 1).stands_by("b").looks_at("b c");
    play.at(3000)
        .drops("a")
        .refuses("a")
        .expect("holding switchover a");
    play.at(3500).unreachable("a").looks_at("b c a");
    play.says(&switching().not_ready("a"))
        .expect("holding switchover a");
    // Promoted; it makes a checkpoint before it is announced.
    play.at(4000)
        .writes("b", 2)
        .expect("holding switchover b")
        .generation(2);
    assert!(!play.shown.is_leaving);
    play.at(4500)
        .says(&switched().not_ready("a"))
        .expect("holding switchover b");
    play.at(4799).expect("holding switchover b");
    play.at(4800)
        .expect("serving b")
        .held("a", "b", Reason::Switchover, 3800)
        .generation(2);
    // What follows is no news.
    for facts in [
        switched().not_ready("a").label("b"),
        healthy("b").not_ready("a"),
        healthy("b"),
    ] {
        play.says(&facts).expect("serving b").generation(2);
    }
}

#[test]
fn the_new_primary_drops_the_connection_that_found_it() {
    let mut play = Play::serving();
    play.at(1000).says(&switching()).refuses("a");
    play.at(4000).writes("b", 2).expect("holding switchover b");
    play.at(4010).says(&switched()).expect("holding switchover b");
    play.at(4020).drops("c").expect("holding switchover b");
    play.at(4030)
        .drops("b")
        .expect("holding switchover b")
        .generation(3);
    // It ends the others that were opened meanwhile.
    play.at(4035)
        .drops("b")
        .expect("holding switchover b")
        .generation(3);
    play.at(4079).expect("holding switchover b");
    play.at(4080).expect("serving b").generation(3);
}

#[test]
fn the_service_is_the_last_to_tell() {
    let mut play = Play::serving();
    play.at(1000).says(&switching()).refuses("a");
    play.at(4000).writes("b", 2);
    play.at(4010).says(&switched().label("b")).expect("serving b");
    // And when it has told before anybody has looked.
    let mut play = Play::serving();
    play.at(1000).says(&switching()).refuses("a");
    play.says(&switched())
        .says(&switched().label("b"))
        .looks_at("b c a");
    play.writes("b", 2).expect("serving b");
}

#[test]
fn the_new_primary_is_looked_at_first_once_it_is_announced() {
    let mut play = Play::serving();
    play.at(1000).says(&switching()).silent("a");
    play.at(5000)
        .says(&switched())
        .expect("holding switchover b")
        .looks_at("b c a");
    // The phase goes on for a while, and is not about it.
    play.at(5100).says(&switched().without("a")).looks_at("b c");
    play.at(5400).writes("b", 2).expect("serving b");
}

#[test]
fn the_old_one_is_unhealthy_first_and_lets_go_of_the_lease() {
    let mut play = Play::serving_with(&healthy("a").lease("a"));
    let facts = switching().lease("a");
    play.at(1000).says(&facts).expect("holding switchover a");
    let facts = facts.unhealthy("a");
    play.at(1100).says(&facts).expect("holding switchover a");
    play.at(2000)
        .refuses("a")
        .says(&facts.clone().not_ready("a").lease(""));
    play.expect("holding switchover a").looks_at("b c a");
    play.at(4000).says(&facts.clone().not_ready("a").lease("b"));
    play.looks_at("b c a").writes("b", 2);
    play.at(4200)
        .says(&facts.clone().current("b").lease("b"))
        .expect("holding switchover b");
    play.at(4500).expect("serving b").generation(2);
    play.at(9000).says(&healthy("b").lease("b")).expect("serving b");
}

#[test]
fn the_lease_comes_first() {
    let mut play = Play::serving_with(&healthy("a").lease("a"));
    play.at(1000)
        .says(&healthy("a").lease(""))
        .expect("holding switchover a");
    play.at(1500)
        .refuses("a")
        .says(&healthy("a").lease("b"))
        .looks_at("b c a");
    play.at(2000).writes("b", 2).expect("holding switchover b");
    play.at(2100)
        .says(&healthy("a").lease("b").current("b").target("b"));
    play.at(2400).expect("serving b");
}

#[test]
fn a_lease_that_nobody_has_held_yet_says_nothing() {
    let mut play = Play::serving();
    play.at(1000).says(&healthy("a").lease("")).expect("serving a");
    play.at(2000).says(&healthy("a").lease("a")).expect("serving a");
    // It is heard of later than of the cluster.
    play.at(3000).says(&healthy("b").lease("a")).refuses("a");
    play.at(4000).writes("b", 2).expect("serving b");
    play.says(&healthy("b").lease("b")).expect("serving b");
}

#[test]
fn nobody_announces_the_new_primary() {
    let mut play = Play::serving();
    play.at(1000).says(&switching()).refuses("a");
    play.at(4000).writes("b", 2).expect("holding switchover b");
    play.at(8999).expect("holding switchover b");
    play.at(9000).expect("serving b").generation(2);
    // What is said of the old one is old, whatever becomes of it.
    for facts in [
        switching().not_ready("a"),
        switching().terminating("a"),
        switching().unhealthy("a"),
        switching().fenced("a"),
        switching().without("a"),
        switched().without("a"),
        switched().label("b"),
        healthy("b"),
    ] {
        play.says(&facts).expect("serving b").generation(2);
    }
    // And goes on after that.
    play.says(&healthy("b").phase(ClusterPhase::Switchover).target("c"));
    play.expect("holding switchover b").looks_at("c a b");
}

#[test]
fn nobody_but_the_service_could_announce_it() {
    let mut play = Play::serving_with(&healthy("a").slices_only());
    let empty = healthy("a").slices_only().unhealthy("a");
    play.at(1000)
        .says(&empty)
        .expect("holding no_endpoint a")
        .looks_at("b c a");
    play.at(3000).refuses("a");
    play.at(4000).writes("b", 2).expect("holding no_endpoint b");
    play.at(6000).expect("serving b");
    for facts in [empty.clone().not_ready("a"), empty.clone().without("a"), empty] {
        play.says(&facts).expect("serving b");
    }
    // The old one's label comes back for a moment before the new one's is there.
    play.says(&healthy("a").slices_only()).expect("serving b");
    play.says(&healthy("b").slices_only())
        .expect("serving b")
        .generation(2);
    play.says(&healthy("b").slices_only().unhealthy("b"))
        .expect("holding no_endpoint b");
}

#[test]
fn two_endpoints_are_ready_for_a_moment() {
    let both = healthy("a")
        .slices_only()
        .edit_instance("b", |instance| instance.rw = Some(READY));
    let mut play = Play::serving_with(&healthy("a").slices_only());
    play.at(1000)
        .says(&both)
        .expect("holding switchover a")
        .looks_at("b c a");
    play.at(1100).writes("b", 2).expect("serving b");
    play.says(&both.without("c")).expect("serving b");
    play.says(&healthy("b").slices_only())
        .expect("serving b")
        .generation(2);
}

#[test]
fn an_old_primary_that_was_seen_to_work_is_not_used_when_another_is_announced() {
    let mut play = Play::serving();
    play.at(1000).says(&switching()).writes("a", 1).looks_at("b c");
    play.at(2000)
        .says(&switched())
        .expect("holding switchover b")
        .generation(2);
    // Nor when it still says that it works.
    play.at(2100).writes("a", 1).expect("holding switchover b");
    play.opens("a", Seen::Primary { timeline: None })
        .expect("holding switchover b");
    play.at(2400).writes("b", 2).expect("serving b");
    play.writes("a", 1).expect("serving b");
}

#[test]
fn the_old_primary_goes_on_working_for_long() {
    let mut play = Play::serving();
    play.at(1000).says(&switching()).writes("a", 1).looks_at("b c");
    // Whoever looks again does so when it would count.
    play.at(10_900).expect("holding switchover a").looks_at("b c");
    play.at(11_000).expect("holding switchover a").looks_at("b c a");
    play.at(11_100)
        .writes("a", 1)
        .expect("serving a")
        .generation(1)
        .held("a", "a", Reason::Switchover, 10_100);
    // The same once more is no news, and neither is less.
    for facts in [
        switching().without("c"),
        switching().target("a"),
        switching(),
        switching().not_ready("a"),
    ] {
        play.says(&facts).expect("serving a");
    }
    // Then it goes.
    play.at(20_000)
        .refuses("a")
        .expect("holding not_accepting a")
        .looks_at("b c a");
    play.at(23_000).writes("b", 2).says(&switched());
    play.at(23_300).expect("serving b");
}

#[test]
fn one_that_works_on_is_left_when_its_pod_is_deleted() {
    let mut play = Play::serving();
    play.at(1000).says(&switching());
    play.at(11_100).writes("a", 1).expect("serving a");
    play.says(&switching().terminating("a"))
        .expect("holding terminating a");
}

#[test]
fn it_is_called_off() {
    let mut play = Play::serving();
    play.at(1000).says(&switching()).writes("a", 1);
    play.at(2000)
        .says(&healthy("a"))
        .expect("serving a")
        .generation(1);
    // But not for one that has not come back.
    play.at(3000).says(&switching()).refuses("a");
    play.at(4000).says(&healthy("a")).expect("holding switchover a");
    play.at(5000).writes("a", 1).expect("serving a").generation(1);
}

#[test]
fn the_target_becomes_another() {
    let mut play = Play::serving();
    play.at(1000).says(&switching()).looks_at("b c a");
    play.says(&switching().target("c")).looks_at("c b a").refuses("a");
    play.at(3000)
        .says(&switching().target("c").current("c"))
        .writes("c", 2);
    play.at(3300).expect("serving c");
}

#[test]
fn one_follows_upon_another() {
    let mut play = Play::serving();
    play.at(1000).says(&switching()).refuses("a");
    play.at(2000).writes("b", 2).says(&switched());
    play.at(2300).expect("serving b");
    // The phase has not changed meanwhile.
    play.says(&switched().target("c"))
        .expect("holding switchover b")
        .looks_at("c a b");
    play.refuses("b").says(&switched().target("c").current("c"));
    play.at(5000).writes("c", 3).expect("serving c").generation(3);
}

#[test]
fn one_has_begun_before_the_last_one_was_over() {
    let mut play = Play::serving();
    play.at(1000).says(&switching()).refuses("a");
    // Nobody heard when `b` became the primary: it goes already.
    play.at(2000).says(&switched().target("c"));
    play.expect("holding switchover b").looks_at("c b a");
    play.at(2100).writes("a", 1).expect("holding switchover b");
    play.at(2200).writes("c", 3).expect("holding switchover c");
    play.says(&switched().target("c").current("c"));
    play.at(2500).expect("serving c");
}

#[test]
fn a_promise_that_breaks_is_not_kept() {
    let mut play = Play::serving();
    play.at(1000).says(&switching()).refuses("a");
    play.at(2000).writes("b", 2);
    play.at(2500).unreachable("b").expect("holding switchover b");
    play.at(9000).expect("holding switchover b").looks_at("b c a");
    // It is the same one, and later than any other.
    play.at(9100).writes("b", 2).expect("holding switchover b");
    play.at(9200).stands_by("b").expect("holding switchover b");
    play.at(20_000).expect("holding switchover b");
    play.at(20_100).writes("b", 2).says(&switched());
    play.at(20_400).expect("serving b");
}
