//! What the pooler says to a client in its own name, built with pgwire's messages.

use bytes::{BufMut, Bytes, BytesMut};
use pgwire::messages::{
    Message,
    data::{FieldDescription, RowDescription},
    response::{
        CommandComplete, EmptyQueryResponse, ErrorResponse, NoticeResponse, ReadyForQuery, TransactionStatus,
    },
    startup::{Authentication, NegotiateProtocolVersion},
};

use super::{backend, backend::ServerError, startup::NEWEST_MINOR};
use crate::{
    fault::{Fault, SqlState},
    types::BackendKey,
};

/// How an error ends: `ERROR` and the session goes on, `FATAL` and it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The session ends.
    Fatal,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

/// Appends a NoticeResponse, which may stand between any two messages.
pub fn notice(message: &str, detail: Option<&str>, out: &mut BytesMut) {
    let fields = fields(
        "NOTICE",
        SqlState::SUCCESSFUL_COMPLETION,
        message,
        [(b'D', detail)],
    );
    encode(&NoticeResponse::new(fields), out);
}

/// Appends the ErrorResponse for a fault.
pub fn error(severity: Severity, fault: &dyn Fault, out: &mut BytesMut) {
    let detail = fault.detail();
    let hint = fault.hint();
    error_fields(
        severity,
        fault.sqlstate(),
        &fault.client_message(),
        [(b'D', detail.as_deref()), (b'H', hint.as_deref())],
        out,
    );
}

/// Appends an ErrorResponse in the words of a server.
pub fn server_error(severity: Severity, error: &ServerError, out: &mut BytesMut) {
    let more = [(b'D', error.detail.as_deref()), (b'H', error.hint.as_deref())];
    let code = error.code.unwrap_or(SqlState::CONNECTION_FAILURE);
    error_fields(severity, code, &error.message, more, out);
}

fn error_fields(
    severity: Severity,
    code: SqlState,
    message: &str,
    more: [(u8, Option<&str>); 2],
    out: &mut BytesMut,
) {
    encode(
        &ErrorResponse::new(fields(severity.as_str(), code, message, more)),
        out,
    );
}

fn fields<const N: usize>(
    severity: &str,
    code: SqlState,
    message: &str,
    more: [(u8, Option<&str>); N],
) -> Vec<(u8, String)> {
    let mut fields = vec![
        (b'S', severity.to_owned()),
        (b'V', severity.to_owned()),
        (b'C', code.as_str().to_owned()),
        (b'M', message.replace('\0', "")),
    ];
    fields.extend(
        more.into_iter()
            .filter_map(|(field, text)| Some((field, text?.replace('\0', "")))),
    );
    fields
}

/// The ErrorResponse with this body, and `to` wherever `from` stands in it.
pub fn with_replaced(body: &[u8], from: &[u8], to: &[u8]) -> BytesMut {
    let (mut replaced, mut rest) = (BytesMut::new(), body);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(from).filter(|_| !from.is_empty()) {
            replaced.put_slice(to);
            rest = after;
        } else {
            let (one, after) = rest.split_at(1);
            replaced.put_slice(one);
            rest = after;
        }
    }
    let mut out = BytesMut::new();
    super::frontend::message(backend::tag::ERROR_RESPONSE, &[&replaced], &mut out);
    out
}

/// PostgreSQL's refusal to carry out a prepared statement whose rows have come to look different. Drivers go by the code
/// and the name of the routine (`R`) and prepare it again.
pub fn result_type_changed() -> BytesMut {
    let mut fields = fields(
        Severity::Error.as_str(),
        SqlState::FEATURE_NOT_SUPPORTED,
        "cached plan must not change result type",
        [],
    );
    fields.push((b'R', "RevalidateCachedQuery".to_owned()));
    let mut out = BytesMut::new();
    encode(&ErrorResponse::new(fields), &mut out);
    out
}

/// Appends AuthenticationOk.
pub fn authentication_ok(out: &mut BytesMut) {
    encode(&Authentication::Ok, out);
}

