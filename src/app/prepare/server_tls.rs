//! TLS towards servers: what all roles share, and what roles have that log in with a certificate of their own.
//!
//! It remembers what each was made of: as long as that is the same, server connections are as good as new ones.

use std::{collections::HashMap, path::Path, sync::Arc};

use ring::digest::{SHA256, digest};

use super::PrepareError;
use crate::{
    config::{ServerTls, Settings},
    tls::{self, Connector, TlsError},
};

#[derive(Debug, Clone)]
pub(super) struct ServerTlsPart {
    shared: Made,
    by_role: HashMap<String, Made>,
}

#[derive(Debug, Clone)]
struct Made {
    connector: Arc<Connector>,
    of: Arc<Ingredients>,
}

#[derive(Debug, PartialEq)]
struct Ingredients {
    settings: ServerTls,
    /// Hashes of what is in the files: one of them is a private key.
    contents: Vec<Option<Vec<u8>>>,
}

impl ServerTlsPart {
    /// Everything that is wrong is in the error. What roles have from the shared settings is wrong once, not for each
    /// of them.
    pub(super) fn prepare(settings: &Settings) -> Result<Self, (PrepareError, Vec<PrepareError>)> {
        let shared = Made::of(&settings.server_tls);
        let said = shared.as_ref().err().map(ToString::to_string);
        let (mut by_role, mut errors) = (HashMap::new(), Vec::new());
        for (user, own) in own(settings) {
            let user = user.to_owned();
            match Made::of(own) {
                Ok(made) => {
                    by_role.insert(user, made);
                }
                Err(error) if said.as_ref() == Some(&error.to_string()) => {}
                Err(source) => errors.push(PrepareError::UserServerTls { user, source }),
            }
        }
        let shared = match shared {
            Ok(shared) => shared,
            Err(error) => return Err((PrepareError::ServerTls(error), errors)),
        };
        let mut errors = errors.into_iter();
        match errors.next() {
            None => Ok(Self { shared, by_role }),
            Some(first) => Err((first, errors.collect())),
        }
    }

    pub(super) fn connector(&self, role: &str) -> Arc<Connector> {
        self.made(role).connector.clone()
    }

    pub(super) fn keep_same(&mut self, previous: &Self) {
        self.shared.keep_if_same(&previous.shared);
        for (role, made) in &mut self.by_role {
            made.keep_if_same(previous.made(role));
        }
    }

    fn made(&self, role: &str) -> &Made {
        self.by_role.get(role).unwrap_or(&self.shared)
    }
}

impl Made {
    fn of(settings: &ServerTls) -> Result<Self, TlsError> {
        // Read first: if the files change now, the next look finds that they have.
        let contents = files_of(settings)
            .map(|path| {
                let contents = std::fs::read(path?).ok()?;
                Some(digest(&SHA256, &contents).as_ref().to_vec())
            })
            .into();
        let connector = Arc::new(tls::connector(settings)?);
        let settings = settings.clone();
        let of = Arc::new(Ingredients { settings, contents });
        Ok(Self { connector, of })
    }

    fn keep_if_same(&mut self, previous: &Self) {
        if self.of == previous.of {
            *self = previous.clone();
        }
    }
}

/// The roles that have settings of their own.
fn own(settings: &Settings) -> impl Iterator<Item = (&str, &ServerTls)> {
    let users = settings.users.iter();
    users.filter_map(|(name, user)| Some((name.as_str(), user.server_tls.as_ref()?)))
}

/// All files, those of roles too.
pub(super) fn files(settings: &Settings) -> Vec<Option<&Path>> {
    let own = own(settings).map(|(_, own)| own);
    let all = std::iter::once(&settings.server_tls).chain(own);
    all.flat_map(files_of).collect()
}

fn files_of(settings: &ServerTls) -> [Option<&Path>; 4] {
    let identity = settings.identity.as_ref();
    [
        settings.ca_file.as_deref(),
        settings.crl_file.as_deref(),
        identity.map(|identity| identity.cert_file.as_path()),
        identity.map(|identity| identity.key_file.as_path()),
    ]
}
