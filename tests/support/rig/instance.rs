//! One server of a rig.

use std::{
    fs,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

use super::{
    super::{Postgres, Stop, postgres_builder},
    ROLE, WAL_KEPT,
};

const POLL: Duration = Duration::from_millis(5);

/// A server and the address that it has, running or not.
pub(super) struct Instance {
    postgres: Postgres,
    host: IpAddr,
}

/// What a server calls itself towards its primary.
pub(super) fn name(index: usize) -> &'static str {
    ["a", "b", "c"][index]
}

impl Instance {
    /// A primary with the role of the load and its database, or a standby of `source`.
    pub(super) fn start(host: &str, port: u16, source: Option<String>) -> Self {
        let is_primary = source.is_none();
        let mut builder = postgres_builder()
            .port(port)
            .hba(&["host all all all trust", "host replication all all trust"])
            .setting("listen_addresses", host)
            .setting("max_connections", 150)
            .setting("wal_level", "replica")
            .setting("wal_keep_size", WAL_KEPT)
            .setting("synchronous_commit", "on")
            // As CloudNativePG sets it.
            .setting("wal_receiver_timeout", "5s")
            .setting("wal_sender_timeout", "5s")
            .setting("wal_retrieve_retry_interval", "200ms")
            // A checkpoint belongs to a script.
            .setting("checkpoint_timeout", "1d")
            .setting("autovacuum", "off");
        if let Some(source) = source {
            builder = builder.standby_of(source);
        }
        let postgres = builder.start().expect("PostgreSQL starts");
        let instance = Self {
            postgres,
            host: host.parse().expect("an address"),
        };
        if is_primary {
            instance.sql(&format!("CREATE ROLE {ROLE} LOGIN"));
            instance.sql(&format!("CREATE DATABASE {ROLE} OWNER {ROLE}"));
        }
        instance
    }

    pub(super) fn host(&self) -> IpAddr {
        self.host
    }

    pub(super) fn sql(&self, sql: &str) -> String {
        self.sql_in("postgres", sql)
    }

    pub(super) fn sql_in(&self, database: &str, sql: &str) -> String {
        self.postgres.psql_in(database, sql).expect("SQL is carried out")
    }

    pub(super) fn stop(&mut self, how: Stop) {
        self.postgres.stop(how).expect("PostgreSQL stops");
    }

    pub(super) fn begin_stop(&mut self, how: Stop) {
        self.postgres.begin_stop(how).expect("PostgreSQL takes a signal");
    }

    pub(super) fn wait_for_end(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.postgres.ended().expect("the server is ours").is_none() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }

    /// The postmaster must not see its children end, nor they it: they would say something to their clients.
    pub(super) fn kill(&mut self) {
        let Some(postmaster) = self.postgres.pid() else {
            return;
        };
        let pid = i32::try_from(postmaster).expect("a process id");
        signal::kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("the postmaster is ours");
        for child in children_of(postmaster) {
            signal::kill(child, Signal::SIGKILL).expect("nobody else reaps it");
        }
        self.stop(Stop::Kill);
    }

    pub(super) fn restart(&mut self) {
        self.postgres.start().expect("PostgreSQL starts again");
    }

    pub(super) fn rebuild(&mut self, source: &str) {
        self.postgres.rebuild(source).expect("a standby is made");
    }
}

/// The processes whose parent this is.
fn children_of(parent: u32) -> Vec<Pid> {
    let list = format!("/proc/{parent}/task/{parent}/children");
    let text = fs::read_to_string(list).unwrap_or_default();
    text.split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .map(Pid::from_raw)
        .collect()
}
