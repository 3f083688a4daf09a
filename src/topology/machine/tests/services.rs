//! Servers that nobody lists, because nobody may or nobody is there to do so.

use super::*;

impl Play {
    /// A cluster with services, of which nothing has been heard.
    pub(super) fn reached_by_services() -> Self {
        let mut play = Self::discovered();
        play.act(|machine, _| {
            machine.services = Some(Services {
                rw: endpoint("rw"),
                ro: endpoint("ro"),
                r: endpoint("r"),
            });
        });
        play
    }
}

/// What is said where the slices may not be read.
fn unlisted(facts: &Facts) -> Facts {
    Facts {
        instances: Vec::new(),
        slices_known: false,
        ..facts.clone()
    }
}

#[test]
fn nobody_lists_the_servers() {
    let mut play = Play::reached_by_services();
    play.at(900).expect("holding unknown").looks_at("");
    assert_eq!(play.shown.services, None, "there may be a list yet");
    play.at(1000).expect("holding unknown").looks_at("rw");
    assert!(play.shown.services.is_some());
    play.writes("rw", 1).expect("serving rw").generation(1);
    // A failover: the service leads to another.
    play.at(5000).refuses("rw").expect("holding not_accepting rw");
    play.looks_at("rw");
    play.at(7000).writes("rw", 2).expect("serving rw").generation(2);
    play.held("rw", "rw", Reason::NotAccepting, 2000);
    // And for a moment it led to the one before.
    play.at(8000).demoted("rw").writes("rw", 1);
    play.expect("holding not_writable rw");
    play.at(8500).writes("rw", 2).expect("serving rw");
}

#[test]
fn what_readers_meet_says_nothing_of_a_server() {
    let mut play = Play::reached_by_services();
    play.at(1000).writes("r", 1).stands_by("ro").unreachable("r");
    play.expect("holding unknown");
    play.writes("rw", 1).expect("serving rw");
    let version = play.shown.version;
    play.stands_by("r").writes("r", 1).unreachable("ro");
    assert_eq!(play.shown.version, version);
}

#[test]
fn the_servers_are_listed_at_last() {
    let mut play = Play::reached_by_services();
    play.at(1000).writes("rw", 1).expect("serving rw");
    play.at(60_000).says(&healthy("a")).expect("serving a");
    play.generation(2).looks_at("a");
    assert_eq!(play.shown.services, None);
    assert_eq!(play.shown.alias, Some(endpoint("rw")), "what works there goes on");
    // Until there is another primary.
    play.at(70_000).says(&healthy("b")).writes("b", 2);
    play.at(71_000).expect("serving b");
    assert_eq!(play.shown.alias, None);
}

#[test]
fn the_servers_are_listed_in_time() {
    let mut play = Play::reached_by_services();
    play.at(500).says(&healthy("a")).expect("serving a").looks_at("a");
    play.at(5000).expect("serving a").looks_at("a");
    play.unreachable("a").looks_at("a b c");
}

#[test]
fn the_servers_are_listed_in_the_middle_of_a_failover() {
    let mut play = Play::reached_by_services();
    play.at(1000).writes("rw", 1).at(2000).refuses("rw");
    play.says(&healthy("b")).expect("holding promoting b");
    play.at(3000).writes("b", 2).at(4000).expect("serving b");
    assert_eq!(play.shown.alias, None, "it was another");
}

#[test]
fn the_list_says_that_there_is_no_primary() {
    let mut play = Play::reached_by_services();
    play.at(1000).writes("rw", 1);
    let nobody = Facts {
        cluster: None,
        ..healthy("a").unhealthy("a")
    };
    play.at(2000).says(&nobody).expect("holding no_endpoint rw");
    play.at(3000).says(&healthy("a")).writes("a", 1);
    play.at(4000).expect("serving a");
}

#[test]
fn the_cluster_may_be_read_and_the_slices_may_not() {
    let mut play = Play::reached_by_services();
    play.says(&unlisted(&healthy("a")));
    play.at(1000).writes("rw", 1).expect("serving rw");
    // A switchover is noticed when the server goes.
    play.at(2000).says(&unlisted(&healthy("a").target("b")));
    play.expect("serving rw");
    play.at(3000).refuses("rw").expect("holding not_accepting rw");
    play.at(4000).says(&unlisted(&healthy("b"))).writes("rw", 2);
    play.expect("serving rw");
    // Why there is nobody is said.
    let asleep = unlisted(&healthy("b")).edit_cluster(|cluster| cluster.is_hibernated = true);
    play.at(5000).says(&asleep).expect("degraded hibernated rw");
    play.at(6000).says(&unlisted(&healthy("b"))).writes("rw", 2);
    play.expect("serving rw");
    let fenced = unlisted(&healthy("b")).edit_cluster(|cluster| cluster.fenced = Fenced::All);
    play.at(7000)
        .says(&fenced)
        .refuses("rw")
        .expect("holding fenced rw");
}
