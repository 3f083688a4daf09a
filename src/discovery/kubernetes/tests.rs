//! The index, fed with what a real API server has said, and with what was never recorded and is legal.

use serde_json::{Value, json};

use super::{
    Resource,
    error::WatchError,
    event::{Event, List, Object},
    index::Index,
    watcher::Knowledge,
};
use crate::{
    topology::{ClusterFacts, ClusterPhase, Fenced, Instance, LeaseFacts},
    types::Endpoint,
};

const FAILOVER: &str = include_str!("samples/failover.jsonl");
const TERMINATION: &str = include_str!("samples/termination.jsonl");
const CHANGES: &str = include_str!("samples/changes.jsonl");

impl Index {
    fn take(&mut self, resource: Resource, line: &str) {
        match Event::parse(resource, line.as_bytes()).unwrap() {
            Event::Applied(object, _) => self.apply(*object),
            Event::Deleted(name, _) => self.delete(resource, &name),
            Event::Bookmark(_) | Event::Other => {}
        }
    }

    fn say(&mut self, resource: Resource, kind: &str, object: &Value) {
        self.take(resource, &json!({ "type": kind, "object": object }).to_string());
    }

    /// The instances in few words: `pg-1@10.88.0.11:5432 rw r?`; `!` is terminating, `?` not ready.
    fn shown(&self) -> Vec<String> {
        self.facts().instances.iter().map(shown).collect()
    }
}

fn shown(instance: &Instance) -> String {
    let mut text = format!("{}@{}", instance.name, instance.endpoint);
    for (service, condition) in [("rw", instance.rw), ("ro", instance.ro), ("r", instance.r)] {
        let Some(condition) = condition else { continue };
        text.push_str(&format!(" {service}"));
        text.push_str(if condition.terminating { "!" } else { "" });
        text.push_str(if condition.ready { "" } else { "?" });
    }
    text
}

/// What the index shows after each event of a recording; the same twice is shown once.
fn replayed(events: &str) -> Vec<String> {
    let mut index = Index::new("pg");
    let mut states: Vec<String> = Vec::new();
    for line in events.lines() {
        index.take(Resource::EndpointSlices, line);
        let state = index.shown().join(", ");
        if states.last() != Some(&state) {
            states.push(state);
        }
    }
    states
}

fn slice(name: &str, service: &str, endpoints: &Value, ports: &Value) -> Value {
    json!({
        "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
        "metadata": { "name": name, "resourceVersion": "7", "labels": { "kubernetes.io/service-name": service } },
    })
}

fn endpoint(pod: &str, address: &str, ready: bool) -> Value {
    json!({
        "addresses": [address], "conditions": { "ready": ready },
        "targetRef": { "kind": "Pod", "name": pod }, "zone": "a",
    })
}

fn postgres() -> Value {
    json!([{ "name": "postgres", "port": 5432 }])
}

fn cluster_facts(object: &Value) -> ClusterFacts {
    let mut index = Index::new("pg");
    index.say(Resource::Clusters, "ADDED", object);
    index.facts().cluster.unwrap()
}

fn cluster(annotations: &Value, spec: &Value, status: &Value) -> Value {
    json!({ "metadata": { "name": "pg", "annotations": annotations }, "spec": spec, "status": status })
}

#[test]
fn failovers_as_they_were_recorded() {
    assert_eq!(
        replayed(FAILOVER),
        [
            "pg-1@10.88.0.11:5432 rw",
            "pg-1@10.88.0.11:5432 rw?",
            "",
            "pg-2@10.88.0.12:5432 rw",
            "pg-2@10.88.0.12:5432 rw?",
            "",
            "pg-3@10.88.0.13:5432 rw",
            "pg-1@10.88.0.11:5432 rw, pg-3@10.88.0.13:5432 rw",
            "pg-1@10.88.0.11:5432 rw",
        ]
    );
}

#[test]
fn a_pod_that_is_deleted_and_ports_that_change() {
    assert_eq!(
        replayed(TERMINATION),
        [
            "pg-1@10.88.0.11:5432 rw",
            "pg-1@10.88.0.11:5432 rw!?",
            "",
            "pg-2@10.88.0.12:5432 rw",
            "pg-2@10.88.0.12:5433 rw",
            "pg-2@10.88.0.12:5432 rw",
            "",
            "pg-2@10.88.0.12:5432 rw",
            "",
            "pg-2@10.88.0.12:5432 rw",
        ]
    );
}

#[test]
fn a_slice_that_leaves_the_selection_and_comes_back() {
    let states = replayed(CHANGES);
    assert_eq!(
        states,
        [
            "10.88.0.11@10.88.0.11:5432 rw",
            "10.88.0.12@10.88.0.12:5432 rw",
            "",
            "10.88.0.12@10.88.0.12:5432 rw",
            "",
        ]
    );
}

