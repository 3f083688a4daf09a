//! The options of the method `ldap`, from names and values to a directory (PostgreSQL's rules and words).

use super::parse::Mistake;
use crate::auth::{
    ldap::{Directory, Encryption, LdapUrl, Lookup, Scope, Search},
    secret::Password,
};

/// What the options of a line have said so far.
#[derive(Debug, Default)]
pub(super) struct Draft {
    url: Option<LdapUrl>,
    server: Option<Box<str>>,
    port: Option<u16>,
    ldaps: Option<bool>,
    start_tls: bool,
    prefix: Option<Box<str>>,
    suffix: Option<Box<str>>,
    base: Option<Box<str>>,
    bind_name: Option<Box<str>>,
    bind_password: Option<Password>,
    attribute: Option<Box<str>>,
    filter: Option<Box<str>>,
}

impl Draft {
    /// Takes an option. Returns whether it is one of LDAP's.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<bool, Mistake> {
        let text = || Some(value.into());
        match name {
            "ldapurl" => {
                let url = LdapUrl::parse(value).map_err(|error| {
                    Mistake::new(format!("could not parse LDAP URL \"{value}\": {error}"))
                })?;
                self.url = Some(url);
            }
            "ldapserver" => self.server = text(),
            "ldapport" => {
                let port = value.parse().ok().filter(|&port| port != 0);
                let wrong = || Mistake::new(format!("invalid LDAP port number: \"{value}\""));
                self.port = Some(port.ok_or_else(wrong)?);
            }
            "ldapscheme" => {
                self.ldaps = Some(one_of(
                    "ldapscheme",
                    value,
                    ["ldap", "ldaps"],
                    "it is ldap or ldaps",
                )?);
            }
            "ldaptls" => self.start_tls = one_of("ldaptls", value, ["0", "1"], "it is 0 or 1")?,
            "ldapprefix" => self.prefix = text(),
            "ldapsuffix" => self.suffix = text(),
            "ldapbasedn" => self.base = text(),
            "ldapbinddn" => self.bind_name = text(),
            "ldapbindpasswd" => self.bind_password = Some(Password::new(value.as_bytes())),
            "ldapsearchattribute" => self.attribute = text(),
            "ldapsearchfilter" => self.filter = text(),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What all of them say.
    pub(super) fn finish(mut self) -> Result<Directory, Vec<Mistake>> {
        let url_scope = self.take_url();
        let mut mistakes = Vec::new();
        let encryption = match (self.ldaps.unwrap_or(false), self.start_tls) {
            (false, false) => Encryption::None,
            (false, true) => Encryption::StartTls,
            (true, false) => Encryption::Ldaps,
            (true, true) => {
                mistakes.push(Mistake::with_hint(
                    "ldaptls=1 on a connection that is encrypted already",
                    "leave out ldaptls, or ldapscheme=ldaps",
                ));
                Encryption::Ldaps
            }
        };
        let port = self.port.unwrap_or(encryption.port());
        let servers = servers(self.server.as_deref().unwrap_or_default(), port, &mut mistakes);
        match self.lookup(url_scope) {
            Ok(lookup) if mistakes.is_empty() => Ok(Directory {
                servers,
                encryption,
                lookup,
            }),
            Ok(_) => Err(mistakes),
            Err(mistake) => {
                mistakes.push(mistake);
                Err(mistakes)
            }
        }
    }

    /// What the URL says, wherever no option says it too.
    fn take_url(&mut self) -> Scope {
        let Some(url) = self.url.take() else {
            return Scope::Subtree;
        };
        let boxed = |text: Option<String>| text.map(String::into_boxed_str);
        self.ldaps.get_or_insert(url.encryption == Encryption::Ldaps);
        self.server = self.server.take().or(boxed(url.host));
        self.port = self.port.or(url.port);
        self.base = self.base.take().or(boxed(url.base));
        self.attribute = self.attribute.take().or(boxed(url.attribute));
        self.filter = self.filter.take().or(boxed(url.filter));
        url.scope
    }

    fn lookup(self, scope: Scope) -> Result<Lookup, Mistake> {
        let searches = [&self.base, &self.bind_name, &self.attribute, &self.filter]
            .iter()
            .any(|option| option.is_some())
            || self.bind_password.is_some();
        if self.prefix.is_some() || self.suffix.is_some() {
            if searches {
                return Err(Mistake::with_hint(
                    "cannot mix options for simple bind and search+bind modes",
                    "a line has ldapprefix and ldapsuffix, or ldapbasedn and what belongs to a search",
                ));
            }
            return Ok(Lookup::Named {
                prefix: self.prefix.unwrap_or_default(),
                suffix: self.suffix.unwrap_or_default(),
            });
        }
        let Some(base) = self.base else {
            return Err(Mistake::new(
                "authentication method \"ldap\" requires argument \"ldapbasedn\", \"ldapprefix\", or \"ldapsuffix\" to be set",
            ));
        };
        let filter = match (self.attribute, self.filter) {
            (Some(_), Some(_)) => {
                return Err(Mistake::new(
                    "cannot use ldapsearchattribute together with ldapsearchfilter",
                ));
            }
            (Some(attribute), None) => format!("({attribute}=$username)").into(),
            (None, Some(filter)) => filter,
            (None, None) => "(uid=$username)".into(),
        };
        let search = Search {
            bind_name: self.bind_name.unwrap_or_default(),
            bind_password: self.bind_password.unwrap_or_else(|| Password::new(b"")),
            base,
            scope,
            filter,
        };
        match search.compiled("user") {
            Ok(_) => Ok(Lookup::Found(search)),
            Err(error) => Err(Mistake::new(format!(
                "invalid LDAP search filter \"{}\": {error}",
                search.filter
            ))),
        }
    }
}

/// Whether a value is the second of two words.
fn one_of(option: &str, value: &str, words: [&str; 2], hint: &'static str) -> Result<bool, Mistake> {
    match words.iter().position(|word| *word == value) {
        Some(index) => Ok(index == 1),
        None => Err(Mistake::with_hint(
            format!("invalid {option} value: \"{value}\""),
            hint,
        )),
    }
}

/// Names with blanks between them, each perhaps with a port of its own.
fn servers(list: &str, port: u16, mistakes: &mut Vec<Mistake>) -> Vec<(Box<str>, u16)> {
    let servers: Vec<(Box<str>, u16)> = list
        .split_ascii_whitespace()
        .map(|server| match server.rsplit_once(':') {
            // An IPv6 address has more than one.
            Some((host, own)) if !host.contains(':') => (host.into(), own.parse().unwrap_or(0)),
            _ => (server.trim_matches(['[', ']']).into(), port),
        })
        .collect();
    if servers.is_empty() {
        mistakes.push(Mistake::with_hint(
            "authentication method \"ldap\" requires argument \"ldapserver\" to be set",
            "name it there or in ldapurl; it is not looked up in DNS",
        ));
    }
    if servers.iter().any(|(host, port)| host.is_empty() || *port == 0) {
        mistakes.push(Mistake::with_hint(
            format!("invalid ldapserver value: \"{list}\""),
            "it is one or more host names or addresses, without a scheme",
        ));
    }
    servers
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::auth::{
        access::Origin,
        authfile::fake::Fake,
        hba::{Hba, Visit},
    };

    fn directory(options: &str) -> Result<Directory, String> {
        let line = format!("local all all ldap {options}");
        let hba = Hba::read(&Fake::new(&[("f", &line)]), Path::new("f"))
            .map_err(|problems| problems.to_string())?;
        let visit = Visit {
            origin: Origin::Local,
            tls: false,
            database: "d",
            user: "u",
            replication: crate::auth::access::Replication::No,
        };
        let access = hba.access(&visit, &[]).unwrap();
        Ok(access.directory.as_deref().unwrap().clone())
    }

    fn servers(directory: &Directory) -> Vec<(&str, u16)> {
        directory
            .servers
            .iter()
            .map(|(host, port)| (&**host, *port))
            .collect()
    }

    fn search(directory: &Directory) -> &Search {
        match &directory.lookup {
            Lookup::Found(search) => search,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_examples_of_postgresqls_manual_mean_what_it_says() {
        let simple =
            directory(r#"ldapserver=ldap.example.net ldapprefix="cn=" ldapsuffix=", dc=example, dc=net""#);
        let expected = Directory {
            servers: vec![("ldap.example.net".into(), 389)],
            encryption: Encryption::None,
            lookup: Lookup::Named {
                prefix: "cn=".into(),
                suffix: ", dc=example, dc=net".into(),
            },
        };
        assert_eq!(simple, Ok(expected));
        let by_attribute =
            directory(r#"ldapserver=h ldapbasedn="dc=example, dc=net" ldapsearchattribute=uid"#).unwrap();
        let found = search(&by_attribute);
        assert_eq!(
            (&*found.base, &*found.filter),
            ("dc=example, dc=net", "(uid=$username)")
        );
        assert_eq!((&*found.bind_name, found.scope), ("", Scope::Subtree));
        let by_url = directory(r#"ldapurl="ldap://h/dc=example,dc=net?uid?sub""#).unwrap();
        assert_eq!(
            (search(&by_url).scope, &*search(&by_url).filter),
            (Scope::Subtree, "(uid=$username)")
        );
        let by_filter =
            directory(r#"ldapserver=h ldapbasedn="b" ldapsearchfilter="(|(uid=$username)(mail=$username))""#);
        assert_eq!(
            &*search(&by_filter.unwrap()).filter,
            "(|(uid=$username)(mail=$username))"
        );
    }

    #[test]
    fn servers_ports_and_encryption() {
        let many =
            directory("ldapserver=\"a b:1389 ::1 [::2]\" ldaptls=1 ldapport=3389 ldapbasedn=b").unwrap();
        assert_eq!(
            servers(&many),
            [("a", 3389), ("b", 1389), ("::1", 3389), ("::2", 3389)]
        );
        assert_eq!(many.encryption, Encryption::StartTls);
        let scheme = directory("ldapserver=a ldapscheme=ldaps ldapsuffix=@x").unwrap();
        assert_eq!(
            (servers(&scheme), scheme.encryption),
            (vec![("a", 636)], Encryption::Ldaps)
        );
        let url = directory("ldapurl=ldaps://a/b ldapserver=other").unwrap();
        assert_eq!(
            (servers(&url), url.encryption),
            (vec![("other", 636)], Encryption::Ldaps)
        );
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        for (options, message) in [
            ("", "requires argument \"ldapserver\""),
            (
                "ldapserver=\" \" ldapbasedn=b",
                "requires argument \"ldapserver\"",
            ),
            ("ldapserver=ldap://h ldapbasedn=b", "invalid ldapserver value"),
            (
                "ldapserver=h",
                "requires argument \"ldapbasedn\", \"ldapprefix\", or \"ldapsuffix\"",
            ),
            ("ldapserver=h ldapprefix=a ldapbasedn=b", "cannot mix options"),
            ("ldapserver=h ldapsuffix=a ldapbindpasswd=b", "cannot mix options"),
            (
                "ldapserver=h ldapbasedn=b ldapsearchattribute=a ldapsearchfilter=(f=$username)",
                "cannot use ldapsearchattribute together",
            ),
            (
                "ldapserver=h ldapbasedn=b ldapsearchfilter=\"(uid=$username\"",
                "invalid LDAP search filter",
            ),
            ("ldapserver=h ldapbasedn=b ldapport=0", "invalid LDAP port number"),
            (
                "ldapserver=h ldapbasedn=b ldapscheme=ldapi",
                "invalid ldapscheme value",
            ),
            ("ldapserver=h ldapbasedn=b ldaptls=yes", "invalid ldaptls value"),
            (
                "ldapserver=h ldapbasedn=b ldapscheme=ldaps ldaptls=1",
                "encrypted already",
            ),
            ("ldapurl=http://h/b", "could not parse LDAP URL"),
            (
                "ldapserver=h ldapbasedn=b map=m",
                "only valid for authentication methods peer and cert",
            ),
        ] {
            let said = directory(options).unwrap_err();
            assert!(said.contains(message), "{options}: {said}");
        }
    }
}
