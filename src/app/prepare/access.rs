//! By what clients may come in: an `auth_type` for all, or the lines of an HBA file with the maps of an ident file.

use std::{path::PathBuf, sync::Arc};

use super::PrepareError;
use crate::{
    auth::{
        access::AccessRules,
        authfile::{self, Problems},
        hba::{Hba, Offers},
        ident::IdentMaps,
    },
    config::{ServerTls, Settings, TlsProtocols},
    tls::{self, Connector},
    types::TlsMode,
};

pub(super) fn rules(settings: &Settings) -> Result<Arc<AccessRules>, PrepareError> {
    let auth = &settings.auth;
    let rules = match &auth.hba_file {
        Some(path) => {
            let ident = auth
                .ident_file
                .as_deref()
                .map_or(Ok(IdentMaps::none()), IdentMaps::load);
            let hba = Hba::load(path).and_then(|hba| served(hba, settings));
            both(hba, ident)
        }
        None => Ok(AccessRules::uniform(auth.auth_type)),
    };
    rules.map(Arc::new).map_err(PrepareError::Access)
}

/// TLS towards directories; never without a look at their certificates.
pub(super) fn ldap_tls(settings: &Settings) -> Result<Option<Arc<Connector>>, PrepareError> {
    if settings.auth.ldap_ca_file.is_none() {
        return Ok(None);
    }
    let verified = ServerTls {
        mode: TlsMode::VerifyFull,
        ca_file: settings.auth.ldap_ca_file.clone(),
        identity: None,
        crl_file: None,
        server_name: None,
        protocols: TlsProtocols::Secure,
    };
    let connector = tls::connector(&verified).map_err(PrepareError::LdapTls)?;
    Ok(Some(Arc::new(connector)))
}

/// The files that the rules are made of, those that other files take in as well.
pub(super) fn files(settings: &Settings) -> Vec<PathBuf> {
    let named = [&settings.auth.hba_file, &settings.auth.ident_file];
    named
        .into_iter()
        .flatten()
        .flat_map(|path| authfile::taken_in(path))
        .chain(settings.auth.ldap_ca_file.clone())
        .collect()
}

/// The lines, if what they need is configured.
fn served(hba: Hba, settings: &Settings) -> Result<Hba, Problems> {
    let offers = Offers {
        client_certificates: settings.listen.tls.client_ca_file.is_some(),
        ident_file: settings.auth.ident_file.is_some(),
        ldap_ca: settings.auth.ldap_ca_file.is_some(),
        secrets: settings.auth.users_file.is_some() || settings.looks_up_users(),
    };
    match hba.unserved(&offers) {
        Some(problems) => Err(problems),
        None => Ok(hba),
    }
}

/// Both files, or what is wrong with either.
fn both(hba: Result<Hba, Problems>, ident: Result<IdentMaps, Problems>) -> Result<AccessRules, Problems> {
    match (hba, ident) {
        (Ok(hba), Ok(ident)) => Ok(AccessRules::ByFile { hba, ident }),
        (Err(Problems(mut problems)), Err(Problems(more))) => {
            problems.extend(more);
            Err(Problems(problems))
        }
        (Err(problems), Ok(_)) | (Ok(_), Err(problems)) => Err(problems),
    }
}
