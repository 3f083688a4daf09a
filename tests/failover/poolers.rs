//! The poolers that clients go through, each started as a person would for this cluster.

use std::{
    fs::{self, File, Permissions},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::sys::signal::Signal;
use pgweir::cli::demo::{
    child::{Account, OwnedChild, find_in_path, tied},
    ports,
};
use tempfile::TempDir;

use super::{
    announced::CLUSTER,
    scene::NotPlayed,
    support::{Pooler, PoolerBuilder, TryClient, eventually},
};

/// Server connections for all clients together: fewer than clients, so that some always wait for one.
pub(super) const POOL_SIZE: usize = 20;
/// Where Debian puts it, which is not in everybody's PATH.
const PACKAGED: &str = "/usr/sbin/pgbouncer";
const ROLE: &str = "app";

/// A way from clients to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// pgweir that asks the API server.
    Cluster,
    /// pgweir that knows the addresses of the servers, and nothing else.
    Hosts,
    /// pgweir that knows the address of `-rw` alone, as without access to the API server.
    Service,
    /// PgBouncer with the address of `-rw`, configured as CloudNativePG's `Pooler` does.
    PgBouncer,
}

/// Where the servers are.
pub(super) struct Site {
    /// `-rw`
    pub(super) service: String,
    pub(super) hosts: Vec<SocketAddr>,
    /// What leads to the API server.
    pub(super) kubernetes: Vec<(&'static str, String)>,
    /// `pool.hold_timeout`, if it matters.
    pub(super) hold: Option<Duration>,
}

/// A pooler that runs.
pub(super) enum Running {
    Pgweir(Pooler),
    PgBouncer(PgBouncer),
}

/// PgBouncer as a process. Dropped, it is gone with everything that it wrote.
pub(super) struct PgBouncer {
    _child: OwnedChild,
    port: u16,
    home: TempDir,
}

impl Kind {
    /// In names and in the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cluster => "pgweir",
            Self::Hosts => "pgweir, hosts",
            Self::Service => "pgweir, service",
            Self::PgBouncer => "PgBouncer",
        }
    }

    pub(super) fn is_ours(self) -> bool {
        self != Self::PgBouncer
    }

    /// Whether it knows what is going to happen.
    pub(super) fn hears_announcements(self) -> bool {
        self == Self::Cluster
    }

    pub(super) fn start(self, site: &Site) -> Result<Running, NotPlayed> {
        let hosts: Vec<String> = site.hosts.iter().map(|host| format!("'{host}'")).collect();
        Ok(match self {
            Self::Cluster => Running::Pgweir(pgweir_of_cluster(site)),
            Self::Hosts => Running::Pgweir(pgweir(site, &hosts.join(", "))),
            Self::Service => Running::Pgweir(pgweir(site, &format!("'{}'", site.service))),
            Self::PgBouncer => Running::PgBouncer(PgBouncer::start(&site.service)?),
        })
    }
}

impl Running {
    /// Where clients connect.
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Pgweir(pooler) => pooler.address().parse().expect("an address"),
            Self::PgBouncer(pgbouncer) => pgbouncer.address(),
        }
    }

    /// What it has logged.
    pub(super) fn log(&self) -> String {
        match self {
            Self::Pgweir(pooler) => pooler.logs(),
            Self::PgBouncer(pgbouncer) => pgbouncer.log(),
        }
    }
}

fn pgweir(site: &Site, hosts: &str) -> Pooler {
    common(site)
        .set(r#"databases."*".hosts"#, format!("[{hosts}]"))
        .start()
}

fn pgweir_of_cluster(site: &Site) -> Pooler {
    let builder = common(site)
        .without(r#"databases."*""#)
        .set(r#"databases."*".cluster"#, format!("'{CLUSTER}'"));
    let settings = site.kubernetes.iter();
    settings
        .fold(builder, |builder, (key, value)| builder.set(key, value))
        .start()
}

fn common(site: &Site) -> PoolerBuilder {
    let builder = Pooler::builder("nowhere")
        .set("pool.default_pool_size", POOL_SIZE.to_string())
        .set("pool.primary_check_interval", "'2s'")
        .set("log.level", "'info'");
    match site.hold {
        Some(hold) => builder.set("pool.hold_timeout", format!("'{}ms'", hold.as_millis())),
        None => builder,
    }
}

impl PgBouncer {
    fn start(service: &str) -> Result<Self, NotPlayed> {
        let packaged = Path::new(PACKAGED);
        let program = find_in_path("pgbouncer").or_else(|| packaged.exists().then(|| packaged.to_path_buf()));
        let program = program.ok_or(NotPlayed::NoPgBouncer)?;
        let port = ports::free(None).expect("there is a free port");
        let home = tempfile::Builder::new()
            .prefix("pgweir-failover-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .expect("a directory is made");
        // PgBouncer refuses to be root.
        let account = Account::unprivileged().expect("there is an account");
        let write = |name: &str, text: &str| {
            let file = home.path().join(name);
            fs::write(&file, text).expect("a file is written");
            give(&file, account);
        };
        write("pgbouncer.ini", &configuration(service, port));
        write("users.txt", &format!("\"{ROLE}\" \"\"\n"));
        give(home.path(), account);
        let child = spawn(&program, home.path(), account);
        let pgbouncer = Self {
            _child: child,
            port,
            home,
        };
        eventually("PgBouncer takes clients", || {
            TryClient::log_in(pgbouncer.address(), ROLE, ROLE, Duration::from_secs(5)).is_ok()
        });
        Ok(pgbouncer)
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

fn spawn(program: &Path, home: &Path, account: Option<Account>) -> OwnedChild {
    let log = File::create(home.join("log")).expect("a log is made");
    let mut command = tied(PathBuf::from(program), Signal::SIGKILL);
    command
        .arg("pgbouncer.ini")
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a descriptor is left"))
        .stderr(log);
    if let Some(account) = account {
        account.apply(&mut command);
    }
    OwnedChild::spawn(command).expect("PgBouncer starts")
}

fn give(path: &Path, account: Option<Account>) {
    if let Some(Account { uid, gid }) = account {
        chown(path, Some(uid), Some(gid)).expect("root gives files away");
    }
}

/// What CloudNativePG's `Pooler` leaves at PgBouncer's defaults (`server_login_retry` 15 s, `query_wait_timeout` 120 s,
/// `server_connect_timeout` 15 s, `tcp_user_timeout` 0) is left at them here.
fn configuration(service: &str, port: u16) -> String {
    let (host, service_port) = service.split_once(':').expect("an address with a port");
    format!(
        "[databases]\n\
         * = host={host} port={service_port}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = trust\n\
         auth_file = users.txt\n\
         pool_mode = transaction\n\
         max_client_conn = 1000\n\
         default_pool_size = {POOL_SIZE}\n\
         server_tls_sslmode = disable\n\
         log_connections = 0\n\
         log_disconnections = 0\n\
         log_stats = 0\n"
    )
}
