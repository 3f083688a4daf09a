//! pgweir itself, as a process with a configuration file of its own.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{ChildStderr, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use nix::sys::signal::Signal;
use pgweir::cli::demo::child::{OwnedChild, describe, tied};
use tempfile::TempDir;

use super::{LIMIT, PoolerBuilder, eventually, pooler_builder::CONFIG, samples::sum_of_samples};

/// The message of the log line that says that the listeners are bound, and its fields.
const READY: &str = r#""message":"ready""#;
const ADDRESSES_FIELD: &str = r#""addresses":""#;
const HTTP_FIELD: &str = r#""http":""#;

/// A running pgweir. Dropped, it is killed; a test that fails prints its log.
pub struct Pooler {
    child: OwnedChild,
    directory: TempDir,
    builder: PoolerBuilder,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
    addresses: Vec<String>,
    http: Option<String>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    ended: AtomicBool,
}

impl Pooler {
    /// A configuration in front of `host` (`127.0.0.1:5432`) that knows the user `app` with password `secret`.
    pub fn builder(host: &str) -> PoolerBuilder {
        PoolerBuilder::in_front_of(host)
    }

    /// Starts pgweir with exactly this configuration, which must log JSON.
    pub fn start(config: &str) -> Self {
        PoolerBuilder::default().file(CONFIG, config).start()
    }

    /// Runs `pgweir` with arguments to its end, beside the files of `builder`: standard output, standard
    /// error, status. `CONFIG` among the arguments stands for the configuration file.
    pub fn run_command(builder: &PoolerBuilder, arguments: &[&str]) -> (String, String, ExitStatus) {
        let directory = tempfile::tempdir().expect("a directory is made");
        builder.write_to(directory.path());
        let config = directory.path().join(CONFIG);
        let output = Command::new(env!("CARGO_BIN_EXE_pgweir"))
            .args(arguments.iter().map(|&argument| match argument {
                "CONFIG" => config.clone().into_os_string(),
                other => other.into(),
            }))
            .stdin(Stdio::null())
            .output()
            .expect("pgweir runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr), output.status)
    }

    pub(super) fn launch(directory: TempDir, builder: PoolerBuilder) -> Self {
        let mut command = tied(env!("CARGO_BIN_EXE_pgweir"), Signal::SIGKILL);
        command
            .args(["run", "--config"])
            .arg(directory.path().join(CONFIG))
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = OwnedChild::spawn(command).expect("pgweir starts");
        let log = Arc::new(Log::default());
        let stderr = child.pipes().stderr.take().expect("the standard error is a pipe");
        let reading = Arc::clone(&log);
        let reader = Some(thread::spawn(move || reading.collect(stderr)));
        let (addresses, http) = (Vec::new(), None);
        let mut pooler = Self {
            child,
            directory,
            builder,
            log,
            reader,
            addresses,
            http,
        };
        pooler.wait_until_ready();
        pooler
    }

    fn wait_until_ready(&mut self) {
        let log = Arc::clone(&self.log);
        eventually("pgweir is ready, or has ended", || {
            log.has_ended() || log.find(0, READY).is_some()
        });
        let Some((_, line)) = log.find(0, READY) else {
            let status = self.wait();
            panic!("pgweir ended with {} before it was ready", describe(status));
        };
        let field = |name| line.split_once(name)?.1.split('"').next();
        let addresses = field(ADDRESSES_FIELD).expect("the ready line has the field addresses");
        self.addresses = addresses
            .split([',', ' '])
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect();
        self.http = field(HTTP_FIELD)
            .filter(|address| !address.is_empty())
            .map(str::to_owned);
    }

    /// The first address for clients, `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.addresses[0]
    }

    /// The port of [`Pooler::address`].
    pub fn port(&self) -> u16 {
        self.address()
            .parse::<SocketAddr>()
            .expect("the first address is TCP")
            .port()
    }

    /// All addresses for clients, in the configuration's order.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The address of the HTTP server.
    pub fn http_address(&self) -> &str {
        self.http.as_deref().expect("the configuration has [http]")
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// The directory of the configuration.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A file of that directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// GET on the HTTP server: status and body.
    pub fn http_get(&self, path: &str) -> (u16, String) {
        let address = self.http.as_deref().expect("the configuration has [http]");
        let mut stream = TcpStream::connect(address).expect("the HTTP server accepts connections");
        stream
            .set_read_timeout(Some(LIMIT))
            .expect("the limit is not zero");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .expect("the HTTP server takes a request");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("the HTTP server answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        assert!(
            !head.to_ascii_lowercase().contains("transfer-encoding"),
            "chunks are not read here: {head}"
        );
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("an answer has a status"), body.to_owned())
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        let (status, body) = self.http_get("/metrics");
        assert_eq!(status, 200, "{body}");
        body
    }

    /// The sum of the samples of `name{label="value",...}` that have at least these labels, in any order; NaN,
    /// which equals nothing, if there is none.
    pub fn metric(&self, sample: &str) -> f64 {
        sum_of_samples(&self.metrics(), sample)
    }

    /// Changes the configuration's files; nothing is told to the process.
    pub fn reconfigure(&mut self, change: impl FnOnce(PoolerBuilder) -> PoolerBuilder) {
        self.builder = change(self.builder.clone());
        self.builder.write_to(self.directory.path());
    }

    /// Sends SIGHUP.
    pub fn reload(&mut self) {
        self.signal(Signal::SIGHUP);
    }

    /// Sends SIGTERM.
    pub fn terminate(&mut self) {
        self.signal(Signal::SIGTERM);
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.child.signal(signal).expect("the process can be signalled");
    }

    /// Waits for the end of the process.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait(LIMIT).expect("pgweir ends");
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        status
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.ended().expect("the child is ours").is_none()
    }

    /// What it has logged so far.
    pub fn logs(&self) -> String {
        self.log.lines().join("\n")
    }

    /// How many lines it has logged, to look only at later ones.
    pub fn log_position(&self) -> usize {
        self.log.lines().len()
    }

    /// Waits for a line after `position` that contains `text`, and returns it.
    #[track_caller]
    pub fn wait_for_log(&self, position: usize, text: &str) -> String {
        let mut found = None;
        eventually(&format!("a log line with {text}"), || {
            found = self.log.find(position, text);
            found.is_some()
        });
        found.expect("it was just found").1
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.signal(Signal::SIGKILL);
        let _ = self.child.wait(LIMIT);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if thread::panicking() {
            // Not stderr itself: this way the test runner shows it with the test that failed.
            eprintln!("--- log of pgweir ---\n{}\n--- end ---", self.logs());
        }
    }
}

impl Log {
    fn collect(&self, stderr: ChildStderr) {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            self.lines().push(line);
        }
        self.ended.store(true, Ordering::SeqCst);
    }

    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    fn find(&self, from: usize, text: &str) -> Option<(usize, String)> {
        let lines = self.lines();
        let position = lines.iter().skip(from).position(|line| line.contains(text))? + from;
        Some((position, lines[position].clone()))
    }
}
