//! Two networks of a test's own with a wire between them, which can be made to swallow everything.
//!
//! The kernels at both ends see then what they see when a network goes: no answer to a SYN, no ACK. It takes root and
//! the program `ip`.

use std::{
    fs::File,
    io::Write,
    net::IpAddr,
    os::fd::AsRawFd,
    process::{Command, Stdio},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

const FAR_MAC: &str = "02:00:00:00:00:02";

/// A near and a far network namespace, joined by a wire. Threads and processes belong to the namespace of the thread
/// that starts them; the thread that made this one is in the near one from then on.
pub struct Namespaces {
    near: File,
    far: File,
}

impl Namespaces {
    /// The address of the near end.
    pub const NEAR: &str = "192.0.2.1";
    /// The address of the far end.
    pub const FAR: &str = "192.0.2.2";

    /// `None`, with the thread where it was, if they cannot be made.
    pub fn new() -> Option<Self> {
        let home = own_namespace()?;
        let made = Self::make();
        if made.is_none() {
            enter(&home);
        }
        made
    }

    fn make() -> Option<Self> {
        let far = namespace()?;
        let near = namespace()?;
        let far_end = format!("/proc/{}/fd/{}", std::process::id(), far.as_raw_fd());
        ip(&[
            "link", "add", "near", "type", "veth", "peer", "name", "far", "address", FAR_MAC, "netns",
            &far_end,
        ])?;
        ip(&["address", "add", &format!("{}/24", Self::NEAR), "dev", "near"])?;
        ip(&["link", "set", "near", "up"])?;
        // Otherwise the silence would be told after some seconds: no route to host.
        ip(&[
            "neighbour",
            "add",
            Self::FAR,
            "lladdr",
            FAR_MAC,
            "dev",
            "near",
            "nud",
            "permanent",
        ])?;
        enter(&far);
        ip(&["address", "add", &format!("{}/24", Self::FAR), "dev", "far"])?;
        ip(&["link", "set", "far", "up"])?;
        enter(&near);
        Some(Self { near, far })
    }

    /// Does something in the far namespace, such as starting a server there.
    pub fn at_far<T>(&self, work: impl FnOnce() -> T) -> T {
        enter(&self.far);
        let done = work();
        enter(&self.near);
        done
    }

    /// Nothing arrives any more, and nothing is refused.
    pub fn go_silent(&self) {
        self.at_far(|| ip(&["route", "add", "blackhole", Self::NEAR]))
            .expect("ip does what it is told");
    }

    /// What was sent meanwhile is sent again by the kernels, sooner or later.
    pub fn come_back(&self) {
        self.at_far(|| ip(&["route", "del", "blackhole", Self::NEAR]))
            .expect("ip does what it is told");
    }
}

/// Runs something in a thread of its own, which alone is in other networks.
pub fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let done = scope.spawn(work).join();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Has names stand for addresses, for the calling thread and for what it starts. `None` if that is not allowed.
pub fn name_hosts(names: &[(&str, IpAddr)]) -> Option<()> {
    let mut hosts = tempfile::NamedTempFile::new().ok()?;
    for (name, address) in names {
        writeln!(hosts, "{address} {name}").ok()?;
    }
    // The mount keeps the file.
    let hosts = hosts.path().to_str()?.to_owned();
    unshare(CloneFlags::CLONE_NEWNS).ok()?;
    run("mount", &["--make-rprivate", "/"])?;
    run("mount", &["--bind", &hosts, "/etc/hosts"])
}

/// Puts the calling thread into a network of its own, if it may; a way back into it.
fn namespace() -> Option<File> {
    unshare(CloneFlags::CLONE_NEWNET).ok()?;
    ip(&["link", "set", "lo", "up"])?;
    own_namespace()
}

fn own_namespace() -> Option<File> {
    File::open("/proc/thread-self/ns/net").ok()
}

fn enter(namespace: &File) {
    setns(namespace, CloneFlags::CLONE_NEWNET).expect("it was left before");
}

fn ip(arguments: &[&str]) -> Option<()> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Option<()> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
    command
        .status()
        .is_ok_and(|status| status.success())
        .then_some(())
}
