//! Newtypes and small enums that every layer speaks: names, endpoints, keys, modes.
//!
//! It knows nothing of sockets, configuration files or the wire.

use std::{fmt, path::PathBuf, sync::Arc};

use serde::Deserialize;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name_type! {
    /// A database as the client names it in its startup packet.
    DatabaseName
}
name_type! {
    /// A PostgreSQL role name.
    UserName
}

/// Who a client is by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateNames {
    /// The common name (CN) of the subject, if it has one.
    pub common_name: Option<String>,
    /// The whole subject as in RFC 2253, most specific first: `CN=app,O=acme`. Empty where the subject is.
    pub distinguished_name: String,
}

/// A hash of a server's certificate, to which a SCRAM log-in over TLS is bound (`tls-server-end-point`, RFC 5929).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndPointHash(Arc<[u8]>);

impl EndPointHash {
    /// The hash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for EndPointHash {
    fn from(hash: &[u8]) -> Self {
        Self(hash.into())
    }
}

/// Which kind of server a database's clients want (`role` of a database).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Deserialize)]
pub enum Role {
    /// A server that accepts writes.
    #[default]
    #[serde(rename = "rw")]
    ReadWrite,
    /// A hot standby.
    #[serde(rename = "ro")]
    ReadOnly,
    /// Any server that answers.
    #[serde(rename = "r")]
    Any,
}

impl Role {
    /// The word that the configuration, metrics and logs use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWrite => "rw",
            Self::ReadOnly => "ro",
            Self::Any => "r",
        }
    }
}

/// What a pool is for: one database, one role name on the server, one kind of server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolKey {
    /// The database as clients name it.
    pub database: DatabaseName,
    /// The role that logs in to the server.
    pub user: UserName,
    /// The kind of server.
    pub role: Role,
}

/// Where a PostgreSQL server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A host name or address and a port.
    Tcp {
        /// Host name, IPv4 or IPv6 address (without brackets).
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A unix socket, as the path of the socket file (`/run/postgresql/.s.PGSQL.5432`).
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// When a server connection goes back to its pool (PgBouncer's `pool_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolMode {
    /// When the client disconnects.
    Session,
    /// When the transaction ends.
    #[default]
    Transaction,
    /// When the statement ends; transaction blocks are refused.
    Statement,
}

impl PoolMode {
    /// The word that the configuration and `SHOW` use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Transaction => "transaction",
            Self::Statement => "statement",
        }
    }
}

/// How much TLS one side of the pooler asks for (libpq's `sslmode`, PgBouncer's `*_tls_sslmode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Never.
    Disable,
    /// Plain text unless the peer insists on TLS.
    Allow,
    /// TLS where the peer offers it.
    #[default]
    Prefer,
    /// TLS or nothing; the peer's certificate is not verified.
    Require,
    /// TLS, and the peer's certificate chain is verified.
    VerifyCa,
    /// TLS, chain and name are verified.
    VerifyFull,
}

/// A client of this process, unique for the process's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u64);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What identifies a running session to a CancelRequest: a process id and a secret
/// (4 bytes in protocol 3.0, 4 to 256 bytes in 3.2).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BackendKey {
    /// The process id told in BackendKeyData.
    pub pid: i32,
    /// The secret key told in BackendKeyData.
    pub secret: Arc<[u8]>,
}

impl fmt::Debug for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendKey")
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}
