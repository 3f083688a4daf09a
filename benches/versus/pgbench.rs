//! One pgbench with its clients, who can be paused: all of them, wherever they are.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read},
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use pgweir::cli::demo::{
    child::{OwnedChild, describe},
    interrupt::Interrupt,
};
use tempfile::TempDir;

use super::{
    error::MeasureError,
    latency::Transactions,
    poolers::Pooler,
    site::{ROLE, Site},
    workloads::{Load, Workload},
};

/// Until all clients have connected, and for the end.
const LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
/// Threads of pgbench for a few clients and for many.
const THREADS: (u32, u32) = (2, 4);
const MANY_CLIENTS: u32 = 500;
/// For `-T`: longer than anybody measures. It is ended by the signal that its own clock would send.
const FOREVER: &str = "86400";
const CLOCK: Signal = Signal::SIGALRM;
/// What pgbench says each second from the start of the load on, on its standard error.
const PROGRESS: &str = "progress: ";

/// A pgbench that runs.
pub(crate) struct Clients {
    child: OwnedChild,
    /// Of its logs.
    directory: TempDir,
    /// Its standard error, line by line.
    lines: Receiver<String>,
    said: Vec<String>,
    /// Its standard output when it has ended.
    summary: Option<JoinHandle<String>>,
}

impl Clients {
    /// Starts them on `database` behind `port`.
    pub(crate) fn start(
        site: &Site,
        port: u16,
        database: &str,
        workload: &Workload,
    ) -> Result<Self, MeasureError> {
        let directory = tempfile::tempdir_in(site.scratch.path())
            .map_err(MeasureError::io("cannot make a directory for pgbench's log"))?;
        let command = command(site, port, database, workload, &directory);
        Self::spawn(command, directory).map_err(MeasureError::io("cannot run pgbench"))
    }

    fn spawn(command: Command, directory: TempDir) -> io::Result<Self> {
        let mut child = OwnedChild::spawn(command)?;
        let (sender, lines) = mpsc::channel();
        let (stdout, stderr) = (child.pipes().stdout.take(), child.pipes().stderr.take());
        thread::Builder::new()
            .name("pgbench-stderr".into())
            .spawn(move || {
                let lines = stderr
                    .into_iter()
                    .flat_map(|stderr| BufReader::new(stderr).lines());
                for line in lines.map_while(Result::ok) {
                    // Nobody listens to one that is given up.
                    let _ = sender.send(line);
                }
            })?;
        let summary = thread::Builder::new()
            .name("pgbench-stdout".into())
            .spawn(move || {
                let mut text = String::new();
                // What cannot be read is missing from the summary, which is told.
                let _ = stdout.map(|mut stdout| stdout.read_to_string(&mut text));
                text
            })?;
        Ok(Self {
            child,
            directory,
            lines,
            said: Vec::new(),
            summary: Some(summary),
        })
    }

