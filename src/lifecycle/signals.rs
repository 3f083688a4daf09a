//! Signals as values, and what each of them asks for in each phase.
//!
//! It starts and stops nothing; whoever holds [`Signals`] acts.

use std::io;

use tokio::signal::unix::{self, SignalKind};

use super::Phase;

/// A signal that the process listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, from an init system or a kubelet.
    Terminate,
    /// SIGINT, from a terminal.
    Interrupt,
    /// SIGHUP.
    Reload,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Let clients finish their transactions, then end.
    Drain,
    /// End at once; the asker has lost patience.
    StopNow,
    /// Read the configuration again.
    Reload,
    /// Nothing: there is no use in it any more.
    Ignore,
}

impl Signal {
    /// What this signal asks of a process in `phase`. The second SIGTERM or SIGINT ends the draining that
    /// the first one began.
    pub fn action(self, phase: Phase) -> Action {
        match (self, phase) {
            (Self::Terminate | Self::Interrupt, Phase::Starting | Phase::Running) => Action::Drain,
            (Self::Terminate | Self::Interrupt, Phase::Draining | Phase::Stopped) => Action::StopNow,
            (Self::Reload, Phase::Starting | Phase::Running) => Action::Reload,
            (Self::Reload, Phase::Draining | Phase::Stopped) => Action::Ignore,
        }
    }

    /// The name that `kill -l` knows it by.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::Reload => "SIGHUP",
        }
    }
}

/// The stream of signals. From its creation on the process no longer dies of them, even after it is dropped.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    /// Installs the handlers. Must be called inside a runtime.
    ///
    /// # Errors
    /// A handler could not be installed.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }

    /// The next signal. Equal signals that come before they are looked at count once. Cancel-safe.
    pub async fn next(&mut self) -> Signal {
        // A closed stream (the runtime is ending) yields nothing, so that the other arms keep their turn.
        tokio::select! {
            biased;
            Some(()) = self.terminate.recv() => Signal::Terminate,
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.hangup.recv() => Signal::Reload,
            else => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{self, raise};

    use super::*;

    #[test]
    fn the_second_request_to_end_is_an_order() {
        for ask in [Signal::Terminate, Signal::Interrupt] {
            assert_eq!(ask.action(Phase::Starting), Action::Drain);
            assert_eq!(ask.action(Phase::Running), Action::Drain);
            assert_eq!(ask.action(Phase::Draining), Action::StopNow);
            assert_eq!(ask.action(Phase::Stopped), Action::StopNow);
        }
    }

    #[test]
    fn a_reload_while_ending_is_pointless() {
        assert_eq!(Signal::Reload.action(Phase::Running), Action::Reload);
        assert_eq!(Signal::Reload.action(Phase::Draining), Action::Ignore);
    }

    // One test for all three: a raised signal reaches every listener of the process.
    #[tokio::test]
    async fn every_signal_arrives_as_itself() {
        let mut signals = Signals::listen().unwrap();
        for (raw, expected) in [
            (signal::SIGHUP, Signal::Reload),
            (signal::SIGTERM, Signal::Terminate),
            (signal::SIGINT, Signal::Interrupt),
            (signal::SIGTERM, Signal::Terminate),
        ] {
            raise(raw).unwrap();
            assert_eq!(signals.next().await, expected);
        }
    }
}
