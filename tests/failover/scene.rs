//! One timeline with one pooler: the servers, what is said of them, and clients all the while.

use std::{
    fmt::{self, Display, Formatter},
    thread,
    time::{Duration, Instant},
};

use super::{
    announced::{Announced, Audience, Away},
    catalogue::Run,
    pace::Pace,
    poolers::{Running, Site},
    support::{Ledger, Load, Outcome, Rig, Verdict, Watch},
};

/// How long clients may take for what they are in the middle of when the load ends.
const GRACE: Duration = Duration::from_secs(3);
/// How long a server that was started is asked whether it takes writes.
const WRITABLE_LIMIT: Duration = Duration::from_secs(30);

/// What a script works on.
pub(super) struct Scene {
    pub(super) rig: Rig,
    pub(super) pace: &'static Pace,
    announced: Announced,
    audience: Audience,
    watch: Option<Watch>,
    seen: Seen,
    chronicle: Chronicle,
}

/// What has happened when, for a person.
pub(super) struct Chronicle {
    started: Instant,
    entries: Vec<(Instant, &'static str)>,
}

/// What a script found out.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    /// When the server that counts at the end first took writes.
    writable: Option<Instant>,
    /// How long a smart shutdown took.
    shutdown: Option<Duration>,
    /// The server that counts at the end.
    primary: usize,
    /// From when on everybody could know that the old primary is none any more, if it takes writes nevertheless.
    known: Option<Instant>,
}

/// What came of a timeline.
pub(super) struct Played {
    pub(super) outcome: Outcome,
    pub(super) verdict: Verdict,
    /// From the new primary's first writable moment to the first commit through the pooler; `None` if there was none.
    pub(super) first_commit: Option<Duration>,
    pub(super) shutdown: Option<Duration>,
    pub(super) chronicle: Chronicle,
    /// How many of its requests the API server did not allow.
    pub(super) refused: usize,
    /// What the pooler has logged.
    pub(super) log: String,
}

/// Why a timeline was not played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotPlayed {
    NoPgBouncer,
    NoNamespaces,
}

impl NotPlayed {
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::NoPgBouncer => "PgBouncer is not installed (Debian: pgbouncer)",
            Self::NoNamespaces => "no network namespaces here: they take root and the program ip",
        }
    }
}

impl Scene {
    /// Sets the scene, plays the script and looks at what is left.
    pub(super) fn play(run: &Run, pace: &'static Pace) -> Result<Played, NotPlayed> {
        let timeline = run.timeline;
        let rig = Rig::start(timeline.servers, timeline.network).ok_or(NotPlayed::NoNamespaces)?;
        Ledger::prepare(&rig, 0);
        if timeline.is_synchronous {
            rig.require_synchronous_standby(0);
        }
        let announced = Announced::healthy(&rig, timeline.version.has_lease());
        let audience = Audience::gather(&announced);
        let pooler = run.pooler.start(&Site {
            service: audience.service(),
            kubernetes: audience.settings(),
            hold: timeline.hold,
            hosts: announced.pods.iter().map(|pod| pod.address).collect(),
        })?;
        let ledger = Ledger::start(pooler.address(), Load::default());
        let mut scene = Self {
            rig,
            pace,
            announced,
            audience,
            watch: None,
            seen: Seen::default(),
            chronicle: Chronicle {
                started: ledger.started(),
                entries: Vec::new(),
            },
        };
        scene.pause(pace.calm);
        (timeline.script)(&mut scene, timeline.version);
        Ok(scene.end(ledger, &pooler))
    }

    /// Changes what is said.
    pub(super) fn say(&mut self, change: impl FnOnce(&mut Announced)) {
        change(&mut self.announced);
        self.audience.tell(&self.announced);
    }

    /// Takes down that something has just happened.
    pub(super) fn note(&mut self, what: &'static str) {
        self.chronicle.entries.push((Instant::now(), what));
    }

    /// Whoever asks the API server gets no answer, and what is said now is not heard.
    pub(super) fn api_server_goes_away(&mut self, how: Away) {
        self.audience.api_server_goes_away(how);
    }

    /// It answers again, with what has been said meanwhile.
    pub(super) fn api_server_comes_back(&mut self) {
        self.audience.api_server_comes_back();
    }

    /// Lets time pass, as long as somebody takes for something.
    pub(super) fn pause(&self, time: Duration) {
        thread::sleep(time);
    }

    /// From now on it counts when this server takes writes.
    pub(super) fn expect_writes_on(&mut self, primary: usize) {
        self.watch = Some(self.rig.watch(primary));
        self.seen.primary = primary;
        self.seen.writable = None;
    }

    /// From `time` from now on nobody may use the old primary, although it takes writes.
    pub(super) fn is_known_in(&mut self, time: Duration) {
        self.seen.known = Some(Instant::now() + time);
    }

    /// Takes note of how long a server took for a smart shutdown.
    pub(super) fn shutdown_took(&mut self, time: Duration) {
        self.seen.shutdown = Some(time);
    }

    fn end(mut self, ledger: Ledger, pooler: &Running) -> Played {
        let watch = self
            .watch
            .take()
            .expect("a script says on which server writes are expected");
        let writable = watch
            .writable_within(WRITABLE_LIMIT)
            .expect("the new primary takes writes");
        let came_back = ledger.first_commit(writable, self.pace.recovery).is_some();
        if came_back {
            // Who is not is stuck, which the outcome tells.
            ledger.is_everybody_back(self.pace.recovery);
        }
        self.pause(self.pace.calm);
        self.chronicle
            .entries
            .push((writable, "the new primary takes writes"));
        let outcome = ledger.finish(GRACE);
        let first_commit = outcome.first_commit(writable).map(|first| first - writable);
        Played {
            verdict: outcome.verify(&self.rig, self.seen.primary, self.seen.known),
            outcome,
            first_commit,
            shutdown: self.seen.shutdown,
            refused: self.audience.refused(),
            chronicle: self.chronicle,
            log: pooler.log(),
        }
    }
}

impl Display for Chronicle {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut entries = self.entries.clone();
        entries.sort_by_key(|&(at, _)| at);
        for (at, what) in entries {
            writeln!(f, "{:.2} s: {what}", (at - self.started).as_secs_f64())?;
        }
        Ok(())
    }
}
