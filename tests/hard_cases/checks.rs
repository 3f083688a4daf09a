//! What several of these tests look at.

use crate::support::{Frame, Pooler, RawClient, eventually, frames};

/// A client of the pool that the harness configures.
pub(crate) fn log_in(pooler: &Pooler) -> RawClient {
    RawClient::log_in(pooler.address(), "app", "secret", "app")
}

/// A client that has said who it is and has heard nothing yet; `settings` go into its startup packet.
pub(crate) fn knock(pooler: &Pooler, settings: &[(&str, &str)]) -> RawClient {
    let mut client = RawClient::connect(pooler.address());
    let all = [&[("user", "app"), ("database", "app")], settings].concat();
    client.send(frames::startup(frames::PROTOCOL_3_0, &all));
    client
}

/// Field of an error.
#[track_caller]
pub(crate) fn field(message: &Frame, code: u8) -> String {
    assert_eq!(message.tag, b'E', "{message:?}");
    message.field(code).unwrap_or_default()
}

#[track_caller]
pub(crate) fn assert_error(message: &Frame, severity: &str, sqlstate: &str) {
    assert_eq!(
        (field(message, b'V').as_str(), field(message, b'C').as_str()),
        (severity, sqlstate),
        "{message:?}"
    );
}

/// The only error among these messages.
#[track_caller]
pub(crate) fn only_error(messages: &[Frame]) -> &Frame {
    let errors: Vec<_> = messages.iter().filter(|message| message.tag == b'E').collect();
    match errors[..] {
        [error] => error,
        _ => panic!("not exactly one error: {messages:?}"),
    }
}

#[track_caller]
pub(crate) fn wait_for_metric(pooler: &Pooler, sample: &str, expected: f64) {
    eventually(&format!("{sample} is {expected}"), || {
        (pooler.metric(sample) - expected).abs() < 1e-9
    });
}

/// Nobody is connected, and nothing is lent or under way.
#[track_caller]
pub(crate) fn assert_settled(pooler: &Pooler) {
    wait_for_metric(pooler, "pgweir_clients", 0.0);
    pooler.wait_until_quiet();
}

/// A log-in that is refused; what was said, once and last.
pub(crate) fn refused_log_in(pooler: &Pooler, settings: &[(&str, &str)]) -> Frame {
    let messages = knock(pooler, settings).read_to_end();
    assert_eq!(
        messages.last().map(|message| message.tag),
        Some(b'E'),
        "{messages:?}"
    );
    only_error(&messages).clone()
}
