//! A PgBouncer of the distribution's, to compare with.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Stdio,
};

use nix::sys::signal::Signal;
use pgweir::cli::demo::{
    child::{Account, OwnedChild, find_in_path, tied},
    ports,
};
use tempfile::TempDir;

use crate::support::{TryClient, eventually};

const PACKAGED: &str = "/usr/sbin/pgbouncer";

/// A running PgBouncer, with `app` as administrator.
pub(super) struct PgBouncer {
    _child: OwnedChild,
    _home: TempDir,
    pub(super) address: String,
}

impl PgBouncer {
    /// One in front of this server; `None` where none is installed.
    pub(super) fn start(server: &str) -> Option<Self> {
        let packaged = Path::new(PACKAGED);
        let program =
            find_in_path("pgbouncer").or_else(|| packaged.exists().then(|| packaged.to_path_buf()))?;
        let (host, server_port) = server.split_once(':').unwrap();
        let port = ports::free(None).unwrap();
        let home = tempfile::Builder::new()
            .prefix("pgweir-admin-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .unwrap();
        // PgBouncer refuses to be root.
        let account = Account::unprivileged().unwrap();
        let give = |path: &Path| {
            if let Some(Account { uid, gid }) = account {
                chown(path, Some(uid), Some(gid)).unwrap();
            }
        };
        let configuration = format!(
            "[databases]\n* = host={host} port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = users.txt\n\
             admin_users = app\npool_mode = transaction\n"
        );
        for (name, text) in [
            ("pgbouncer.ini", &*configuration),
            ("users.txt", "\"app\" \"secret\"\n"),
        ] {
            fs::write(home.path().join(name), text).unwrap();
            give(&home.path().join(name));
        }
        give(home.path());
        let mut command = tied(program, Signal::SIGKILL);
        command
            .arg("pgbouncer.ini")
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(home.path().join("log")).unwrap());
        if let Some(account) = account {
            account.apply(&mut command);
        }
        let child = OwnedChild::spawn(command).unwrap();
        let address = format!("127.0.0.1:{port}");
        let patience = std::time::Duration::from_secs(5);
        eventually("PgBouncer takes clients", || {
            TryClient::log_in(address.parse().unwrap(), "app", "app", patience).is_ok()
        });
        Some(Self {
            _child: child,
            _home: home,
            address,
        })
    }
}