/// Appends AuthenticationCleartextPassword.
pub fn authentication_cleartext(out: &mut BytesMut) {
    encode(&Authentication::CleartextPassword, out);
}

/// Appends AuthenticationMD5Password.
pub fn authentication_md5(salt: [u8; 4], out: &mut BytesMut) {
    encode(&Authentication::MD5Password(salt.to_vec()), out);
}

/// Appends AuthenticationSASL.
pub fn authentication_sasl(mechanisms: &[&str], out: &mut BytesMut) {
    encode(
        &Authentication::SASL(mechanisms.iter().map(|&name| name.to_owned()).collect()),
        out,
    );
}

/// Appends AuthenticationSASLContinue.
pub fn authentication_sasl_continue(data: &[u8], out: &mut BytesMut) {
    encode(&Authentication::SASLContinue(Bytes::copy_from_slice(data)), out);
}

/// Appends AuthenticationSASLFinal.
pub fn authentication_sasl_final(data: &[u8], out: &mut BytesMut) {
    encode(&Authentication::SASLFinal(Bytes::copy_from_slice(data)), out);
}

/// Appends NegotiateProtocolVersion: the version that is spoken from here on (the whole number, as PostgreSQL
/// 18 says it) and the options that are not known. A client that asked for less than there is keeps what it
/// asked for: libpq gives up when it is offered more.
pub fn negotiate_protocol_version(asked_minor: u16, unknown: &[String], out: &mut BytesMut) {
    let version = (3 << 16) | i32::from(asked_minor.min(NEWEST_MINOR));
    encode(&NegotiateProtocolVersion::new(version, unknown.to_vec()), out);
}

/// Appends BackendKeyData.
pub fn backend_key_data(key: &BackendKey, out: &mut BytesMut) {
    out.put_u8(backend::tag::BACKEND_KEY_DATA);
    let length = 4 + 4 + key.secret.len();
    out.put_u32(u32::try_from(length).unwrap_or(super::frame::MAX_LENGTH));
    out.put_i32(key.pid);
    out.put_slice(&key.secret);
}

/// Appends a ParameterStatus. Values are bytes: they are in the client's encoding.
pub fn parameter_status(name: &str, value: &[u8], out: &mut BytesMut) {
    out.put_u8(backend::tag::PARAMETER_STATUS);
    let length = 4 + name.len() + 1 + value.len() + 1;
    out.put_u32(u32::try_from(length).unwrap_or(super::frame::MAX_LENGTH));
    for text in [name.as_bytes(), value] {
        out.put_slice(text);
        out.put_u8(0);
    }
}

/// Appends ReadyForQuery, idle.
pub fn ready_for_query(out: &mut BytesMut) {
    encode(&ReadyForQuery::new(TransactionStatus::Idle), out);
}

/// Appends ReadyForQuery with this status.
pub fn ready_in(status: backend::TransactionStatus, out: &mut BytesMut) {
    let status = match status {
        backend::TransactionStatus::Idle => TransactionStatus::Idle,
        backend::TransactionStatus::InBlock => TransactionStatus::Transaction,
        backend::TransactionStatus::Failed => TransactionStatus::Error,
    };
    encode(&ReadyForQuery::new(status), out);
}

/// Appends EmptyQueryResponse.
pub fn empty_query_response(out: &mut BytesMut) {
    encode(&EmptyQueryResponse::new(), out);
}

/// Appends CommandComplete.
pub fn command_complete(tag: &str, out: &mut BytesMut) {
    encode(&CommandComplete::new(tag.to_owned()), out);
}

/// Appends the RowDescription of one column of type `boolean`.
pub fn bool_column(name: &str, binary: bool, out: &mut BytesMut) {
    const BOOL: u32 = 16;
    let field = FieldDescription::new(name.to_owned(), 0, 0, BOOL, 1, -1, i16::from(binary));
    encode(&RowDescription::new(vec![field]), out);
}

/// pgwire refuses only what is larger than a gigabyte or a cancel key out of range; neither is built here.
fn encode(message: &impl Message, out: &mut BytesMut) {
    let start = out.len();
    if message.encode(out).is_err() {
        out.truncate(start);
    }
}
