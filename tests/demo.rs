//! `pgweir demo` as a person and as a script run it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use pgweir::cli::demo::{
    child::{OwnedChild, find_in_path},
    ports,
    postgres::Programs,
};
use support::{LIMIT, eventually};
use tempfile::TempDir;

/// A demo whose temporary files are in a directory of the test's.
struct Demo {
    child: OwnedChild,
    directory: TempDir,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // PostgreSQL may run as another user.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let temporary = directory.path().join("tmp");
        fs::create_dir(&temporary).unwrap();
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755)).unwrap();
        let port = || ports::free(None).unwrap().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgweir"));
        command
            .arg("demo")
            .args(["--port", &port(), "--http-port", &port(), "--env-file"])
            .arg(directory.path().join("env"))
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("TMPDIR", &temporary)
            .stdin(Stdio::null())
            .stdout(fs::File::create(directory.path().join("out")).unwrap())
            .stderr(fs::File::create(directory.path().join("err")).unwrap());
        let child = OwnedChild::spawn(command).unwrap();
        Self { child, directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    /// The env file, once it is there.
    fn facts(&mut self) -> BTreeMap<String, String> {
        let file = self.file("env");
        eventually("the demo is ready, or has ended", || {
            file.exists() || self.child.ended().unwrap().is_some()
        });
        let text = fs::read_to_string(&file);
        let text = text.unwrap_or_else(|_| panic!("{}{}", self.text("out"), self.text("err")));
        let pairs = text.lines().map(|line| line.split_once('=').unwrap());
        pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// Waits for the end, after which nothing may be left of `processes`, nor any file.
    #[track_caller]
    fn ends(&mut self, processes: &BTreeSet<Process>) -> Option<i32> {
        let status = self.child.wait(LIMIT).unwrap();
        let left: Vec<_> = processes.iter().filter(|process| process.runs()).collect();
        assert!(left.is_empty(), "{left:?}");
        let files: Vec<_> = fs::read_dir(self.file("tmp")).unwrap().collect();
        assert!(files.is_empty(), "{files:?}");
        status.code()
    }
}

/// A process, told from a later one with the same id by the time of its start.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Process {
    pid: u32,
    started: String,
    name: String,
}

impl Process {
    /// What `/proc` says of it, and its parent.
    fn read(pid: u32) -> Option<(Self, u32)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let process = Self {
            pid,
            started: (*fields.get(19)?).to_owned(),
            name: name.to_owned(),
        };
        Some((process, fields.get(1)?.parse().ok()?))
    }

    fn runs(&self) -> bool {
        Self::read(self.pid).is_some_and(|(process, _)| process.started == self.started)
    }

    /// This process and everything that it has started, directly or not.
    fn family_of(pid: u32) -> BTreeSet<Self> {
        let entries = fs::read_dir("/proc").unwrap().map_while(Result::ok);
        let all: Vec<(Self, u32)> = entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(Self::read)
            .collect();
        let (mut family, mut parents) = (BTreeSet::new(), vec![pid]);
        while let Some(parent) = parents.pop() {
            for (process, _) in all
                .iter()
                .filter(|(process, above)| process.pid == parent || *above == parent)
            {
                if family.insert(process.clone()) {
                    parents.push(process.pid);
                }
            }
        }
        family
    }
}

