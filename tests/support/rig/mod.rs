//! Real PostgreSQL servers with streaming replication, each on an address of its own and all on one port, as pods are.
//!
//! It does what an operator's instance managers do to their servers, one step at a time; who does which step when is
//! the business of a script.

mod instance;
mod watch;

use std::{net::SocketAddr, time::Duration};

use pgweir::cli::demo::ports;

use self::instance::Instance;
pub use self::watch::Watch;
use super::{Namespaces, Stop, eventually};

/// The role and the database of the load, which belongs to it.
pub const ROLE: &str = "app";
/// How many transactions may be sent again to a standby that was away for a moment.
const WAL_KEPT: &str = "256MB";
/// For how long a server is asked whether it takes writes.
const WATCH_LIMIT: Duration = Duration::from_secs(240);

/// Where the servers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// On addresses of the loopback interface.
    Loopback,
    /// The first one behind a wire that can be made to swallow everything, in network namespaces. The thread that makes
    /// the rig, and those that it starts, are in the network of the others.
    FirstBehindWire,
}

/// The servers. The first one is the primary, and the others its standbys.
pub struct Rig {
    instances: Vec<Instance>,
    wire: Option<Namespaces>,
    port: u16,
}

impl Rig {
    /// Starts so many servers; `None` if the network cannot be had, which takes root.
    pub fn start(servers: usize, network: Network) -> Option<Self> {
        let wire = match network {
            Network::Loopback => None,
            Network::FirstBehindWire => Some(Namespaces::new()?),
        };
        let mut rig = Self {
            instances: Vec::new(),
            wire,
            port: ports::free(None).expect("there is a free port"),
        };
        for index in 0..servers {
            rig.add(index);
        }
        for standby in 1..servers {
            rig.wait_until_streaming(0, standby);
        }
        Some(rig)
    }

    fn add(&mut self, index: usize) {
        let host = match (&self.wire, index) {
            (None, _) => format!("127.0.0.{}", index + 11),
            (Some(_), 0) => Namespaces::FAR.to_owned(),
            // Loopback is up in the near network, and nobody in the far one needs to come here before it is promoted.
            (Some(_), 1) => Namespaces::NEAR.to_owned(),
            (Some(_), _) => panic!("the network has an address for two"),
        };
        let source = (index > 0).then(|| self.source(0, index));
        let port = self.port;
        let instance = self.at(index, || Instance::start(&host, port, source));
        self.instances.push(instance);
    }

    /// How many servers there are.
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// Where a server listens, whether it runs or not.
    pub fn address(&self, index: usize) -> SocketAddr {
        SocketAddr::new(self.instances[index].host(), self.port)
    }

    /// Runs SQL as superuser on the server's unix socket, which no network is in the way of.
    pub fn sql(&self, index: usize, sql: &str) -> String {
        self.instances[index].sql(sql)
    }

    /// As [`Rig::sql`], in the database of the load.
    pub fn sql_in_database(&self, index: usize, sql: &str) -> String {
        self.instances[index].sql_in(ROLE, sql)
    }

    /// `pg_is_in_recovery()`
    pub fn is_in_recovery(&self, index: usize) -> bool {
        self.sql(index, "SELECT pg_is_in_recovery()") == "t"
    }

    /// `CHECKPOINT`
    pub fn checkpoint(&self, index: usize) {
        self.sql(index, "CHECKPOINT");
    }

    /// Makes a standby a primary and waits until it is; it waits for no standby of its own to confirm commits.
    pub fn promote(&self, index: usize) {
        self.set(index, "synchronous_standby_names", "");
        assert_eq!(self.sql(index, "SELECT pg_promote(true, 30)"), "t");
    }

    /// Ends every client's connection, as CloudNativePG does behind a promotion.
    pub fn terminate_client_backends(&self, index: usize) {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
        self.sql(index, sql);
    }

    /// Lets commits of this primary wait until a standby has them, so that none is lost with it.
    pub fn require_synchronous_standby(&self, index: usize) {
        self.set(index, "synchronous_standby_names", "ANY 1 (*)");
    }

    /// Commits wait for no standby.
    pub fn require_no_standby(&self, index: usize) {
        self.set(index, "synchronous_standby_names", "");
    }

    /// Makes a running standby follow another primary.
    pub fn follow(&self, standby: usize, primary: usize) {
        self.set(standby, "primary_conninfo", &self.source(primary, standby));
    }

    /// Whether a standby's WAL receiver has noticed that its primary is gone.
    pub fn is_receiver_down(&self, standby: usize) -> bool {
        self.sql(standby, "SELECT count(*) FROM pg_stat_wal_receiver") == "0"
    }

    /// Waits until the standby streams from the primary.
    pub fn wait_until_streaming(&self, primary: usize, standby: usize) {
        let name = instance::name(standby);
        let sql = format!(
            "SELECT count(*) FROM pg_stat_replication WHERE application_name = '{name}' AND state = 'streaming'"
        );
        eventually("the standby streams", || self.sql(primary, &sql) == "1");
    }

    /// Stops a server and waits for its end.
    pub fn stop(&mut self, index: usize, how: Stop) {
        self.instances[index].stop(how);
    }

    /// Tells a server to stop. A smart shutdown takes as long as clients stay.
    pub fn begin_stop(&mut self, index: usize, how: Stop) {
        self.instances[index].begin_stop(how);
    }

    /// Waits until a server that was told to has stopped; false if it has not within `limit`.
    pub fn wait_for_end(&mut self, index: usize, limit: Duration) -> bool {
        self.instances[index].wait_for_end(limit)
    }

    /// Kills a server with all its processes at once.
    pub fn kill(&mut self, index: usize) {
        self.instances[index].kill();
    }

    /// Starts a stopped server with the data that it had: what it was, it is again.
    pub fn restart(&mut self, index: usize) {
        self.on(index, Instance::restart);
    }

    /// Makes a server, stopped or not, a standby of `primary` with a new copy of its data.
    pub fn rejoin(&mut self, index: usize, primary: usize) {
        let source = self.source(primary, index);
        self.on(index, |instance| instance.rebuild(&source));
    }

    /// Nothing arrives from the first server any more, and nothing at it.
    pub fn go_silent(&self) {
        self.wire
            .as_ref()
            .expect("the first server is behind a wire")
            .go_silent();
    }

    /// The first server can be reached again.
    pub fn come_back(&self) {
        self.wire
            .as_ref()
            .expect("the first server is behind a wire")
            .come_back();
    }

    /// Looks at a server from now on until it takes writes.
    pub fn watch(&self, index: usize) -> Watch {
        Watch::start(self.address(index), WATCH_LIMIT)
    }

    /// The processes of a server belong to its network.
    fn on(&mut self, index: usize, work: impl FnOnce(&mut Instance)) {
        match (&self.wire, index) {
            (Some(wire), 0) => wire.at_far(|| work(&mut self.instances[index])),
            _ => work(&mut self.instances[index]),
        }
    }

    fn at<T>(&self, index: usize, work: impl FnOnce() -> T) -> T {
        match (&self.wire, index) {
            (Some(wire), 0) => wire.at_far(work),
            _ => work(),
        }
    }

    /// How `standby` connects to `primary`.
    fn source(&self, primary: usize, standby: usize) -> String {
        format!(
            "host={} port={} user=postgres connect_timeout=5 application_name={}",
            self.instances[primary].host(),
            self.port,
            instance::name(standby),
        )
    }

    fn set(&self, index: usize, name: &str, value: &str) {
        self.sql(index, &format!("ALTER SYSTEM SET {name} = '{value}'"));
        self.sql(index, "SELECT pg_reload_conf()");
    }
}
