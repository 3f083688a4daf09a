//! Why an HBA file keeps a connection out, in PostgreSQL's words.

use std::fmt;

use crate::auth::access::{Origin, Replication, Visit};

/// A connection that an HBA file keeps out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    rejected: bool,
    origin: Origin,
    tls: bool,
    user: Box<str>,
    /// None where the whole server is to be replicated.
    database: Option<Box<str>>,
}

impl Denial {
    /// A line says so.
    pub(super) fn rejected(visit: &Visit<'_>) -> Self {
        Self::new(true, visit)
    }

    /// No line says otherwise.
    pub(super) fn no_entry(visit: &Visit<'_>) -> Self {
        Self::new(false, visit)
    }

    fn new(rejected: bool, visit: &Visit<'_>) -> Self {
        Self {
            rejected,
            origin: visit.origin,
            tls: visit.tls,
            user: visit.user.into(),
            database: (visit.replication != Replication::Physical).then(|| visit.database.into()),
        }
    }
}

/// As in PostgreSQL's `ClientAuthentication`, for whoever looks for the message.
impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.rejected, &self.database) {
            (true, Some(_)) => "pg_hba.conf rejects connection for host \"",
            (true, None) => "pg_hba.conf rejects replication connection for host \"",
            (false, Some(_)) => "no pg_hba.conf entry for host \"",
            (false, None) => "no pg_hba.conf entry for replication connection from host \"",
        })?;
        match self.origin {
            Origin::Local => f.write_str("[local]")?,
            Origin::Ip(address) => write!(f, "{}", address.to_canonical())?,
        }
        write!(f, "\", user \"{}\", ", self.user)?;
        if let Some(database) = &self.database {
            write!(f, "database \"{database}\", ")?;
        }
        f.write_str(if self.tls {
            "SSL encryption"
        } else {
            "no encryption"
        })
    }
}

impl std::error::Error for Denial {}