fn psql(url: &str, sql: &str) -> (String, String) {
    let programs = Programs::find(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut command = programs.command("psql");
    command.args(["-XAtc", sql, url]).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_benchmark_runs_says_how_it_went_and_leaves_nothing() {
    let mut demo = Demo::start(&["--bench", "2", "--clients", "24", "--pool-size", "6"]);
    let facts = demo.facts();
    let family = Process::family_of(demo.child.pid());
    assert_eq!(
        demo.ends(&family),
        Some(0),
        "{}{}",
        demo.text("out"),
        demo.text("err")
    );
    let out = demo.text("out");
    for part in [
        "number of clients: 24\n",
        "duration: 2 s\n",
        "number of failed transactions: 0 (0.000%)\n",
        "tps = ",
    ] {
        assert!(out.contains(part), "{part} is not in {out}");
    }
    let (_, used) = out.split_once("server connections used: ").unwrap();
    let (used, _) = used.split_once(" (pool 6)\n").unwrap();
    assert!((1..=6).contains(&used.parse::<u32>().unwrap()), "{out}");
    assert!(!out.contains("FAILED") && !out.contains("Ctrl-C"), "{out}");
    assert!(facts.contains_key("PGWEIR_URL"), "{facts:?}");
}

#[test]
fn a_demo_works_as_it_says_until_ctrl_c_and_leaves_nothing() {
    let mut demo = Demo::start(&[]);
    let facts = demo.facts();
    let fact = |key: &str| {
        facts
            .get(key)
            .unwrap_or_else(|| panic!("{key} is not in {facts:?}"))
            .as_str()
    };
    // Readable by nobody else: there are passwords in it.
    let mode = fs::metadata(demo.file("env")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");

    let sql = "SELECT current_user || ' ' || current_database()";
    let verified = format!(
        "{}&sslmode=verify-full&sslrootcert={}",
        fact("PGWEIR_URL"),
        fact("PGWEIR_CA")
    );
    assert_eq!(psql(&verified, sql), ("app app".into(), String::new()));
    assert_eq!(psql(fact("PGWEIR_URL"), sql).0, "app app");
    assert_eq!(psql(fact("POSTGRES_URL"), "SELECT 1").0, "1");
    // Neither without TLS nor without the password.
    let plain = fact("PGWEIR_URL").replace("sslmode=require", "sslmode=disable");
    assert!(psql(&plain, sql).1.contains("TLS"), "{:?}", psql(&plain, sql));
    let (_, password) = fact("PGWEIR_URL").split_once("app:").unwrap();
    let wrong = verified.replace(password.split('@').next().unwrap(), "wrong");
    assert!(psql(&wrong, sql).1.contains("password authentication failed"));

    // The printed line is one that a shell runs as it is.
    let out = demo.text("out");
    let line = out
        .lines()
        .find(|line| line.contains("psql") && line.contains("verify-full"))
        .unwrap();
    let printed = Command::new("sh")
        .args(["-c", &format!("{line} -XAtc 'SELECT 7'")])
        .output()
        .unwrap();
    assert_eq!(printed.stdout, b"7\n", "{line}: {printed:?}");
    assert!(out.contains("Ctrl-C ends it"), "{out}");

    let pid: u32 = fact("PGWEIR_PID").parse().unwrap();
    let family = Process::family_of(demo.child.pid());
    assert!(
        family
            .iter()
            .any(|process| process.pid == pid && process.name == "pgweir"),
        "{family:?}"
    );
    assert!(
        family.iter().any(|process| process.name == "postgres"),
        "{family:?}"
    );
    assert!(
        fs::read_dir(demo.file("tmp")).unwrap().count() >= 2,
        "its files are where they are looked for"
    );
    demo.child.signal(Signal::SIGINT).unwrap();
    assert_eq!(demo.ends(&family), Some(0), "{}", demo.text("err"));
}

#[test]
fn a_demo_that_is_killed_takes_its_processes_with_it() {
    if find_in_path("setpriv").is_none() {
        // Nothing else tells the kernel to.
        return;
    }
    let mut demo = Demo::start(&[]);
    demo.facts();
    let family = Process::family_of(demo.child.pid());
    assert!(family.len() > 3, "{family:?}");
    demo.child.end(Signal::SIGKILL, LIMIT).unwrap();
    eventually("no process is left", || !family.iter().any(Process::runs));
}

#[test]
fn a_port_that_is_taken_is_told_before_anything_is_started() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgweir"));
    command.args(["demo", "--port", &port]).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = OwnedChild::spawn(command).unwrap();
    assert_eq!(child.wait(LIMIT).unwrap().code(), Some(1));
    let mut said = String::new();
    child
        .pipes()
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(said.contains(&port), "{said}");
}
