//! Lists of servers, of which nobody says anything but they themselves.

use super::*;

#[test]
fn one_host() {
    let mut play = Play::hosts(&["a"]);
    play.expect("serving").looks_at("a").generation(0);
    play.opens("a", Seen::Primary { timeline: None })
        .expect("serving a")
        .generation(1);
    play.at(1000).unreachable("a").expect("limping unreachable a");
    play.at(1500)
        .refuses("a")
        .expect("holding not_accepting a")
        .looks_at("a");
    // A name may lead elsewhere by now: what is open has to prove itself.
    play.at(2000)
        .opens("a", Seen::Primary { timeline: None })
        .expect("serving a")
        .generation(2)
        .held("a", "a", Reason::NotAccepting, 1000);
    play.at(3000)
        .demoted("a")
        .expect("holding not_writable a")
        .generation(3);
    play.at(93_000).expect("degraded not_writable a").looks_at("a");
    play.opens("a", Seen::Primary { timeline: None })
        .expect("serving a");
}

#[test]
fn one_host_that_is_away_from_the_start() {
    let mut play = Play::hosts(&["a"]);
    play.unreachable("a").expect("limping unreachable").looks_at("a");
    play.at(1000)
        .opens("a", Seen::Primary { timeline: None })
        .expect("serving a");
    assert_eq!(play.shown.last_hold, None);
}

#[test]
fn several_hosts() {
    let mut play = Play::hosts(&["a", "b", "c"]);
    play.stands_by("a")
        .expect("serving")
        .unreachable("b")
        .looks_at("a b c");
    play.writes("c", 1)
        .expect("serving c")
        .looks_at("c a b")
        .generation(1);
    play.at(1000).unreachable("c").expect("limping unreachable c");
    play.at(2000).stands_by("a").expect("limping unreachable c");
    play.at(3000)
        .writes("a", 2)
        .expect("serving a")
        .looks_at("a b c")
        .generation(2)
        .held("c", "a", Reason::Unreachable, 2000);
    // The old one does not know yet.
    play.at(4000).writes("c", 1).expect("serving a");
    play.at(5000).refuses("a").writes("c", 1);
    play.expect("holding not_accepting a");
    play.at(6000).writes("a", 2).expect("serving a").generation(3);
    // A promotion that somebody happens to see.
    play.at(7000).writes("b", 3).expect("serving b").generation(4);
}

#[test]
fn nobody_writes() {
    let mut play = Play::hosts(&["a", "b"]);
    // For readers that is all right.
    play.stands_by("a").stands_by("b").expect("serving");
    play.at(500).unreachable("a").unreachable("b");
    play.expect("limping unreachable");
    play.at(600).stands_by("a").expect("serving");
    // For a writer it is not, however often the readers look.
    play.at(1000).demoted("a").expect("holding not_writable");
    play.at(2000).stands_by("a").stands_by("b").demoted("b");
    play.at(91_000).expect("degraded not_writable").looks_at("a b");
    play.at(95_000).writes("b", 1).expect("serving b");
}

#[test]
fn all_are_written_to() {
    let hosts = ["a", "b"].map(endpoint).into();
    let mut play = Play::new(
        Source::Hosts {
            hosts,
            is_shared: true,
        },
        RULES,
    );
    play.writes("a", 1)
        .writes("b", 1)
        .expect("serving")
        .looks_at("a b")
        .generation(0);
    assert!(play.shown.is_shared);
    play.unreachable("a").expect("serving");
    play.silent("b").expect("limping silent");
    play.demoted("b").writes("a", 1).expect("serving").generation(0);
}

#[test]
fn a_system_that_begins_again_is_no_old_primary() {
    // pg_upgrade makes a system of its own, whose first timeline is not before the fifth of the old one.
    let mut play = Play::hosts(&["a", "b"]);
    play.writes("a", 5).expect("serving a");
    play.at(1000).unreachable("a").unreachable("b");
    let upgraded = Timeline {
        system: 7436,
        number: 1,
    };
    play.at(60_000).opens(
        "a",
        Seen::Primary {
            timeline: Some(upgraded),
        },
    );
    play.expect("serving a");
}
