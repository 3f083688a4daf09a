//! How far the process is between start and end, for everyone who wants to watch.
//!
//! It does not know who moves it or why; it only makes sure that it never moves back.

use std::fmt;

use tokio::sync::watch;

/// The phases, in the order in which they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Reading files, binding sockets. Not ready.
    Starting,
    /// Taking and serving clients. Ready.
    Running,
    /// Told to stop: not ready, clients leave as their transactions end.
    Draining,
    /// Nothing is served any more.
    Stopped,
}

impl Phase {
    /// The word used in logs, metrics and the readiness probe.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The one that may move the phase. Watchers see [`Phase::Stopped`] at the latest when it is dropped.
#[derive(Debug)]
pub struct PhaseSender(watch::Sender<Phase>);

impl PhaseSender {
    /// A process that is starting.
    pub fn new() -> Self {
        Self(watch::Sender::new(Phase::Starting))
    }

    /// Moves forward to `phase`. Returns whether it moved: a phase that is reached or passed is left alone.
    pub fn advance(&self, phase: Phase) -> bool {
        self.0.send_if_modified(|current| {
            let forward = phase > *current;
            if forward {
                *current = phase;
            }
            forward
        })
    }

    /// The phase now.
    pub fn current(&self) -> Phase {
        *self.0.borrow()
    }

    /// A watch on the phase; `wait_for(|phase| *phase >= Phase::Draining)` waits for one.
    pub fn subscribe(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }
}

impl Default for PhaseSender {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for PhaseSender {
    fn drop(&mut self) {
        self.advance(Phase::Stopped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_only_move_forward() {
        let sender = PhaseSender::new();
        assert_eq!(sender.current(), Phase::Starting);
        assert!(sender.advance(Phase::Draining));
        assert!(!sender.advance(Phase::Running), "back to running");
        assert!(!sender.advance(Phase::Draining), "draining twice");
        assert_eq!(sender.current(), Phase::Draining);
    }

    #[test]
    fn a_refused_move_wakes_nobody() {
        let sender = PhaseSender::new();
        sender.advance(Phase::Running);
        let mut watcher = sender.subscribe();
        watcher.mark_unchanged();
        sender.advance(Phase::Starting);
        assert!(!watcher.has_changed().unwrap());
    }

    #[tokio::test]
    async fn dropping_the_sender_is_the_end() {
        let sender = PhaseSender::new();
        let watcher = sender.subscribe();
        drop(sender);
        assert_eq!(*watcher.borrow(), Phase::Stopped);
    }
}
