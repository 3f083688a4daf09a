//! TLS towards servers: what all roles share, and what roles have that log in with a certificate of their own.
//!
//! It remembers what each was made of: as long as that is the same, server connections are as good as new ones.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{PrepareError, digest::Digest};
use crate::{
    app::certificates::{self, Held},
    config::{ServerTls, Settings},
    tls::{self, Connector, TlsError},
};

#[derive(Debug, Clone)]
pub(in crate::app) struct ServerTlsPart {
    shared: Made,
    by_role: BTreeMap<String, Made>,
}

#[derive(Debug, Clone)]
struct Made {
    connector: Arc<Connector>,
    held: Arc<[Held]>,
    of: Arc<Ingredients>,
}

#[derive(Debug, PartialEq)]
struct Ingredients {
    settings: ServerTls,
    contents: Digest,
}

impl ServerTlsPart {
    /// Everything that is wrong is in the error. What roles have from the shared settings is wrong once, not for each
    /// of them.
    pub(super) fn prepare(settings: &Settings) -> Result<Self, Vec<PrepareError>> {
        let shared = Made::of(&settings.server_tls);
        let said = shared.as_ref().err().map(ToString::to_string);
        let (mut by_role, mut errors) = (BTreeMap::new(), Vec::new());
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
        match shared {
            Ok(shared) if errors.is_empty() => Ok(Self { shared, by_role }),
            Ok(_) => Err(errors),
            Err(error) => {
                errors.insert(0, PrepareError::ServerTls(error));
                Err(errors)
            }
        }
    }

    /// Makes again what the same settings name and has changed. What is bad stays as it was, and the others do not wait
    /// for it; the first reason is the error.
    pub(super) fn renew(&mut self, settings: &Settings) -> Result<(), PrepareError> {
        let mut renewed = self
            .shared
            .renew(&settings.server_tls)
            .map_err(PrepareError::ServerTls);
        for (user, own) in own(settings) {
            let Some(made) = self.by_role.get_mut(user) else {
                continue;
            };
            let own = made.renew(own).map_err(|source| PrepareError::UserServerTls {
                user: user.to_owned(),
                source,
            });
            renewed = renewed.and(own);
        }
        renewed
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

    /// Whether nothing was made since of which `previous` was made.
    pub(super) fn is_same(&self, previous: &Self) -> bool {
        let is_same = |(one, other): (&Made, &Made)| Arc::ptr_eq(&one.of, &other.of);
        let roles = self.by_role.values().zip(previous.by_role.values());
        is_same((&self.shared, &previous.shared)) && roles.into_iter().all(is_same)
    }

    /// What is shared was made with.
    pub(in crate::app) fn shared_held(&self) -> &[Held] {
        &self.shared.held
    }

    /// What each role's was made with.
    pub(in crate::app) fn held_by_role(&self) -> impl Iterator<Item = (&str, &[Held])> {
        let roles = self.by_role.iter();
        roles.map(|(role, made)| (role.as_str(), &*made.held))
    }

    fn made(&self, role: &str) -> &Made {
        self.by_role.get(role).unwrap_or(&self.shared)
    }
}

impl Made {
    fn of(settings: &ServerTls) -> Result<Self, TlsError> {
        // Read first: if a file changes now, the next look finds that it has.
        let contents = Digest::of(
            &files_of(settings)
                .into_iter()
                .flatten()
                .map(Path::to_path_buf)
                .collect::<Vec<_>>(),
        );
        let connector = Arc::new(tls::connector(settings)?);
        let held = certificates::of_servers(settings).into();
        let settings = settings.clone();
        let of = Arc::new(Ingredients { settings, contents });
        Ok(Self { connector, held, of })
    }

    fn renew(&mut self, settings: &ServerTls) -> Result<(), TlsError> {
        let mut renewed = Self::of(settings)?;
        renewed.keep_if_same(self);
        *self = renewed;
        Ok(())
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
