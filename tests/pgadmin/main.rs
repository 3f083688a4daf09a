//! `./dev pgadmin`: pgAdmin 4 in a browser, with the entries of `config/pgadmin-servers.json`, through pgweir over TLS.
//!
//! pgAdmin runs as its container does, for people who log in to it; `walk.js` is such a person. Both entries share pools
//! of two server connections. What was installed for it is in `.dev/pgadmin`; without that it says that it is left out.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

#[path = "../support/mod.rs"]
mod support;

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use pgweir::cli::demo::{
    child::{OwnedChild, describe, find_in_path, tied},
    ports,
};
use serde_json::{Value, json};
use support::{
    Leaf, Pooler,
    cluster::{Cluster, PASSWORD},
    eventually,
};
use tempfile::TempDir;

const EMAIL: &str = "dba@example.com";
const LOG_IN: &str = "not the database's";
/// Each step has a limit of its own, far below.
const LIMIT: Duration = Duration::from_secs(240);
/// Where screenshots go, if they are wanted.
const SCREENSHOTS: &str = "PGWEIR_PGADMIN_SCREENSHOTS";

/// What `./dev pgadmin` has installed.
struct Installed {
    programs: PathBuf,
    node_modules: PathBuf,
    chromium: PathBuf,
}

impl Installed {
    fn find() -> Result<Self, &'static str> {
        let directory = checkout(".dev/pgadmin");
        let installed = Self {
            programs: directory.join("python/bin"),
            node_modules: directory.join("node/node_modules"),
            chromium: find_in_path("chromium").ok_or("Debian's chromium is not installed")?,
        };
        if !installed.programs.join("pgadmin4").is_file() || !installed.node_modules.is_dir() {
            return Err("`./dev pgadmin` installs pgAdmin and playwright-core");
        }
        find_in_path("node").ok_or("Debian's nodejs is not installed")?;
        Ok(installed)
    }
}

fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn a_person_works_with_both_entries() {
    let installed = match Installed::find() {
        Ok(installed) => installed,
        Err(reason) => return eprintln!("left out: pgAdmin in a browser ({reason})"),
    };
    let cluster = Cluster::start("myappdb");
    furnish(&cluster);
    let entries = entries();
    let pooler = pooler(&cluster, &entries);
    let pgadmin = PgAdmin::start(&installed, &entries, &cluster, &pooler);
    pgadmin.walk(&installed);
    let row = "SELECT name || ' ' || height FROM myapp.weirs WHERE id = 2";
    let edited = cluster.postgres.psql_in("myappdb", row).unwrap();
    assert_eq!(edited.trim(), "Molesey, rebuilt 1.90");
    drop(pgadmin);
    pooler.wait_until_quiet();
    // Two for each entry: nobody who leaves, whatever they were in the middle of, costs a server connection.
    let connects = pooler.metric("pgweir_server_connects_total");
    assert!(connects <= 4.0, "{connects}");
    let logs = pooler.logs();
    for level in [r#""level":"WARN""#, r#""level":"ERROR""#] {
        assert!(!logs.contains(level), "{logs}");
    }
}

/// Who may do what in the deployment, and something to look at.
fn furnish(cluster: &Cluster) {
    cluster
        .postgres
        .psql_in(
            "myappdb",
            "GRANT pg_read_all_data, pg_write_all_data TO myappuser2; GRANT pg_read_all_data TO reader; \
             GRANT CREATE ON DATABASE myappdb TO myappuser2; SET ROLE myappuser2; CREATE SCHEMA myapp; \
             CREATE TABLE myapp.weirs (id int PRIMARY KEY, name text NOT NULL, height numeric(4, 2), built date); \
             INSERT INTO myapp.weirs VALUES (1, 'Teddington', 2.0, '1811-06-01'), (2, 'Molesey', 1.9, '1815-01-01'), \
             (3, 'Sunbury', 2.1, NULL)",
        )
        .unwrap();
}

