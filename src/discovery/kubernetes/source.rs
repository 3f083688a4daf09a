//! Keeps one kind of object current: a list, then a watch from there, again and again.
//!
//! What it learns it tells a board. It never gives up, and nothing that fails here takes back what was known.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use tokio::time::{sleep, sleep_until, timeout_at};
use tracing::{info, warn};

use super::{
    backoff::Backoff,
    client::{Api, Client, Query, of_body},
    error::WatchError,
    event::{Event, List},
    lines::Lines,
    metrics::Metrics,
    watcher::{Board, Knowledge},
};

/// Short, because a watch can be silent for ever although it should not be: from a version that the server has not
/// reached (its store was restored), or through a network that has lost the connection. The end of each is a chance to
/// notice.
const WATCH_SECONDS: u32 = 30;
/// How much later than that a server may say so.
const GRACE: Duration = Duration::from_secs(5);
/// Between two watches.
const SHORTEST: Duration = Duration::from_millis(300);
/// For how long the API server has to say that we are not allowed what it tells others, before we believe that it is so.
const DENIAL: Duration = Duration::from_secs(30);

/// One kind of object of one cluster.
pub(super) struct Source<K: Knowledge> {
    pub(super) client: Client,
    pub(super) query: Query,
    pub(super) board: Board<K>,
    pub(super) metrics: Metrics,
    /// `namespace/name`, for the log.
    pub(super) cluster: String,
}

/// How it goes.
struct Course {
    backoff: Backoff,
    /// The kind of failure that was logged last; `None` while all is well.
    trouble: Option<&'static str>,
    /// Since when the API server has said that we are to do without.
    denied: Option<Instant>,
    /// The last list has succeeded.
    has_listed: bool,
}

/// A watch that has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It has told something: it is where the server is.
    Heard,
    /// It has told nothing at all.
    Silent,
}

impl<K: Knowledge> Source<K> {
    /// Goes on until it is dropped.
    pub(super) async fn run(self) {
        let mut course = Course {
            backoff: Backoff::default(),
            trouble: None,
            denied: None,
            has_listed: false,
        };
        let api = self.client.open();
        // What is known up to; `None` when it is not worth watching from.
        let mut version: Option<String> = None;
        let mut is_current = false;
        loop {
            if !is_current {
                let listed = self.list(&api).await;
                course.has_listed = listed.is_ok();
                match listed {
                    Ok(new) => version = Some(new),
                    Err(error) => {
                        self.failed(&mut course, &error).await;
                        if version.is_none() || !error.is_of_lists_only() {
                            continue;
                        }
                    }
                }
            }
            let Some(from) = version.as_mut() else { continue };
            let begun = tokio::time::Instant::now();
            match self.watch(&api, from, &mut course).await {
                Ok(ended) => {
                    is_current = ended == Ended::Heard;
                    // Whoever ends watches as soon as they begin is not asked without a pause.
                    sleep_until(begun + SHORTEST).await;
                }
                Err(error) => {
                    is_current = false;
                    if matches!(error, WatchError::Expired) {
                        version = None;
                    }
                    self.failed(&mut course, &error).await;
                }
            }
        }
    }

    /// Reads everything. The same as before changes nothing.
    async fn list(&self, api: &Api) -> Result<String, WatchError> {
        let bytes = api.list(&self.query).await?;
        let list = List::parse(self.query.resource, &bytes)?;
        self.metrics.lists.inc();
        self.metrics.heard();
        self.board
            .change(|index| index.reset(self.query.resource, list.objects));
        Ok(list.version)
    }

    /// Follows what happens, and moves `version` along.
    async fn watch(&self, api: &Api, version: &mut String, course: &mut Course) -> Result<Ended, WatchError> {
        let opened = tokio::time::Instant::now();
        let mut body = api.watch(&self.query, version, WATCH_SECONDS).await?;
        if course.has_listed {
            self.works(course);
        }
        let until = opened + Duration::from_secs(WATCH_SECONDS.into()) + GRACE;
        let (mut lines, mut ended) = (Lines::default(), Ended::Silent);
        loop {
            let frame = timeout_at(until, body.frame()).await;
            let Some(frame) = frame.map_err(|_| WatchError::Silent)? else {
                return Ok(ended);
            };
            let frame = frame.map_err(|error| of_body(error.into()))?;
            let Some(piece) = frame.data_ref() else { continue };
            lines.push(piece)?;
            while let Some(line) = lines.next() {
                if let Some(new) = self.take(&line)? {
                    *version = new;
                }
                self.metrics.heard();
                self.works(course);
                course.backoff.reset();
                ended = Ended::Heard;
            }
        }
    }

    /// One event; the version that it leads to.
    fn take(&self, line: &[u8]) -> Result<Option<String>, WatchError> {
        let resource = self.query.resource;
        let version = match Event::parse(resource, line)? {
            Event::Applied(object, version) => {
                self.board.change(|index| index.apply(*object));
                version
            }
            Event::Deleted(name, version) => {
                self.board.change(|index| index.delete(resource, &name));
                version
            }
            Event::Bookmark(version) => version,
            Event::Other => return Ok(None),
        };
        Ok(Some(version).filter(|version| !version.is_empty()))
    }

    /// A watch is open and worth something.
    fn works(&self, course: &mut Course) {
        self.metrics.up.set(1);
        self.board.set_up(self.query.resource, true);
        course.denied = None;
        if course.trouble.take().is_some() {
            let (cluster, resource) = (self.cluster.as_str(), self.query.resource.plural());
            info!(cluster, resource, "kubernetes tells of changes again");
        }
    }

    /// Something has gone wrong: says so once, and waits.
    async fn failed(&self, course: &mut Course, error: &WatchError) {
        self.metrics.failed(error.kind());
        // The end of a watch is nothing unusual, whatever it looks like. What counts is whether the next one opens.
        let was_up = self.board.set_up(self.query.resource, false);
        if !was_up || error.is_denial() {
            self.metrics.up.set(0);
            self.complain(course, error);
        }
        if error.is_denial() {
            self.denied(course);
        } else {
            course.denied = None;
        }
        sleep(course.backoff.next(error)).await;
    }

    fn complain(&self, course: &mut Course, error: &WatchError) {
        if course.trouble.replace(error.kind()) == Some(error.kind()) {
            return;
        }
        let (cluster, resource) = (self.cluster.as_str(), self.query.resource.plural());
        let error = error.chain();
        warn!(
            cluster,
            resource, error, "kubernetes does not tell of changes; what is known stays as it is"
        );
    }

    /// What was known of an object that we may not read any more gets old, and would stand against what others say.
    fn denied(&self, course: &mut Course) {
        let since = *course.denied.get_or_insert_with(Instant::now);
        if since.elapsed() >= DENIAL {
            self.board.give_up(self.query.resource);
        }
    }
}
