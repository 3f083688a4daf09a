//! From the fields of a line to a rule, or to all that is wrong with it (PostgreSQL's `parse_hba_line`).

use std::{net::IpAddr, slice::Iter};

use super::{
    address::{Addresses, Range},
    options,
    rule::{Connections, Database, Encryption, Rule, User, Verdict},
};
use crate::auth::{
    access::Method,
    authfile::{Field, Line, Name, PatternError, Token},
};

/// What is wrong with a line.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) message: String,
    pub(super) hint: Option<&'static str>,
}

impl Mistake {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn with_hint(message: impl Into<String>, hint: &'static str) -> Self {
        Self {
            message: message.into(),
            hint: Some(hint),
        }
    }
}

impl From<PatternError> for Mistake {
    fn from(error: PatternError) -> Self {
        Self::new(error.to_string())
    }
}

/// The word that a line begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Local,
    Host(Encryption),
}

/// What a line says is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Reject,
    Method(Method),
}

const ONLY_THE_SERVER_KNOWS: &str =
    "name the users, in the line or in a file (@FILE), or match them with a /regex";

pub(super) fn rule(line: &Line) -> Result<Rule, Vec<Mistake>> {
    let mut fields = line.fields.iter();
    let mut mistakes = Vec::new();
    // What a line is read as depends on its first word.
    let kind = kind(&mut fields).map_err(|mistake| vec![mistake])?;
    let Some(databases) = list(&mut fields, "database", database, &mut mistakes) else {
        return Err(mistakes);
    };
    let Some(users) = list(&mut fields, "role", user, &mut mistakes) else {
        return Err(mistakes);
    };
    let connections = match kind {
        Kind::Local => Connections::Local,
        Kind::Host(encryption) => match addresses(&mut fields) {
            Ok(addresses) => Connections::Host(encryption, addresses),
            Err(mistake) => {
                // Where the method stands cannot be told without the address.
                mistakes.push(mistake);
                return Err(mistakes);
            }
        },
    };
    let verdict = match word(&mut fields, kind) {
        Ok(word) => verdict(word, kind, fields, &mut mistakes),
        Err(mistake) => {
            mistakes.push(mistake);
            None
        }
    };
    match verdict {
        Some(verdict) if mistakes.is_empty() => Ok(Rule {
            place: line.place.clone(),
            connections,
            databases,
            users,
            verdict,
        }),
        _ => Err(mistakes),
    }
}

fn kind(fields: &mut Iter<'_, Field>) -> Result<Kind, Mistake> {
    let token = single(fields, "connection type")?;
    Ok(match &*token.text {
        "local" => Kind::Local,
        "host" | "hostnogssenc" => Kind::Host(Encryption::Any),
        "hostssl" => Kind::Host(Encryption::Tls),
        "hostnossl" => Kind::Host(Encryption::NoTls),
        "hostgssenc" => Kind::Host(Encryption::Gss),
        other => return Err(Mistake::new(format!("invalid connection type \"{other}\""))),
    })
}

/// A field that has one word.
fn single<'a>(fields: &mut Iter<'a, Field>, what: &str) -> Result<&'a Token, Mistake> {
    match fields.next().map(|field| &field[..]) {
        Some([token]) => Ok(token),
        Some(_) => Err(Mistake::new(format!("multiple values specified for {what}"))),
        None => Err(Mistake::new(format!("end-of-line before {what} specification"))),
    }
}

