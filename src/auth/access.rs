//! By what a connection may come in: the method and what stands around it, the same for all or by an HBA file.
//!
//! It decides and looks nothing up: who is at the other end of the connection is an argument.

use std::{net::IpAddr, sync::Arc};

use thiserror::Error;

use super::{
    hba::{Denial, Hba, Interface},
    ident::{IdentMaps, Unmapped},
    ldap::Directory,
};
use crate::{config::AuthType, types::CertificateNames};

/// How a client proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Not at all.
    Trust,
    /// The password in clear.
    Password,
    /// MD5, or SCRAM for users whose secret is a SCRAM verifier.
    Md5,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// The client certificate names the user.
    Cert,
    /// The operating system names the user.
    Peer,
    /// A directory knows the password, which is sent in clear.
    Ldap,
}

impl Method {
    /// Whether a password is part of it, and somebody has to know one.
    pub fn needs_secret(self) -> bool {
        matches!(self, Self::Password | Self::Md5 | Self::ScramSha256)
    }

    /// Whether the connection itself says who the user is.
    pub fn proves_identity(self) -> bool {
        matches!(self, Self::Cert | Self::Peer)
    }
}

/// Which client certificate is asked for, whatever the method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCert {
    /// None.
    #[default]
    Off,
    /// One that has been verified.
    VerifyCa,
    /// One that has been verified and names the user.
    VerifyFull,
}

/// Which name of a certificate counts (`clientname`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientName {
    /// The common name.
    #[default]
    Cn,
    /// The distinguished name, as RFC 2253 writes it.
    Dn,
}

/// What a connection has to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The method.
    pub method: Method,
    /// The client certificate beside it.
    pub clientcert: ClientCert,
    /// Which of its names is compared.
    pub clientname: ClientName,
    /// The map of the ident file that leads from that name, or the operating system's, to the user.
    pub map: Option<Box<str>>,
    /// The directory of the method `ldap`; there is one if and only if that is the method.
    pub directory: Option<Arc<Directory>>,
}

impl Access {
    /// A method, with what it implies.
    pub fn by(method: Method) -> Self {
        let clientcert = match method {
            Method::Cert => ClientCert::VerifyFull,
            _ => ClientCert::Off,
        };
        Self {
            method,
            clientcert,
            clientname: ClientName::Cn,
            map: None,
            directory: None,
        }
    }
}

/// What kind of replication connection is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replication {
    /// None: an ordinary session.
    #[default]
    No,
    /// Of the whole server; only the word `replication` in an HBA file stands for it.
    Physical,
    /// Of one database (`replication=database`), which an HBA file takes for any other session of it.
    Logical,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A unix socket.
    Local,
    /// TCP.
    Ip(IpAddr),
}

/// A connection that wants in.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    /// Where it comes from.
    pub origin: Origin,
    /// Whether it is encrypted.
    pub tls: bool,
    /// The database of the startup packet.
    pub database: &'a str,
    /// The user of the startup packet.
    pub user: &'a str,
    /// What kind of replication it asks for.
    pub replication: Replication,
}

/// By what clients may come in.
#[derive(Debug)]
pub enum AccessRules {
    /// All by the same.
    Uniform(Access),
    /// As the lines of an HBA file say.
    ByFile {
        /// The file.
        hba: Hba,
        /// The maps that its lines name.
        ident: IdentMaps,
    },
}

impl AccessRules {
    /// The rules of an `auth_type`. For `hba`, whose rules are in its file, they let nobody in.
    pub fn uniform(auth_type: AuthType) -> Self {
        let method = match auth_type {
            AuthType::Trust => Method::Trust,
            AuthType::Password => Method::Password,
            AuthType::Md5 => Method::Md5,
            AuthType::ScramSha256 => Method::ScramSha256,
            AuthType::Cert => Method::Cert,
            AuthType::Peer => Method::Peer,
            AuthType::Hba => {
                let (hba, ident) = (Hba::empty(), IdentMaps::none());
                return Self::ByFile { hba, ident };
            }
        };
        Self::Uniform(Access::by(method))
    }

    /// Whether [`AccessRules::access`] needs to know this machine's addresses.
    pub fn asks_for_interfaces(&self) -> bool {
        match self {
            Self::Uniform(_) => false,
            Self::ByFile { hba, .. } => hba.asks_for_interfaces(),
        }
    }

