//! What a server says: type bytes, and checked readings of the few bodies that the pooler looks into.

use super::reader::{Malformed, Reader};
use crate::fault::SqlState;

/// Type bytes of backend messages ("Message Formats").
pub mod tag {
    #![allow(missing_docs, reason = "each constant is the message of that name")]
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY_DATA: u8 = b'K';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_IN_RESPONSE: u8 = b'G';
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub const ERROR_RESPONSE: u8 = b'E';
    pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub const NO_DATA: u8 = b'n';
    pub const NOTICE_RESPONSE: u8 = b'N';
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const PORTAL_SUSPENDED: u8 = b's';
    pub const READY_FOR_QUERY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// ParseComplete, whole.
pub const PARSE_COMPLETE: [u8; 5] = [tag::PARSE_COMPLETE, 0, 0, 0, 4];
/// BindComplete, whole.
pub const BIND_COMPLETE: [u8; 5] = [tag::BIND_COMPLETE, 0, 0, 0, 4];
/// CloseComplete, whole.
pub const CLOSE_COMPLETE: [u8; 5] = [tag::CLOSE_COMPLETE, 0, 0, 0, 4];

/// The transaction status in ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransactionStatus {
    /// `I`: not in a transaction block.
    #[default]
    Idle,
    /// `T`: in a transaction block.
    InBlock,
    /// `E`: in a failed transaction block.
    Failed,
}

impl TransactionStatus {
    /// The status in the body of a ReadyForQuery.
    ///
    /// # Errors
    /// A body that is not one of the three letters.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        match body {
            b"I" => Ok(Self::Idle),
            b"T" => Ok(Self::InBlock),
            b"E" => Ok(Self::Failed),
            _ => Err(Malformed),
        }
    }
}

/// Name and value in the body of a ParameterStatus.
///
/// # Errors
/// A string without its end.
pub fn parameter_status(body: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut reader = Reader::new(body);
    Ok((reader.cstring()?, reader.cstring()?))
}

/// Process id and secret in the body of a BackendKeyData.
///
/// # Errors
/// A body that is too short.
pub fn backend_key_data(body: &[u8]) -> Result<(i32, &[u8]), Malformed> {
    let mut reader = Reader::new(body);
    let pid = reader.int32()?;
    if reader.is_empty() {
        Err(Malformed)
    } else {
        Ok((pid, reader.rest()))
    }
}

/// What an ErrorResponse says, as far as the pooler acts on it. Missing fields are no error (CVE-2026-6666).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerError {
    /// Field `V`, or `S` from servers that do not send it: `ERROR`, `FATAL` or `PANIC`.
    pub severity: String,
    /// Field `C`.
    pub code: Option<SqlState>,
    /// Field `M`.
    pub message: String,
    /// Field `D`.
    pub detail: Option<String>,
    /// Field `H`.
    pub hint: Option<String>,
}

impl ServerError {
    /// Reads the body of an ErrorResponse or NoticeResponse.
    pub fn decode(body: &[u8]) -> Self {
        let (mut error, mut reader) = (Self::default(), Reader::new(body));
        while let Ok(field) = reader.byte() {
            let Ok(value) = reader.cstring() else { break };
            let text = || String::from_utf8_lossy(value).into_owned();
            match field {
                b'V' => error.severity = text(),
                b'S' if error.severity.is_empty() => error.severity = text(),
                b'C' => error.code = value.try_into().ok().map(SqlState),
                b'M' => error.message = text(),
                b'D' => error.detail = Some(text()),
                b'H' => error.hint = Some(text()),
                _ => {}
            }
        }
        error
    }

    /// Whether the server ends the connection after this error.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.message)?;
        self.code.map_or(Ok(()), |code| write!(f, " (SQLSTATE {code})"))
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use crate::{types::BackendKey, wire::reply};

    #[test]
    fn an_error_is_read_whatever_fields_it_has() {
        let error = ServerError::decode(b"SFATALISCH\0VFATAL\0C57P01\0Mterminating\0Hwait\0\0");
        assert_eq!(
            (error.severity.as_str(), error.message.as_str()),
            ("FATAL", "terminating")
        );
        assert_eq!(error.code, Some(SqlState::ADMIN_SHUTDOWN));
        assert!(error.is_fatal());
        assert_eq!(ServerError::decode(b"\0"), ServerError::default());
        assert_eq!(ServerError::decode(b"C123\0\0").code, None);
    }

    proptest! {
        #[test]
        fn a_cancel_key_is_read_as_it_was_told(pid in 1.., secret in prop::collection::vec(any::<u8>(), 1..256)) {
            let key = BackendKey { pid, secret: secret.into() };
            let mut out = BytesMut::from(&b"before"[..]);
            reply::backend_key_data(&key, &mut out);
            let message = out.split_off(6);
            prop_assert_eq!(message[0], tag::BACKEND_KEY_DATA);
            prop_assert_eq!(usize::try_from(i32::from_be_bytes(message[1..5].try_into().unwrap())).unwrap(), message.len() - 1);
            prop_assert_eq!(backend_key_data(&message[5..]).unwrap(), (pid, &*key.secret));
        }

        #[test]
        fn arbitrary_bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ServerError::decode(&body);
            let _ = parameter_status(&body);
            let _ = backend_key_data(&body);
            let _ = TransactionStatus::decode(&body);
        }
    }
}
