//! Whether a server is a primary or a standby: what it reports, and what it says when it is asked.

use std::str::FromStr;

use super::Candidates;
use crate::{
    server::{
        connection::Connection,
        error::ConnectError,
        settle::{SettleError, first_columns},
    },
    topology::{Observation, Seen, Timeline, TimelineAsked},
    types::{Endpoint, Role},
    wire::{backend::ServerError, reader::Malformed, stream::ReadError},
};

/// Reported since PostgreSQL 14.
pub(in crate::server) const IN_HOT_STANDBY: &str = "in_hot_standby";

/// The timeline comes from the name of the file that is written now: the control file has it only after the checkpoint
/// that follows a promotion. The system's identifier tells its timelines from those of another, such as the one before
/// an upgrade. Any role may ask.
const ROLE_AND_TIMELINE: &str = "SELECT pg_catalog.pg_is_in_recovery(), \
    CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN \
    pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END, \
    (SELECT system_identifier FROM pg_catalog.pg_control_system())";
const ROLE: &str = "SELECT pg_catalog.pg_is_in_recovery()";

/// What a new connection has to show of its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Proof {
    /// Its role. It costs a round trip where the server does not report it, which servers since PostgreSQL 14 do.
    #[default]
    Role,
    /// That a primary is on this timeline at least, so that one that was replaced is told from its successor. It costs
    /// a round trip.
    Timeline(TimelineAsked),
}

/// Whether a server will do for a role.
pub fn suits(role: Role, seen: Seen) -> bool {
    match role {
        Role::ReadWrite => matches!(seen, Seen::Primary { .. }),
        Role::ReadOnly => seen == Seen::Standby,
        Role::Any => true,
    }
}

/// Has the server of a new connection show what it is, and tells whoever observes.
pub(super) async fn show(
    connection: &mut Connection,
    candidates: Candidates<'_>,
) -> Result<(), ConnectError> {
    let (endpoint, role) = (connection.endpoint().clone(), candidates.role);
    let Some(seen) = look(connection, candidates).await? else {
        return Ok(());
    };
    (candidates.observe)(Observation::Opened {
        endpoint: endpoint.clone(),
        seen,
    });
    if !suits(role, seen) {
        return Err(ConnectError::WrongRole { endpoint, role });
    }
    match (candidates.proof, seen) {
        (
            Proof::Timeline(TimelineAsked {
                at_least: Some(newest),
            }),
            Seen::Primary {
                timeline: Some(timeline),
            },
        ) if timeline < newest => Err(ConnectError::Superseded {
            endpoint,
            timeline: timeline.number,
            newest: newest.number,
        }),
        _ => Ok(()),
    }
}

/// What the server is; `None` where that does not matter, or where it does not know the question.
async fn look(connection: &mut Connection, candidates: Candidates<'_>) -> Result<Option<Seen>, ConnectError> {
    let (role, proof) = (candidates.role, candidates.proof);
    let is_other = candidates
        .primary
        .is_some_and(|primary| primary != connection.endpoint());
    let reported = connection.is_standby().map(|is_standby| match is_standby {
        true => Seen::Standby,
        false => Seen::Primary { timeline: None },
    });
    let asked = match (reported, proof) {
        (Some(Seen::Standby), _) => return Ok(reported),
        // Which of the two was promoted last, only timelines tell.
        (Some(_), Proof::Role) if is_other => connection.prove_role().await,
        (Some(_), Proof::Role) => return Ok(reported),
        (None, Proof::Role) if role == Role::Any => return Ok(None),
        (None, Proof::Role) => connection.ask_role(ROLE).await,
        (_, Proof::Timeline(_)) => connection.prove_role().await,
    };
    match asked {
        Ok(seen) => Ok(Some(seen)),
        Err(SettleError::Refused(error)) if cannot_say(&error) => Ok(reported),
        // Something that answers every query in its own way.
        Err(SettleError::Malformed(_)) => Ok(reported),
        Err(error) => Err(failed(connection.endpoint(), error)),
    }
}

impl Connection {
    /// Whether the server is a standby, as it reports itself; `None` before PostgreSQL 14.
    pub fn is_standby(&self) -> Option<bool> {
        let reported = self.parameters.get(IN_HOT_STANDBY)?;
        Some(reported == "on")
    }

    /// Whether the server may have another role by now than the one that the connection was opened for: it has
    /// reported so, or has refused to write. The latter is no proof: a read-only transaction is refused in the same words.
    pub fn doubts_role(&self) -> bool {
        self.role_doubted
    }

