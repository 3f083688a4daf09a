//! The log-in: what the startup packet asks for, and the proof that the client is whom it says.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use super::{
    account::Known,
    admission,
    directory::{Asker, DirectoryError},
    door,
    error::StartupError,
    negotiate,
    newcomers::Place,
    options,
};
use crate::{
    auth::{
        access::{AccessRules, Replication},
        flow::{self, Attempt, Challenge, Channel, Flow, Rules},
        mock::MockSecrets,
        server_login::ServerCredential,
        source::SecretSource,
        users::Users,
        usual::Usual,
    },
    config::{FailureLimits, RESERVED_NAMES},
    tls::{Acceptor, Connector, Stream},
    types::{EndPointHash, TlsMode},
    wire::{
        frontend, reply,
        startup::{NEWEST_MINOR, Startup},
        stream::Framed,
    },
};

/// The longest answer to an authentication request: tokens are passwords of up to 64 kB.
const PASSWORD_MESSAGE: usize = 64 * 1024 + 16;

/// What clients are let in by; replaced as a whole by a reload.
#[derive(Debug)]
pub struct Policy {
    /// TLS for those who ask; `None` where there is none.
    pub acceptor: Option<Acceptor>,
    /// Whether they have to ask.
    pub tls_mode: TlsMode,
    /// How they prove who they are.
    pub access: Arc<AccessRules>,
    /// Whether a password may be sent in clear without TLS.
    pub allow_plaintext_password: bool,
    /// How many failures are too many.
    pub failures: FailureLimits,
    /// What directories' certificates are verified with, where there is one to ask over TLS.
    pub ldap_tls: Option<Arc<Connector>>,
    /// Who there is; `None` where nobody keeps a list.
    pub users: Option<Arc<Users>>,
    /// The databases that there are; `None` where any name will do.
    pub databases: Option<BTreeSet<Box<str>>>,
    /// Whoever knows more; asked about those who are not on the list.
    pub source: Option<Arc<dyn SecretSource>>,
    /// What stands for the secrets of those who are not.
    pub mocks: Arc<MockSecrets>,
}

impl Policy {
    /// What the client has seen of our certificate, if it has.
    fn end_point(&self, stream: &Stream) -> Option<&EndPointHash> {
        let acceptor = self.acceptor.as_ref().filter(|_| stream.is_tls());
        acceptor.and_then(Acceptor::end_point)
    }

    /// Depends on nothing but the name, so that it says nothing about users.
    fn check_database(&self, name: &str) -> Result<(), StartupError> {
        let is_missing = self.databases.as_ref().is_some_and(|names| !names.contains(name));
        if is_missing {
            return Err(StartupError::NoDatabase(name.to_owned()));
        }
        Ok(())
    }

    /// What the secrets of its users are like.
    fn usual(&self) -> Usual {
        let listed = self.users.as_ref().and_then(|users| users.usual());
        Usual::here(listed, self.source.is_some(), self.mocks.lately())
    }
}

/// What a startup packet asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) user: String,
    pub(super) database: String,
    pub(super) settings: Vec<(String, String)>,
    pub(super) replication: Replication,
    pub(super) minor: u16,
}

pub(super) fn request(startup: Startup) -> Result<Request, StartupError> {
    let replication = replication(&startup)?;
    let (mut user, mut database, mut settings) = (None, None, Vec::new());
    let mut switches = Vec::new();
    for (name, value) in startup.parameters {
        match name.as_str() {
            "user" => user = Some(value),
            "database" => database = Some(value),
            // It has a server of its own, which reads them itself.
            _ if replication != Replication::No => settings.push((name, value)),
            "options" => switches = options::parse(&value)?,
            "replication" => {}
            _ => settings.push((name, value)),
        }
    }
    let user = user.filter(|user| !user.is_empty()).ok_or(StartupError::NoUser)?;
    let database = database
        .filter(|database| !database.is_empty())
        .unwrap_or_else(|| user.clone());
    // To an HBA file it is no connection to the database that it names, so that lines which keep clients out of the console
    // would not keep this one out.
    if replication != Replication::No && RESERVED_NAMES.contains(&&*database) {
        return Err(StartupError::ConsoleReplication);
    }
    // A parameter of its own wins over one in `options`, wherever they stand (`process_startup_options`).
    settings.splice(0..0, switches);
    Ok(Request {
        user,
        database,
        settings,
        replication,
        minor: startup.minor.min(NEWEST_MINOR),
    })
}

