//! Discovery in Kubernetes, against a played API server that does what real ones do, and what goes wrong with them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, TcpStream},
    time::Duration,
};

use support::api_server::{ApiServer, EndpointSpec, Fault, Framing, Resource, Service, WatchEnd};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/db/endpointslices";

/// Sends a GET and reads to the end of the connection.
fn get(server: &ApiServer, path: &str) -> String {
    let mut text = String::new();
    // A reset is an end as well.
    let _ = request(server, path).read_to_string(&mut text);
    text
}

fn request(server: &ApiServer, path: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let token = server.token();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
    .unwrap();
    BufReader::new(stream)
}

mod the_played_server {
    use super::*;

    #[test]
    fn lists_what_is_selected_with_and_without_a_length() {
        let server = ApiServer::start();
        server.slice("pg", Service::Rw, &[EndpointSpec::ready("pg-1", HERE, 5432)]);
        server.slice("pg", Service::R, &[]);
        server.slice("pg", Service::Ro, &[]);
        let rw = get(
            &server,
            &format!("{SLICES}?labelSelector=kubernetes.io%2Fservice-name%3Dpg-rw"),
        );
        assert!(
            rw.starts_with("HTTP/1.1 200 OK\r\n") && rw.contains("Content-Length: "),
            "{rw}"
        );
        assert!(rw.contains("pg-1") && !rw.contains("\"pg-r\""), "{rw}");
        let both = "labelSelector=kubernetes.io%2Fservice-name+in+%28pg-rw%2Cpg-ro%2Cpg-r%29";
        let both = get(&server, &format!("{SLICES}?{both}"));
        assert!(
            both.contains("Transfer-Encoding: chunked") && both.contains("\r\n800\r\n"),
            "{both}"
        );
        assert!(both.contains("\"endpoints\":null"), "{both}");
        let requests = server.requests();
        assert_eq!(requests[0].label_selector, "kubernetes.io/service-name=pg-rw");
        assert_eq!(
            (requests[0].verb, requests[0].resource),
            ("list", Resource::EndpointSlices)
        );
    }

    #[test]
    fn watches_say_what_has_changed() {
        let server = ApiServer::start();
        server.slice("pg", Service::Rw, &[EndpointSpec::ready("pg-1", HERE, 5432)]);
        server.framing(Framing::Crumbs);
        let stream = request(
            &server,
            &format!("{SLICES}?watch=1&allowWatchBookmarks=true&timeoutSeconds=1"),
        );
        support::eventually("the watch is open", || server.watches() == 1);
        server.slice("pg", Service::Rw, &[EndpointSpec::unready("pg-1", HERE, 5432)]);
        server.delete_slice("pg", Service::Rw);
        let events = events(stream);
        let kinds: Vec<_> = events
            .iter()
            .map(|event| event["type"].as_str().unwrap())
            .collect();
        assert_eq!(
            kinds[..4],
            ["ADDED", "BOOKMARK", "MODIFIED", "DELETED"],
            "{kinds:?}"
        );
        assert_eq!(events[1]["object"]["endpoints"], serde_json::Value::Null);
        assert_eq!(events[3]["object"]["endpoints"][0]["targetRef"]["name"], "pg-1");
    }

    #[test]
    fn faults_and_their_end() {
        let server = ApiServer::start();
        server.fault(Fault::TooManyRequests);
        assert!(get(&server, SLICES).contains("text/plain"));
        server.heal();
        let version = server.apply_and_version();
        server.compact();
        let expired = get(&server, &format!("{SLICES}?watch=1&resourceVersion={version}"));
        assert!(
            expired.starts_with("HTTP/1.1 200") && expired.contains("\"code\":410"),
            "{expired}"
        );
        assert!(expired.ends_with("0\r\n\r\n"), "{expired}");
        let stream = request(&server, &format!("{SLICES}?watch=1"));
        support::eventually("the watch is open", || server.watches() == 1);
        server.end_watches(WatchEnd::Cut);
        assert!(!text(stream).ends_with("0\r\n\r\n"));
        server.kill();
        assert!(TcpStream::connect(server.address()).is_err());
        server.heal();
        assert!(get(&server, SLICES).starts_with("HTTP/1.1 200"));
        server.expire_token();
        server.forbid(Resource::EndpointSlices);
        assert!(get(&server, SLICES).starts_with("HTTP/1.1 403"));
    }

    impl ApiServer {
        fn apply_and_version(&self) -> String {
            self.slice("pg", Service::Rw, &[]);
            let list = get(self, SLICES);
            let body: serde_json::Value =
                serde_json::from_str(list.split("\r\n\r\n").nth(1).unwrap()).unwrap();
            body["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
        }
    }