    /// Waits until all clients have connected and been at work for a second.
    pub(crate) fn wait_for_load(
        &mut self,
        pooler: &mut Pooler,
        interrupt: &Interrupt,
    ) -> Result<(), MeasureError> {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.lines.recv_timeout(POLL) {
                Ok(line) if line.starts_with(PROGRESS) => return Ok(()),
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(self.gave_up(interrupt)),
            }
            pooler.check()?;
            if interrupt.came_within(Duration::ZERO) {
                return Err(MeasureError::Interrupted);
            }
            if Instant::now() >= deadline {
                return Err(too_late("the start of the load"));
            }
        }
    }

    /// An error if they have ended by themselves.
    pub(crate) fn check(&mut self, interrupt: &Interrupt) -> Result<(), MeasureError> {
        let ended = self.child.ended();
        match ended.map_err(MeasureError::io("cannot look at pgbench"))? {
            None => Ok(()),
            Some(_) => Err(self.gave_up(interrupt)),
        }
    }

    pub(crate) fn pause(&mut self) -> Result<(), MeasureError> {
        self.signal(Signal::SIGSTOP)
    }

    pub(crate) fn resume(&mut self) -> Result<(), MeasureError> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&mut self, signal: Signal) -> Result<(), MeasureError> {
        let sent = self.child.signal(signal);
        sent.map_err(MeasureError::io("cannot send pgbench a signal"))
    }

    /// Ends them, paused or not; an error if not everything went well.
    pub(crate) fn finish(&mut self, interrupt: &Interrupt) -> Result<(), MeasureError> {
        self.signal(CLOCK)?;
        self.resume()?;
        self.wait(interrupt)
    }

    fn wait(&mut self, interrupt: &Interrupt) -> Result<(), MeasureError> {
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            match self.child.ended() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() >= deadline => return Err(too_late("the end of pgbench")),
                Ok(None) if interrupt.came_within(POLL) => return Err(MeasureError::Interrupted),
                Ok(None) => {}
                Err(error) => return Err(MeasureError::io("cannot look at pgbench")(error)),
            }
        };
        self.said
            .extend(self.lines.iter().filter(|line| !line.starts_with(PROGRESS)));
        if !status.success() {
            let how = describe(status);
            return Err(MeasureError::Pgbench {
                how,
                said: complaint(&self.said),
            });
        }
        let summary = self.summary.take().and_then(|reader| reader.join().ok());
        match failed_transactions(&summary.unwrap_or_default()) {
            0 => Ok(()),
            count => Err(MeasureError::FailedTransactions { count }),
        }
    }

    /// Why they have ended, which they should not have.
    fn gave_up(&mut self, interrupt: &Interrupt) -> MeasureError {
        self.wait(interrupt).err().unwrap_or(MeasureError::Nothing)
    }

    /// Adds what they have done.
    pub(crate) fn read_logs(&self, transactions: &mut Transactions) -> Result<(), MeasureError> {
        let mut read = || -> io::Result<()> {
            for entry in self.directory.path().read_dir()? {
                transactions.add(&fs::read_to_string(entry?.path())?);
            }
            Ok(())
        };
        read().map_err(MeasureError::io("cannot read pgbench's log"))
    }
}

fn command(site: &Site, port: u16, database: &str, workload: &Workload, directory: &TempDir) -> Command {
    // Nobody would resume one that is paused when the benchmark is killed.
    let mut command = site.programs().tied_command("pgbench", Signal::SIGKILL);
    let threads = if workload.clients < MANY_CLIENTS {
        THREADS.0
    } else {
        THREADS.1
    };
    command.args(["-n", "-P", "1", "--log", "--log-prefix=log", "-c"]);
    command.args([workload.clients.to_string(), "-j".into(), threads.to_string()]);
    command.args(["-T", FOREVER]);
    match workload.load {
        Load::Select { extended: true } => command.args(["-S", "-M", "extended"]),
        Load::Storm => command.args(["-S", "-C"]),
        Load::TpcB => command.args(["-b", "tpcb-like"]),
        Load::Select { extended: false } | Load::Stream | Load::Idle => command.arg("-S"),
    };
    let tls = if workload.tls { "require" } else { "disable" };
    command
        .arg(format!(
            "host=127.0.0.1 port={port} user={ROLE} dbname={database} sslmode={tls} gssencmode=disable"
        ))
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The line that says most: the first that is an error, or the last.
fn complaint(said: &[String]) -> String {
    let error = said.iter().find(|line| line.contains("error:"));
    error.or(said.last()).cloned().unwrap_or_default()
}

/// PostgreSQL 14 has no such line; a failed transaction ends its client there, and so pgbench.
fn failed_transactions(summary: &str) -> u64 {
    let label = "number of failed transactions: ";
    let line = summary.lines().find_map(|line| line.strip_prefix(label));
    let digits = line.and_then(|line| line.split(' ').next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn too_late(what: &'static str) -> MeasureError {
    let seconds = LIMIT.as_secs();
    MeasureError::TooLate { what, seconds }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_transactions_are_found() {
        let summary = "scaling factor: 10\nnumber of failed transactions: 3 (0.002%)\n";
        assert_eq!(failed_transactions(summary), 3);
        assert_eq!(failed_transactions("scaling factor: 10\n"), 0);
    }

    #[test]
    fn an_error_says_more_than_what_follows() {
        let said = ["starting", "pgbench: error: client 3 aborted", "Run was aborted"].map(str::to_owned);
        assert_eq!(complaint(&said), "pgbench: error: client 3 aborted");
        assert_eq!(complaint(&said[..1]), "starting");
    }
}
