//! What the played API server remembers: objects, the changes that made them, and what is wrong with it at the moment.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    fault::{Fault, WatchEnd},
    objects::{ClusterSpec, NAMESPACE, Resource},
    selector::Selector,
};

/// One change of one object.
#[derive(Debug, Clone)]
struct Change {
    version: u64,
    resource: Resource,
    old: Option<Value>,
    new: Option<Value>,
}

/// One request that has come, as RBAC sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `list` or `watch`
    pub verb: &'static str,
    /// Which objects.
    pub resource: Resource,
    /// In which namespace; empty for all.
    pub namespace: String,
    /// `labelSelector`, decoded.
    pub label_selector: String,
    /// `fieldSelector`, decoded.
    pub field_selector: String,
    /// `resourceVersion`
    pub version: Option<String>,
    /// `timeoutSeconds`
    pub timeout: Option<u64>,
    /// What was answered; 0 for nothing.
    pub status: u16,
}

/// How events are cut into chunks and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// A chunk and a write for each event.
    #[default]
    Whole,
    /// A chunk for each event, and each in many writes with pauses in between.
    Split,
    /// All events that are there in one chunk.
    Several,
    /// A chunk for every few bytes.
    Crumbs,
}

/// Everything that requests look at, and tests change.
pub(super) struct Store {
    /// The newest resourceVersion.
    pub(super) version: u64,
    /// Watches from before it are too old.
    oldest: u64,
    objects: BTreeMap<(Resource, String), Value>,
    changes: Vec<Change>,
    pub(super) clusters: BTreeMap<String, ClusterSpec>,
    pub(super) renewals: u64,
    pub(super) requests: Vec<Request>,
    pub(super) token: String,
    pub(super) forbidden: BTreeSet<(Resource, &'static str)>,
    pub(super) missing: BTreeSet<Resource>,
    /// What requests get instead of an answer, how often still, and to which verb (all if `None`).
    pub(super) fault: Option<(Fault, usize, Option<&'static str>)>,
    /// Nothing is said at all.
    pub(super) is_frozen: bool,
    /// A server without bookmarks and `sendInitialEvents`.
    pub(super) is_old: bool,
    pub(super) framing: Framing,
    /// How many times open watches were ended, and how the last time.
    pub(super) ended: (u64, WatchEnd),
    pub(super) watches: usize,
    /// How many of them have told a bookmark since they began.
    pub(super) bookmarked: usize,
    pub(super) is_stopped: bool,
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            version: 264,
            oldest: 0,
            objects: BTreeMap::new(),
            changes: Vec::new(),
            clusters: BTreeMap::new(),
            renewals: 0,
            requests: Vec::new(),
            token: "token-1".to_owned(),
            forbidden: BTreeSet::new(),
            missing: BTreeSet::new(),
            fault: None,
            is_frozen: false,
            is_old: false,
            framing: Framing::Whole,
            ended: (0, WatchEnd::Clean),
            watches: 0,
            bookmarked: 0,
            is_stopped: false,
        }
    }

    /// Other objects of the cluster change as well: versions have gaps.
    fn next_version(&mut self) -> u64 {
        self.version += 1 + self.version % 5;
        self.version
    }

    /// Creates or changes an object by its name. One that does not change is not written.
    pub(super) fn apply(&mut self, resource: Resource, mut object: Value) {
        let name = object["metadata"]["name"]
            .as_str()
            .expect("an object has a name")
            .to_owned();
        let key = (resource, name);
        let old = self.objects.get(&key).cloned();
        if let Some(old) = &old {
            for field in ["uid", "creationTimestamp", "resourceVersion"] {
                object["metadata"][field] = old["metadata"][field].clone();
            }
            object["metadata"]["generation"] = old["metadata"]["generation"].clone();
            if *old == object {
                return;
            }
        }
        let version = self.next_version();
        let generation = old
            .as_ref()
            .and_then(|old| old["metadata"]["generation"].as_u64());
        let metadata = &mut object["metadata"];
        metadata["namespace"] = json!(NAMESPACE);
        metadata["resourceVersion"] = json!(version.to_string());
        metadata["generation"] = json!(generation.unwrap_or(0) + 1);
        if old.is_none() {
            metadata["uid"] = json!(format!("51291103-1524-4e75-b945-{version:012}"));
            metadata["creationTimestamp"] = json!("2026-11-22T07:33:17Z");
        }
        self.objects.insert(key, object.clone());
        self.changes.push(Change {
            version,
            resource,
            old,
            new: Some(object),
        });
    }

