//! `[tcp]`: options of the sockets on both sides.
//!
//! It touches no socket.

use std::{ops::RangeInclusive, time::Duration};

use crate::config::{
    reader::Table,
    settings::{Tcp, TcpSides},
};

/// What Linux takes (`MAX_TCP_KEEPIDLE`, `MAX_TCP_KEEPINTVL`, `MAX_TCP_KEEPCNT`).
const SECONDS: RangeInclusive<u64> = 1..=32_767;
const MOST_PROBES: i64 = 127;
/// Beyond this a buffer is a mistake; the kernel has a limit of its own, `net.core.rmem_max`.
const LARGEST_BUFFER: u64 = 1 << 30;

pub(super) fn tcp(table: &Table<'_>) -> TcpSides {
    let keepalive = table.flag("tcp_keepalive");
    let (keepidle, keepintvl) = (seconds(table, "tcp_keepidle"), seconds(table, "tcp_keepintvl"));
    let keepcnt = table.number("tcp_keepcnt", 1..=MOST_PROBES);
    let user_timeout = table.duration("tcp_user_timeout");
    let socket_buffer = table
        .size("tcp_socket_buffer", 0..=LARGEST_BUFFER)
        .and_then(|bytes| usize::try_from(bytes).ok());
    let side = |default: Tcp| Tcp {
        keepalive: keepalive.unwrap_or(default.keepalive),
        keepidle: keepidle.unwrap_or(default.keepidle),
        keepintvl: keepintvl.unwrap_or(default.keepintvl),
        keepcnt: keepcnt.unwrap_or(default.keepcnt),
        user_timeout: user_timeout.unwrap_or(default.user_timeout),
        socket_buffer: socket_buffer.unwrap_or(default.socket_buffer),
    };
    let default = TcpSides::default();
    TcpSides {
        clients: side(default.clients),
        servers: side(default.servers),
    }
}

/// A duration that the kernel counts in seconds.
fn seconds(table: &Table<'_>, key: &str) -> Option<Duration> {
    let duration = table.duration(key)?;
    if duration.subsec_nanos() == 0 && SECONDS.contains(&duration.as_secs()) {
        return Some(duration);
    }
    let message = format!(
        "must be whole seconds, from {}s to {}s",
        SECONDS.start(),
        SECONDS.end()
    );
    table.problem(key, message, None);
    None
}