/// A field that may have many; every one that is wrong is noted. None where the line has ended.
fn list<T>(
    fields: &mut Iter<'_, Field>,
    what: &str,
    parse: fn(&Token) -> Result<T, Mistake>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Vec<T>> {
    let Some(field) = fields.next() else {
        mistakes.push(Mistake::new(format!("end-of-line before {what} specification")));
        return None;
    };
    let mut parsed = Vec::with_capacity(field.len());
    for token in field {
        match parse(token) {
            Ok(value) => parsed.push(value),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    Some(parsed)
}

fn database(token: &Token) -> Result<Database, Mistake> {
    let named = || Ok(Database::Named(Name::of(token)?));
    if token.quoted {
        return named();
    }
    match &*token.text {
        "all" => Ok(Database::All),
        "sameuser" => Ok(Database::SameUser),
        "replication" => Ok(Database::Replication),
        "samerole" | "samegroup" => Err(Mistake::with_hint(
            format!(
                "\"{}\" stands for databases that are named like a role of the user's, and which roles those are only the server knows",
                token.text
            ),
            "name the databases, or use sameuser",
        )),
        _ => named(),
    }
}

fn user(token: &Token) -> Result<User, Mistake> {
    if token.is("all") {
        return Ok(User::All);
    }
    if token.after('+').is_some() {
        let message = format!(
            "\"{}\" stands for the members of a role, and who they are only the server knows",
            token.text
        );
        return Err(Mistake::with_hint(message, ONLY_THE_SERVER_KNOWS));
    }
    Ok(User::Named(Name::of(token)?))
}

fn addresses(fields: &mut Iter<'_, Field>) -> Result<Addresses, Mistake> {
    let token = single(fields, "IP address")?;
    for (word, addresses) in [
        ("all", Addresses::All),
        ("samehost", Addresses::SameHost),
        ("samenet", Addresses::SameNet),
    ] {
        if token.is(word) {
            return Ok(addresses);
        }
    }
    if let Some((address, prefix)) = token.text.split_once('/') {
        let address = ip(address)?;
        return prefix
            .parse()
            .ok()
            .filter(|_| prefix.bytes().all(|digit| digit.is_ascii_digit()))
            .and_then(|prefix| Range::cidr(address, prefix))
            .map(Addresses::Range)
            .ok_or_else(|| {
                mismatch(
                    address,
                    format!("invalid CIDR mask in address \"{}\"", token.text),
                )
            });
    }
    let address = ip(&token.text)?;
    let mask = single(fields, "netmask").map_err(|mistake| Mistake {
        hint: Some("Specify an address range in CIDR notation, or provide a separate netmask."),
        ..mistake
    })?;
    let mask = mask
        .text
        .parse()
        .map_err(|_| Mistake::new(format!("invalid IP mask \"{}\"", mask.text)))?;
    Range::masked(address, mask)
        .map(Addresses::Range)
        .ok_or_else(|| mismatch(address, "IP address and mask do not match"))
}

fn mismatch(address: IpAddr, message: impl Into<String>) -> Mistake {
    let is_mapped = address.is_ipv6() && address.to_canonical().is_ipv4();
    let hint = is_mapped.then_some("write an IPv4 network as IPv4, such as 10.0.0.0/8");
    Mistake {
        hint,
        ..Mistake::new(message)
    }
}

fn ip(text: &str) -> Result<IpAddr, Mistake> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().map_err(|_| match digits || text.contains(':') {
        true => Mistake::new(format!("invalid IP address \"{text}\"")),
        false => Mistake::with_hint(
            format!("\"{text}\" is a host name: it would have to be looked up at every log-in, and a look-up that fails passes over the line"),
            "write the addresses, such as 10.0.0.0/8",
        ),
    })
}

fn word(fields: &mut Iter<'_, Field>, kind: Kind) -> Result<Word, Mistake> {
    let Some(field) = fields.next() else {
        return Err(Mistake::new("end-of-line before authentication method"));
    };
    let [token] = &field[..] else {
        return Err(Mistake::with_hint(
            "multiple values specified for authentication type",
            "Specify exactly one authentication type per line.",
        ));
    };
    let method = match &*token.text {
        "reject" => return Ok(Word::Reject),
        "trust" => Method::Trust,
        "password" => Method::Password,
        "md5" => Method::Md5,
        "scram-sha-256" => Method::ScramSha256,
        "cert" => Method::Cert,
        "peer" => Method::Peer,
        "ldap" => Method::Ldap,
        // PostgreSQL takes it for peer as well.
        "ident" if kind == Kind::Local => Method::Peer,
        other => return Err(unsupported(other)),
    };
    match (method, kind) {
        (Method::Peer, Kind::Host(_)) => Err(Mistake::new(
            "peer authentication is only supported on local sockets",
        )),
        (Method::Cert, Kind::Local | Kind::Host(Encryption::Any | Encryption::NoTls | Encryption::Gss)) => {
            Err(Mistake::new(
                "cert authentication is only supported on hostssl connections",
            ))
        }
        _ => Ok(Word::Method(method)),
    }
}

/// The methods that PostgreSQL has and pgweir has not, in one place: why, and what to write instead.
fn unsupported(method: &str) -> Mistake {
    let (why, hint) = match method {
        "ident" => (
            "whoever answers on port 113 of the client's machine may say anything",
            "use scram-sha-256 or cert; on a \"local\" line, peer",
        ),
        "pam" => (
            "it would take the C library libpam, its modules and their configuration into the pooler",
            "use ldap if that is where PAM looks, or scram-sha-256 with the users' secrets from auth.users_file or auth.auth_query",
        ),
        "bsd" => (
            "it is OpenBSD's own",
            "use scram-sha-256, with the users' secrets from auth.users_file or auth.auth_query",
        ),
        "radius" => (
            "its packets are protected by MD5 alone",
            "use ldap, or scram-sha-256 with the users' secrets from auth.users_file or auth.auth_query",
        ),
        "gss" => (
            "a client's Kerberos ticket for the pooler proves nothing to the server",
            "use cert or scram-sha-256",
        ),
        "sspi" => ("it is for servers on Windows", "use cert or scram-sha-256"),
        "oauth" => (
            "tokens are checked by a library that is loaded into the server",
            "use cert or scram-sha-256",
        ),
        _ => {
            return Mistake::with_hint(
                format!("invalid authentication method \"{method}\""),
                "it is trust, reject, scram-sha-256, md5, password, cert, peer or ldap",
            );
        }
    };
    Mistake::with_hint(
        format!("authentication method \"{method}\" is not supported: {why}"),
        hint,
    )
}

fn verdict(word: Word, kind: Kind, fields: Iter<'_, Field>, mistakes: &mut Vec<Mistake>) -> Option<Verdict> {
    let access = options::access(word, kind, fields.flatten(), mistakes);
    Some(match word {
        Word::Reject => Verdict::Reject,
        Word::Method(_) => Verdict::Access(access?),
    })
}