    /// Whether there is a way in for a user for which nobody has to know a secret of theirs.
    pub fn has_way_without_secret(&self, user: &str) -> bool {
        match self {
            Self::Uniform(access) => !access.method.needs_secret(),
            Self::ByFile { hba, .. } => hba.has_way_without_secret(user),
        }
    }

    /// What a connection has to show.
    ///
    /// # Errors
    /// When it may not come in at all.
    pub fn access(&self, visit: &Visit<'_>, interfaces: &[Interface]) -> Result<&Access, Denial> {
        match self {
            Self::Uniform(access) => Ok(access),
            Self::ByFile { hba, .. } => hba.access(visit, interfaces),
        }
    }

    /// Holds the names in the certificate that a connection has shown, if it has, against what it has to show.
    ///
    /// # Errors
    /// When that is not enough, or another user's.
    pub fn check_certificate(
        &self,
        access: &Access,
        shown: Result<Option<CertificateNames>, Mismatch>,
        user: &str,
    ) -> Result<(), IdentityError> {
        if access.clientcert == ClientCert::Off {
            return Ok(());
        }
        if let Ok(None) = shown {
            return Err(IdentityError::NoCertificate);
        }
        if access.clientcert == ClientCert::VerifyCa {
            return Ok(());
        }
        shown
            .and_then(|names| {
                let names = names.map(|names| match access.clientname {
                    ClientName::Cn => names.common_name,
                    ClientName::Dn => Some(names.distinguished_name),
                });
                let name = names.flatten().filter(|name| !name.is_empty());
                self.check_name(access, &name.ok_or(Mismatch::NoName)?, user)
            })
            .map_err(|reason| IdentityError::Certificate {
                user: user.into(),
                reason,
            })
    }

    /// Holds the operating system's name for the process at the other end against the user; `name` is an error
    /// where it has none.
    ///
    /// # Errors
    /// When the user is somebody else.
    pub fn check_peer(
        &self,
        access: &Access,
        name: Result<&str, Mismatch>,
        user: &str,
    ) -> Result<(), IdentityError> {
        name.and_then(|name| self.check_name(access, name, user))
            .map_err(|reason| IdentityError::Peer {
                user: user.into(),
                reason,
            })
    }

    fn check_name(&self, access: &Access, name: &str, user: &str) -> Result<(), Mismatch> {
        static NO_MAPS: IdentMaps = IdentMaps::none();
        let ident = match self {
            Self::Uniform(_) => &NO_MAPS,
            Self::ByFile { ident, .. } => ident,
        };
        Ok(ident.check(access.map.as_deref(), name, user)?)
    }
}

/// Why a client is not whom it says, where no password is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// A certificate is required, and none was shown.
    #[error("connection requires a valid client certificate")]
    NoCertificate,
    /// The certificate is another user's.
    #[error("certificate authentication failed for user \"{user}\": {reason}")]
    Certificate {
        /// Who the client says it is.
        user: Box<str>,
        /// For the log only.
        reason: Mismatch,
    },
    /// The process is another user's.
    #[error("Peer authentication failed for user \"{user}\": {reason}")]
    Peer {
        /// Who the client says it is.
        user: Box<str>,
        /// For the log only.
        reason: Mismatch,
    },
}

impl IdentityError {
    /// What the client is told: PostgreSQL's words, without the reason.
    pub fn client_message(&self) -> String {
        match self {
            Self::NoCertificate => self.to_string(),
            Self::Certificate { user, .. } => {
                format!("certificate authentication failed for user \"{user}\"")
            }
            Self::Peer { user, .. } => format!("Peer authentication failed for user \"{user}\""),
        }
    }
}

