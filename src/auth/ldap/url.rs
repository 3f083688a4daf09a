//! LDAP URLs (RFC 4516), as PostgreSQL's `ldapurl` takes them.

use std::borrow::Cow;

use thiserror::Error;

use super::{Encryption, Scope, filter::hex};

/// What an LDAP URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LdapUrl {
    /// `ldap` or `ldaps`.
    pub encryption: Encryption,
    /// The server.
    pub host: Option<String>,
    /// Its port.
    pub port: Option<u16>,
    /// Where a search begins.
    pub base: Option<String>,
    /// The attribute that is the user's name.
    pub attribute: Option<String>,
    /// How far a search goes.
    pub scope: Scope,
    /// Which entries are meant.
    pub filter: Option<String>,
}

/// A text that is no LDAP URL, or says what cannot be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UrlError {
    /// Neither `ldap://` nor `ldaps://`.
    #[error("it begins with ldap:// or ldaps://")]
    Scheme,
    /// A port that is no number, or brackets that are not closed.
    #[error("what follows // is host or host:port")]
    Host,
    /// Not one of the three.
    #[error("the scope is base, one or sub")]
    Scope,
    /// More parts than there are.
    #[error("it is ldap://host:port/basedn?attribute?scope?filter")]
    Shape,
    /// `%` without two digits, or bytes that are not UTF-8.
    #[error("% stands before two hexadecimal digits, and the whole is UTF-8")]
    Escape,
}

impl LdapUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let encryption = match scheme.to_ascii_lowercase().as_str() {
            "ldap" => Encryption::None,
            "ldaps" => Encryption::Ldaps,
            _ => return Err(UrlError::Scheme),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = authority_parts(authority)?;
        let mut parts = path.split('?');
        let mut next = || parts.next().map_or(Ok(None), decoded);
        let (base, attribute, scope, filter) = (next()?, next()?, next()?, next()?);
        if parts.next().is_some() || attribute.as_ref().is_some_and(|list| list.contains(',')) {
            return Err(UrlError::Shape);
        }
        Ok(Self {
            encryption,
            host,
            port,
            base,
            attribute,
            scope: match scope.as_deref() {
                None | Some("base") => Scope::Base,
                Some("one") => Scope::One,
                Some("sub") => Scope::Subtree,
                Some(_) => return Err(UrlError::Scope),
            },
            filter,
        })
    }
}

fn authority_parts(authority: &str) -> Result<(Option<String>, Option<u16>), UrlError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or(UrlError::Host)?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(digits) => Some(digits.parse().map_err(|_| UrlError::Host)?),
        None if port.is_empty() => None,
        None => return Err(UrlError::Host),
    };
    Ok((decoded(host)?, port))
}

/// Without its `%` escapes; `None` where there is nothing.
fn decoded(text: &str) -> Result<Option<String>, UrlError> {
    if text.is_empty() {
        return Ok(None);
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(hex).ok_or(UrlError::Escape);
                digit()? << 4 | digit()?
            }
            byte => byte,
        });
    }
    let text = String::from_utf8_lossy(&decoded);
    match text {
        Cow::Borrowed(text) => Ok(Some(text.to_owned())),
        Cow::Owned(_) => Err(UrlError::Escape),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found() {
        let url =
            LdapUrl::parse("ldaps://ldap.example.net:1636/dc=example,dc=net?uid?sub?(objectClass=p%2ax)")
                .unwrap();
        let expected = LdapUrl {
            encryption: Encryption::Ldaps,
            host: Some("ldap.example.net".into()),
            port: Some(1636),
            base: Some("dc=example,dc=net".into()),
            attribute: Some("uid".into()),
            scope: Scope::Subtree,
            filter: Some("(objectClass=p*x)".into()),
        };
        assert_eq!(url, expected);
        let url = LdapUrl::parse("LDAP://[::1]").unwrap();
        assert_eq!(
            (url.host.as_deref(), url.port, url.base),
            (Some("::1"), None, None)
        );
        let url = LdapUrl::parse("ldap:///o=a%20b??one").unwrap();
        assert_eq!(
            (url.host, url.base.as_deref(), url.scope),
            (None, Some("o=a b"), Scope::One)
        );
    }

    #[test]
    fn what_is_no_url_says_why() {
        for (text, error) in [
            ("ldap.example.net", UrlError::Scheme),
            ("ldapi://%2ftmp", UrlError::Scheme),
            ("ldap://h:x/", UrlError::Host),
            ("ldap://[::1", UrlError::Host),
            ("ldap://[::1]x/", UrlError::Host),
            ("ldap://h/b?uid?deep", UrlError::Scope),
            ("ldap://h/b?uid,mail?sub", UrlError::Shape),
            ("ldap://h/b?uid?sub?f?x", UrlError::Shape),
            ("ldap://h/%2", UrlError::Escape),
            ("ldap://h/%ff", UrlError::Escape),
        ] {
            assert_eq!(LdapUrl::parse(text), Err(error), "{text}");
        }
    }
}
