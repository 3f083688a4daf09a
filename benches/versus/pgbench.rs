//! One run of pgbench through a pooler, measured while all of its clients are busy.
//!
//! Clients connect and settle before the window that counts, and go on beyond its end; what they did within it is in
//! pgbench's own log.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use pgweir::cli::demo::{
    child::{OwnedChild, describe},
    interrupt::Interrupt,
};
use tempfile::TempDir;

use super::{
    error::MeasureError,
    latency::{Span, Transactions, Window},
    measure::{Spent, Usage},
    metrics::{Metric, Sample},
    poolers::Pooler,
    site::{DATABASE, ROLE, Site},
    statistics::as_f64,
    workloads::{Load, Workload},
};

/// Until all clients have connected, and for the end.
const LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
/// The first second is over when the window begins; the other is room at its end.
const MARGIN: u32 = 2;
/// Threads of pgbench for a few clients and for many.
const THREADS: (u32, u32) = (2, 4);
const MANY_CLIENTS: u32 = 500;
/// What pgbench says each second from the start of the load on, on its standard error.
const PROGRESS: &str = "progress: ";

/// Runs it; the window is `seconds` long.
pub(crate) fn measure(
    site: &Site,
    pooler: &mut Pooler,
    workload: &Workload,
    seconds: u32,
    interrupt: &Interrupt,
) -> Result<Sample, MeasureError> {
    let directory = tempfile::tempdir_in(site.scratch.path())
        .map_err(MeasureError::io("cannot make a directory for pgbench's log"))?;
    let mut run = Run::start(command(site, pooler.port(), workload, seconds, &directory))?;
    run.wait_for_load(pooler, interrupt)?;
    let (window, spent) = run.watch(pooler, seconds, interrupt)?;
    run.finish(interrupt)?;
    let span = match workload.load {
        Load::Storm => Span::Cycle,
        _ => Span::Transaction,
    };
    let mut transactions = Transactions::new(window, span);
    read_logs(directory.path(), &mut transactions).map_err(MeasureError::io("cannot read pgbench's log"))?;
    sample(&transactions, spent)
}

fn command(site: &Site, port: u16, workload: &Workload, seconds: u32, directory: &TempDir) -> Command {
    let mut command = site.programs().command("pgbench");
    let threads = if workload.clients < MANY_CLIENTS {
        THREADS.0
    } else {
        THREADS.1
    };
    command.args(["-n", "-P", "1", "--log", "--log-prefix=log", "-c"]);
    command.args([workload.clients.to_string(), "-j".into(), threads.to_string()]);
    command.args(["-T".into(), seconds.saturating_add(MARGIN).to_string()]);
    match workload.load {
        Load::Select { extended: true } => command.args(["-S", "-M", "extended"]),
        Load::Storm => command.args(["-S", "-C"]),
        Load::TpcB => command.args(["-b", "tpcb-like"]),
        Load::Select { extended: false } | Load::Stream | Load::Idle => command.arg("-S"),
    };
    let tls = if workload.tls { "require" } else { "disable" };
    command
        .arg(format!(
            "host=127.0.0.1 port={port} user={ROLE} dbname={DATABASE} sslmode={tls} gssencmode=disable"
        ))
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A pgbench that runs.
struct Run {
    child: OwnedChild,
    /// Its standard error, line by line.
    lines: Receiver<String>,
    said: Vec<String>,
    /// Its standard output when it has ended.
    summary: Option<JoinHandle<String>>,
}

impl Run {
    fn start(command: Command) -> Result<Self, MeasureError> {
        let failed = || MeasureError::io("cannot run pgbench");
        let mut child = OwnedChild::spawn(command).map_err(failed())?;
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
            })
            .map_err(failed())?;
        let summary = thread::Builder::new()
            .name("pgbench-stdout".into())
            .spawn(move || {
                let mut text = String::new();
                // What cannot be read is missing from the summary, which is told.
                let _ = stdout.map(|mut stdout| stdout.read_to_string(&mut text));
                text
            })
            .map_err(failed())?;
        Ok(Self {
            child,
            lines,
            said: Vec::new(),
            summary: Some(summary),
        })
    }

    /// Waits until all clients have connected and been at work for a second.
    fn wait_for_load(&mut self, pooler: &mut Pooler, interrupt: &Interrupt) -> Result<(), MeasureError> {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.lines.recv_timeout(POLL) {
                Ok(line) if line.starts_with(PROGRESS) => return Ok(()),
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.finish(interrupt)?;
                    return Err(MeasureError::Nothing);
                }
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

    fn watch(
        &mut self,
        pooler: &mut Pooler,
        seconds: u32,
        interrupt: &Interrupt,
    ) -> Result<(Window, Spent), MeasureError> {
        let usage = |pid| Usage::of(pid).map_err(MeasureError::io("cannot read what the pooler used"));
        let (begin, before) = (now(), usage(pooler.pid())?);
        if interrupt.came_within(Duration::from_secs(seconds.into())) {
            return Err(MeasureError::Interrupted);
        }
        let (end, after) = (now(), usage(pooler.pid()));
        // If the pooler is gone, that it is says more than that there is nothing to read.
        pooler.check()?;
        if self
            .child
            .ended()
            .map_err(MeasureError::io("cannot look at pgbench"))?
            .is_some()
        {
            self.finish(interrupt)?;
            return Err(MeasureError::Nothing);
        }
        Ok((Window { begin, end }, after?.since(&before)))
    }

    /// Waits for its end; an error if not everything went well.
    fn finish(&mut self, interrupt: &Interrupt) -> Result<(), MeasureError> {
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
}

fn read_logs(directory: &Path, transactions: &mut Transactions) -> std::io::Result<()> {
    for entry in directory.read_dir()? {
        transactions.add(&fs::read_to_string(entry?.path())?);
    }
    Ok(())
}

fn sample(transactions: &Transactions, spent: Spent) -> Result<Sample, MeasureError> {
    let count = transactions.count();
    if count == 0.0 {
        return Err(MeasureError::Nothing);
    }
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / count;
    Ok(Sample::from([
        (Metric::Throughput, transactions.per_second()),
        (Metric::P50, transactions.quantile(0.50)),
        (Metric::P99, transactions.quantile(0.99)),
        (Metric::Cpu, micros(spent.cpu())),
        (Metric::CpuUser, micros(spent.user)),
        (Metric::CpuSystem, micros(spent.system)),
        (Metric::Switches, as_f64(spent.switches) / count),
    ]))
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

/// The clock of pgbench's log.
fn now() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
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
