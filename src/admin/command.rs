//! What may be said to the console.

use super::lexer::{Token, tokens};
use crate::config::nearest;

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// `SHOW topic`
    Show(Topic),
    /// `SHOW name`, of a setting of PostgreSQL's that drivers ask for, or one of the pooler's.
    ShowSetting(String),
    /// `SET name = value`
    Set {
        name: String,
        value: String,
    },
    /// What drivers say to every server and means nothing here; answered with this tag.
    Nothing(&'static str),
    /// `PAUSE [db]`
    Pause(Option<String>),
    /// `RESUME [db]`
    Resume(Option<String>),
    /// `RECONNECT [db]`
    Reconnect(Option<String>),
    /// `KILL [db]`
    Kill(Option<String>),
    /// `KILL_CLIENT id`
    KillClient(u64),
    /// `DISABLE db`
    Disable(String),
    /// `ENABLE db`
    Enable(String),
    Suspend,
    /// `WAIT_CLOSE [db]`
    WaitClose(Option<String>),
    Reload,
    Shutdown(Shutdown),
}

/// How the process is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// At once.
    Immediate,
    /// When no server connection is in use.
    WaitForServers,
    /// When the last client has left.
    WaitForClients,
}

/// Something that is not a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnknownCommand {
    /// Nothing begins with this word, or nothing shows it.
    #[error("invalid command '{text}', use SHOW HELP")]
    Word {
        text: String,
        /// What was probably meant.
        near: Option<String>,
    },
    /// What follows the word is wrong.
    #[error("bad arguments: {0}")]
    Arguments(&'static str),
}

macro_rules! topics {
    ($($topic:ident $word:literal),* $(,)?) => {
        /// What can be shown.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Topic {
            $($topic),*
        }

        impl Topic {
            /// All of them, with their words.
            pub(super) const ALL: &'static [(&'static str, Self)] = &[$(($word, Self::$topic)),*];
        }
    };
}

topics! {
    Help "HELP", Clients "CLIENTS", Config "CONFIG", Databases "DATABASES", Fds "FDS", Fleet "FLEET", Lists "LISTS", Mem "MEM",
    DnsHosts "DNS_HOSTS", DnsZones "DNS_ZONES", Peers "PEERS", PeerPools "PEER_POOLS", Pools "POOLS",
    Servers "SERVERS", Sockets "SOCKETS", ActiveSockets "ACTIVE_SOCKETS", State "STATE", Stats "STATS",
    StatsTotals "STATS_TOTALS", StatsAverages "STATS_AVERAGES", Totals "TOTALS", Users "USERS", Version "VERSION",
    Certificates "CERTIFICATES", Pins "PINS", Prepared "PREPARED", PreparedStatements "PREPARED_STATEMENTS",
    Topology "TOPOLOGY", Transactions "TRANSACTIONS", Waiters "WAITERS",
}

/// The commands that are no SHOW and no SET.
const WORDS: [&str; 12] = [
    "DISABLE",
    "ENABLE",
    "KILL",
    "KILL_CLIENT",
    "PAUSE",
    "RECONNECT",
    "RELOAD",
    "RESUME",
    "SET",
    "SHUTDOWN",
    "SUSPEND",
    "WAIT_CLOSE",
];

/// What drivers say, and the tag that answers it.
const NOTHING: [(&str, &str); 9] = [
    ("BEGIN", "BEGIN"),
    ("START", "START TRANSACTION"),
    ("COMMIT", "COMMIT"),
    ("END", "COMMIT"),
    ("ROLLBACK", "ROLLBACK"),
    ("DISCARD", "DISCARD ALL"),
    ("DEALLOCATE", "DEALLOCATE"),
    ("RESET", "RESET"),
    ("UNLISTEN", "UNLISTEN"),
];

/// Reads commands, which semicolons separate; case and white space do not matter.
pub(super) fn parse(text: &str) -> Result<Vec<Command>, UnknownCommand> {
    let tokens = tokens(text);
    tokens
        .split(|token| *token == Token::End)
        .filter(|tokens| !tokens.is_empty())
        .map(|tokens| command(tokens, text))
        .collect()
}

