//! Coming from PgBouncer: its configuration is imported, taken as it is, and read again while pgweir runs.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    fs::{self, File, Permissions},
    net::TcpStream,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use nix::sys::signal::Signal;
use pgweir::cli::demo::{
    child::{Account, OwnedChild, find_in_path, tied},
    ports,
};
use support::{Authority, Postgres, eventually, postgres};
use tempfile::TempDir;

const PGBOUNCER: &str = "/usr/sbin/pgbouncer";
const USERS: &str = "\"app\" \"secret\"\n\"guest\" \"other\"\n\"admin\" \"admin\"\n";
const HBA: &str =
    "local all all peer map=m\nhostssl all all 127.0.0.1/32 cert\nhost all all 127.0.0.1/32 md5\n";

/// What PgBouncer has had since 1.18.
const SINCE_118: &str = "\
; everything in one file
[databases]
app = host=127.0.0.1 port={pg} auth_user=asker pool_size=30 min_pool_size=2 reserve_pool=1 pool_mode=session \
max_db_connections=40 connect_query='SELECT ''x''' client_encoding=UTF8 datestyle=ISO timezone=UTC application_name=app
forced = host=127.0.0.1,localhost port={pg} dbname=app user=app password=secret
local =
* = host=127.0.0.1 port={pg}

[users]
app = pool_mode=transaction max_user_connections=9

[pgbouncer]
# where
listen_addr = 127.0.0.1
listen_port = {port}
listen_backlog = 128
unix_socket_dir = {dir}
unix_socket_mode = 0770
so_reuseport = 0
logfile = {dir}/pgbouncer.log
pidfile = {dir}/pgbouncer.pid
job_name = pooler
syslog = 0
syslog_facility = daemon
syslog_ident = pgbouncer
; who
auth_type = hba
auth_file = users.txt
auth_hba_file = hba.conf
auth_user = asker
auth_query = SELECT usename, passwd FROM public.user_search($1)
admin_users = admin
stats_users = admin, guest
; how many
pool_mode = transaction
max_client_conn = 500
default_pool_size = 20
min_pool_size = 5
reserve_pool_size = 3
reserve_pool_timeout = 1.5
max_db_connections = 50
max_user_connections = 60
; for how long
server_reset_query = DISCARD ALL
server_reset_query_always = 0
server_check_query = select 1
server_check_delay = 30
server_fast_close = 0
server_lifetime = 3600
server_idle_timeout = 600
server_connect_timeout = 15
server_login_retry = 1
server_round_robin = 0
client_login_timeout = 60
autodb_idle_timeout = 3600
suspend_timeout = 10
query_timeout = 0
query_wait_timeout = 120
client_idle_timeout = 0
idle_transaction_timeout = 0
stats_period = 60
; names
dns_max_ttl = 15
dns_nxdomain_ttl = 15
dns_zone_check_period = 0
; sockets
pkt_buf = 4096
max_packet_size = 2147483647
sbuf_loopcnt = 5
tcp_defer_accept = 1
tcp_socket_buffer = 0
tcp_keepalive = 1
tcp_keepcnt = 3
tcp_keepidle = 60
tcp_keepintvl = 10
tcp_user_timeout = 30000
; TLS
client_tls_sslmode = prefer
client_tls_key_file = server.key
client_tls_cert_file = server.crt
client_tls_ca_file = ca.crt
client_tls_protocols = secure
client_tls_ciphers = default
client_tls_ecdhcurve = auto
client_tls_dheparams = auto
server_tls_sslmode = prefer
server_tls_ca_file = ca.crt
server_tls_key_file = server.key
server_tls_cert_file = server.crt
server_tls_protocols = secure
server_tls_ciphers = default
; the rest
disable_pqexec = 0
application_name_add_host = 0
ignore_startup_parameters = extra_float_digits, options
log_connections = 0
log_disconnections = 0
log_pooler_errors = 1
log_stats = 0
verbose = 0
";

