//! A child process that does not outlive its owner.
//!
//! It knows nothing of what the child is. Where util-linux's `setpriv` is at hand the kernel ends the child
//! when this process dies, however it dies; a [`Drop`] that never ran leaves nothing behind.

use std::{
    ffi::OsStr,
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{self, Signal},
    unistd::{Pid, Uid, User},
};

/// How often a condition that nobody announces is looked at.
const POLL: Duration = Duration::from_millis(10);

/// The account that a server which refuses to be root runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Account {
    /// `postgres` or else `nobody`, when this process is root; `None` when it is not.
    ///
    /// # Errors
    /// The user database cannot be read, or has neither.
    pub fn unprivileged() -> io::Result<Option<Self>> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        for name in ["postgres", "nobody"] {
            if let Some(user) = User::from_name(name)? {
                return Ok(Some(Self {
                    uid: user.uid.as_raw(),
                    gid: user.gid.as_raw(),
                }));
            }
        }
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            "neither user postgres nor user nobody exists",
        ))
    }

    /// Makes `command` run as this account, without root's other groups.
    pub fn apply(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }
}

/// A running child. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct OwnedChild {
    child: Child,
    /// Ends the thread that started the child; see [`OwnedChild::spawn`].
    _keeper: mpsc::Sender<()>,
}

/// A command for `program` whose process gets `on_death` when the thread that started it is gone, where
/// `setpriv` is installed; else simply a command for it.
pub fn tied(program: impl AsRef<OsStr>, on_death: Signal) -> Command {
    let Some(setpriv) = find_in_path("setpriv") else {
        return Command::new(program);
    };
    let mut command = Command::new(setpriv);
    let name = on_death.as_str().trim_start_matches("SIG");
    command.args(["--pdeathsig", name, "--"]).arg(program);
    command
}

/// The first executable file of that name in `PATH`.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| is_executable(file))
}

/// Whether `file` is a file that someone may execute.
pub fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

impl OwnedChild {
    /// Starts `command` in a process group of its own, so that a Ctrl-C reaches only this process, which
    /// then ends its children in order.
    ///
    /// The kernel's parent-death signal is tied to the thread that forked, not to the process; so a thread
    /// forks that lives exactly as long as the returned value.
    ///
    /// # Errors
    /// Those of [`Command::spawn`].
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        command.process_group(0);
        let (keeper, released) = mpsc::channel::<()>();
        let (result, spawned) = mpsc::channel();
        thread::Builder::new()
            .name("child-keeper".into())
            .spawn(move || {
                if result.send(command.spawn()).is_ok() {
                    // Returns when the owner drops its end.
                    let _ = released.recv();
                }
            })?;
        let child = spawned.recv().map_err(io::Error::other)??;
        Ok(Self {
            child,
            _keeper: keeper,
        })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The pipes of the child, for those that were asked for.
    pub fn pipes(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal; a child that has ended already gets none.
    ///
    /// # Errors
    /// Those of `kill(2)`.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.ended()?.is_none() {
            let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
            signal::kill(Pid::from_raw(pid), signal)?;
        }
        Ok(())
    }

    /// The exit status, if the child has ended.
    ///
    /// # Errors
    /// Those of `waitpid(2)`.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for the end of the child, at most for `limit`.
    ///
    /// # Errors
    /// Those of `waitpid(2)`; [`io::ErrorKind::TimedOut`].
    pub fn wait(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(POLL);
        }
    }

    /// Ends the child with `signal`, or with SIGKILL when it has not ended within `limit`.
    ///
    /// # Errors
    /// Those of `kill(2)` and `waitpid(2)`.
    pub fn end(&mut self, signal: Signal, limit: Duration) -> io::Result<ExitStatus> {
        self.signal(signal)?;
        match self.wait(limit) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.child.kill()?;
                self.child.wait()
            }
            other => other,
        }
    }
}

impl Drop for OwnedChild {
    fn drop(&mut self) {
        // Both fail only for a child that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A status as a person says it: `exit status 1`, `signal 9`.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_child_is_gone() {
        let mut command = Command::new("sleep");
        command.arg("600");
        let child = OwnedChild::spawn(command).unwrap();
        let pid = Pid::from_raw(i32::try_from(child.pid()).unwrap());
        signal::kill(pid, None).unwrap();
        drop(child);
        assert_eq!(signal::kill(pid, None), Err(nix::errno::Errno::ESRCH));
    }

    #[test]
    fn a_tied_command_runs_the_program_itself() {
        let mut command = tied("sh", Signal::SIGKILL);
        command.args(["-c", "exit 7"]);
        let mut child = OwnedChild::spawn(command).unwrap();
        let status = child.wait(Duration::from_secs(60)).unwrap();
        assert_eq!(describe(status), "exit status 7");
    }

    #[test]
    fn a_child_that_ignores_the_signal_is_killed() {
        let mut command = tied("sh", Signal::SIGKILL);
        command
            .args(["-c", "trap '' TERM; echo; exec sleep 600"])
            .stdout(std::process::Stdio::piped());
        let mut child = OwnedChild::spawn(command).unwrap();
        let mut line = [0];
        io::Read::read_exact(child.pipes().stdout.as_mut().unwrap(), &mut line).unwrap();
        let status = child.end(Signal::SIGTERM, Duration::from_millis(50)).unwrap();
        assert_eq!(describe(status), "signal 9");
    }

    #[test]
    fn a_program_that_does_not_exist_is_an_error() {
        assert!(OwnedChild::spawn(Command::new("/no/such/program")).is_err());
    }
}
