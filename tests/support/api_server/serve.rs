//! One connection to the played API server: requests one after the other, lists and watches.

use std::{
    io::{self, BufReader},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    fault::{Failure, Fault, WatchEnd, status},
    http::{self, Head, Stream},
    objects::{NAMESPACE, Resource},
    selector::Selector,
    store::{Request, Store, typed},
};

/// How often a watch that has nothing to say looks whether its client is there.
const LOOK: Duration = Duration::from_millis(50);
/// A real server's is a minute; tests are shorter.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(1);
/// How long a list waits for a version that the server has not seen.
const PATIENCE: Duration = Duration::from_millis(500);

/// What all connections share.
pub(super) struct Hub {
    store: Mutex<Store>,
    changed: Condvar,
}

impl Hub {
    pub(super) fn new() -> Self {
        Self {
            store: Mutex::new(Store::new()),
            changed: Condvar::new(),
        }
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let result = change(&mut self.store());
        self.changed.notify_all();
        result
    }

    fn wait<'a>(&self, store: MutexGuard<'a, Store>, at_most: Duration) -> MutexGuard<'a, Store> {
        let waited = self.changed.wait_timeout(store, at_most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits for as long as the server is frozen.
    fn thawed(&self) -> MutexGuard<'_, Store> {
        let mut store = self.store();
        while store.is_frozen && !store.is_stopped {
            store = self.wait(store, LOOK);
        }
        store
    }
}

/// Answers until the client goes, or something is wrong with the server.
pub(super) fn connection(hub: &Hub, stream: Stream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        drop(hub.thawed());
        let Some(head) = Head::read(&mut stream)? else {
            return Ok(());
        };
        drop(hub.thawed());
        if !answer(hub, stream.get_mut(), &head)? || head.is_last() {
            return Ok(());
        }
    }
}

/// Whether the connection can be used again.
fn answer(hub: &Hub, stream: &mut Stream, head: &Head) -> io::Result<bool> {
    let Some((resource, namespace)) = target(&head.path) else {
        http::write_failure(
            stream,
            &Failure::status(
                404,
                "NotFound",
                "the server could not find the requested resource",
            ),
        )?;
        return Ok(true);
    };
    let verb = if head.flag("watch") { "watch" } else { "list" };
    let (fault, failure, index) = {
        let mut store = hub.store();
        let fault = store.take_fault(verb);
        let failure = match fault {
            Some(fault) => fault.answer(),
            None => refusal(&store, resource, &namespace, verb, head),
        };
        let status = match (&failure, fault) {
            (Some(failure), _) => failure.status,
            (None, Some(_)) => 0,
            (None, None) => 200,
        };
        store.requests.push(Request {
            verb,
            resource,
            namespace,
            label_selector: head.parameter("labelSelector").to_owned(),
            field_selector: head.parameter("fieldSelector").to_owned(),
            version: head.query.get("resourceVersion").cloned(),
            timeout: head.parameter("timeoutSeconds").parse().ok(),
            status,
        });
        (fault, failure, store.requests.len() - 1)
    };
    if let Some(failure) = failure {
        http::write_failure(stream, &failure)?;
        return Ok(true);
    }
    match fault {
        Some(Fault::HalfAnAnswer) => return http::write_half(stream).map(|()| false),
        Some(Fault::Silent) => return silence(hub, stream).map(|()| false),
        Some(_) => return Ok(false),
        None => {}
    }
    let selector = match Selector::parse(head.parameter("labelSelector"), head.parameter("fieldSelector")) {
        Ok(selector) => selector,
        Err(message) => {
            hub.store().requests[index].status = 400;
            return http::write_failure(stream, &Failure::status(400, "BadRequest", &message)).map(|()| true);
        }
    };
    match verb {
        "list" => list(hub, stream, resource, &selector, head),
        _ => watch(hub, stream, resource, &selector, head),
    }
}

