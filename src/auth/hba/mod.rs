//! Host-based authentication: PostgreSQL's pg_hba.conf, and so PgBouncer's `auth_hba_file`.
//!
//! The first line that fits a connection says by what it may come in. Where PostgreSQL could do what a pooler cannot
//! (know who is a member of a role, ask a Kerberos server), the line is refused when the file is read: a line that
//! is passed over would leave the decision to another one. Host names are refused for the same reason: a look-up
//! that fails would pass over a `reject`.

mod address;
mod denial;
mod ldap;
mod options;
mod parse;
mod rule;

use std::path::Path;

use self::rule::{Rule, Verdict};
pub use self::{address::Interface, denial::Denial};
use super::{
    access::{Access, ClientCert, Visit},
    authfile::{Disk, Files, Place, Problem, Problems, Reading},
    ldap::{Directory, Encryption},
};

/// The lines of an HBA file.
#[derive(Debug)]
pub struct Hba {
    rules: Vec<Rule>,
}

/// What the rest of the configuration offers to the lines of an HBA file.
#[derive(Debug, Clone, Copy)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a setting of its own that is there or not"
)]
pub struct Offers {
    /// Client certificates are asked for and verified.
    pub client_certificates: bool,
    /// There is an ident file.
    pub ident_file: bool,
    /// There is a source of users' secrets.
    pub secrets: bool,
    /// There is a CA that directories' certificates are verified with.
    pub ldap_ca: bool,
}

impl Hba {
    /// No lines: nobody may come in.
    pub const fn empty() -> Self {
        Self { rules: Vec::new() }
    }

    /// Reads an HBA file and what it includes.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        Self::read(&Disk, path)
    }

    /// Reads an HBA file out of `files`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(files: &dyn Files, path: &Path) -> Result<Self, Problems> {
        let mut reading = Reading::new(files);
        let mut rules = Vec::new();
        for line in reading.lines(path) {
            match parse::rule(&line) {
                Ok(rule) => rules.push(rule),
                Err(mistakes) => {
                    for mistake in mistakes {
                        reading.problem(&line.place, mistake.message, mistake.hint);
                    }
                }
            }
        }
        reading.finish(Self { rules })
    }

    /// Whether a line says `samehost` or `samenet`.
    pub fn asks_for_interfaces(&self) -> bool {
        self.rules.iter().any(Rule::asks_for_interfaces)
    }

    /// By what a connection may come in; `interfaces` are this machine's addresses.
    ///
    /// # Errors
    /// When no line fits, or the first that does says `reject`.
    pub fn access(&self, visit: &Visit<'_>, interfaces: &[Interface]) -> Result<&Access, Denial> {
        match self.rules.iter().find(|rule| rule.fits(visit, interfaces)) {
            Some(rule) => match &rule.verdict {
                Verdict::Access(access) => Ok(access),
                Verdict::Reject => Err(Denial::rejected(visit)),
            },
            None => Err(Denial::no_entry(visit)),
        }
    }

    /// Whether a line is about a user and asks for no password.
    pub fn has_way_without_secret(&self, user: &str) -> bool {
        self.rules.iter().any(|rule| rule.lets_in_without_secret(user))
    }

    /// The lines that can let nobody in because something else is not configured.
    pub fn unserved(&self, offers: &Offers) -> Option<Problems> {
        let accesses = self.rules.iter().filter_map(|rule| match &rule.verdict {
            Verdict::Access(access) => Some((&rule.place, access)),
            Verdict::Reject => None,
        });
        let problems: Vec<_> = accesses
            .flat_map(|(place, access)| {
                missing(access, offers).map(|(message, hint)| problem(place, message, hint))
            })
            .collect();
        (!problems.is_empty()).then_some(Problems(problems))
    }
}

fn missing(access: &Access, offers: &Offers) -> impl Iterator<Item = (&'static str, &'static str)> {
    let no_authority = access.clientcert != ClientCert::Off && !offers.client_certificates;
    let no_map = access.map.is_some() && !offers.ident_file;
    let no_secrets = access.method.needs_secret() && !offers.secrets;
    let encrypted = |directory: &Directory| directory.encryption != Encryption::None;
    let no_ldap_ca = access.directory.as_deref().is_some_and(encrypted) && !offers.ldap_ca;
    [
        no_authority.then_some((
            "client certificates can only be checked if a root certificate store is available",
            "set listen.tls.client_ca_file",
        )),
        // A map that is not in the file is none of this: taking its last line away has to be possible.
        no_map.then_some(("it names a map and there is no ident file", "set auth.ident_file")),
        no_secrets.then_some((
            "it asks for a password and nothing knows the users' secrets",
            "set auth.users_file, or auth.auth_user",
        )),
        no_ldap_ca.then_some((
            "nothing says which CA signs the LDAP server's certificate, and it has to be verified",
            "set auth.ldap_ca_file",
        )),
    ]
    .into_iter()
    .flatten()
}

fn problem(place: &Place, message: &str, hint: &'static str) -> Problem {
    Problem {
        place: place.clone(),
        message: message.to_owned(),
        hint: Some(hint),
    }
}

#[cfg(test)]
mod tests;