fn command(tokens: &[Token], text: &str) -> Result<Command, UnknownCommand> {
    let unknown = |near: Option<String>| UnknownCommand::Word {
        text: text.trim().trim_end_matches(';').trim_end().to_owned(),
        near,
    };
    let (first, rest) = tokens.split_first().ok_or_else(|| unknown(None))?;
    let word = first.word().ok_or_else(|| unknown(None))?;
    if let Some((_, tag)) = NOTHING.iter().find(|(nothing, _)| first.is(nothing)) {
        return Ok(Command::Nothing(tag));
    }
    // PgBouncer takes SELECT for SHOW.
    if first.is("SHOW") || first.is("SELECT") {
        return show(rest).ok_or_else(|| unknown(nearest_topic(rest)));
    }
    if first.is("SET") {
        return set(rest);
    }
    let database = || optional(rest);
    let required = || optional(rest)?.ok_or(UnknownCommand::Arguments("a database is required"));
    let none = |command: Command| match rest {
        [] => Ok(command),
        _ => Err(UnknownCommand::Arguments("nothing may follow this command")),
    };
    match word.to_ascii_uppercase().as_str() {
        "PAUSE" => Ok(Command::Pause(database()?)),
        "RESUME" => Ok(Command::Resume(database()?)),
        "RECONNECT" => Ok(Command::Reconnect(database()?)),
        "KILL" => Ok(Command::Kill(database()?)),
        "KILL_CLIENT" => kill_client(rest),
        "DISABLE" => Ok(Command::Disable(required()?)),
        "ENABLE" => Ok(Command::Enable(required()?)),
        "WAIT_CLOSE" => Ok(Command::WaitClose(database()?)),
        "SUSPEND" => none(Command::Suspend),
        "RELOAD" => none(Command::Reload),
        "SHUTDOWN" => shutdown(rest),
        _ => Err(unknown(
            nearest(&word.to_ascii_uppercase(), WORDS.into_iter().chain(["SHOW"])).map(str::to_owned),
        )),
    }
}

fn optional(rest: &[Token]) -> Result<Option<String>, UnknownCommand> {
    match rest {
        [] => Ok(None),
        [name] => Ok(name.word().map(str::to_owned)),
        _ => Err(UnknownCommand::Arguments("one database, or none")),
    }
}

fn show(rest: &[Token]) -> Option<Command> {
    let words: Option<Vec<_>> = rest.iter().map(Token::word).collect();
    let word = match words?[..] {
        [word] => word.to_owned(),
        // As drivers ask after it.
        [first, "isolation", "level"] if first.eq_ignore_ascii_case("transaction") => {
            "transaction_isolation".to_owned()
        }
        _ => return None,
    };
    let topic = Topic::ALL
        .iter()
        .find(|(known, _)| word.eq_ignore_ascii_case(known));
    match topic {
        Some((_, topic)) => Some(Command::Show(*topic)),
        // A setting's name is in lower case, or has a dot in it.
        None => Some(Command::ShowSetting(word)),
    }
}

/// What was probably meant by a SHOW of something that there is not.
pub(super) fn near_topic(word: &str) -> Option<String> {
    let topics = Topic::ALL.iter().map(|(word, _)| *word);
    nearest(&word.to_ascii_uppercase(), topics).map(|topic| format!("SHOW {topic}"))
}

fn nearest_topic(rest: &[Token]) -> Option<String> {
    near_topic(rest.first()?.word()?)
}

