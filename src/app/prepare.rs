//! From settings to the parts that a reload swaps: TLS on both sides, the users file.

use std::{io, path::PathBuf, sync::Arc};

use crate::{
    auth::users::{LoadError, Users},
    config::{ServerTls, Settings},
    tls::{self, Acceptor, Connector, TlsError},
};

/// What the files that a configuration names have in them.
#[derive(Debug)]
pub struct Prepared {
    /// TLS towards clients.
    pub acceptor: Option<Acceptor>,
    /// TLS towards servers.
    pub connector: Arc<Connector>,
    /// Who may log in; `None` where no list is kept.
    pub users: Option<Arc<Users>>,
    fingerprint: Planning,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// `[listen] tls`
    #[error("listen.tls cannot be used")]
    ClientTls(#[source] TlsError),
    /// `[server_tls]`
    #[error("server_tls cannot be used")]
    ServerTls(#[source] TlsError),
    /// `auth.users_file`
    #[error("auth.users_file {} cannot be used", path.display())]
    Users {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: LoadError,
    },
}

/// What the TLS towards servers was made of: as long as it is the same, server connections are as good as
/// new ones.
#[derive(Debug, PartialEq)]
struct Planning {
    settings: ServerTls,
    files: Vec<Option<Vec<u8>>>,
}

/// Reads what the settings name.
///
/// # Errors
/// Everything that cannot be used, not only the first.
pub fn prepare(settings: &Settings) -> Result<Prepared, Vec<PrepareError>> {
    let mut errors = Vec::new();
    let acceptor = tls::acceptor(&settings.listen.tls).unwrap_or_else(|error| {
        errors.push(PrepareError::ClientTls(error));
        None
    });
    let fingerprint = Planning::of(&settings.server_tls);
    let connector = tls::connector(&settings.server_tls)
        .map_err(|error| errors.push(PrepareError::ServerTls(error)))
        .ok();
    let users = settings.auth.users_file.as_ref().and_then(|path| {
        Users::load(path)
            .map_err(|source| {
                let path = path.clone();
                errors.push(PrepareError::Users { path, source });
            })
            .ok()
    });
    match connector {
        Some(connector) if errors.is_empty() => Ok(Prepared {
            acceptor,
            connector: Arc::new(connector),
            users: users.map(Arc::new),
            fingerprint,
        }),
        _ => Err(errors),
    }
}

impl Prepared {
    /// Keeps the previous connector if this one is made of the same, so that server connections stay.
    pub(super) fn keep_connector(&mut self, previous: &Self) {
        if self.fingerprint == previous.fingerprint {
            self.connector = previous.connector.clone();
        }
    }
}

impl Planning {
    fn of(settings: &ServerTls) -> Self {
        let identity = settings.identity.as_ref();
        let paths = [
            settings.ca_file.as_ref(),
            identity.map(|identity| &identity.cert_file),
            identity.map(|identity| &identity.key_file),
        ];
        let read = |path: &PathBuf| -> io::Result<Vec<u8>> { std::fs::read(path) };
        Self {
            settings: settings.clone(),
            files: paths
                .into_iter()
                .map(|path| path.and_then(|path| read(path).ok()))
                .collect(),
        }
    }
}
