//! The context that a query brings in a comment: whose span it is a part of.
//!
//! What a `traceparent` is: <https://www.w3.org/TR/trace-context/#traceparent-header>; how it stands in a comment:
//! <https://google.github.io/sqlcommenter/spec/>. No clock, no connection.

use std::fmt;

const KEY: &[u8] = b"traceparent";
/// Version, trace, span and flags with the dashes between them.
const LENGTH: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;
/// A comment that is longer is no sqlcommenter's.
const LONGEST_COMMENT: usize = 4096;
const SAMPLED: u8 = 1;

/// A place in a trace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace; never zero.
    pub trace: u128,
    /// The span; never zero.
    pub span: u64,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled) * SAMPLED;
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span)
    }
}

impl Context {
    /// The context in the comment that `text`, of a query, ends or begins with.
    pub fn in_text(text: &[u8]) -> Option<Self> {
        let at_end = comment_at_end(text).and_then(Self::in_comment);
        at_end.or_else(|| comment_at_start(text).and_then(Self::in_comment))
    }

    fn in_comment(comment: &[u8]) -> Option<Self> {
        let at = comment.windows(KEY.len()).position(|window| window == KEY)?;
        let mut value = comment.get(at + KEY.len()..)?;
        // sqlcommenter writes key='value'; Rails' query logs also know key:value.
        for skipped in [&b"=:"[..], b"'\""] {
            if let Some((first, rest)) = value.split_first()
                && skipped.contains(first)
            {
                value = rest;
            }
        }
        Self::parse(value)
    }

    /// What stands at the beginning of `value`.
    fn parse(value: &[u8]) -> Option<Self> {
        let (value, rest) = value.split_at_checked(LENGTH)?;
        // Only a later version may have more.
        let ends = !rest.first().is_some_and(u8::is_ascii_alphanumeric);
        let parts: Vec<&[u8]> = value.split(|byte| *byte == b'-').collect();
        let [version, trace, span, flags] = parts[..] else {
            return None;
        };
        let version = u8::try_from(hex(version, 2)?).ok()?;
        if version == u8::MAX || (version == 0 && (!ends || rest.starts_with(b"-"))) {
            return None;
        }
        let flags = u8::try_from(hex(flags, 2)?).ok()?;
        let (trace, span) = (hex(trace, 32)?, u64::try_from(hex(span, 16)?).ok()?);
        (trace != 0 && span != 0).then_some(Self {
            trace,
            span,
            sampled: flags & SAMPLED != 0,
        })
    }
}

/// A number of so many digits; capital letters are not allowed.
fn hex(digits: &[u8], count: usize) -> Option<u128> {
    if digits.len() != count {
        return None;
    }
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

fn comment_at_end(text: &[u8]) -> Option<&[u8]> {
    let is_after = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b';' | 0);
    let end = text.iter().rposition(|byte| !is_after(byte))? + 1;
    let text = text.get(..end)?.strip_suffix(b"*/")?;
    let from = text.len().saturating_sub(LONGEST_COMMENT);
    let text = text.get(from..)?;
    let start = text.windows(2).rposition(|window| window == b"/*")?;
    text.get(start + 2..)
}

fn comment_at_start(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii_start().strip_prefix(b"/*")?;
    let text = text.get(..LONGEST_COMMENT).unwrap_or(text);
    let end = text.windows(2).position(|window| window == b"*/")?;
    text.get(..end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn found(text: &str) -> Option<String> {
        Context::in_text(text.as_bytes()).map(|context| format!("{context:?}"))
    }

    #[test]
    fn a_comment_at_either_end_is_read() {
        let value = format!("00-{TRACE}-{SPAN}-01");
        for text in [
            format!("SELECT 1 /*traceparent='{value}'*/"),
            format!("SELECT 1 /*db_driver='psycopg',traceparent='{value}',tracestate='a%3Db'*/;  \n"),
            format!("SELECT 1 /* traceparent={value} */\0"),
            format!("/*traceparent='{value}'*/ SELECT 1"),
            format!("  /*application:App,traceparent:{value}*/ SELECT '*/'"),
            format!("SELECT /* other */ 1 /*traceparent='{value}'*/"),
            format!("/*other*/ SELECT 1 /*traceparent='{value}'*/"),
        ] {
            assert_eq!(found(&text).as_deref(), Some(value.as_str()), "{text}");
        }
    }

    #[test]
    fn the_last_flag_says_whether_it_is_recorded() {
        for (flags, sampled) in [("00", false), ("01", true), ("02", false), ("ff", true)] {
            let context = Context::in_text(format!("/*traceparent='00-{TRACE}-{SPAN}-{flags}'*/").as_bytes());
            assert_eq!(context.unwrap().sampled, sampled, "{flags}");
        }
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        let upper = TRACE.to_uppercase();
        let zero = "0".repeat(32);
        for value in [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-0"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-011"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{upper}-{SPAN}-01"),
            format!("00-{zero}-{SPAN}-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00_{TRACE}_{SPAN}_01"),
            format!("00-{SPAN}-{TRACE}-01"),
        ] {
            assert_eq!(
                found(&format!("SELECT 1 /*traceparent='{value}'*/")),
                None,
                "{value}"
            );
        }
        // A later version may have more behind it.
        let later = format!("SELECT 1 /*traceparent='01-{TRACE}-{SPAN}-01-more'*/");
        assert!(found(&later).is_some());
    }

    /// What a user of the application has typed is in the text, and not at its end.
    #[test]
    fn a_literal_is_no_comment() {
        let value = format!("/*traceparent='00-{TRACE}-{SPAN}-01'*/");
        assert_eq!(found(&format!("SELECT '{value}'")), None);
        assert_eq!(found(&format!("SELECT 1 WHERE a = '{value}' AND b")), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in any::<Vec<u8>>(), cut in 0_usize..80) {
            let _ = Context::in_text(&text);
            let mut comment = format!("SELECT 1 /*traceparent='00-{TRACE}-{SPAN}-01'*/").into_bytes();
            comment.truncate(cut);
            comment.extend_from_slice(&text);
            let _ = Context::in_text(&comment);
        }

        #[test]
        fn what_is_written_is_read(trace in 1_u128.., span in 1_u64.., sampled: bool) {
            let context = Context { trace, span, sampled };
            let text = format!("SELECT 1 /*traceparent='{context:?}'*/");
            prop_assert_eq!(Context::in_text(text.as_bytes()), Some(context));
        }
    }
}