#[test]
fn a_new_slice_may_come_before_the_old_one_goes() {
    let mut index = Index::new("pg");
    let old = slice(
        "pg-rw-a",
        "pg-rw",
        &json!([endpoint("pg-1", "10.0.0.1", true)]),
        &postgres(),
    );
    let new = slice(
        "pg-rw-b",
        "pg-rw",
        &json!([endpoint("pg-1", "10.0.0.9", false)]),
        &postgres(),
    );
    index.say(Resource::EndpointSlices, "ADDED", &old);
    index.say(Resource::EndpointSlices, "ADDED", &new);
    // The later one is right about the pod, whichever name comes first.
    assert_eq!(index.shown(), ["pg-1@10.0.0.9:5432 rw?"]);
    index.say(Resource::EndpointSlices, "DELETED", &old);
    assert_eq!(index.shown(), ["pg-1@10.0.0.9:5432 rw?"]);
    index.say(Resource::EndpointSlices, "DELETED", &new);
    assert_eq!(index.shown(), Vec::<String>::new());
}

#[test]
fn services_come_together_by_pod() {
    let mut index = Index::new("pg");
    let (one, two) = (
        endpoint("pg-1", "10.0.0.1", true),
        endpoint("pg-2", "10.0.0.2", true),
    );
    let services = [
        ("pg-rw", json!([one])),
        ("pg-ro", json!([two])),
        ("pg-r", json!([one, two])),
        ("pg-any", json!([endpoint("pg-3", "10.0.0.3", true)])),
        ("pgx-rw", json!([endpoint("pg-4", "10.0.0.4", true)])),
    ];
    for (service, endpoints) in &services {
        let slice = slice(&format!("{service}-x"), service, endpoints, &postgres());
        index.say(Resource::EndpointSlices, "ADDED", &slice);
    }
    assert_eq!(
        index.shown(),
        ["pg-1@10.0.0.1:5432 rw r", "pg-2@10.0.0.2:5432 ro r"]
    );
    assert_eq!(index.facts().instances[0].zone.as_deref(), Some("a"));
    assert!(!index.facts().slices_known, "only a list is the whole truth");
}

#[test]
fn ports_and_addresses() {
    let shown = |object: &Value| {
        let mut index = Index::new("pg");
        index.say(Resource::EndpointSlices, "ADDED", object);
        index.shown()
    };
    let one = json!([endpoint("pg-1", "10.0.0.1", true)]);
    for (ports, port) in [
        (
            json!([{ "name": "metrics", "port": 9187 }, { "name": "postgres", "port": 6000 }]),
            Some(6000),
        ),
        (json!([{ "name": "other", "port": 6000 }]), Some(6000)),
        (json!([{ "port": 6000 }]), Some(6000)),
        (json!([]), Some(5432)),
        (Value::Null, Some(5432)),
        (
            json!([{ "name": "a", "port": 1 }, { "name": "b", "port": 2 }]),
            None,
        ),
        (json!([{ "name": "postgres" }]), None),
    ] {
        let expected: Vec<_> = port
            .iter()
            .map(|port| format!("pg-1@10.0.0.1:{port} rw"))
            .collect();
        assert_eq!(shown(&slice("s", "pg-rw", &one, &ports)), expected, "{ports}");
    }

    let odd = json!([
        { "addresses": [], "targetRef": { "kind": "Pod", "name": "pg-1" } },
        { "addresses": null },
        { "addresses": ["pg.example"] },
        { "targetRef": null },
        { "addresses": ["10.0.0.5"], "conditions": null, "targetRef": { "kind": "Node", "name": "n" } },
        { "addresses": ["10.0.0.6"], "conditions": { "ready": null, "terminating": null } },
    ]);
    assert_eq!(
        shown(&slice("s", "pg-rw", &odd, &postgres())),
        ["10.0.0.5@10.0.0.5:5432 rw", "10.0.0.6@10.0.0.6:5432 rw"]
    );
    let mut names = slice(
        "s",
        "pg-rw",
        &json!([endpoint("pg-1", "db.example", true)]),
        &postgres(),
    );
    names["addressType"] = json!("FQDN");
    assert_eq!(shown(&names), Vec::<String>::new());
}

