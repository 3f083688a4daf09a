//! The pgweir process of the demo, with a directory of its own.
//!
//! It knows the program only from outside: a command line, files, HTTP and signals.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{
    DemoError,
    authority::{Authority, write_private},
    child::{OwnedChild, tied},
    file_error,
    interrupt::Interrupt,
    postgres::last_lines,
};

const READY_LIMIT: Duration = Duration::from_secs(20);
/// Longer than the drain timeout of the demo's configuration.
const STOP_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
const HTTP_LIMIT: Duration = Duration::from_secs(2);
/// More than a probe answers.
const MAX_ANSWER: u64 = 64 * 1024;

/// Where pgweir finds its files; gone when dropped.
#[derive(Debug)]
pub(super) struct Home(TempDir);

impl Home {
    /// A directory with the CA's certificate and a server certificate for this machine.
    pub(super) fn create() -> Result<Self, DemoError> {
        let directory = tempfile::Builder::new()
            .prefix("pgweir-demo-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map_err(file_error(&std::env::temp_dir()))?;
        let path = directory.path();
        let authority = Authority::new("pgweir demo CA")?;
        fs::write(path.join("ca.crt"), authority.certificate_pem()).map_err(file_error(path))?;
        let certificate = authority.server(&["localhost", "127.0.0.1"])?;
        certificate.write_to(path, "server").map_err(file_error(path))?;
        Ok(Self(directory))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file for pgweir and nobody else.
    pub(super) fn write(&self, name: &str, contents: &str) -> Result<(), DemoError> {
        let file = self.path().join(name);
        write_private(&file, contents).map_err(file_error(&file))
    }

    fn log(&self) -> String {
        last_lines(&fs::read_to_string(self.path().join("pgweir.log")).unwrap_or_default())
    }
}

/// pgweir, this same program, running in a [`Home`].
#[derive(Debug)]
pub(super) struct PoolerProcess {
    child: OwnedChild,
    home: Home,
}

impl PoolerProcess {
    /// Starts it with the files that `home` has, and waits until `/readyz` says 200.
    pub(super) fn start(home: Home, http_port: u16, interrupt: &Interrupt) -> Result<Self, DemoError> {
        let log_path = home.path().join("pgweir.log");
        let log = File::create(&log_path).map_err(file_error(&log_path))?;
        let program = std::env::current_exe().map_err(DemoError::Program)?;
        let mut command = tied(program, Signal::SIGTERM);
        command
            .args(["run", "--config"])
            .arg(home.path().join("pgweir.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(file_error(&log_path))?)
            .stderr(log);
        let child = OwnedChild::spawn(command).map_err(DemoError::Program)?;
        let mut process = Self { child, home };
        process.wait_until_ready(http_port, interrupt)?;
        Ok(process)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }

    pub(super) fn directory(&self) -> &Path {
        self.home.path()
    }

    /// How it ended, if it did so by itself.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>, DemoError> {
        self.child.ended().map_err(DemoError::Program)
    }

    /// The error for a pgweir that ended by itself.
    pub(super) fn early_end(&self, status: ExitStatus) -> DemoError {
        DemoError::Ended {
            what: "pgweir",
            status,
            log: self.home.log(),
        }
    }

    fn wait_until_ready(&mut self, http_port: u16, interrupt: &Interrupt) -> Result<(), DemoError> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            if let Some(status) = self.ended()? {
                return Err(self.early_end(status));
            }
            if http_status(http_port, "/readyz").is_ok_and(|status| status == 200) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(DemoError::NotReady { log: self.home.log() });
            }
            if interrupt.came_within(POLL) {
                return Err(DemoError::Interrupted);
            }
        }
    }
}

impl Drop for PoolerProcess {
    fn drop(&mut self) {
        // What does not end by itself is killed by the child's own drop.
        let _ = self.child.end(Signal::SIGTERM, STOP_LIMIT);
    }
}

/// The status code of a GET on loopback.
fn http_status(port: u16, path: &str) -> io::Result<u16> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, HTTP_LIMIT)?;
    stream.set_read_timeout(Some(HTTP_LIMIT))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    String::from_utf8_lossy(&answer)
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn the_status_code_is_read() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            stream
                .write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\nholding 200 clients")
                .unwrap();
            request
        });
        assert_eq!(http_status(port, "/readyz").unwrap(), 503);
        assert_eq!(server.join().unwrap()[0], "GET /readyz HTTP/1.1");
    }

    #[test]
    fn a_home_is_private_and_complete() {
        let home = Home::create().unwrap();
        home.write("users.txt", "").unwrap();
        for (name, mode) in [("server.key", 0o600), ("users.txt", 0o600)] {
            let file = home.path().join(name);
            assert_eq!(
                file.metadata().unwrap().permissions().mode() & 0o777,
                mode,
                "{name}"
            );
        }
        assert!(home.path().join("ca.crt").exists() && home.path().join("server.crt").exists());
        let path = home.path().to_path_buf();
        drop(home);
        assert!(!path.exists());
    }
}