/// `/apis/GROUP/v1[/namespaces/NAMESPACE]/PLURAL`
fn target(path: &str) -> Option<(Resource, String)> {
    let parts: Vec<&str> = path.split('/').collect();
    let (group, namespace, plural) = match parts.as_slice() {
        ["", "apis", group, "v1", "namespaces", namespace, plural] => (group, *namespace, plural),
        ["", "apis", group, "v1", plural] => (group, "", plural),
        _ => return None,
    };
    let is_meant = |resource: &Resource| resource.group() == *group && resource.plural() == *plural;
    Some((Resource::ALL.into_iter().find(is_meant)?, namespace.to_owned()))
}

/// What the server says before it looks at the request itself: who is it, and may they?
fn refusal(
    store: &Store,
    resource: Resource,
    namespace: &str,
    verb: &'static str,
    head: &Head,
) -> Option<Failure> {
    let user = match head.bearer() {
        Some(token) if token == store.token => "system:serviceaccount:db:pooler",
        Some(_) => return Some(Failure::status(401, "Unauthorized", "Unauthorized")),
        None => "system:anonymous",
    };
    // The Role of the chart names the objects that have names, which tests/helm.rs checks.
    let is_named =
        resource == Resource::EndpointSlices || head.parameter("fieldSelector").starts_with("metadata.name=");
    let allowed = user != "system:anonymous"
        && namespace == NAMESPACE
        && is_named
        && !store.forbidden.contains(&(resource, verb));
    let (group, plural) = (resource.group(), resource.plural());
    if !allowed {
        let message = format!(
            "{plural}.{group} is forbidden: User \"{user}\" cannot {verb} resource \"{plural}\" in API group \"{group}\" in the namespace \"{namespace}\"",
        );
        return Some(Failure::status(403, "Forbidden", &message));
    }
    if store.missing.contains(&resource) {
        return Some(Failure::status(
            404,
            "NotFound",
            "the server could not find the requested resource",
        ));
    }
    let (is_watch, starts_with_list) = (verb == "watch", head.flag("sendInitialEvents"));
    if is_watch && starts_with_list && !store.is_old && head.parameter("resourceVersionMatch").is_empty() {
        let message = "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents \
                       requires setting resourceVersionMatch to NotOlderThan";
        return Some(Failure::status(422, "Invalid", message));
    }
    None
}

/// Until somebody ends it, or the fault is over.
fn silence(hub: &Hub, stream: &Stream) -> io::Result<()> {
    let mut store = hub.store();
    while !store.is_stopped && store.fault.is_some() && !stream.is_closed() {
        store = hub.wait(store, LOOK);
    }
    Ok(())
}

fn list(
    hub: &Hub,
    stream: &mut Stream,
    resource: Resource,
    selector: &Selector,
    head: &Head,
) -> io::Result<bool> {
    let wanted = match head.parameter("resourceVersion") {
        "" => 0,
        text => match text.parse::<u64>() {
            Ok(version) => version,
            Err(_) => {
                let failure = Failure::status(400, "BadRequest", "invalid resource version");
                return http::write_failure(stream, &failure).map(|()| true);
            }
        },
    };
    let since = Instant::now();
    while wanted > hub.store().version {
        if since.elapsed() > PATIENCE {
            let failure = Fault::VersionTooLarge.answer().expect("it is one answer");
            return http::write_failure(stream, &failure).map(|()| true);
        }
        thread::sleep(LOOK);
    }
    let body = {
        let store = hub.store();
        json!({
            "kind": format!("{}List", resource.kind()),
            "apiVersion": resource.api_version(),
            "metadata": { "resourceVersion": store.version.to_string() },
            "items": store.list(resource, selector),
        })
    };
    http::write_body(stream, &format!("{body}\n"))?;
    Ok(true)
}

/// One watch under way.
struct Watch<'a> {
    hub: &'a Hub,
    resource: Resource,
    selector: &'a Selector,
    /// What has been sent.
    version: u64,
    /// How often watches had been ended when it began.
    ended: u64,
    until: Instant,
    bookmark_at: Option<Instant>,
    has_bookmarked: bool,
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({ "type": kind, "object": object }))
}

