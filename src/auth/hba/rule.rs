//! One line, and whether a connection fits it (PostgreSQL's `check_hba`).

use super::address::{Addresses, Interface};
use crate::auth::{
    access::{Access, Origin, Replication, Visit},
    authfile::{Name, Place},
};

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) place: Place,
    pub(super) connections: Connections,
    pub(super) databases: Vec<Database>,
    pub(super) users: Vec<User>,
    pub(super) verdict: Verdict,
}

#[derive(Debug)]
pub(super) enum Verdict {
    Access(Access),
    Reject,
}

/// Which way a connection has come.
#[derive(Debug)]
pub(super) enum Connections {
    Local,
    Host(Encryption, Addresses),
}

/// What may be around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encryption {
    /// `host`, and `hostnogssenc`: there is no GSS encryption here.
    Any,
    Tls,
    NoTls,
    /// `hostgssenc`: fits nobody.
    Gss,
}

#[derive(Debug)]
pub(super) enum Database {
    All,
    SameUser,
    /// Physical replication.
    Replication,
    Named(Name),
}

#[derive(Debug)]
pub(super) enum User {
    All,
    Named(Name),
}

impl Rule {
    pub(super) fn fits(&self, visit: &Visit<'_>, interfaces: &[Interface]) -> bool {
        self.connections.include(visit, interfaces)
            && self.databases.iter().any(|database| database.fits(visit))
            && self.users.iter().any(|user| user.fits(visit.user))
    }

    pub(super) fn lets_in_without_secret(&self, user: &str) -> bool {
        let without = matches!(&self.verdict, Verdict::Access(access) if !access.method.needs_secret());
        without && self.users.iter().any(|named| named.fits(user))
    }

    pub(super) fn asks_for_interfaces(&self) -> bool {
        matches!(
            self.connections,
            Connections::Host(_, Addresses::SameHost | Addresses::SameNet)
        )
    }
}

impl Connections {
    fn include(&self, visit: &Visit<'_>, interfaces: &[Interface]) -> bool {
        match (self, visit.origin) {
            (Self::Local, Origin::Local) => true,
            (Self::Host(encryption, addresses), Origin::Ip(peer)) => {
                encryption.allows(visit.tls) && addresses.contain(peer, interfaces)
            }
            _ => false,
        }
    }
}

impl Encryption {
    fn allows(self, tls: bool) -> bool {
        match self {
            Self::Any => true,
            Self::Tls => tls,
            Self::NoTls => !tls,
            Self::Gss => false,
        }
    }
}

impl Database {
    fn fits(&self, visit: &Visit<'_>) -> bool {
        match self {
            // It is of no database, whatever the packet says.
            _ if visit.replication == Replication::Physical => matches!(self, Self::Replication),
            Self::Replication => false,
            Self::All => true,
            Self::SameUser => visit.database == visit.user,
            Self::Named(name) => name.matches(visit.database),
        }
    }
}

impl User {
    fn fits(&self, user: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(name) => name.matches(user),
        }
    }
}