    fn text(mut stream: BufReader<TcpStream>) -> String {
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    }

    /// Takes the chunks away and reads the lines.
    fn events(mut stream: BufReader<TcpStream>) -> Vec<serde_json::Value> {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        let mut body = Vec::new();
        loop {
            line.clear();
            stream.read_line(&mut line).unwrap();
            let length = usize::from_str_radix(line.trim(), 16).unwrap();
            let mut chunk = vec![0; length + 2];
            stream.read_exact(&mut chunk).unwrap();
            body.extend_from_slice(&chunk[..length]);
            if length == 0 {
                return String::from_utf8(body)
                    .unwrap()
                    .lines()
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect();
            }
        }
    }
}

mod the_watcher {
    use std::{
        collections::BTreeSet,
        sync::{Arc, Mutex},
        time::Instant,
    };

    use pgweir::{
        config::{ClusterRef, Kubernetes},
        discovery::kubernetes::{Client, Families, spawn},
        lifecycle::Tasks,
        topology::{ClusterPhase, Facts},
    };
    use prometheus::Registry;
    use support::{
        Authority,
        api_server::{NAMESPACE, Request},
        eventually,
    };
    use tokio::runtime::Runtime;
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// A cluster that is watched, and all facts that were told of it.
    struct Watched {
        told: Arc<Mutex<Vec<Facts>>>,
        registry: Registry,
        stop: CancellationToken,
        runtime: Runtime,
    }

    impl Watched {
        /// The cluster `pg`.
        fn start(server: &ApiServer) -> Self {
            Self::start_with(&Kubernetes {
                namespace: Some(NAMESPACE.to_owned()),
                api_server: Some(server.url()),
                ca_file: server.ca_file(),
                token_file: Some(server.token_file()),
                zone: None,
            })
        }

        fn start_with(settings: &Kubernetes) -> Self {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let registry = Registry::new();
            let (told, stop) = (Arc::default(), CancellationToken::new());
            let sink = {
                let told: Arc<Mutex<Vec<Facts>>> = Arc::clone(&told);
                Arc::new(move |facts| told.lock().unwrap().push(facts))
            };
            let cluster = ClusterRef {
                namespace: None,
                name: "pg".to_owned(),
            };
            let client = Client::new(settings).unwrap();
            let families = Families::new(&registry).unwrap();
            let tasks = Tasks::new(runtime.handle().clone());
            spawn(&tasks, &client, &cluster, sink, &families, &stop).unwrap();
            Self {
                told,
                registry,
                stop,
                runtime,
            }
        }

        fn last(&self) -> Facts {
            self.told.lock().unwrap().last().cloned().unwrap_or_default()
        }

        fn count(&self) -> usize {
            self.told.lock().unwrap().len()
        }

        #[track_caller]
        fn eventually(&self, what: &str, condition: impl Fn(&Facts) -> bool) -> Facts {
            eventually(what, || condition(&self.last()));
            self.last()
        }

        /// The ready primaries by the slices.
        #[track_caller]
        fn eventually_primary(&self, pods: &[&str]) {
            self.eventually(&format!("the primary is {pods:?}"), |facts| {
                primaries(facts) == pods
            });
        }

        /// The sum of a metric over those of its samples that have this in a label.
        fn metric(&self, name: &str, label: &str) -> f64 {
            let families = self.registry.gather();
            let family = families.iter().filter(|family| family.name() == name);
            let samples = family.flat_map(prometheus::proto::MetricFamily::get_metric);
            samples
                .filter(|sample| sample.get_label().iter().any(|pair| pair.value() == label))
                .map(|sample| sample.get_gauge().get_value() + sample.get_counter().get_value())
                .sum()
        }

        fn errors(&self, kind: &str) -> f64 {
            self.metric("kubernetes_watch_errors_total", kind)
        }

        fn is_up(&self, resource: &str) -> bool {
            self.metric("kubernetes_watch_up", resource) > 0.5
        }
    }

    fn primaries(facts: &Facts) -> Vec<&str> {
        let ready = |instance: &&pgweir::topology::Instance| instance.rw.is_some_and(|rw| rw.ready);
        facts
            .instances
            .iter()
            .filter(ready)
            .map(|instance| &*instance.name)
            .collect()
    }

    fn pod(number: u16) -> EndpointSpec {
        EndpointSpec::ready(&format!("pg-{number}"), HERE, 5430 + number)
    }