fn watch(
    hub: &Hub,
    stream: &mut Stream,
    resource: Resource,
    selector: &Selector,
    head: &Head,
) -> io::Result<bool> {
    let timeout = head.parameter("timeoutSeconds").parse().unwrap_or(1800);
    let from = match head.parameter("resourceVersion") {
        "" => 0,
        text => match text.parse::<u64>() {
            Ok(version) => version,
            Err(_) => {
                let failure = Failure::status(500, "", "invalid resource version");
                return http::write_failure(stream, &failure).map(|()| true);
            }
        },
    };
    http::write_watch_head(stream)?;
    let mut watch = Watch {
        hub,
        resource,
        selector,
        version: from,
        ended: 0,
        until: Instant::now() + Duration::from_secs(timeout),
        bookmark_at: None,
        has_bookmarked: false,
    };
    let first = watch.begin(from, head);
    let framing = hub.store().framing;
    match first {
        Ok(events) => http::write_events(stream, &events, framing)?,
        Err(expired) => {
            http::write_events(stream, &[expired], framing)?;
            return http::write_last_chunk(stream).map(|()| true);
        }
    }
    hub.change(|store| store.watches += 1);
    let ended = watch.run(stream);
    hub.change(|store| {
        store.watches -= 1;
        store.bookmarked -= usize::from(watch.has_bookmarked);
    });
    ended
}

impl Watch<'_> {
    /// The state as it is, if it was asked for; or that the version is too old.
    fn begin(&mut self, from: u64, head: &Head) -> Result<Vec<String>, String> {
        let store = self.hub.store();
        self.ended = store.ended.0;
        let marks = head.flag("allowWatchBookmarks") && !store.is_old;
        self.bookmark_at = marks.then(|| Instant::now() + BOOKMARK_PERIOD);
        let wants_list = from == 0 || (head.flag("sendInitialEvents") && !store.is_old);
        if !wants_list {
            if store.is_too_old(from) {
                let message = format!("too old resource version: {from} ({})", store.oldest());
                return Err(line("ERROR", &status(410, "Expired", &message)));
            }
            return Ok(Vec::new());
        }
        let items = store.list(self.resource, self.selector);
        let mut events: Vec<_> = items
            .into_iter()
            .map(|object| line("ADDED", &typed(self.resource, object)))
            .collect();
        self.version = store.version;
        if marks {
            events.push(line("BOOKMARK", &self.resource.bookmark(store.version, true)));
        }
        Ok(events)
    }

    fn run(&mut self, stream: &mut Stream) -> io::Result<bool> {
        loop {
            let mut store = self.hub.thawed();
            if store.is_stopped {
                return Ok(false);
            }
            let framing = store.framing;
            if store.ended.0 != self.ended {
                let how = store.ended.1;
                drop(store);
                return end(stream, how);
            }
            let mut events: Vec<_> = store
                .events(self.resource, self.selector, self.version)
                .into_iter()
                .map(|(kind, object)| line(kind, &object))
                .collect();
            let now = Instant::now();
            let is_ahead = self.version > store.version;
            if !is_ahead {
                self.version = store.version;
                if self.bookmark_at.is_some_and(|at| at <= now) {
                    self.bookmark_at = Some(now + BOOKMARK_PERIOD);
                    events.push(line("BOOKMARK", &self.resource.bookmark(store.version, false)));
                    store.bookmarked += usize::from(!std::mem::replace(&mut self.has_bookmarked, true));
                }
            }
            if events.is_empty() && now < self.until {
                store = self.hub.wait(store, LOOK.min(self.until - now));
                drop(store);
                if stream.is_closed() {
                    return Ok(false);
                }
                continue;
            }
            drop(store);
            http::write_events(stream, &events, framing)?;
            if now >= self.until {
                return end(stream, WatchEnd::Clean);
            }
        }
    }
}

fn end(stream: &mut Stream, how: WatchEnd) -> io::Result<bool> {
    let error = match how {
        WatchEnd::Clean => None,
        WatchEnd::Cut => return Ok(false),
        WatchEnd::Reset => {
            stream.reset_at_end()?;
            return Ok(false);
        }
        WatchEnd::Expired => Some(status(410, "Expired", "too old resource version: 418 (419)")),
        WatchEnd::Error => Some(status(500, "InternalError", "context deadline exceeded")),
    };
    if let Some(error) = error {
        http::write_events(stream, &[line("ERROR", &error)], super::Framing::Whole)?;
    }
    http::write_last_chunk(stream)?;
    Ok(true)
}
