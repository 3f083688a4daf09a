//! From settings to the parts that a reload swaps: what the files that a configuration names have in them.
//!
//! Each part is made by a function of its own and can be made again alone. It does not know who uses them.

mod access;
mod digest;
mod passwords;
mod server_tls;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use self::digest::Digest;
use self::{passwords::Passwords, server_tls::ServerTlsPart};
use super::certificates::{self, Held};
use crate::{
    auth::{
        access::AccessRules,
        authfile,
        users::{LoadError, Users},
    },
    config::Settings,
    telemetry::http,
    tls::{self, Acceptor, Connector, TlsError},
    traces,
};

/// What the files that a configuration names have in them. A clone shares the parts.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// TLS towards clients.
    pub acceptor: Option<Acceptor>,
    /// Who may log in; `None` where no list is kept.
    pub users: Option<Arc<Users>>,
    /// What databases' users log in to servers with, by the databases' names in the configuration.
    pub(super) passwords: Arc<Passwords>,
    /// How clients prove who they are.
    pub access: Arc<AccessRules>,
    /// TLS towards directories that know passwords.
    pub ldap_tls: Option<Arc<Connector>>,
    /// What the acceptor was made with.
    pub(super) held: Arc<[Held]>,
    pub(super) server_tls: ServerTlsPart,
    made_of: BTreeMap<Part, Digest>,
}