/// Whether a walsender is asked for: `database`, or anything that PostgreSQL takes for true (`parse_bool`).
fn replication(startup: &Startup) -> Result<Replication, StartupError> {
    let mut parameters = startup.parameters.iter().rev();
    let Some((_, value)) = parameters.find(|(name, _)| name == "replication") else {
        return Ok(Replication::No);
    };
    if value == "database" {
        return Ok(Replication::Logical);
    }
    let lower = value.to_ascii_lowercase();
    let begins = |word: &str, least: usize| lower.len() >= least && word.starts_with(&lower);
    if lower == "1" || begins("true", 1) || begins("yes", 1) || begins("on", 2) {
        Ok(Replication::Physical)
    } else if lower == "0" || begins("false", 1) || begins("no", 1) || begins("off", 2) {
        Ok(Replication::No)
    } else {
        Err(StartupError::Replication(value.clone()))
    }
}

/// Tells a client that asked for more than there is what there is ("Startup", protocol negotiation).
pub(super) fn negotiate_version(stream: &mut Framed<Stream>, startup: &Startup) {
    if startup.minor > NEWEST_MINOR || !startup.protocol_options.is_empty() {
        reply::negotiate_protocol_version(startup.minor, &startup.protocol_options, stream.output());
    }
}

/// Lets the client prove who it is. AuthenticationOk is left in the output, to be sent with what follows it. Returns what
/// serves a server connection of the same user, beside what the users file has, and when the user was looked up.
pub(super) async fn authenticate(
    stream: &mut Framed<Stream>,
    request: &Request,
    attempt: &mut door::Attempt<'_>,
    policy: &Policy,
    place: &Place,
) -> Result<(ServerCredential, Instant), StartupError> {
    negotiate::check_tls(stream.get_ref(), policy.tls_mode)?;
    let access = admission::admit(stream.get_ref(), request, policy, attempt.peer()).await?;
    policy.check_database(&request.database)?;
    let rules = Rules {
        method: access.method,
        allow_plaintext_password: policy.allow_plaintext_password,
        mocks: &policy.mocks,
        usual: policy.usual(),
    };
    let mut known = Known::find(policy, access.method, &request.database, &request.user).await?;
    let mut flow = flow::start(
        &rules,
        &Attempt {
            user: &request.user,
            account: known.account(),
            channel: channel(stream.get_ref()),
            end_point: policy.end_point(stream.get_ref()),
        },
    )?;
    loop {
        match flow {
            Flow::Ask(challenge, awaiting) => {
                ask(&challenge, stream);
                stream.flush().await.map_err(StartupError::Write)?;
                let frame = place.awaiting(stream.read_frame(PASSWORD_MESSAGE)).await?;
                if frame.tag != frontend::tag::PASSWORD {
                    return Err(StartupError::NotAPassword { tag: frame.tag });
                }
                // Others may have failed meanwhile.
                attempt.check()?;
                flow = known.judge(awaiting, &frame.body, attempt).await?;
            }
            Flow::AskDirectory(password) => {
                let directory = access.directory.as_deref();
                let asker = Asker {
                    directory: directory.ok_or_else(DirectoryError::nobody)?,
                    tls: policy.ldap_tls.as_deref(),
                    attempt,
                };
                Box::pin(asker.ask(&request.user, &password)).await?;
                flow = Flow::learned(password);
            }
            Flow::Accepted { sasl_final, learned } => {
                if let Some(data) = sasl_final {
                    reply::authentication_sasl_final(&data, stream.output());
                }
                reply::authentication_ok(stream.output());
                let (secret, since) = known.looked_up();
                return Ok((ServerCredential { secret, learned }, since));
            }
        }
    }
}

