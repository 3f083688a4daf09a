//! Where secrets come from that are in no file: whoever asks for them, as those see it who let clients in.
//!
//! It knows no server and asks nobody.

use std::{borrow::Cow, error::Error, fmt, pin::Pin, sync::Arc};

use super::secret::Secret;
use crate::fault::{Blame, Fault, SqlState};

/// What a look-up found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The user's secret.
    Secret(Secret),
    /// The user is known and has no secret.
    WithoutSecret,
    /// There is no such user.
    Unknown,
    /// Users of this database are not looked up.
    NotAsked,
}

/// How old an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// As old as the configuration allows.
    Remembered,
    /// From after a log-in has failed. The same question is not asked all the time all the same: an answer of this
    /// second is as good.
    Anew,
}

/// A look-up under way. It may be dropped at any time.
pub type LookingUp<'a> = Pin<Box<dyn Future<Output = Result<Found, LookUpError>> + Send + 'a>>;

/// Somebody who knows users' secrets.
pub trait SecretSource: fmt::Debug + Send + Sync {
    /// What is known of `user`, who wants to log in to `database`, as clients name it.
    fn look_up<'a>(&'a self, database: &'a str, user: &'a str, freshness: Freshness) -> LookingUp<'a>;
}

/// Why nobody could say. It is not the client's fault, and says nothing about the user.
#[derive(Debug, Clone)]
pub struct LookUpError(Arc<dyn Fault + Send + Sync>);

impl LookUpError {
    /// What the source says.
    pub fn new(fault: impl Fault + Send + Sync + 'static) -> Self {
        Self(Arc::new(fault))
    }
}

impl fmt::Display for LookUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for LookUpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl Fault for LookUpError {
    fn blame(&self) -> Blame {
        self.0.blame()
    }

    fn sqlstate(&self) -> SqlState {
        self.0.sqlstate()
    }

    fn client_message(&self) -> Cow<'_, str> {
        self.0.client_message()
    }

    fn detail(&self) -> Option<Cow<'_, str>> {
        self.0.detail()
    }

    fn hint(&self) -> Option<Cow<'_, str>> {
        self.0.hint()
    }
}