/// What came after it, up to 1.25.
const SINCE_125: &str = "
auth_ident_file = ident.conf
auth_dbname = app
client_tls13_ciphers = TLS_AES_256_GCM_SHA384
server_tls13_ciphers = TLS_AES_256_GCM_SHA384
cancel_wait_timeout = 10
max_prepared_statements = 100
max_db_client_connections = 400
max_user_client_connections = 300
query_wait_notify = 5
scram_iterations = 4096
track_extra_parameters = IntervalStyle
transaction_timeout = 300
peer_id = 1
[users]
guest = pool_size=3 reserve_pool_size=1 query_timeout=30 idle_transaction_timeout=60 transaction_timeout=90 \
client_idle_timeout=3600 max_user_client_connections=20
[databases]
other = host=127.0.0.1,127.0.0.2 port={pg} load_balance_hosts=disable server_lifetime=60 auth_dbname=app \
auth_query='SELECT usename, passwd FROM public.user_search($1)' max_db_client_connections=10
[peers]
1 = host={dir}
";

/// A directory with an installation of PgBouncer's, and the port that it listens on.
struct Installation {
    directory: TempDir,
    port: u16,
}

impl Installation {
    fn new(ini: &str, server: u16) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("pgweir-import-")
            .tempdir()
            .unwrap();
        let installation = Self {
            port: ports::free(None).unwrap(),
            directory,
        };
        installation.write("pgbouncer.ini", &ini.replace("{pg}", &server.to_string()));
        installation.write("users.txt", USERS);
        installation.write("hba.conf", HBA);
        installation.write("ident.conf", "m app app\n");
        let authority = Authority::new("ca").unwrap();
        installation.write("ca.crt", authority.certificate_pem());
        let certificate = authority.server(&["localhost"]).unwrap();
        certificate.write_to(installation.path(), "server").unwrap();
        installation
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Braces, as the files are certificates too: what stood for the directory once was found in the base64
    /// of one of them, in about one run of two hundred.
    fn write(&self, name: &str, text: &str) {
        let text = text
            .replace("{port}", &self.port.to_string())
            .replace("{dir}", &self.path().display().to_string());
        fs::write(self.path().join(name), text).unwrap();
    }

    fn pgweir(&self, arguments: &[&str]) -> (String, String, ExitStatus) {
        let output = Command::new(env!("CARGO_BIN_EXE_pgweir"))
            .args(arguments)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (text(&output.stdout), text(&output.stderr), output.status)
    }

    /// Starts a program here that logs to `log` and listens on the port.
    fn start(&self, mut command: Command) -> OwnedChild {
        command
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.path().join("log")).unwrap());
        let mut child = OwnedChild::spawn(command).unwrap();
        let mut listens = || {
            let ended = child.ended().unwrap();
            assert!(ended.is_none(), "it has ended: {}", self.log());
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        };
        eventually("it listens", &mut listens);
        child
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path().join("log")).unwrap()
    }
}

/// Everything that is imported can be used, and everything that is otherwise is said.
#[test]
fn a_full_ini_is_imported_and_checked() {
    let installation = Installation::new(&format!("{SINCE_118}{SINCE_125}"), 5432);
    let (toml, warnings, status) = installation.pgweir(&["import", "pgbouncer.ini"]);
    assert!(status.success(), "{warnings}");
    for (word, place) in [
        ("logfile", ":19: warning: logfile = "),
        ("pidfile", ":20: warning: pidfile = "),
        (
            "client_tls13_ciphers",
            "warning: client_tls13_ciphers = TLS_AES_256_GCM_SHA384: cipher suites",
        ),
        (
            "password",
            "to do: databases.forced: password: write it into the file forced.password",
        ),
    ] {
        assert!(warnings.contains(place), "{word}: {warnings}");
        assert!(toml.contains(word), "{word}: {toml}");
    }
    assert!(
        !toml.contains("password=secret") && !warnings.contains("secret"),
        "{toml}"
    );
    fs::write(installation.path().join("pgweir.toml"), &toml).unwrap();
    let (_, problems, status) = installation.pgweir(&["check"]);
    assert!(
        !status.success() && problems.contains("databases.forced.password_file: cannot read"),
        "{problems}"
    );
    installation.write("forced.password", "secret\n");
    let (ok, problems, status) = installation.pgweir(&["check"]);
    assert!(status.success(), "{problems}\n{toml}");
    assert_eq!(ok, "pgweir.toml: ok\n");
    // And as it is.
    let (ok, problems, status) = installation.pgweir(&["check", "--pgbouncer-ini", "pgbouncer.ini"]);
    assert!(status.success(), "{problems}");
    assert_eq!(ok, "pgbouncer.ini: ok\n");
    assert!(
        problems.contains("pgbouncer.ini:20: warning: pidfile = "),
        "{problems}"
    );
    let (_, _, strict) = installation.pgweir(&["import", "--strict", "pgbouncer.ini"]);
    assert_eq!(strict.code(), Some(1));
}

