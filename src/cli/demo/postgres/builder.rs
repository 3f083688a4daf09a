//! What kind of throw-away PostgreSQL is wanted.

use std::{
    fmt::Display,
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{
    Postgres, Programs,
    error::{PostgresError, file_error},
    standby::BaseBackup,
    template::Template,
};
use crate::cli::demo::{
    authority::{Certificate, write_private},
    child::Account,
    ports, secret,
};

/// The superuser needs no password on the unix socket, which only the server's owner and root can reach.
const SUPERUSER_RULE: &str = "local all postgres trust\n";
const DEFAULT_RULES: &[&str] = &[
    "local all all scram-sha-256",
    "host all all all scram-sha-256",
    "host replication all all scram-sha-256",
];
/// Nothing here has to survive a crash of the machine.
const DEFAULT_SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("shared_buffers", "32MB"),
    ("autovacuum_naptime", "1h"),
    ("password_encryption", "scram-sha-256"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
];

/// Options of a [`Postgres`]. Made by [`Postgres::builder`].
#[derive(Debug, Default)]
pub struct PostgresBuilder {
    checkout: PathBuf,
    programs: Option<Programs>,
    template_cache: Option<PathBuf>,
    port: Option<u16>,
    settings: Vec<(String, String)>,
    rules: Option<Vec<String>>,
    source: Option<String>,
    tls: Option<Tls>,
}

#[derive(Debug)]
struct Tls {
    certificate: Certificate,
    client_ca_pem: Option<String>,
}

impl PostgresBuilder {
    /// Where `./dev` may have unpacked PostgreSQL (in `.dev`); the current directory otherwise.
    #[must_use]
    pub fn checkout(mut self, directory: impl Into<PathBuf>) -> Self {
        self.checkout = directory.into();
        self
    }

    /// This installation of PostgreSQL and no other.
    #[must_use]
    pub fn programs(mut self, programs: Programs) -> Self {
        self.programs = Some(programs);
        self
    }

    /// Keeps what initdb made in `directory` and copies it next time.
    #[must_use]
    pub fn template_cache(mut self, directory: impl Into<PathBuf>) -> Self {
        self.template_cache = Some(directory.into());
        self
    }

    /// This TCP port; any free one otherwise.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// A server setting, as `postgres -c NAME=VALUE`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: impl Display) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// The lines of `pg_hba.conf`, in place of SCRAM for everyone.
    #[must_use]
    pub fn hba(mut self, lines: &[&str]) -> Self {
        self.rules = Some(lines.iter().map(|&line| line.to_owned()).collect());
        self
    }

    /// A standby of another server, with a copy of its data. `source` is a connection string of a role that may
    /// replicate.
    #[must_use]
    pub fn standby_of(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// TLS with this certificate.
    #[must_use]
    pub fn tls(mut self, certificate: &Certificate) -> Self {
        self.tls = Some(Tls {
            certificate: certificate.clone(),
            client_ca_pem: None,
        });
        self
    }

    /// TLS with this certificate, and a CA for client certificates (`hostssl ... cert`).
    #[must_use]
    pub fn mutual_tls(mut self, certificate: &Certificate, client_ca_pem: &str) -> Self {
        let client_ca_pem = Some(client_ca_pem.to_owned());
        self.tls = Some(Tls {
            certificate: certificate.clone(),
            client_ca_pem,
        });
        self
    }

    /// Makes the data directory and starts the server.
    ///
    /// # Errors
    /// PostgreSQL is not installed; initdb or the server fails, or is not ready in time.
    pub fn start(self) -> Result<Postgres, PostgresError> {
        let programs = match &self.programs {
            Some(programs) => programs.clone(),
            None => Programs::find(&self.checkout)?,
        };
        let account = Account::unprivileged().map_err(PostgresError::Account)?;
        let directory = self.make_directory(&programs, account)?;
        let port = match self.port {
            Some(port) => port,
            None => ports::free(None).map_err(PostgresError::Port)?,
        };
        let mut postgres = Postgres {
            child: None,
            programs,
            account,
            port,
            port_is_final: self.port.is_some(),
            settings: self.all_settings(directory.path()),
            password: secret::password().map_err(PostgresError::Port)?,
            directory,
        };
        postgres.start()?;
        // What a standby knows of roles is its primary's.
        if self.source.is_none() {
            postgres.psql(&format!("ALTER ROLE postgres PASSWORD '{}'", postgres.password))?;
        }
        Ok(postgres)
    }

    fn make_directory(
        &self,
        programs: &Programs,
        account: Option<Account>,
    ) -> Result<TempDir, PostgresError> {
        let directory = tempfile::Builder::new()
            .prefix("pgweir-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map_err(file_error(&std::env::temp_dir()))?;
        let path = directory.path();
        give(path, account)?;
        self.make_data(programs, account, &path.join("data"))?;
        let mut rules = SUPERUSER_RULE.to_owned();
        match &self.rules {
            Some(lines) => rules.push_str(&lines.join("\n")),
            None => rules.push_str(&DEFAULT_RULES.join("\n")),
        }
        rules.push('\n');
        let hba = path.join("data/pg_hba.conf");
        fs::write(&hba, rules).map_err(file_error(&hba))?;
        if let Some(tls) = &self.tls {
            tls.write_to(path, account)?;
        }
        Ok(directory)
    }

    fn make_data(
        &self,
        programs: &Programs,
        account: Option<Account>,
        data: &Path,
    ) -> Result<(), PostgresError> {
        match &self.source {
            Some(source) => BaseBackup {
                programs,
                account,
                source,
            }
            .take(data),
            None => Template {
                programs,
                account,
                cache: self.template_cache.as_deref(),
            }
            .create(data),
        }
    }

    fn all_settings(&self, directory: &Path) -> Vec<(String, String)> {
        let file = |name: &str| directory.join(name).display().to_string();
        let mut settings: Vec<_> = DEFAULT_SETTINGS
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        settings.push(("unix_socket_directories".into(), directory.display().to_string()));
        if let Some(tls) = &self.tls {
            settings.push(("ssl".into(), "on".into()));
            settings.push(("ssl_cert_file".into(), file("server.crt")));
            settings.push(("ssl_key_file".into(), file("server.key")));
            if tls.client_ca_pem.is_some() {
                settings.push(("ssl_ca_file".into(), file("client-ca.crt")));
            }
        }
        // The server takes the last value of a setting.
        settings.extend(self.settings.iter().cloned());
        settings
    }
}

impl Tls {
    fn write_to(&self, directory: &Path, account: Option<Account>) -> Result<(), PostgresError> {
        self.certificate
            .write_to(directory, "server")
            .map_err(file_error(directory))?;
        give(&directory.join("server.crt"), account)?;
        give(&directory.join("server.key"), account)?;
        if let Some(pem) = &self.client_ca_pem {
            let file = directory.join("client-ca.crt");
            write_private(&file, pem).map_err(file_error(&file))?;
            give(&file, account)?;
        }
        Ok(())
    }
}

/// Makes `account` the owner of a file or directory that this process made.
fn give(path: &Path, account: Option<Account>) -> Result<(), PostgresError> {
    match account {
        Some(Account { uid, gid }) => chown(path, Some(uid), Some(gid)).map_err(file_error(path)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_settings_come_last() {
        let builder = Postgres::builder()
            .setting("fsync", "on")
            .setting("max_connections", 7);
        let settings = builder.all_settings(Path::new("/d"));
        let last = |name: &str| {
            let found = settings.iter().rfind(|(key, _)| key == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(last("fsync"), Some("on"));
        assert_eq!(last("max_connections"), Some("7"));
        assert_eq!(last("unix_socket_directories"), Some("/d"));
        assert_eq!(last("ssl"), None);
    }
}
