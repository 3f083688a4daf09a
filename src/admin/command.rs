//! What may be said to the console.

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// Nothing: an empty query.
    Empty,
    /// `SHOW topic`
    Show(Topic),
}

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    Help,
    Clients,
    Lists,
    Pools,
    PreparedStatements,
    Topology,
    Version,
}

/// Something that is not a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown command: {0}")]
pub(super) struct UnknownCommand(String);

impl Topic {
    pub(super) const ALL: [Self; 7] = [
        Self::Help,
        Self::Clients,
        Self::Lists,
        Self::Pools,
        Self::PreparedStatements,
        Self::Topology,
        Self::Version,
    ];

    /// The word after SHOW.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Help => "HELP",
            Self::Clients => "CLIENTS",
            Self::Lists => "LISTS",
            Self::Pools => "POOLS",
            Self::PreparedStatements => "PREPARED_STATEMENTS",
            Self::Topology => "TOPOLOGY",
            Self::Version => "VERSION",
        }
    }
}

/// Reads one command; case and white space do not matter, nor does a semicolon at the end.
pub(super) fn parse(sql: &str) -> Result<Command, UnknownCommand> {
    let text = sql.trim().trim_end_matches(';').trim_end();
    let words: Vec<_> = text.split_whitespace().collect();
    match words[..] {
        [] => Ok(Command::Empty),
        [show, topic] if show.eq_ignore_ascii_case("show") => Topic::ALL
            .into_iter()
            .find(|known| topic.eq_ignore_ascii_case(known.word()))
            .map(Command::Show)
            .ok_or_else(|| UnknownCommand(text.to_owned())),
        _ => Err(UnknownCommand(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_people_type_them() {
        assert_eq!(parse(" show\tpools ; "), Ok(Command::Show(Topic::Pools)));
        assert_eq!(parse("SHOW Version"), Ok(Command::Show(Topic::Version)));
        assert_eq!(parse(" ; "), Ok(Command::Empty));
        for wrong in ["show", "show tables", "select 1", "show pools; show pools"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
