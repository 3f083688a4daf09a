//! Several clusters behind one pgweir, with real servers and a played API server: which database leads to which server,
//! and what is said when none may be used.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use std::net::IpAddr;

use support::{
    LIMIT, Link, Network, Pooler, PoolerBuilder, RawClient, Rig, TryClient,
    api_server::{ApiServer, EndpointSpec, Resource, Service},
    eventually, in_thread, name_hosts,
};

/// Which server it is: all of them listen on addresses of their own.
const WHERE: &str = "SELECT host(inet_server_addr()) || ':' || inet_server_port()";

/// Where a query is carried out, or the SQLSTATE and the message of its refusal.
fn lands(pooler: &Pooler, database: &str) -> Result<String, (String, String)> {
    let address = pooler.address().parse().unwrap();
    TryClient::log_in(address, "app", database, LIMIT)
        .and_then(|mut client| client.value(WHERE))
        .map_err(|trouble| (trouble.sqlstate.unwrap_or_default(), trouble.message))
}

/// The rows of SHOW TOPOLOGY.
fn topology(pooler: &Pooler) -> Vec<String> {
    let mut console = RawClient::log_in(pooler.address(), "app", "", "pgweir");
    let shown = console.query("SHOW TOPOLOGY");
    let rows = shown.iter().filter(|frame| frame.tag == b'D');
    rows.map(|frame| String::from_utf8_lossy(&frame.body).into_owned())
        .collect()
}

/// How many servers are listed as not ready.
fn unready(pooler: &Pooler) -> usize {
    let rows = topology(pooler);
    rows.iter().filter(|row| row.contains("not_ready")).count()
}

fn refused(pooler: &Pooler, database: &str) -> String {
    let (code, message) = lands(pooler, database).expect_err("it is refused");
    assert_eq!(code, "57P03", "{message}");
    message
}

fn endpoint(rig: &Rig, index: usize, cluster: &str) -> EndpointSpec {
    let address = rig.address(index);
    EndpointSpec::ready(&format!("{cluster}-{}", index + 1), address.ip(), address.port())
}

/// A healthy cluster whose first server is the primary, and whose standbys are in the zones b, c, ...
fn announce(api: &ApiServer, rig: &Rig, cluster: &str) {
    api.cluster(cluster, |spec| {
        spec.current_primary = format!("{cluster}-1");
        spec.target_primary = format!("{cluster}-1");
    });
    let all: Vec<_> = (0..rig.len())
        .map(|index| endpoint(rig, index, cluster).zone(["a", "b", "c"][index]))
        .collect();
    api.slice(cluster, Service::Rw, &all[..1]);
    api.slice(cluster, Service::Ro, &all[1..]);
    api.slice(cluster, Service::R, &all);
}