/// One of the parts, each made of files of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Part {
    /// `[listen.tls]`
    ClientTls,
    /// `[server_tls]` and `[users.NAME.server_tls]`
    ServerTls,
    /// `auth.users_file` and `databases.NAME.password_file`
    Users,
    /// `auth.hba_file`, `auth.ident_file` and `auth.ldap_ca_file`
    Access,
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
    /// `[users.NAME.server_tls]`
    #[error("users.{user}.server_tls cannot be used")]
    UserServerTls {
        /// The user.
        user: String,
        /// Why.
        #[source]
        source: TlsError,
    },
    /// `auth.users_file`
    #[error("auth.users_file {} cannot be used", path.display())]
    Users {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: LoadError,
    },
    /// `databases.NAME.password_file`
    #[error("databases.{database}.password_file cannot be used: {reason}")]
    Password {
        /// The database.
        database: String,
        /// Why, without anything that is in it.
        reason: String,
    },
    /// `auth.hba_file` and `auth.ident_file`
    #[error("auth.hba_file cannot be used")]
    Access(#[source] authfile::Problems),
    /// `auth.ldap_ca_file`
    #[error("auth.ldap_ca_file cannot be used")]
    LdapTls(#[source] TlsError),
    /// `[http.auth]`
    #[error("http.auth cannot be used")]
    HttpAuth(#[source] http::GuardError),
    /// `traces.ca_file`
    #[error("traces.ca_file cannot be used")]
    Traces(#[source] TlsError),
}

/// Reads what the settings name.
///
/// # Errors
/// Everything that cannot be used, not only the first.
pub fn prepare(settings: &Settings) -> Result<Prepared, Vec<PrepareError>> {
    // Read first: if a file changes now, the next look finds that it has.
    let made_of = Part::ALL.map(|part| (part, Digest::of(&part.files(settings))));
    let mut problems = Problems::default();
    let acceptor = problems.note(client_tls(settings));
    let server_tls = problems.note_all(ServerTlsPart::prepare(settings));
    let users = problems.note(users(settings));
    let passwords = problems.note(passwords::read(settings));
    let access = problems.note(access::rules(settings));
    let ldap_tls = problems.note(access::ldap_tls(settings));
    let http = problems.note(http_auth(settings).and_then(|()| collector(settings)));
    match (
        acceptor,
        server_tls,
        users.zip(passwords),
        access,
        ldap_tls.zip(http),
    ) {
        (Some(acceptor), Some(server_tls), Some((users, passwords)), Some(access), Some((ldap_tls, ()))) => {
            Ok(Prepared {
                acceptor,
                users,
                passwords: Arc::new(passwords),
                access,
                ldap_tls,
                held: certificates::of_clients(&settings.listen.tls).into(),
                server_tls,
                made_of: made_of.into(),
            })
        }
        _ => Err(problems.0),
    }
}

fn client_tls(settings: &Settings) -> Result<Option<Acceptor>, PrepareError> {
    tls::acceptor(&settings.listen.tls).map_err(PrepareError::ClientTls)
}

fn users(settings: &Settings) -> Result<Option<Arc<Users>>, PrepareError> {
    let load = |path: &PathBuf| {
        Users::load(path)
            .map(Arc::new)
            .map_err(|source| PrepareError::Users {
                path: path.clone(),
                source,
            })
    };
    settings.auth.users_file.as_ref().map(load).transpose()
}

/// What is shown over HTTP is not kept: it is read for every request.
fn http_auth(settings: &Settings) -> Result<(), PrepareError> {
    let http = settings.http.as_ref();
    http.map_or(Ok(()), |http| http::check(&http.auth))
        .map_err(PrepareError::HttpAuth)
}

/// Nor is what a collector is trusted by: it is read for every connection.
fn collector(settings: &Settings) -> Result<(), PrepareError> {
    let traces = settings.traces.as_ref();
    traces.map_or(Ok(()), traces::check).map_err(PrepareError::Traces)
}

impl Prepared {
    /// TLS towards servers, for connections that log in as `role`.
    pub(super) fn connector(&self, role: &str) -> Arc<Connector> {
        self.server_tls.connector(role)
    }

    /// Keeps what is made of the same as before, so that what was made with it stays.
    pub(super) fn keep_same(&mut self, previous: &Self) {
        self.server_tls.keep_same(&previous.server_tls);
    }

    /// Whether server connections are made as with `other`.
    pub(super) fn has_same_server_tls(&self, other: &Self) -> bool {
        self.server_tls.is_same(&other.server_tls)
    }

    /// Makes one part again if its files have changed; the others stay as they are. Returns whether they have.
    ///
    /// # Errors
    /// The first reason why something of the part cannot be used. That stays as it is too.
    pub(super) fn renew(&mut self, part: Part, settings: &Settings) -> Result<bool, PrepareError> {
        let contents = Digest::of(&part.files(settings));
        if self.made_of.get(&part) == Some(&contents) {
            return Ok(false);
        }
        match part {
            Part::ClientTls => {
                self.acceptor = client_tls(settings)?;
                self.held = certificates::of_clients(&settings.listen.tls).into();
            }
            Part::ServerTls => self.server_tls.renew(settings)?,
            Part::Users => {
                let (users, passwords) = (users(settings)?, passwords::read(settings)?);
                (self.users, self.passwords) = (users, Arc::new(passwords));
            }
            Part::Access => {
                let (access, ldap_tls) = (access::rules(settings)?, access::ldap_tls(settings)?);
                (self.access, self.ldap_tls) = (access, ldap_tls);
            }
        }
        self.made_of.insert(part, contents);
        Ok(true)
    }
}

impl Part {
    /// All parts, in the order in which they are made.
    pub(super) const ALL: [Self; 4] = [Self::ClientTls, Self::ServerTls, Self::Users, Self::Access];

    /// The files that a part is made of.
    pub(super) fn files(self, settings: &Settings) -> Vec<PathBuf> {
        let files: Vec<Option<&Path>> = match self {
            Self::ClientTls => {
                let tls = &settings.listen.tls;
                let identity = tls.identity.as_ref();
                vec![
                    identity.map(|identity| identity.cert_file.as_path()),
                    identity.map(|identity| identity.key_file.as_path()),
                    tls.client_ca_file.as_deref(),
                    tls.crl_file.as_deref(),
                ]
            }
            Self::ServerTls => server_tls::files(settings),
            Self::Users => {
                let files = passwords::files(settings).map(|path| Some(path.as_path()));
                std::iter::once(settings.auth.users_file.as_deref())
                    .chain(files)
                    .collect()
            }
            Self::Access => return access::files(settings),
        };
        files.into_iter().flatten().map(Path::to_path_buf).collect()
    }

    /// The word used in metrics and logs.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ClientTls => "listen.tls",
            Self::ServerTls => "server_tls",
            Self::Users => "auth.users_file",
            Self::Access => "auth.hba_file",
        }
    }
}

/// Everything that is wrong.
#[derive(Default)]
struct Problems(Vec<PrepareError>);

impl Problems {
    fn note<T>(&mut self, part: Result<T, PrepareError>) -> Option<T> {
        part.map_err(|error| self.0.push(error)).ok()
    }

    fn note_all<T>(&mut self, part: Result<T, Vec<PrepareError>>) -> Option<T> {
        part.map_err(|errors| self.0.extend(errors)).ok()
    }
}