fn entries() -> Value {
    let text = fs::read_to_string(checkout("config/pgadmin-servers.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Its certificate has the name that the entries have, and nothing but TLS is let in.
fn pooler(cluster: &Cluster, entries: &Value) -> Pooler {
    let name = entries["Servers"]["1"]["Host"].as_str().unwrap();
    let certificate = cluster.ca.issue(&Leaf::server(&[name])).unwrap();
    cluster
        .pooler()
        .client_tls("require", &certificate)
        // People open other databases in the tree too.
        .set("auth.auth_database", "'myappdb'")
        .start()
}

/// pgAdmin's web server. Dropped, it is killed.
struct PgAdmin {
    child: OwnedChild,
    port: u16,
    directory: TempDir,
}

impl PgAdmin {
    fn start(installed: &Installed, entries: &Value, cluster: &Cluster, pooler: &Pooler) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = ports::free(None).unwrap();
        let command = |program: &str| Self::command(installed, directory.path(), port, program);
        run(command("pgadmin4-cli").arg("setup-db"));
        let file = directory.path().join("servers.json");
        fs::write(&file, with_address(entries.clone(), pooler.port()).to_string()).unwrap();
        run(command("pgadmin4-cli")
            .arg("load-servers")
            .arg(&file)
            .args(["--user", EMAIL]));
        provide_ca(&directory.path().join("data/storage"), entries, cluster);
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let mut web = command("pgadmin4");
        web.stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let pgadmin = Self {
            child: OwnedChild::spawn(web).unwrap(),
            port,
            directory,
        };
        eventually("pgAdmin listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        pgadmin
    }

    fn command(installed: &Installed, directory: &Path, port: u16, program: &str) -> Command {
        let mut command = tied(installed.programs.join(program), Signal::SIGKILL);
        command
            .current_dir(directory)
            .env("HOME", directory)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("CONFIG_DISTRO_FILE_PATH", checkout("tests/pgadmin/settings.py"))
            .env("PGADMIN_DATA", directory.join("data"))
            .env("PGADMIN_PORT", port.to_string())
            .env("PGADMIN_SETUP_EMAIL", EMAIL)
            .env("PGADMIN_SETUP_PASSWORD", LOG_IN);
        command
    }

    /// Fails the test with what the person has seen.
    fn walk(&self, installed: &Installed) {
        let output = self.directory.path().join("walk");
        let file = fs::File::create(&output).unwrap();
        let mut command = tied("node", Signal::SIGKILL);
        command
            .arg(checkout("tests/pgadmin/walk.js"))
            .env("NODE_PATH", &installed.node_modules)
            .env("HOME", self.directory.path())
            .env("CHROMIUM", &installed.chromium)
            .env("PGADMIN_URL", format!("http://127.0.0.1:{}/", self.port))
            .env("PGADMIN_EMAIL", EMAIL)
            .env("PGADMIN_PASSWORD", LOG_IN)
            .env("DATABASE_PASSWORD", PASSWORD)
            .env("SCREENSHOTS", std::env::var_os(SCREENSHOTS).unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        let mut person = OwnedChild::spawn(command).unwrap();
        let ended = person.wait(LIMIT);
        let said = fs::read_to_string(output).unwrap();
        print!("{said}");
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap();
        let status = ended.unwrap_or_else(|error| panic!("{error}\n{said}\n{log}"));
        assert!(status.success(), "{}\n{said}\n{log}", describe(status));
    }
}

impl Drop for PgAdmin {
    fn drop(&mut self) {
        let _ = self.child.end(Signal::SIGTERM, support::LIMIT);
    }
}

/// The entries' name leads to this machine, and stays what the certificate is verified with.
fn with_address(mut entries: Value, port: u16) -> Value {
    for (_, entry) in entries["Servers"].as_object_mut().unwrap() {
        entry["Port"] = json!(port);
        entry["ConnectionParameters"]["hostaddr"] = json!("127.0.0.1");
    }
    entries
}

/// The CA's file, where pgAdmin looks for the files of somebody who has logged in.
fn provide_ca(storage: &Path, entries: &Value, cluster: &Cluster) {
    let named = entries["Servers"]["1"]["ConnectionParameters"]["sslrootcert"]
        .as_str()
        .unwrap();
    let file = storage
        .join(EMAIL.replace('@', "_"))
        .join(named.trim_start_matches('/'));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, cluster.ca.certificate_pem()).unwrap();
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}