fn set(rest: &[Token]) -> Result<Command, UnknownCommand> {
    let wrong = UnknownCommand::Arguments("SET name = value");
    let rest = match rest {
        [scope, rest @ ..] if (scope.is("SESSION") || scope.is("LOCAL")) && rest.len() > 1 => rest,
        _ => rest,
    };
    // SET TIME ZONE 'UTC', SET SESSION CHARACTERISTICS AS TRANSACTION ..., SET NAMES
    if let [first, ..] = rest
        && ["TIME", "CHARACTERISTICS", "TRANSACTION", "NAMES"]
            .iter()
            .any(|word| first.is(word))
    {
        return Ok(Command::Nothing("SET"));
    }
    let (name, values) = match rest {
        [name, Token::Equals, values @ ..] => (name, values),
        [name, to, values @ ..] if to.is("TO") => (name, values),
        _ => return Err(wrong),
    };
    let words: Option<Vec<_>> = values.iter().map(Token::word).collect();
    match (name.word(), words) {
        (Some(name), Some(words)) if !words.is_empty() => Ok(Command::Set {
            name: name.to_owned(),
            value: words.join(" "),
        }),
        _ => Err(wrong),
    }
}

fn kill_client(rest: &[Token]) -> Result<Command, UnknownCommand> {
    let id = match rest {
        [id] => id
            .word()
            .and_then(|word| word.trim_start_matches(['C', 'c']).parse().ok()),
        _ => None,
    };
    id.map(Command::KillClient).ok_or(UnknownCommand::Arguments(
        "the id of a client, as SHOW CLIENTS shows it",
    ))
}

fn shutdown(rest: &[Token]) -> Result<Command, UnknownCommand> {
    let how = match rest {
        [] => Some(Shutdown::Immediate),
        [how] if how.is("WAIT_FOR_SERVERS") => Some(Shutdown::WaitForServers),
        [how] if how.is("WAIT_FOR_CLIENTS") => Some(Shutdown::WaitForClients),
        _ => None,
    };
    how.map(Command::Shutdown).ok_or(UnknownCommand::Arguments(
        "WAIT_FOR_SERVERS or WAIT_FOR_CLIENTS, or nothing",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Command {
        let mut commands = parse(text).unwrap();
        assert_eq!(commands.len(), 1, "{text}");
        commands.remove(0)
    }

    #[test]
    fn commands_are_read_as_people_type_them() {
        assert_eq!(one(" show\tpools ; "), Command::Show(Topic::Pools));
        assert_eq!(one("SELECT Version"), Command::Show(Topic::Version));
        assert_eq!(one("pause"), Command::Pause(None));
        assert_eq!(one("PAUSE \"My db\";"), Command::Pause(Some("My db".to_owned())));
        assert_eq!(one("kill_client C12"), Command::KillClient(12));
        assert_eq!(
            one("shutdown wait_for_clients"),
            Command::Shutdown(Shutdown::WaitForClients)
        );
        assert_eq!(parse(" ; "), Ok(Vec::new()));
        assert_eq!(parse("pause a; resume a").map(|all| all.len()), Ok(2));
    }

    #[test]
    fn what_drivers_say_is_understood() {
        let set = |name: &str, value: &str| Command::Set {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        assert_eq!(one("SET extra_float_digits = 3"), set("extra_float_digits", "3"));
        assert_eq!(one("SET datestyle TO 'ISO'"), set("datestyle", "ISO"));
        assert_eq!(one("set session x='a b'"), set("x", "a b"));
        assert_eq!(one("set time zone 'UTC'"), Command::Nothing("SET"));
        assert_eq!(one("BEGIN"), Command::Nothing("BEGIN"));
        assert_eq!(
            one("SHOW client_encoding"),
            Command::ShowSetting("client_encoding".to_owned())
        );
    }

    #[test]
    fn what_was_probably_meant_is_said() {
        let near = |text| match parse(text) {
            Err(UnknownCommand::Word { near, .. }) => near,
            other => panic!("{other:?}"),
        };
        assert_eq!(near("puase db").as_deref(), Some("PAUSE"));
        assert_eq!(near("show pols x").as_deref(), Some("SHOW POOLS"));
        assert_eq!(near("frobnicate"), None);
        for wrong in [
            "disable",
            "suspend now",
            "kill a b",
            "kill_client x",
            "set x",
            "shutdown soon",
        ] {
            assert!(
                matches!(parse(wrong), Err(UnknownCommand::Arguments(_))),
                "{wrong}"
            );
        }
    }
}