fn channel(stream: &Stream) -> Channel {
    if stream.is_tls() || stream.socket().is_unix() {
        Channel::Protected
    } else {
        Channel::Plain
    }
}

fn ask(challenge: &Challenge, stream: &mut Framed<Stream>) {
    match challenge {
        Challenge::CleartextPassword => reply::authentication_cleartext(stream.output()),
        Challenge::Md5 { salt } => reply::authentication_md5(*salt, stream.output()),
        Challenge::Sasl { mechanisms } => reply::authentication_sasl(mechanisms, stream.output()),
        Challenge::SaslContinue(data) => reply::authentication_sasl_continue(data, stream.output()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup(pairs: &[(&str, &str)]) -> Startup {
        let parameters = pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        Startup {
            minor: 9999,
            parameters,
            protocol_options: Vec::new(),
        }
    }

    #[test]
    fn everything_but_user_and_database_is_a_setting() {
        let pairs = [
            ("user", "u"),
            ("application_name", "a"),
            ("options", "-c work_mem=1MB"),
            ("x", "y"),
        ];
        let request = request(startup(&pairs)).unwrap();
        assert_eq!(
            (request.user.as_str(), request.database.as_str(), request.minor),
            ("u", "u", NEWEST_MINOR)
        );
        let names: Vec<_> = request.settings.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["work_mem", "application_name", "x"], "the later holds");
    }

    #[test]
    fn what_cannot_be_served_is_said() {
        assert!(matches!(request(startup(&[])), Err(StartupError::NoUser)));
        assert!(matches!(
            request(startup(&[("user", "")])),
            Err(StartupError::NoUser)
        ));
        for value in ["", "databas", "o", "2", "truely"] {
            let refused = request(startup(&[("user", "u"), ("replication", value)]));
            assert!(matches!(refused, Err(StartupError::Replication(_))), "{value}");
        }
    }

    #[test]
    fn the_admin_console_has_nothing_to_replicate() {
        // Physical replication matches only the word `replication` in an HBA file and names a database all the same: it led
        // to the console past lines that keep its user out.
        for (value, is_refused) in [("1", true), ("database", true), ("false", false)] {
            for database in RESERVED_NAMES {
                let pairs = [("user", "u"), ("database", database), ("replication", value)];
                let refused = request(startup(&pairs));
                let refused = matches!(refused, Err(StartupError::ConsoleReplication));
                assert_eq!(refused, is_refused, "{database} {value}");
            }
        }
    }

    #[test]
    fn replication_is_what_postgresql_takes_for_it_and_keeps_its_settings_as_they_are() {
        for (value, expected) in [
            ("database", Replication::Logical),
            ("1", Replication::Physical),
            ("t", Replication::Physical),
            ("YES", Replication::Physical),
            ("on", Replication::Physical),
            ("0", Replication::No),
            ("f", Replication::No),
            ("n", Replication::No),
            ("of", Replication::No),
        ] {
            let pairs = [
                ("user", "u"),
                ("replication", value),
                ("options", "-c work_mem=1MB -d 5"),
            ];
            let asked = expected != Replication::No;
            let count = if asked { 3 } else { 2 };
            match request(startup(&pairs[..count])) {
                Ok(request) => {
                    assert_eq!(request.replication, expected, "{value}");
                    let settings = if asked { &pairs[1..] } else { &[] };
                    let kept: Vec<_> = request.settings.iter().map(|(n, v)| (&n[..], &v[..])).collect();
                    assert_eq!(kept, settings);
                }
                Err(error) => panic!("{value}: {error}"),
            }
        }
    }
}
