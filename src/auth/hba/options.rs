//! `name=value` behind the method (PostgreSQL's `parse_hba_auth_opt`).

use std::sync::Arc;

use super::{
    ldap::Draft,
    parse::{Kind, Mistake, Word},
    rule::Encryption,
};
use crate::auth::{
    access::{Access, ClientCert, ClientName, Method},
    authfile::Token,
};

/// The options of other methods; a known option beside the wrong method is another mistake than
/// a misspelt one.
const ELSEWHERE: &[(&str, &str)] = &[
    ("pamservice", "pam"),
    ("pam_use_hostname", "pam"),
    ("ldapurl", "ldap"),
    ("ldaptls", "ldap"),
    ("ldapscheme", "ldap"),
    ("ldapserver", "ldap"),
    ("ldapport", "ldap"),
    ("ldapbinddn", "ldap"),
    ("ldapbindpasswd", "ldap"),
    ("ldapsearchattribute", "ldap"),
    ("ldapsearchfilter", "ldap"),
    ("ldapbasedn", "ldap"),
    ("ldapprefix", "ldap"),
    ("ldapsuffix", "ldap"),
    ("krb_realm", "gssapi and sspi"),
    ("include_realm", "gssapi and sspi"),
    ("compat_realm", "sspi"),
    ("upn_username", "sspi"),
    ("radiusservers", "radius"),
    ("radiusports", "radius"),
    ("radiussecrets", "radius"),
    ("radiusidentifiers", "radius"),
    ("issuer", "oauth"),
    ("scope", "oauth"),
    ("validator", "oauth"),
    ("delegate_ident_mapping", "oauth"),
];

/// What the method and its options ask of a client; `None` for `reject`, which may have options all the same.
pub(super) fn access<'a>(
    word: Word,
    kind: Kind,
    tokens: impl Iterator<Item = &'a Token>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Access> {
    let method = match word {
        Word::Reject => None,
        Word::Method(method) => Some(method),
    };
    // What `reject` says of a client is said to nobody.
    let mut access = Access::by(method.unwrap_or(Method::Trust));
    let mut draft = Draft::default();
    for token in tokens {
        if let Err(mistake) = option(&token.text, kind, &mut access, &mut draft) {
            mistakes.push(mistake);
        }
    }
    if access.method == Method::Ldap {
        match draft.finish() {
            Ok(directory) => access.directory = Some(Arc::new(directory)),
            Err(more) => mistakes.extend(more),
        }
    }
    method.map(|_| access)
}

fn option(text: &str, kind: Kind, access: &mut Access, draft: &mut Draft) -> Result<(), Mistake> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(Mistake::new(format!(
            "authentication option not in name=value format: {text}"
        )));
    };
    if access.method == Method::Ldap && draft.take(name, value)? {
        return Ok(());
    }
    match name {
        "map" if matches!(access.method, Method::Peer | Method::Cert) => {
            access.map = Some(value.into());
            Ok(())
        }
        "map" => Err(only_for("map", "peer and cert")),
        "clientcert" => {
            only_in_hostssl("clientcert", kind)?;
            access.clientcert = clientcert(value, access.method)?;
            Ok(())
        }
        "clientname" => {
            only_in_hostssl("clientname", kind)?;
            access.clientname = match value {
                "CN" => ClientName::Cn,
                "DN" => ClientName::Dn,
                _ => {
                    let message = format!("invalid value for clientname: \"{value}\"");
                    return Err(Mistake::with_hint(message, "it is CN or DN"));
                }
            };
            Ok(())
        }
        _ => Err(match ELSEWHERE.iter().find(|(option, _)| *option == name) {
            Some((option, methods)) => only_for(option, methods),
            None => Mistake::new(format!("unrecognized authentication option name: \"{name}\"")),
        }),
    }
}

fn clientcert(value: &str, method: Method) -> Result<ClientCert, Mistake> {
    match value {
        "verify-full" => Ok(ClientCert::VerifyFull),
        "verify-ca" if method == Method::Cert => Err(Mistake::new(
            "clientcert only accepts \"verify-full\" when using \"cert\" authentication",
        )),
        "verify-ca" => Ok(ClientCert::VerifyCa),
        _ => Err(Mistake::with_hint(
            format!("invalid value for clientcert: \"{value}\""),
            "it is verify-ca or verify-full",
        )),
    }
}

fn only_for(option: &str, methods: &str) -> Mistake {
    Mistake::new(format!(
        "authentication option \"{option}\" is only valid for authentication methods {methods}"
    ))
}

fn only_in_hostssl(option: &str, kind: Kind) -> Result<(), Mistake> {
    if kind == Kind::Host(Encryption::Tls) {
        return Ok(());
    }
    Err(Mistake::new(format!(
        "{option} can only be configured for \"hostssl\" rows"
    )))
}