    /// A cluster of three with everything that Kubernetes says of one.
    fn populate(server: &ApiServer) {
        server.slice("pg", Service::Rw, &[pod(1)]);
        server.slice("pg", Service::Ro, &[pod(2), pod(3).zone("b")]);
        server.slice("pg", Service::R, &[pod(1), pod(2), pod(3).zone("b")]);
        server.cluster("pg", |cluster| {
            cluster.current_primary = "pg-1".to_owned();
            cluster.target_primary = "pg-1".to_owned();
        });
        server.lease("pg", "pg-1");
    }

    fn is_complete(facts: &Facts) -> bool {
        facts.instances.len() == 3 && facts.cluster.is_some() && facts.lease.is_some()
    }

    /// A server with a cluster, and somebody who knows it and watches it.
    fn watching() -> (ApiServer, Watched) {
        watching_with(ApiServer::start())
    }

    fn watching_with(server: ApiServer) -> (ApiServer, Watched) {
        populate(&server);
        let watched = Watched::start(&server);
        watched.eventually("everything is known", is_complete);
        eventually("everything is watched", || server.watches() == 3);
        (server, watched)
    }

    fn requests_since(server: &ApiServer, before: usize) -> Vec<Request> {
        server.requests().split_off(before)
    }

    #[test]
    fn everything_is_learned_and_followed() {
        let (server, watched) = watching();
        let facts = watched.last();
        assert!(facts.slices_known);
        let names: Vec<_> = facts.instances.iter().map(|instance| &*instance.name).collect();
        assert_eq!(names, ["pg-1", "pg-2", "pg-3"]);
        assert_eq!(facts.instances[2].endpoint.to_string(), "127.0.0.11:5433");
        assert_eq!(facts.instances[2].zone.as_deref(), Some("b"));
        assert_eq!(facts.lease.unwrap().holder.as_deref(), Some("pg-1"));

        let before = Instant::now();
        server.cluster("pg", |cluster| {
            cluster.phase = "Switchover in progress".to_owned();
            cluster.target_primary = "pg-2".to_owned();
        });
        let facts = watched.eventually("the switchover is known", |facts| {
            facts.cluster.as_ref().unwrap().phase == ClusterPhase::Switchover
        });
        // It takes a millisecond or two. The limit leaves room for a machine that is busy.
        assert!(before.elapsed() < Duration::from_secs(5));
        assert_eq!(facts.cluster.unwrap().target_primary.as_deref(), Some("pg-2"));
        server.lease("pg", "");
        server.slice("pg", Service::Rw, &[]);
        watched.eventually("pg-1 is gone", |facts| {
            facts.lease.as_ref().unwrap().holder.is_none() && primaries(facts).is_empty()
        });
        server.lease("pg", "pg-2");
        server.slice("pg", Service::Rw, &[pod(1), pod(2)]);
        watched.eventually_primary(&["pg-1", "pg-2"]);
        server.slice("pg", Service::Rw, &[pod(2)]);
        watched.eventually_primary(&["pg-2"]);

        // What is only renewed is told nobody. Once the lease's change to pg-2 was heard after the slices', and was counted
        // as a renewal: they are watched by themselves, so each is waited for, and only leases are counted.
        let held_by = |holder: &'static str| {
            watched.eventually("the lease is held by another", move |facts| {
                facts.lease.as_ref().unwrap().holder.as_deref() == Some(holder)
            });
            watched.count()
        };
        let count = held_by("pg-2");
        for _ in 0..5 {
            server.lease("pg", "pg-2");
        }
        server.lease("pg", "pg-3");
        assert_eq!(held_by("pg-3"), count + 1);
        server.delete_slice("pg", Service::Ro);
        watched.eventually("the service is gone", |facts| {
            facts.instances.iter().all(|instance| instance.ro.is_none())
        });
        server.replace_slice("pg", Service::Rw, &[pod(3)]);
        watched.eventually_primary(&["pg-3"]);
        server.delete(Resource::Clusters, "pg");
        watched.eventually("the cluster is deleted", |facts| facts.cluster.is_none());
    }

    #[test]
    fn nothing_is_asked_that_a_small_role_does_not_allow() {
        let (server, watched) = watching();
        let requests = server.requests();
        let asked: BTreeSet<_> = requests
            .iter()
            .map(|request| {
                assert_eq!((request.namespace.as_str(), request.status), (NAMESPACE, 200));
                (
                    request.verb,
                    request.resource,
                    &*request.label_selector,
                    &*request.field_selector,
                )
            })
            .collect();
        let services = "kubernetes.io/service-name in (pg-rw,pg-ro,pg-r)";
        let expected = ["list", "watch"].into_iter().flat_map(|verb| {
            [
                (verb, Resource::EndpointSlices, services, ""),
                (verb, Resource::Clusters, "", "metadata.name=pg"),
                (verb, Resource::Leases, "", "metadata.name=pg"),
            ]
        });
        assert_eq!(asked, expected.collect());
        let watches = requests.iter().filter(|request| request.verb == "watch");
        assert!(
            watches
                .map(|request| request.timeout)
                .all(|timeout| timeout.is_some_and(|it| it <= 60))
        );
        watched.stop.cancel();
        eventually("nothing is watched any more", || server.watches() == 0);
        drop(watched.runtime);
    }

