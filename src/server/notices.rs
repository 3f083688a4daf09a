//! What a server says beside the answer when somebody logs in: NOTICEs and WARNINGs for the client to read.
//!
//! It knows no connection; whoever reads messages brings those that are notices.

use bytes::BytesMut;

use crate::wire::{
    backend::{ServerError, tag},
    frontend,
};

/// The most that is kept: what a log-in trigger says without end is not worth remembering.
const KEPT: usize = 16 * 1024;

/// NoticeResponse messages as they came, up to 16 kB of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notices(Vec<Box<[u8]>>);

impl Notices {
    /// Keeps the body of a NoticeResponse.
    pub(super) fn push(&mut self, body: &[u8]) {
        let kept: usize = self.0.iter().map(|body| body.len()).sum();
        if kept + body.len() <= KEPT {
            self.0.push(body.into());
        }
    }

    /// Appends those that a client with this `client_min_messages` is told; `None` is PostgreSQL's default.
    pub fn write(&self, client_min_messages: Option<&[u8]>, out: &mut BytesMut) {
        let least = client_min_messages.map_or(Level::Notice, Level::least);
        for body in &self.0 {
            if Level::of(&ServerError::decode(body)) >= least {
                frontend::message(tag::NOTICE_RESPONSE, &[body], out);
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Debug,
    Log,
    Notice,
    Warning,
    Error,
    /// INFO is shown whatever is asked for.
    Info,
}

impl Level {
    /// Of a message.
    fn of(notice: &ServerError) -> Self {
        match notice.severity.as_str() {
            "DEBUG" => Self::Debug,
            "LOG" => Self::Log,
            "NOTICE" => Self::Notice,
            "WARNING" => Self::Warning,
            _ => Self::Info,
        }
    }

    /// That a client wants at least.
    fn least(setting: &[u8]) -> Self {
        match setting.to_ascii_lowercase().as_slice() {
            b"log" => Self::Log,
            b"notice" => Self::Notice,
            b"warning" => Self::Warning,
            b"error" | b"fatal" | b"panic" => Self::Error,
            _ => Self::Debug,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(notices: &Notices, level: Option<&[u8]>) -> Vec<u8> {
        let mut out = BytesMut::new();
        notices.write(level, &mut out);
        out.to_vec()
    }

    #[test]
    fn a_client_is_told_what_it_wants_to_hear() {
        let mut notices = Notices::default();
        for body in [
            b"VNOTICE\0Mn\0\0".as_slice(),
            b"VWARNING\0Mw\0\0",
            b"VINFO\0Mi\0\0",
        ] {
            notices.push(body);
        }
        let all = written(&notices, None);
        assert!(all.starts_with(b"N\0\0\0\x10VNOTICE\0Mn\0\0N\0\0\0"), "{all:?}");
        assert_eq!(written(&notices, Some(b"debug1")), all);
        assert_eq!(written(&notices, Some(b"Notice")), all);
        let warnings = written(&notices, Some(b"warning"));
        assert!(warnings.len() < all.len() && !warnings.windows(6).any(|text| text == b"NOTICE"));
        let info = written(&notices, Some(b"error"));
        assert!(info.windows(4).any(|text| text == b"INFO") && info.len() < warnings.len());
    }

    #[test]
    fn what_has_no_end_is_not_kept() {
        let mut notices = Notices::default();
        for _ in 0..100 {
            notices.push(&[b'x'; 1000]);
        }
        assert!(written(&notices, None).len() <= KEPT + 16 * 5);
    }
}