/// The file is one of PgBouncer's, and not only what pgweir takes for one.
#[test]
fn pgbouncer_runs_with_the_same_ini() {
    let packaged = Path::new(PGBOUNCER);
    let found = find_in_path("pgbouncer").or_else(|| packaged.exists().then(|| packaged.to_path_buf()));
    let Some(program) = found else {
        println!("skipped: PgBouncer is not installed");
        return;
    };
    let installation = Installation::new(SINCE_118, 5432);
    let mut command = tied(program, Signal::SIGKILL);
    command.arg("pgbouncer.ini");
    // PgBouncer refuses to be root.
    if let Some(account) = Account::unprivileged().unwrap() {
        let Account { uid, gid } = account;
        for entry in fs::read_dir(installation.path()).unwrap() {
            chown(entry.unwrap().path(), Some(uid), Some(gid)).unwrap();
        }
        chown(installation.path(), Some(uid), Some(gid)).unwrap();
        account.apply(&mut command);
    }
    fs::set_permissions(installation.path(), Permissions::from_mode(0o755)).unwrap();
    let _pgbouncer = installation.start(command);
    let log = installation.log();
    assert!(!log.contains("ERROR") && !log.contains("syntax error"), "{log}");
}

const SMALL: &str = "\
[databases]
app = host=127.0.0.1 port={pg}
forced = host=127.0.0.1 port={pg} dbname=app user=app password=secret
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir = {dir}
auth_type = hba
auth_hba_file = hba.conf
auth_ident_file = ident.conf
auth_file = users.txt
admin_users = admin
client_tls_sslmode = prefer
client_tls_key_file = server.key
client_tls_cert_file = server.crt
client_tls_ca_file = ca.crt
%include pools.ini
";