    #[test]
    fn events_may_be_cut_anywhere() {
        for framing in [Framing::Split, Framing::Several, Framing::Crumbs] {
            let (server, watched) = watching();
            server.framing(framing);
            for number in [2, 3, 1, 2] {
                server.slice("pg", Service::Rw, &[]);
                server.slice("pg", Service::Rw, &[pod(number)]);
            }
            watched.eventually_primary(&["pg-2"]);
            assert!(watched.errors("malformed") < 0.5, "{framing:?}");
        }
    }

    #[test]
    fn a_watch_that_has_told_something_is_resumed_and_a_silent_one_is_not_believed() {
        let (server, watched) = watching();
        server.slice("pg", Service::Rw, &[pod(2)]);
        watched.eventually_primary(&["pg-2"]);
        let before = server.requests().len();
        eventually("bookmarks have come to all of them", || {
            server.watches() >= 3 && server.bookmarked() == server.watches()
        });
        server.end_watches(WatchEnd::Clean);
        eventually("all go on", || requests_since(&server, before).len() >= 3);
        let went_on = requests_since(&server, before);
        assert!(
            went_on.iter().all(|request| request.verb == "watch"),
            "{went_on:?}"
        );

        let (server, _watched) = {
            let server = ApiServer::start();
            server.without_bookmarks();
            watching_with(server)
        };
        let before = server.requests().len();
        server.end_watches(WatchEnd::Clean);
        eventually("all are listed", || {
            let lists = requests_since(&server, before);
            lists.iter().filter(|request| request.verb == "list").count() >= 3
        });
    }

    #[test]
    fn a_resync_that_finds_the_same_disturbs_nobody() {
        let (server, watched) = watching();
        let (count, before) = (watched.count(), server.requests().len());
        let listed = |before: usize| {
            let lists = requests_since(&server, before);
            lists.iter().filter(|request| request.verb == "list").count() >= 3 && server.watches() == 3
        };
        server.compact();
        eventually("all are listed after a restart", || listed(before));
        let before = server.requests().len();
        server.end_watches(WatchEnd::Expired);
        eventually("all are listed after a 410", || listed(before));
        let before = server.requests().len();
        server.end_watches(WatchEnd::Error);
        eventually("all are listed after an error", || listed(before));
        let before = server.requests().len();
        server.roll_back();
        eventually("all are listed after a rollback", || listed(before));
        assert_eq!(watched.count(), count);
        assert!(watched.errors("expired") > 2.5);
        assert!(watched.errors("status") > 2.5);
        server.slice("pg", Service::Rw, &[pod(2)]);
        watched.eventually_primary(&["pg-2"]);
    }

    /// What the server has said since is known afterwards; meanwhile nothing is forgotten.
    #[track_caller]
    fn survives(fault: Fault, kind: &str) {
        let (server, watched) = watching();
        let (count, known) = (watched.count(), watched.last());
        server.fault(fault);
        server.end_watches(WatchEnd::Cut);
        server.slice("pg", Service::Rw, &[pod(2)]);
        eventually(&format!("{fault:?} is met"), || watched.errors(kind) > 0.5);
        eventually(&format!("{fault:?} is trouble"), || {
            !watched.is_up("endpointslices")
        });
        assert_eq!((watched.count(), watched.last()), (count, known), "{fault:?}");
        server.heal();
        watched.eventually_primary(&["pg-2"]);
        eventually("all is well", || {
            watched.is_up("endpointslices") && watched.is_up("leases")
        });
        assert!(is_complete(&watched.last()), "{fault:?}");
    }

    #[test]
    fn refusals() {
        survives(Fault::Unauthorized, "unauthorized");
        survives(Fault::Forbidden, "forbidden");
        survives(Fault::Gone, "expired");
    }

    #[test]
    fn a_server_in_trouble() {
        survives(Fault::TooManyRequests, "status");
        survives(Fault::InternalError, "status");
        survives(Fault::Unavailable, "status");
        survives(Fault::VersionTooLarge, "status");
    }