    pub(super) fn delete(&mut self, resource: Resource, name: &str) {
        let Some(old) = self.objects.remove(&(resource, name.to_owned())) else {
            return;
        };
        let version = self.next_version();
        self.changes.push(Change {
            version,
            resource,
            old: Some(old),
            new: None,
        });
    }

    /// The names of the objects that have this label.
    pub(super) fn names(&self, resource: Resource, label: &str, value: &str) -> Vec<String> {
        let of_kind = self.objects.iter().filter(|((kind, _), _)| *kind == resource);
        let labelled = of_kind.filter(|(_, object)| object["metadata"]["labels"][label] == value);
        labelled.map(|((_, name), _)| name.clone()).collect()
    }

    pub(super) fn object(&self, resource: Resource, name: &str) -> Option<&Value> {
        self.objects.get(&(resource, name.to_owned()))
    }

    /// The items of a list: without `kind` and `apiVersion`, as in a real one.
    pub(super) fn list(&self, resource: Resource, selector: &Selector) -> Vec<Value> {
        let of_kind = self.objects.iter().filter(|((kind, _), _)| *kind == resource);
        let selected = of_kind.filter(|(_, object)| selector.matches(object));
        selected.map(|(_, object)| object.clone()).collect()
    }

    pub(super) fn is_too_old(&self, version: u64) -> bool {
        version < self.oldest
    }

    pub(super) fn oldest(&self) -> u64 {
        self.oldest
    }

    /// What a watch is told of changes after `version`: type and object.
    pub(super) fn events(
        &self,
        resource: Resource,
        selector: &Selector,
        version: u64,
    ) -> Vec<(&'static str, Value)> {
        let mut events = Vec::new();
        for change in &self.changes {
            if change.resource != resource || change.version <= version {
                continue;
            }
            let selected = |object: &Option<Value>| object.clone().filter(|object| selector.matches(object));
            let event = match (selected(&change.old), selected(&change.new)) {
                (None, Some(new)) => ("ADDED", new),
                (Some(_), Some(new)) => ("MODIFIED", new),
                (Some(mut old), None) => {
                    // The last state that was selected, with the version of the change that ended it.
                    old["metadata"]["resourceVersion"] = json!(change.version.to_string());
                    ("DELETED", old)
                }
                (None, None) => continue,
            };
            events.push((event.0, typed(resource, event.1)));
        }
        events
    }

    /// Forgets what has happened: who asks for it is told 410.
    pub(super) fn compact(&mut self) {
        self.next_version();
        self.oldest = self.version;
        self.changes.clear();
    }

    /// The store is restored from an old backup: versions are smaller than they were.
    pub(super) fn roll_back(&mut self) {
        self.version = 20;
        self.oldest = 0;
        self.changes.clear();
        for object in self.objects.values_mut() {
            object["metadata"]["resourceVersion"] = json!("20");
        }
    }

    pub(super) fn end_watches(&mut self, how: WatchEnd) {
        self.ended = (self.ended.0 + 1, how);
    }

    /// Uses up one of the faults that were asked for.
    pub(super) fn take_fault(&mut self, verb: &str) -> Option<Fault> {
        let (fault, left, only) = self.fault.take()?;
        if only.is_some_and(|only| only != verb) {
            self.fault = Some((fault, left, only));
            return None;
        }
        let left = if left == usize::MAX { left } else { left - 1 };
        if left > 0 {
            self.fault = Some((fault, left, only));
        }
        Some(fault)
    }
}

/// Objects in watch events say what they are.
pub(super) fn typed(resource: Resource, mut object: Value) -> Value {
    object["kind"] = json!(resource.kind());
    object["apiVersion"] = json!(resource.api_version());
    object
}