/// psql through pgweir: its output, or what went wrong.
fn psql(
    postgres: &Postgres,
    installation: &Installation,
    user: &str,
    database: &str,
    sql: &str,
) -> Result<String, String> {
    let password = match user {
        "app" => "secret",
        "guest" => "other",
        user => user,
    };
    let port = installation.port;
    let output = postgres
        .programs()
        .command("psql")
        .args(["-X", "-q", "-A", "-t", "-w", "-c", sql, "-d"])
        .arg(format!(
            "host=127.0.0.1 port={port} user={user} dbname={database} sslmode=disable"
        ))
        .env("PGPASSWORD", password)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

#[test]
fn an_installation_is_taken_as_it_is_and_read_again() {
    let postgres = postgres();
    let installation = Installation::new(SMALL, postgres.port());
    installation.write("pools.ini", "default_pool_size = 2\n");
    let mut command = tied(env!("CARGO_BIN_EXE_pgweir"), Signal::SIGKILL);
    command.args(["run", "--pgbouncer-ini", "pgbouncer.ini"]);
    let mut pgweir = installation.start(command);
    let ask = |user: &str, database: &str, sql: &str| psql(&postgres, &installation, user, database, sql);
    let size = || {
        let config = ask("admin", "pgbouncer", "SHOW CONFIG").unwrap();
        let line = config
            .lines()
            .find(|line| line.starts_with("default_pool_size|"))
            .unwrap_or_default()
            .to_owned();
        line.split('|').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(ask("app", "app", "SELECT current_user"), Ok("app".to_owned()));
    // The password is that of the connection string: nobody has said one that the server knows.
    assert_eq!(
        ask("guest", "forced", "SELECT current_user"),
        Ok("app".to_owned())
    );
    assert!(ask("guest", "app", "SELECT 1").is_err());
    assert_eq!(size(), "2");
    assert!(
        !ask("admin", "pgbouncer", "SHOW CONFIG")
            .unwrap()
            .contains("secret")
    );
    // An included file, a file that is named, and one that is wrong.
    installation.write("pools.ini", "default_pool_size = 7\n");
    installation.write("users.txt", &USERS.replace("secret", "changed"));
    pgweir.signal(Signal::SIGHUP).unwrap();
    eventually("the pools have another size", || size() == "7");
    assert!(
        ask("app", "app", "SELECT 1")
            .unwrap_err()
            .contains("password authentication failed")
    );
    installation.write("pools.ini", "\ndefault_pool_size = many\n");
    installation.write("users.txt", USERS);
    pgweir.signal(Signal::SIGHUP).unwrap();
    eventually("the mistake is told", || {
        installation
            .log()
            .contains("pools.ini:2: default_pool_size: \\\"many\\\" is not a whole number")
    });
    assert_eq!(size(), "7", "nothing has changed");
    pgweir.signal(Signal::SIGTERM).unwrap();
}

#[test]
fn what_is_wrong_is_told_by_file_and_line() {
    let installation = Installation::new(SMALL, 5432);
    installation.write("pools.ini", "pool_mod = session\n[database]\n");
    for arguments in [
        &["import", "pgbouncer.ini"][..],
        &["check", "--pgbouncer-ini", "pgbouncer.ini"],
        &["run", "--pgbouncer-ini", "pgbouncer.ini"],
    ] {
        let (output, problems, status) = installation.pgweir(arguments);
        assert_eq!(status.code(), Some(1), "{arguments:?}");
        assert_eq!(output, "");
        assert_eq!(
            problems,
            "pools.ini:1: pool_mod: unknown setting\n  hint: did you mean `pool_mode`?\n\
             pools.ini:2: unknown section [database]\n  hint: did you mean [databases]?\n"
        );
    }
    installation.write("pools.ini", "pool_mode = sesion\n");
    fs::remove_file(installation.path().join("users.txt")).unwrap();
    let (_, problems, _) = installation.pgweir(&["check", "--pgbouncer-ini", "pgbouncer.ini"]);
    assert!(
        problems.contains("pgbouncer.ini:11: auth_file: cannot read users.txt: No such file"),
        "{problems}"
    );
    assert!(
        problems.contains("pools.ini:1: pool_mode: unknown value `sesion`"),
        "{problems}"
    );
    let (_, problems, status) = installation.pgweir(&["check", "--config", "a", "--pgbouncer-ini", "b"]);
    assert!(
        !status.success() && problems.contains("cannot be used with"),
        "{problems}"
    );
}

#[test]
fn a_pooler_becomes_values() {
    let installation = Installation::new(SMALL, 5432);
    installation.write(
        "pooler.yaml",
        "apiVersion: postgresql.cnpg.io/v1\nkind: Pooler\nmetadata: {name: p}\nspec:\n  cluster: {name: c}\n  \
         pgbouncer: {poolMode: transaction, parameters: {default_pool_size: \"150\"}}\n",
    );
    let (values, warnings, status) = installation.pgweir(&["import", "pooler.yaml"]);
    assert!(status.success(), "{warnings}");
    assert!(values.contains("\n    default_pool_size: 150\n"), "{values}");
    assert!(
        warnings.starts_with("pooler.yaml: warning: tls.secret: "),
        "{warnings}"
    );
}
