//! TLS towards servers, and what it was made of: as long as that is the same, server connections are as good as
//! new ones.

use std::{path::Path, sync::Arc};

use super::PrepareError;
use crate::{
    config::{ServerTls, Settings},
    tls::{self, Connector},
};

#[derive(Debug, Clone)]
pub(super) struct ServerTlsPart {
    pub(super) connector: Arc<Connector>,
    made_of: Arc<Ingredients>,
}

#[derive(PartialEq)]
struct Ingredients {
    settings: ServerTls,
    contents: Vec<Option<Vec<u8>>>,
}

impl std::fmt::Debug for Ingredients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // There are private keys in it.
        f.debug_struct("Ingredients")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl ServerTlsPart {
    pub(super) fn prepare(settings: &Settings) -> Result<Self, PrepareError> {
        let settings = &settings.server_tls;
        // Read first: if the files change now, the next look finds that they have.
        let contents = files(settings)
            .into_iter()
            .map(|path| path.and_then(|path| std::fs::read(path).ok()))
            .collect();
        let connector = tls::connector(settings).map_err(PrepareError::ServerTls)?;
        Ok(Self {
            connector: Arc::new(connector),
            made_of: Arc::new(Ingredients {
                settings: settings.clone(),
                contents,
            }),
        })
    }

    pub(super) fn keep_if_same(&mut self, previous: &Self) {
        if self.made_of == previous.made_of {
            *self = previous.clone();
        }
    }
}

pub(super) fn files(settings: &ServerTls) -> Vec<Option<&Path>> {
    let identity = settings.identity.as_ref();
    vec![
        settings.ca_file.as_deref(),
        identity.map(|identity| identity.cert_file.as_path()),
        identity.map(|identity| identity.key_file.as_path()),
    ]
}