#[test]
fn pods_with_addresses_of_both_kinds() {
    let (four, six) = (
        endpoint("pg-1", "10.0.0.1", true),
        endpoint("pg-1", "fd00::1", true),
    );
    let slice = |name: &str, kind: &str, endpoint: &Value| {
        let mut slice = slice(name, "pg-rw", &json!([endpoint]), &postgres());
        slice["addressType"] = json!(kind);
        slice
    };
    let (four, six) = (slice("four", "IPv4", &four), slice("six", "IPv6", &six));
    for order in [[&four, &six], [&six, &four]] {
        let mut index = Index::new("pg");
        for slice in order {
            index.say(Resource::EndpointSlices, "ADDED", slice);
        }
        assert_eq!(index.shown(), ["pg-1@10.0.0.1:5432 rw"]);
        index.say(Resource::EndpointSlices, "DELETED", &four);
        assert_eq!(index.shown(), ["pg-1@[fd00::1]:5432 rw"]);
        let endpoint = index.facts().instances[0].endpoint.clone();
        assert!(matches!(endpoint, Endpoint::Tcp { host, .. } if host == "fd00::1"));
    }
}

#[test]
fn a_list_is_the_whole_truth() {
    let mut index = Index::new("pg");
    let gone = slice(
        "gone",
        "pg-rw",
        &json!([endpoint("pg-9", "10.0.0.9", true)]),
        &postgres(),
    );
    index.say(Resource::EndpointSlices, "ADDED", &gone);
    let mut newer = slice(
        "a",
        "pg-rw",
        &json!([endpoint("pg-1", "10.0.0.2", true)]),
        &postgres(),
    );
    newer["metadata"]["resourceVersion"] = json!("10");
    let mut older = slice(
        "b",
        "pg-rw",
        &json!([endpoint("pg-1", "10.0.0.1", true)]),
        &postgres(),
    );
    older["metadata"]["resourceVersion"] = json!("9");
    let list = json!({
        "kind": "EndpointSliceList", "metadata": { "resourceVersion": "12" }, "items": [newer, older],
    });
    let list = List::parse(Resource::EndpointSlices, list.to_string().as_bytes()).unwrap();
    assert_eq!(list.version, "12");
    index.reset(Resource::EndpointSlices, list.objects);
    assert_eq!(index.shown(), ["pg-1@10.0.0.2:5432 rw"]);
    assert!(index.facts().slices_known);
    let empty =
        json!({ "kind": "EndpointSliceList", "metadata": { "resourceVersion": "13" }, "items": null });
    let empty = List::parse(Resource::EndpointSlices, empty.to_string().as_bytes()).unwrap();
    index.reset(Resource::EndpointSlices, empty.objects);
    assert!(index.facts().slices_known && index.facts().instances.is_empty());
}

#[test]
fn what_is_no_list_empties_nothing() {
    for text in [
        r#"{"kind":"APIVersions","metadata":{"resourceVersion":"1"},"items":[]}"#,
        r#"{"kind":"LeaseList","metadata":{"resourceVersion":"1"},"items":[]}"#,
        r#"{"kind":"EndpointSliceList","metadata":{},"items":[]}"#,
        r#"{"kind":"EndpointSliceList"}"#,
        r#"{"kind":"EndpointSliceList","metadata":{"resourceVersion":"1"},"items":7}"#,
        "<html>",
        "",
    ] {
        assert!(
            List::parse(Resource::EndpointSlices, text.as_bytes()).is_err(),
            "{text}"
        );
    }
}

