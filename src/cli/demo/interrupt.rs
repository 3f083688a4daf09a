//! Ctrl-C, SIGTERM and a closed terminal as a value to look at, for a program that works with blocking calls.

use std::{
    io,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};

/// Whether the person has asked for the end.
#[derive(Debug)]
pub struct Interrupt(Receiver<()>);

impl Interrupt {
    /// From here on these signals no longer end the process by themselves.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn listen() -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let (ready, installed) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async move {
                let signals = install();
                match signals {
                    Ok([mut interrupt, mut terminate, mut hangup]) => {
                        let _ = ready.send(Ok(()));
                        loop {
                            tokio::select! {
                                _ = interrupt.recv() => {}
                                _ = terminate.recv() => {}
                                _ = hangup.recv() => {}
                            }
                            // Nobody listens once the demo is being taken down.
                            let _ = sender.send(());
                        }
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            });
        })?;
        installed.recv().map_err(io::Error::other)??;
        Ok(Self(receiver))
    }

    /// Waits up to `limit` for a signal; whether one came.
    pub fn came_within(&self, limit: Duration) -> bool {
        !matches!(self.0.recv_timeout(limit), Err(RecvTimeoutError::Timeout))
    }
}

fn install() -> io::Result<[tokio::signal::unix::Signal; 3]> {
    Ok([
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    ])
}