    /// Asks the server which role it has now, and on which timeline it writes. Whether that will do ([`suits`]) is the
    /// caller's to say; there is no doubt any more. Not bounded in time.
    ///
    /// # Errors
    /// See [`SettleError`].
    pub async fn prove_role(&mut self) -> Result<Seen, SettleError> {
        let seen = match self.ask_role(ROLE_AND_TIMELINE).await {
            Err(SettleError::Refused(error)) if cannot_say(&error) => self.ask_role(ROLE).await?,
            asked => asked?,
        };
        self.role_doubted = false;
        Ok(seen)
    }

    async fn ask_role(&mut self, sql: &str) -> Result<Seen, SettleError> {
        let mut seen = None;
        self.ask(sql, |row| seen = Some(read(row))).await?;
        Ok(seen.unwrap_or(Err(Malformed))?)
    }

    /// Notes what the server has reported about its recovery.
    pub(in crate::server) fn note_recovery(&mut self, is_standby: bool) {
        self.role_doubted |= match self.target().wish.role {
            Role::ReadWrite => is_standby,
            // What has been promoted may be the new primary, and whoever hears of it first is to say so.
            Role::ReadOnly | Role::Any => !is_standby,
        };
    }

    /// Notes that the server has refused to write.
    pub(in crate::server) fn note_read_only(&mut self) {
        self.role_doubted |= self.target().wish.role == Role::ReadWrite;
    }
}

fn read(row: &[u8]) -> Result<Seen, Malformed> {
    let columns = first_columns(row)?;
    let timeline = match columns.get(1..3) {
        Some([Some(number), Some(system)]) => Some(Timeline {
            // A signed number that is meant without its sign.
            system: number_of::<i64>(system)?.cast_unsigned(),
            number: from_hex(number)?,
        }),
        _ => None,
    };
    match columns.into_iter().next().flatten().as_deref() {
        Some(b"t") => Ok(Seen::Standby),
        Some(b"f") => Ok(Seen::Primary { timeline }),
        _ => Err(Malformed),
    }
}

fn number_of<T: FromStr>(digits: &[u8]) -> Result<T, Malformed> {
    let digits = std::str::from_utf8(digits).map_err(|_| Malformed)?;
    digits.parse().map_err(|_| Malformed)
}

fn from_hex(digits: &[u8]) -> Result<u32, Malformed> {
    let digits = std::str::from_utf8(digits).map_err(|_| Malformed)?;
    u32::from_str_radix(digits, 16).map_err(|_| Malformed)
}

/// Whether the server refuses the question and not the connection: something that is like PostgreSQL and lacks the
/// functions, or that lets not everybody call them.
fn cannot_say(error: &ServerError) -> bool {
    !error.is_fatal() && error.code.is_some_and(|code| matches!(code.class(), "42" | "0A"))
}

fn failed(endpoint: &Endpoint, error: SettleError) -> ConnectError {
    match error {
        SettleError::Refused(error) => ConnectError::Server(error),
        SettleError::Closed => ConnectError::Read(ReadError::Closed),
        SettleError::Io(source) => ConnectError::Io {
            endpoint: endpoint.clone(),
            source,
        },
        SettleError::Read(error) => ConnectError::Read(error),
        SettleError::Frame(_) | SettleError::Malformed(_) => ConnectError::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: &[Option<&str>]) -> Vec<u8> {
        let mut row = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
        for column in columns {
            let length = column.map_or(-1, |value| i32::try_from(value.len()).unwrap());
            row.extend(length.to_be_bytes());
            row.extend(column.unwrap_or_default().as_bytes());
        }
        row
    }

    #[test]
    fn answers_are_read_with_and_without_a_timeline() {
        let primary = |timeline| Ok(Seen::Primary { timeline });
        let timeline = |system, number| Some(Timeline { system, number });
        assert_eq!(read(&row(&[Some("t"), None])), Ok(Seen::Standby));
        assert_eq!(
            read(&row(&[Some("f"), Some("0000001A"), Some("7435")])),
            primary(timeline(7435, 26))
        );
        assert_eq!(
            read(&row(&[Some("f"), Some("00000001"), Some("-1")])),
            primary(timeline(u64::MAX, 1))
        );
        assert_eq!(read(&row(&[Some("f")])), primary(None));
        let soon = [Some("f"), Some("soon"), Some("7435")];
        let nowhere = [Some("f"), Some("00000001"), Some("here")];
        for strange in [&[][..], &[None], &[Some("maybe")], &soon, &nowhere] {
            assert_eq!(read(&row(strange)), Err(Malformed), "{strange:?}");
        }
    }

    #[test]
    fn a_role_has_its_kind_of_server() {
        let primary = Seen::Primary { timeline: None };
        assert!(suits(Role::ReadWrite, primary) && !suits(Role::ReadWrite, Seen::Standby));
        assert!(suits(Role::ReadOnly, Seen::Standby) && !suits(Role::ReadOnly, primary));
        assert!(suits(Role::Any, primary) && suits(Role::Any, Seen::Standby));
    }
}