fn in_front_of(api: &ApiServer) -> PoolerBuilder {
    let builder = Pooler::builder("nowhere").without(r#"databases."*""#);
    api.settings()
        .iter()
        .fold(builder, |builder, (key, value)| builder.set(key, value))
}

fn database(builder: PoolerBuilder, name: &str, cluster: &str, settings: &[(&str, &str)]) -> PoolerBuilder {
    let key = |key: &str| format!("databases.{name}.{key}");
    let builder = builder
        .set(&key("cluster"), format!("'{cluster}'"))
        .set(&key("dbname"), "'app'");
    settings
        .iter()
        .fold(builder, |builder, (name, value)| builder.set(&key(name), *value))
}

#[test]
fn databases_lead_to_the_servers_that_their_clusters_and_roles_say() {
    let (bank, shop) = (
        Rig::start(3, Network::Loopback).unwrap(),
        Rig::start(1, Network::Loopback).unwrap(),
    );
    let api = ApiServer::start();
    announce(&api, &bank, "bank");
    announce(&api, &shop, "shop");
    let mut builder = in_front_of(&api)
        .set("kubernetes.zone", "'c'")
        .set("pool.query_wait_timeout", "'2s'")
        .set("auth.stats_users", "['app']");
    for (name, cluster, settings) in [
        ("app", "bank", &[][..]),
        ("reports", "bank", &[("role", "'ro'")][..]),
        (
            "lenient",
            "bank",
            &[("role", "'ro'"), ("fall_back_to_primary", "true")][..],
        ),
        ("orders", "db/shop", &[][..]),
    ] {
        builder = database(builder, name, cluster, settings);
    }
    let pooler = builder.start();
    let server = |index| Ok(bank.address(index).to_string());

    assert_eq!(lands(&pooler, "app"), server(0));
    assert_eq!(lands(&pooler, "orders"), Ok(shop.address(0).to_string()));
    assert_eq!(
        lands(&pooler, "reports"),
        server(2),
        "the zone of the pooler first"
    );
    assert_eq!(lands(&pooler, "lenient"), server(2));
    let shown = topology(&pooler);
    assert_eq!(shown.len(), 4, "{shown:?}");
    assert!(
        shown[0].contains("bank-1") && shown[0].contains("serving"),
        "{shown:?}"
    );

    // The standby in the zone is not ready any more: the next one serves.
    let away = |index| {
        let address = bank.address(index);
        EndpointSpec::unready(&format!("bank-{}", index + 1), address.ip(), address.port())
    };
    let list = |standbys: [EndpointSpec; 2]| {
        let [first, second] = standbys;
        let all = [endpoint(&bank, 0, "bank").zone("a"), first, second];
        api.slice("bank", Service::Ro, &all[1..]);
        api.slice("bank", Service::R, &all);
    };
    list([endpoint(&bank, 1, "bank").zone("b"), away(2).zone("c")]);
    eventually("the other standby serves", || {
        lands(&pooler, "reports") == server(1)
    });

    // None is ready: that may be a matter of moments, and the primary is there for those who want that. Nobody asks before
    // it is known: a connection to a standby that has been made by then works, and is kept.
    list([away(1).zone("b"), away(2).zone("c")]);
    eventually("neither is listed as ready", || unready(&pooler) == 2);
    assert_eq!(lands(&pooler, "lenient"), server(0));
    assert!(lands(&pooler, "reports").is_ok());

    // None is left.
    list([away(1).terminating(), away(2).terminating()]);
    eventually("readers are refused", || lands(&pooler, "reports").is_err());
    assert_eq!(lands(&pooler, "lenient"), server(0));
    let (code, message) = lands(&pooler, "reports").unwrap_err();
    assert_eq!(code, "57P03", "{message}");
    assert!(message.contains("role \"ro\""), "{message}");
    assert_eq!(lands(&pooler, "app"), server(0), "writers do not notice");

    // They are back.
    announce(&api, &bank, "bank");
    eventually("the standby of the zone serves again", || {
        lands(&pooler, "reports") == server(2) && lands(&pooler, "lenient") == server(2)
    });
}

#[test]
fn a_cluster_that_follows_another_serves_who_wants_a_standby() {
    let rig = Rig::start(2, Network::Loopback).unwrap();
    let api = ApiServer::start();
    // The second server is the designated primary of a replica cluster: a standby behind `-rw`.
    let standby = endpoint(&rig, 1, "copy");
    api.cluster("copy", |spec| {
        spec.current_primary = "copy-2".to_owned();
        spec.target_primary = "copy-2".to_owned();
        spec.replica = true;
    });
    api.slice("copy", Service::Rw, std::slice::from_ref(&standby));
    api.slice("copy", Service::R, std::slice::from_ref(&standby));
    api.slice("copy", Service::Ro, &[]);
    let told = database(in_front_of(&api), "app", "copy", &[("replica_cluster", "true")]).start();
    assert_eq!(lands(&told, "app"), Ok(rig.address(1).to_string()));
    let mut client = RawClient::log_in(told.address(), "app", "", "app");
    let refusal = client.query("CREATE TABLE t ()");
    let error = refusal.iter().find(|frame| frame.tag == b'E').unwrap();
    assert_eq!(
        error.field(b'C').as_deref(),
        Some("25006"),
        "it is the server's to say"
    );
    assert_eq!(client.value("SELECT 1"), "1");

    let untold = database(in_front_of(&api), "app", "copy", &[]).start();
    let message = refused(&untold, "app");
    assert!(message.contains("replica"), "{message}");

    // It is promoted, and the cluster is one of its own.
    rig.promote(1);
    api.cluster("copy", |spec| spec.replica = false);
    eventually("it serves writers", || {
        lands(&untold, "app") == Ok(rig.address(1).to_string())
    });
    let mut client = RawClient::log_in(untold.address(), "app", "", "app");
    client.query("CREATE TABLE t ()");
    assert_eq!(client.value("SELECT count(*) FROM t"), "0");
}

#[test]
fn a_hibernated_or_fenced_cluster_says_so() {
    let rig = Rig::start(1, Network::Loopback).unwrap();
    let api = ApiServer::start();
    announce(&api, &rig, "bank");
    let pooler = database(in_front_of(&api), "app", "bank", &[]).start();
    assert_eq!(lands(&pooler, "app"), Ok(rig.address(0).to_string()));
    let mut rig = rig;
    rig.stop(0, support::Stop::Fast);
    api.cluster("bank", |spec| spec.hibernated = true);
    api.slice("bank", Service::Rw, &[]);
    api.slice("bank", Service::R, &[]);
    eventually("it is said why there is no primary", || {
        lands(&pooler, "app").is_err_and(|(code, message)| code == "57P03" && message.contains("hibernat"))
    });
    // It wakes up.
    rig.restart(0);
    announce(&api, &rig, "bank");
    api.cluster("bank", |spec| spec.hibernated = false);
    eventually("it is served again", || lands(&pooler, "app").is_ok());
}

#[test]
fn nothing_more_is_asked_for_than_the_roles_of_the_documentation_allow() {
    // get is not needed, nor anything but these three resources: a role that allows more is more than least.
    let rig = Rig::start(1, Network::Loopback).unwrap();
    let api = ApiServer::start();
    announce(&api, &rig, "bank");
    let pooler = database(in_front_of(&api), "app", "bank", &[]).start();
    assert!(lands(&pooler, "app").is_ok());
    eventually("it watches everything", || api.watches() == 3);
    for request in api.requests() {
        assert!(
            matches!(request.verb, "list" | "watch"),
            "{} {:?}",
            request.verb,
            request.resource
        );
        assert!(matches!(
            request.resource,
            Resource::EndpointSlices | Resource::Clusters | Resource::Leases
        ));
    }
}

/// An old primary that was cut off from everybody but the pooler was written to as long as it lived: a reader had seen
/// that there was another, and nobody asked which of the two was promoted last.
#[test]
fn writers_of_a_list_leave_a_primary_when_a_reader_meets_its_successor() {
    for (role, was_there) in [("ro", false), ("r", false), ("r", true)] {
        let rig = Rig::start(2, Network::Loopback).unwrap();
        // The standby first, so that role "r" goes there.
        let hosts = format!("['{}', '{}']", rig.address(1), rig.address(0));
        let mut builder = Pooler::builder("nowhere")
            .without(r#"databases."*""#)
            // No standby will be left.
            .set("pool.query_wait_timeout", "'1s'");
        for (name, role) in [("app", "rw"), ("reports", role)] {
            let key = |key: &str| format!("databases.{name}.{key}");
            builder = builder
                .set(&key("hosts"), hosts.clone())
                .set(&key("dbname"), "'app'")
                .set(&key("role"), format!("'{role}'"));
        }
        let pooler = builder.start();
        let server = |index| Ok(rig.address(index).to_string());
        assert_eq!(lands(&pooler, "app"), server(0));
        if was_there {
            assert_eq!(lands(&pooler, "reports"), server(1));
        }
        let mut writer = RawClient::log_in(pooler.address(), "app", "", "app");
        writer.query("BEGIN");
        writer.query("CREATE TABLE lost ()");
        rig.promote(1);
        if !was_there {
            assert_eq!(lands(&pooler, "app"), server(0), "nobody has seen it yet");
        }
        let _ = lands(&pooler, "reports");
        eventually("writers have gone to the successor", || {
            lands(&pooler, "app") == server(1)
        });
        let told = writer.read_to_end();
        let code = told.iter().find_map(|frame| frame.field(b'C'));
        assert_eq!(
            code.as_deref(),
            Some("57P01"),
            "{role}: what it had not committed is lost"
        );
    }
}

/// Who was not allowed to read the slices, or had no API server to ask when it was started, refused its clients for ever:
/// "nothing is known of the cluster yet".
#[test]
fn services_lead_to_servers_that_nobody_lists() {
    in_thread(|| {
        // Addresses of this test's own: the port of services is always the same.
        let place = std::process::id().to_be_bytes();
        let service = |last: u8| IpAddr::from([127, 100 | place[2] & 3, place[3], last]);
        let names = ["rw", "ro", "r"].map(|service| format!("bank-{service}.db.svc"));
        let places = [service(101), service(102), service(103)];
        let hosts = names.iter().map(String::as_str).zip(places);
        if name_hosts(&hosts.collect::<Vec<_>>()).is_none() {
            return;
        }
        let mut rig = Rig::start(2, Network::Loopback).unwrap();
        let [rw, _ro, _r] = [(0, 0), (1, 1), (2, 1)].map(|(service, server)| {
            Link::at((places[service], 5432).into(), rig.address(server).to_string())
        });
        let api = ApiServer::start();
        announce(&api, &rig, "bank");
        api.forbid(Resource::EndpointSlices);
        let mut builder = in_front_of(&api).set("auth.stats_users", "['app']");
        for (name, role) in [("app", "rw"), ("reports", "ro"), ("any", "r")] {
            builder = database(builder, name, "db/bank", &[("role", &format!("'{role}'"))]);
        }
        let pooler = builder.start();
        let server = |index: usize| Ok(rig.address(index).to_string());
        assert_eq!(lands(&pooler, "app"), server(0));
        assert_eq!(lands(&pooler, "reports"), server(1));
        assert_eq!(lands(&pooler, "any"), server(1));

        // A failover, of which only the servers tell.
        rig.kill(0);
        rig.promote(1);
        rw.lead_to(rig.address(1).to_string());
        assert_eq!(lands(&pooler, "app"), Ok(rig.address(1).to_string()));
        let mut busy = RawClient::log_in(pooler.address(), "app", "", "app");
        busy.query("BEGIN");
        busy.query("CREATE TABLE kept ()");

        // Somebody grants what was missing.
        let primary = endpoint(&rig, 1, "bank");
        api.cluster("bank", |spec| {
            spec.current_primary = "bank-2".to_owned();
            spec.target_primary = "bank-2".to_owned();
        });
        api.slice("bank", Service::Rw, std::slice::from_ref(&primary));
        api.slice("bank", Service::Ro, &[]);
        api.slice("bank", Service::R, &[primary]);
        let before = rw.accepted();
        api.allow(Resource::EndpointSlices);
        eventually("the pod is used by its own address", || {
            topology(&pooler).iter().any(|row| row.contains("bank-2"))
        });
        assert_eq!(lands(&pooler, "app"), Ok(rig.address(1).to_string()));
        assert_eq!(lands(&pooler, "any"), Ok(rig.address(1).to_string()));
        assert_eq!(rw.accepted(), before, "the service is not needed any more");
        busy.query("COMMIT");
        assert_eq!(
            busy.value("SELECT count(*) FROM kept"),
            "0",
            "what worked went on"
        );
    });
}