/// Why a name does not stand for the user.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Mismatch {
    /// A certificate without the name that counts.
    #[error("client certificate contains no user name")]
    NoName,
    /// A certificate whose names cannot be read.
    #[error("{0}")]
    Unusable(Box<str>),
    /// A user of the operating system without a name.
    #[error("local user with ID {0} does not exist")]
    UnknownUid(u32),
    /// The operating system does not say who it is.
    #[error("peer credentials cannot be had on this connection")]
    NoCredentials,
    /// Neither the same nor mapped to it.
    #[error(transparent)]
    Unmapped(#[from] Unmapped),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::authfile::fake::Fake;

    fn names(common: Option<&str>, distinguished: &str) -> CertificateNames {
        CertificateNames {
            common_name: common.map(str::to_owned),
            distinguished_name: distinguished.into(),
        }
    }

    fn access(clientcert: ClientCert, clientname: ClientName) -> Access {
        Access {
            clientcert,
            clientname,
            ..Access::by(Method::ScramSha256)
        }
    }

    #[test]
    fn every_auth_type_but_hba_is_a_method() {
        assert!(matches!(
            AccessRules::uniform(AuthType::Hba),
            AccessRules::ByFile { .. }
        ));
        let AccessRules::Uniform(cert) = AccessRules::uniform(AuthType::Cert) else {
            panic!("cert needs no file");
        };
        assert_eq!(
            (cert.method, cert.clientcert),
            (Method::Cert, ClientCert::VerifyFull)
        );
    }

    #[test]
    fn a_certificate_is_held_against_what_is_asked_for() {
        let rules = AccessRules::uniform(AuthType::ScramSha256);
        let (cn, dn) = (ClientName::Cn, ClientName::Dn);
        let shown = names(Some("alice"), "CN=alice,O=o");
        let cases = [
            (access(ClientCert::Off, cn), None, "alice", None),
            (access(ClientCert::VerifyCa, cn), Some(&shown), "bob", None),
            (access(ClientCert::VerifyFull, cn), Some(&shown), "alice", None),
            (
                access(ClientCert::VerifyFull, dn),
                Some(&shown),
                "CN=alice,O=o",
                None,
            ),
            (
                access(ClientCert::VerifyCa, cn),
                None,
                "alice",
                Some("connection requires a valid client certificate"),
            ),
            (
                access(ClientCert::VerifyFull, cn),
                Some(&shown),
                "bob",
                Some("certificate authentication failed for user \"bob\""),
            ),
            (
                access(ClientCert::VerifyFull, dn),
                Some(&shown),
                "alice",
                Some("certificate authentication failed for user \"alice\""),
            ),
        ];
        for (access, shown, user, message) in cases {
            let checked = rules.check_certificate(&access, Ok(shown.cloned()), user);
            let told = checked.err().map(|error| error.client_message());
            assert_eq!(told.as_deref(), message, "{access:?} {user}");
        }
    }

    #[test]
    fn a_name_that_is_not_there_or_empty_is_nobodys() {
        let rules = AccessRules::uniform(AuthType::Cert);
        for (clientname, shown) in [
            (ClientName::Cn, names(None, "O=o")),
            (ClientName::Cn, names(Some(""), "")),
            (ClientName::Dn, names(Some("alice"), "")),
        ] {
            let access = access(ClientCert::VerifyFull, clientname);
            let error = rules.check_certificate(&access, Ok(Some(shown)), "").unwrap_err();
            let reason = Mismatch::NoName;
            assert_eq!(
                error,
                IdentityError::Certificate {
                    user: "".into(),
                    reason
                }
            );
        }
    }

    #[test]
    fn the_log_has_the_reason_and_the_client_has_not() {
        let files = Fake::new(&[("hba", "local all all peer map=m"), ("ident", "m root postgres")]);
        let rules = AccessRules::ByFile {
            hba: Hba::read(&files, "hba".as_ref()).unwrap(),
            ident: IdentMaps::read(&files, "ident".as_ref()).unwrap(),
        };
        let visit = Visit {
            origin: Origin::Local,
            tls: false,
            database: "d",
            user: "postgres",
            replication: Replication::No,
        };
        let access = rules.access(&visit, &[]).unwrap();
        assert_eq!(rules.check_peer(access, Ok("root"), "postgres"), Ok(()));
        let error = rules.check_peer(access, Ok("daemon"), "postgres").unwrap_err();
        assert_eq!(
            error.client_message(),
            "Peer authentication failed for user \"postgres\""
        );
        assert_eq!(
            error.to_string(),
            "Peer authentication failed for user \"postgres\": no match in usermap \"m\" for user \"postgres\" \
             authenticated as \"daemon\""
        );
        let nameless = Err(Mismatch::UnknownUid(1234));
        let error = rules.check_peer(access, nameless, "postgres").unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("local user with ID 1234 does not exist")
        );
    }
}