    #[test]
    fn answers_that_are_none() {
        survives(Fault::NoJson, "malformed");
        survives(Fault::WrongShape, "malformed");
        survives(Fault::HalfAnAnswer, "cut");
        survives(Fault::Closed, "unreachable");
    }

    #[test]
    fn silence() {
        survives(Fault::Silent, "silent");
    }

    #[test]
    fn watches_that_are_cut_or_reset() {
        let (server, watched) = watching();
        for (number, how) in [(2, WatchEnd::Cut), (3, WatchEnd::Reset), (1, WatchEnd::Cut)] {
            server.end_watches(how);
            server.slice("pg", Service::Rw, &[pod(number)]);
            watched.eventually_primary(&[&format!("pg-{number}")]);
        }
        // The next one has opened each time: nobody is told that anything was wrong.
        assert!(watched.is_up("endpointslices"));
    }

    #[test]
    fn a_server_that_is_killed_and_one_that_is_stopped() {
        let (server, watched) = watching();
        let (count, known) = (watched.count(), watched.last());
        server.kill();
        eventually("it is noticed", || !watched.is_up("endpointslices"));
        server.slice("pg", Service::Rw, &[pod(2)]);
        assert_eq!((watched.count(), watched.last()), (count, known));
        server.heal();
        watched.eventually_primary(&["pg-2"]);
        eventually("all is well", || server.watches() == 3);

        // Watches that are open go on when nobody listens any more.
        server.terminate();
        server.slice("pg", Service::Rw, &[pod(3)]);
        watched.eventually_primary(&["pg-3"]);
        server.heal();

        // A server that says nothing at all, and then what has happened meanwhile.
        server.freeze();
        server.slice("pg", Service::Rw, &[pod(1)]);
        server.heal();
        watched.eventually_primary(&["pg-1"]);
    }

    #[test]
    fn a_token_that_is_replaced() {
        let (server, watched) = watching();
        let token = server.expire_token();
        // What is open stays open.
        server.slice("pg", Service::Rw, &[pod(2)]);
        watched.eventually_primary(&["pg-2"]);
        server.end_watches(WatchEnd::Cut);
        eventually("the old one is refused", || watched.errors("unauthorized") > 0.5);
        server.slice("pg", Service::Rw, &[pod(3)]);
        server.write_token(&token);
        watched.eventually_primary(&["pg-3"]);
    }

    #[test]
    fn what_is_not_allowed_or_not_there_is_done_without() {
        let server = ApiServer::start();
        populate(&server);
        server.forbid(Resource::Clusters);
        server.uninstall(Resource::Leases);
        let watched = Watched::start(&server);
        watched.eventually_primary(&["pg-1"]);
        eventually("both are noticed", || {
            watched.errors("forbidden") > 0.5 && watched.errors("missing") > 0.5
        });
        server.slice("pg", Service::Rw, &[pod(2)]);
        watched.eventually_primary(&["pg-2"]);
        let facts = watched.last();
        assert_eq!((facts.cluster, facts.lease), (None, None));
        assert!(watched.is_up("endpointslices") && !watched.is_up("clusters") && !watched.is_up("leases"));
        server.allow(Resource::Clusters);
        server.install(Resource::Leases);
        watched.eventually("both are known", is_complete);
    }

    #[test]
    fn a_role_without_watch_is_better_than_none() {
        let server = ApiServer::start();
        populate(&server);
        server.forbid_watch(Resource::Clusters);
        let watched = Watched::start(&server);
        watched.eventually("everything is known", is_complete);
        server.cluster("pg", |cluster| cluster.target_primary = "pg-3".to_owned());
        watched.eventually("a list tells of the change", |facts| {
            facts.cluster.as_ref().unwrap().target_primary.as_deref() == Some("pg-3")
        });
        assert!(!watched.is_up("clusters"));
    }

    #[test]
    fn the_server_is_verified() {
        let authority = Authority::new("cluster").unwrap();
        let (server, watched) = watching_with(ApiServer::start_with_tls(&authority));
        server.slice("pg", Service::Rw, &[pod(2)]);
        watched.eventually_primary(&["pg-2"]);

        let stranger = ApiServer::start_with_tls(&Authority::new("stranger").unwrap());
        populate(&stranger);
        let watched = Watched::start_with(&Kubernetes {
            namespace: Some(NAMESPACE.to_owned()),
            api_server: Some(stranger.url()),
            ca_file: server.ca_file(),
            token_file: Some(stranger.token_file()),
            zone: None,
        });
        eventually("it is not believed", || watched.errors("unreachable") > 0.5);
        assert_eq!((watched.count(), stranger.requests().len()), (0, 0));
    }
}
