//! LDAP: which directory says whether a password is a user's, under which name, and the messages for it.
//!
//! It connects to nobody. The messages are its own because a login needs four of them, and because what a server
//! sends must neither end the process nor grow without bound; the decoders that there are recurse into what they read.

mod ber;
mod filter;
mod message;
mod url;

use thiserror::Error;

pub use self::{
    ber::Malformed,
    filter::FilterError,
    message::{Operation, Outcome, Reply, Scope, length, reply, request},
    url::{LdapUrl, UrlError},
};
use super::secret::Password;

/// The port of `ldap://`, and of `ldaps://`.
const PORTS: [u16; 2] = [389, 636];
/// What stands for the user in a filter.
const PLACEHOLDER: &str = "$username";

/// A directory that knows users' passwords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Its servers, each with its port; they are tried in this order.
    pub servers: Vec<(Box<str>, u16)>,
    /// How connections to them are encrypted.
    pub encryption: Encryption,
    /// Which of its entries is the user.
    pub lookup: Lookup,
}

/// How a connection to a directory is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encryption {
    /// Not at all.
    #[default]
    None,
    /// After both sides have agreed to (`ldaptls=1`).
    StartTls,
    /// From the first byte (`ldaps`).
    Ldaps,
}

impl Encryption {
    /// The port where nothing else is said.
    pub fn port(self) -> u16 {
        PORTS[usize::from(self == Self::Ldaps)]
    }
}

/// Which entry is the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// Its name follows from the user's (simple bind).
    Named {
        /// What stands before the user.
        prefix: Box<str>,
        /// What stands behind it.
        suffix: Box<str>,
    },
    /// The one that is found (search+bind).
    Found(Search),
}

/// How a user's entry is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// Who searches; empty is nobody in particular.
    pub bind_name: Box<str>,
    /// And the password for that.
    pub bind_password: Password,
    /// Below which entry.
    pub base: Box<str>,
    /// How far below.
    pub scope: Scope,
    /// Which entries are meant, with `$username` for the user.
    pub filter: Box<str>,
}

/// What is asked about a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question<'a> {
    /// Whether the password is that of this entry.
    Bind(String),
    /// Which entries fit this compiled filter.
    Search(&'a Search, Vec<u8>),
}

impl Directory {
    /// What to ask about a user.
    ///
    /// # Errors
    /// The name cannot be a user's: it would say more than a name.
    pub fn question(&self, user: &str) -> Result<Question<'_>, Refusal> {
        match &self.lookup {
            Lookup::Named { prefix, suffix } => {
                if !is_plain_value(user) {
                    return Err(Refusal::Name);
                }
                Ok(Question::Bind(format!("{prefix}{user}{suffix}")))
            }
            Lookup::Found(search) => {
                // PostgreSQL's choice, to the character.
                if user.contains(['*', '(', ')', '\\', '/']) {
                    return Err(Refusal::Name);
                }
                let filter = search.compiled(user).map_err(|_| Refusal::Name)?;
                Ok(Question::Search(search, filter))
            }
        }
    }
}

impl Search {
    /// The filter for a user.
    ///
    /// # Errors
    /// It is none.
    pub fn compiled(&self, user: &str) -> Result<Vec<u8>, FilterError> {
        filter::compile(&self.filter.replace(PLACEHOLDER, user))
    }
}

/// Whether a value can stand in a distinguished name as it is (RFC 4514, 2.4). PostgreSQL does not look.
fn is_plain_value(value: &str) -> bool {
    let special = |c: char| matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=') || c.is_control();
    !value.contains(special) && !value.starts_with(['#', ' ']) && !value.ends_with(' ')
}

/// Why a directory does not take a client for the user.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No password: a bind without one succeeds for everybody.
    #[error("the password is empty")]
    EmptyPassword,
    /// A name with characters that mean something in a filter or in a distinguished name.
    #[error("invalid character in user name for LDAP authentication")]
    Name,
    /// No entry is found.
    #[error("LDAP user does not exist")]
    NotFound,
    /// More than one is.
    #[error("LDAP user is not unique")]
    Ambiguous,
    /// The server says no.
    #[error("the LDAP server refuses the bind: {0}")]
    Bind(Outcome),
}

/// What a server says to a bind with a user's password.
///
/// # Errors
/// No, it is not; or, within, that it cannot say.
pub fn verdict(outcome: Outcome) -> Result<Result<(), Refusal>, Outcome> {
    match outcome.code {
        0 => Ok(Ok(())),
        // Whatever is wrong with the entry, the name or the password; all others are the server's own trouble.
        19 | 32 | 34 | 48 | 49 | 50 | 53 => Ok(Err(Refusal::Bind(outcome))),
        _ => Err(outcome),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(lookup: Lookup) -> Directory {
        Directory {
            servers: vec![("h".into(), 389)],
            encryption: Encryption::None,
            lookup,
        }
    }

    fn search(filter: &str) -> Search {
        Search {
            bind_name: "".into(),
            bind_password: Password::new(b"hidden"),
            base: "dc=x".into(),
            scope: Scope::Subtree,
            filter: filter.into(),
        }
    }

    #[test]
    fn a_name_stays_a_name() {
        let named = directory(Lookup::Named {
            prefix: "uid=".into(),
            suffix: ",dc=x".into(),
        });
        let question = |user| named.question(user);
        assert_eq!(
            question("älice.b-c"),
            Ok(Question::Bind("uid=älice.b-c,dc=x".into()))
        );
        for user in [
            "a,ou=admins",
            "a+cn=b",
            "a=b",
            "a\\2c",
            "\"a",
            "#a",
            " a",
            "a ",
            "a<",
            "a>",
            "a;b",
            "a\n",
        ] {
            assert_eq!(question(user), Err(Refusal::Name), "{user:?}");
        }
        let found = directory(Lookup::Found(search("(|(uid=$username)(mail=$username))")));
        for user in ["*", "a)(uid=b", "a*", "a\\2a", "a/b", "(a"] {
            assert_eq!(found.question(user), Err(Refusal::Name), "{user:?}");
        }
        let Ok(Question::Search(_, filter)) = found.question("a,b=c") else {
            panic!("nothing of that means anything in a filter");
        };
        assert_eq!(filter, filter::compile("(|(uid=a,b=c)(mail=a,b=c))").unwrap());
        assert!(!format!("{found:?}").contains("hidden"));
    }

    #[test]
    fn only_what_is_about_the_user_is_a_refusal() {
        let verdict = |code| {
            let diagnostic = String::new();
            verdict(Outcome { code, diagnostic })
        };
        assert_eq!(verdict(0), Ok(Ok(())));
        assert!(matches!(verdict(49), Ok(Err(Refusal::Bind(_)))));
        for trouble in [1, 2, 8, 10, 14, 51, 52, 80] {
            assert!(verdict(trouble).is_err(), "{trouble}");
        }
    }
}
