//! What an error means to the person who sees it: whose fault, which SQLSTATE, which words.
//!
//! It knows no concrete error; each layer implements [`Fault`] for its own.

use std::{borrow::Cow, fmt};

/// Who has to act. It is also the `blame` label of the error metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The client sent something wrong.
    Client,
    /// The PostgreSQL server failed or refused.
    Server,
    /// A limit or a fault of pgweir itself.
    Pooler,
}

impl Blame {
    /// All of them, in their order.
    pub const ALL: [Self; 3] = [Self::Client, Self::Server, Self::Pooler];

    /// The word used in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Pooler => "pooler",
        }
    }
}

/// Five characters of PostgreSQL's appendix A, "PostgreSQL Error Codes".
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState(pub [u8; 5]);

impl SqlState {
    /// `00000` successful_completion
    pub const SUCCESSFUL_COMPLETION: Self = Self(*b"00000");
    /// `08000` connection_exception
    pub const CONNECTION_EXCEPTION: Self = Self(*b"08000");
    /// `08006` connection_failure
    pub const CONNECTION_FAILURE: Self = Self(*b"08006");
    /// `08P01` protocol_violation
    pub const PROTOCOL_VIOLATION: Self = Self(*b"08P01");
    /// `0A000` feature_not_supported
    pub const FEATURE_NOT_SUPPORTED: Self = Self(*b"0A000");
    /// `22023` invalid_parameter_value
    pub const INVALID_PARAMETER_VALUE: Self = Self(*b"22023");
    /// `25006` read_only_sql_transaction
    pub const READ_ONLY_SQL_TRANSACTION: Self = Self(*b"25006");
    /// `25P03` idle_in_transaction_session_timeout
    pub const IDLE_IN_TRANSACTION_TIMEOUT: Self = Self(*b"25P03");
    /// `25P04` transaction_timeout
    pub const TRANSACTION_TIMEOUT: Self = Self(*b"25P04");
    /// `26000` invalid_sql_statement_name
    pub const INVALID_SQL_STATEMENT_NAME: Self = Self(*b"26000");
    /// `28000` invalid_authorization_specification
    pub const INVALID_AUTHORIZATION: Self = Self(*b"28000");
    /// `28P01` invalid_password
    pub const INVALID_PASSWORD: Self = Self(*b"28P01");
    /// `34000` invalid_cursor_name
    pub const INVALID_CURSOR_NAME: Self = Self(*b"34000");
    /// `3D000` invalid_catalog_name
    pub const INVALID_CATALOG_NAME: Self = Self(*b"3D000");
    /// `42501` insufficient_privilege
    pub const INSUFFICIENT_PRIVILEGE: Self = Self(*b"42501");
    /// `42601` syntax_error
    pub const SYNTAX_ERROR: Self = Self(*b"42601");
    /// `42704` undefined_object
    pub const UNDEFINED_OBJECT: Self = Self(*b"42704");
    /// `42P05` duplicate_prepared_statement
    pub const DUPLICATE_PREPARED_STATEMENT: Self = Self(*b"42P05");
    /// `53200` out_of_memory
    pub const OUT_OF_MEMORY: Self = Self(*b"53200");
    /// `53300` too_many_connections
    pub const TOO_MANY_CONNECTIONS: Self = Self(*b"53300");
    /// `54000` program_limit_exceeded
    pub const PROGRAM_LIMIT_EXCEEDED: Self = Self(*b"54000");
    /// `55000` object_not_in_prerequisite_state
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: Self = Self(*b"55000");
    /// `55P02` cant_change_runtime_param
    pub const CANT_CHANGE_RUNTIME_PARAM: Self = Self(*b"55P02");
    /// `57014` query_canceled
    pub const QUERY_CANCELED: Self = Self(*b"57014");
    /// `57P01` admin_shutdown
    pub const ADMIN_SHUTDOWN: Self = Self(*b"57P01");
    /// `57P02` crash_shutdown
    pub const CRASH_SHUTDOWN: Self = Self(*b"57P02");
    /// `57P03` cannot_connect_now
    pub const CANNOT_CONNECT_NOW: Self = Self(*b"57P03");
    /// `57P05` idle_session_timeout
    pub const IDLE_SESSION_TIMEOUT: Self = Self(*b"57P05");
    /// `58000` system_error
    pub const SYSTEM_ERROR: Self = Self(*b"58000");
    /// `F0000` config_file_error
    pub const CONFIG_FILE_ERROR: Self = Self(*b"F0000");
    /// `XX000` internal_error
    pub const INTERNAL_ERROR: Self = Self(*b"XX000");

    /// The code as text; `?????` for bytes that no server sends.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("?????")
    }

    /// The first two characters, PostgreSQL's error class.
    pub fn class(&self) -> &str {
        self.as_str().get(..2).unwrap_or("??")
    }
}

impl SqlState {
    /// Who has to act when a server has raised this: its own trouble is its own, anything else is about what it was asked.
    pub fn blame_of_server(&self) -> Blame {
        match (self.class(), *self) {
            (_, Self::QUERY_CANCELED) => Blame::Client,
            ("08" | "53" | "57" | "58" | "72" | "F0" | "XX", _) => Blame::Server,
            _ => Blame::Client,
        }
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error and everything that caused it, on one line, for logs and people at a terminal. A cause whose words
/// the error itself repeats is left out.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// An error that may reach a client. What it returns is safe to show: no secret, no address that the
/// client could not know, no cause chain.
pub trait Fault: std::error::Error {
    /// Who has to act.
    fn blame(&self) -> Blame;
    /// The code that the client's driver decides on.
    fn sqlstate(&self) -> SqlState;
    /// PostgreSQL's primary message: one line, lowercase, no full stop.
    fn client_message(&self) -> Cow<'_, str>;
    /// PostgreSQL's DETAIL, where there is more to know.
    fn detail(&self) -> Option<Cow<'_, str>> {
        None
    }
    /// PostgreSQL's HINT: what to do about it.
    fn hint(&self) -> Option<Cow<'_, str>> {
        None
    }
}