#[test]
fn what_is_no_change() {
    let parse = |line: &str| Event::parse(Resource::EndpointSlices, line.as_bytes());
    let bookmark = r#"{"type":"BOOKMARK","object":{"kind":"EndpointSlice","metadata":{"resourceVersion":"412"},"addressType":"","endpoints":null,"ports":null}}"#;
    assert!(matches!(parse(bookmark), Ok(Event::Bookmark(version)) if version == "412"));
    assert!(matches!(
        parse(&bookmark.replace("BOOKMARK", "MODIFIED")),
        Ok(Event::Other)
    ));
    assert!(matches!(
        parse(r#"{"type":"SOMETHING","object":{"metadata":{"name":"a"}}}"#),
        Ok(Event::Other)
    ));
    let error = |code: u16| {
        parse(
            &json!({ "type": "ERROR", "object": { "kind": "Status", "metadata": {}, "code": code } })
                .to_string(),
        )
    };
    assert!(matches!(error(410), Err(WatchError::Expired)));
    assert!(matches!(error(500), Err(WatchError::Status(500))));
    assert!(matches!(
        parse(r#"{"type":"ERROR","object":"?"}"#),
        Err(WatchError::Status(0))
    ));
    for text in ["{", "7", r#"{"type":"ADDED"}"#, r#"{"type":"ADDED","object":7}"#] {
        assert!(matches!(parse(text), Err(WatchError::Malformed(_))), "{text}");
    }
}

#[test]
fn clusters() {
    let none = json!({});
    let status = json!({
        "currentPrimary": "pg-1", "targetPrimary": "pending", "phase": "Failing over",
        "conditions": [{ "type": "Ready", "status": "False" }], "instancesReportedState": { "pg-1": { "isPrimary": true } },
    });
    let facts = cluster_facts(&cluster(&none, &none, &status));
    assert_eq!(
        facts,
        ClusterFacts {
            current_primary: Some("pg-1".into()),
            target_primary: None,
            is_pending: true,
            phase: ClusterPhase::FailingOver,
            ..ClusterFacts::default()
        }
    );
    for (text, phase) in [
        ("Cluster in healthy state", ClusterPhase::Healthy),
        ("Switchover in progress", ClusterPhase::Switchover),
        (
            "Primary instance is being restarted in-place",
            ClusterPhase::PrimaryRestart,
        ),
        (
            "Primary instance is being restarted without a switchover",
            ClusterPhase::PrimaryRestart,
        ),
        ("Upgrading cluster", ClusterPhase::Other),
    ] {
        let status = json!({ "phase": text, "targetPrimary": "pg-2" });
        let facts = cluster_facts(&cluster(&none, &none, &status));
        assert_eq!(
            (facts.phase, facts.target_primary.as_deref()),
            (phase, Some("pg-2"))
        );
    }
    // A cluster that has just been made.
    assert_eq!(
        cluster_facts(&json!({ "metadata": { "name": "pg" }, "status": null })),
        ClusterFacts::default()
    );
}

#[test]
fn fenced_and_hibernated_clusters() {
    let facts =
        |annotations: &Value, status: &Value| cluster_facts(&cluster(annotations, &json!({}), status));
    let fenced = |text: &str| facts(&json!({ "cnpg.io/fencedInstances": text }), &json!({})).fenced;
    assert_eq!(fenced(r#"["pg-1"]"#), Fenced::Some(["pg-1".into()].into()));
    assert_eq!(fenced(r#"["*"]"#), Fenced::All);
    assert_eq!(fenced("[]"), Fenced::None);
    assert_eq!(fenced("nonsense"), Fenced::None);
    let sleeps = |annotations: &Value, status: &Value| facts(annotations, status).is_hibernated;
    assert!(sleeps(&json!({ "cnpg.io/hibernation": "on" }), &json!({})));
    assert!(!sleeps(&json!({ "cnpg.io/hibernation": "off" }), &json!({})));
    let condition =
        |status: &str| json!({ "conditions": [{ "type": "cnpg.io/hibernation", "status": status }] });
    assert!(sleeps(&Value::Null, &condition("True")));
    assert!(!sleeps(&Value::Null, &condition("False")));
}

#[test]
fn replica_clusters() {
    for (replica, expected) in [
        (Value::Null, false),
        (json!({ "enabled": true, "source": "origin" }), true),
        (json!({ "enabled": false, "source": "origin" }), false),
        (json!({ "primary": "other", "source": "other" }), true),
        (json!({ "primary": "pg", "source": "other" }), false),
        (
            json!({ "primary": "here", "self": "here", "source": "other" }),
            false,
        ),
        (
            json!({ "primary": "pg", "self": "here", "source": "other" }),
            true,
        ),
    ] {
        let facts = cluster_facts(&cluster(&json!({}), &json!({ "replica": replica }), &json!({})));
        assert_eq!(facts.is_replica, expected, "{replica}");
    }
}

#[test]
fn leases_and_objects_of_other_names() {
    let mut index = Index::new("pg");
    let lease = |name: &str, holder: &str| json!({ "metadata": { "name": name }, "spec": { "holderIdentity": holder, "renewTime": "2026-11-22T07:33:17Z" } });
    index.say(Resource::Leases, "ADDED", &lease("other", "x"));
    index.say(
        Resource::Clusters,
        "ADDED",
        &json!({ "metadata": { "name": "other" } }),
    );
    assert_eq!((index.facts().lease, index.facts().cluster), (None, None));
    index.say(Resource::Leases, "ADDED", &lease("pg", "pg-1"));
    let holder = |index: &Index| index.facts().lease.unwrap().holder;
    assert_eq!(holder(&index).as_deref(), Some("pg-1"));
    index.say(Resource::Leases, "MODIFIED", &lease("pg", ""));
    assert_eq!(holder(&index), None);
    assert_eq!(index.facts().lease, Some(LeaseFacts { holder: None }));
    index.say(Resource::Leases, "DELETED", &lease("other", ""));
    assert!(index.facts().lease.is_some());
    index.say(Resource::Leases, "DELETED", &lease("pg", ""));
    assert_eq!(index.facts().lease, None);
    index.apply(Object::Cluster(Default::default()));
    index.reset(Resource::Clusters, Vec::new());
    assert_eq!(index.facts().cluster, None);
}
