//! A network that has gone silent: nothing is refused, nothing arrives.
//!
//! In network namespaces of the test's own where it may make them, so that the kernels at both ends see what they see
//! when a network goes: no answer to a SYN, no ACK. Elsewhere a link that holds everything back stands for it.

use std::{
    fs::File,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, setns, unshare};

use crate::{
    checks::{assert_error, field, log_in, refused_log_in, wait_for_metric},
    support::{Link, Pooler, Postgres, frames, postgres, postgres_with},
};

const NEAR: &str = "192.0.2.1";
const FAR: &str = "192.0.2.2";
const FAR_MAC: &str = "02:00:00:00:00:02";

/// A PostgreSQL behind a network that can go silent.
struct Remote {
    postgres: Postgres,
    address: String,
    network: Network,
}

enum Network {
    Namespaces { near: File, far: File },
    Link(Link),
}

impl Remote {
    /// Leaves the calling thread in the pooler's namespace.
    fn new() -> Self {
        let home = own_namespace();
        match Self::in_namespaces() {
            Some(remote) => remote,
            None => {
                home.iter().for_each(enter);
                println!("no network namespaces here (they take root and ip): a link stands for the network");
                let postgres = postgres();
                let link = Link::to(postgres.address());
                Self {
                    postgres,
                    address: link.address(),
                    network: Network::Link(link),
                }
            }
        }
    }

    fn in_namespaces() -> Option<Self> {
        let far = namespace()?;
        let postgres = postgres_with(|builder| {
            builder
                .setting("listen_addresses", "*")
                .hba(&["host all all all trust"])
        });
        let near = namespace()?;
        let far_end = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            std::os::fd::AsRawFd::as_raw_fd(&far)
        );
        ip(&[
            "link", "add", "near", "type", "veth", "peer", "name", "far", "address", FAR_MAC, "netns",
            &far_end,
        ])?;
        ip(&["address", "add", &format!("{NEAR}/24"), "dev", "near"])?;
        ip(&["link", "set", "near", "up"])?;
        // Otherwise the silence would be told after some seconds: no route to host.
        ip(&[
            "neighbour",
            "add",
            FAR,
            "lladdr",
            FAR_MAC,
            "dev",
            "near",
            "nud",
            "permanent",
        ])?;
        enter(&far);
        ip(&["address", "add", &format!("{FAR}/24"), "dev", "far"])?;
        ip(&["link", "set", "far", "up"])?;
        enter(&near);
        let address = format!("{FAR}:{}", postgres.port());
        Some(Self {
            postgres,
            address,
            network: Network::Namespaces { near, far },
        })
    }

    fn go_silent(&self) {
        match &self.network {
            Network::Namespaces { near, far } => at(far, near, &["route", "add", "blackhole", NEAR]),
            Network::Link(link) => link.freeze(),
        }
    }

    fn come_back(&self) {
        match &self.network {
            Network::Namespaces { near, far } => at(far, near, &["route", "del", "blackhole", NEAR]),
            Network::Link(link) => link.thaw(),
        }
    }
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
    let mut command = Command::new("ip");
    command.args(arguments).stdin(Stdio::null());
    command
        .status()
        .is_ok_and(|status| status.success())
        .then_some(())
}

/// Runs `ip` in one namespace and comes back to another.
fn at(namespace: &File, back: &File, arguments: &[&str]) {
    enter(namespace);
    let done = ip(arguments);
    enter(back);
    done.expect("ip does what it is told");
}

/// Runs a test in a thread of its own, which alone is in other networks.
fn in_thread(test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        if let Err(panic) = scope.spawn(test).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn fault_silent_network_costs_a_timeout_and_no_place() {
    // Packets are dropped: while pgweir connects, and while a client is in a transaction, who then leaves. Neither the
    // cancel nor the end of the connection can be told to the server.
    in_thread(|| {
        let remote = Remote::new();
        let pooler = Pooler::builder(&remote.address)
            .set("pool.default_pool_size", "1")
            .set("pool.server_connect_timeout", "'300ms'")
            .set("pool.query_wait_timeout", "'1s'")
            .start();
        remote.go_silent();
        let error = refused_log_in(&pooler, &[]);
        assert_error(&error, "FATAL", "08006");
        assert_eq!(field(&error, b'D'), "no log-in within 300ms");

        remote.come_back();
        let mut client = log_in(&pooler);
        client.query("CREATE TABLE t (a int)");
        client.query("BEGIN; INSERT INTO t VALUES (1)");
        remote.go_silent();
        drop(client);
        wait_for_metric(&pooler, "pgweir_clients", 0.0);
        wait_for_metric(&pooler, "pgweir_servers", 0.0);

        remote.come_back();
        assert_eq!(log_in(&pooler).value("SELECT count(*) FROM t"), "0");
        pooler.assert_all_places(1);
        drop(pooler);
        drop(remote.postgres);
    });
}

#[test]
fn fault_silence_in_mid_query_is_borne_until_it_is_over() {
    // A query that takes longer than the network is away is not lost, and a place is not given twice meanwhile.
    in_thread(|| {
        let remote = Remote::new();
        let pooler = Pooler::builder(&remote.address)
            .set("pool.default_pool_size", "1")
            .start();
        let mut client = log_in(&pooler);
        client.send(frames::query("SELECT pg_sleep(0.3), 'borne'"));
        wait_for_metric(&pooler, "pgweir_servers{state=\"active\"}", 1.0);
        remote.go_silent();
        let mut next = log_in(&pooler);
        next.send(frames::query("SELECT 'next'"));
        wait_for_metric(&pooler, "pgweir_waiting_clients", 1.0);
        // How long the outage lasts, beyond the end of the query: nothing can be seen of it meanwhile.
        thread::sleep(Duration::from_millis(500));
        remote.come_back();
        assert_eq!(
            client.read_until_ready()[1].columns()[1].as_deref(),
            Some("borne")
        );
        assert_eq!(next.read_until_ready()[1].columns()[0].as_deref(), Some("next"));
    });
}
