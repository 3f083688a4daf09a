//! `DEALLOCATE name`, as drivers that cannot send Close say it: the one statement of SQL whose name has to be replaced.

use bytes::{BufMut, BytesMut};

/// A statement that is nothing but `DEALLOCATE [PREPARE] name`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Deallocate {
    /// The name, as the parser reads it.
    pub(super) name: Vec<u8>,
}

/// Reads the text, if it is one.
pub(super) fn read(text: &[u8]) -> Option<Deallocate> {
    let text = text.trim_ascii();
    let text = text.strip_suffix(b";").unwrap_or(text).trim_ascii_end();
    let rest = strip_word(text, b"deallocate")?;
    let rest = strip_word(rest, b"prepare").unwrap_or(rest);
    if rest.first() == Some(&b'"') {
        let name = rest.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        let name = unquote(name)?;
        return (!name.is_empty()).then_some(Deallocate { name });
    }
    let is_name = rest
        .first()
        .is_some_and(|&byte| !byte.is_ascii_digit() && byte != b'$')
        && rest
            .iter()
            .all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..));
    let name = rest.to_ascii_lowercase();
    (is_name && name != b"all").then_some(Deallocate { name })
}

/// The same statement for another name.
pub(super) fn of(name: &str) -> BytesMut {
    let mut text = BytesMut::new();
    text.put_slice(b"DEALLOCATE \"");
    text.put_slice(name.as_bytes());
    text.put_slice(b"\"");
    text
}

fn strip_word<'a>(text: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let (first, rest) = text.split_at_checked(word.len())?;
    let ends = rest
        .first()
        .is_some_and(|byte| byte.is_ascii_whitespace() || *byte == b'"');
    (first.eq_ignore_ascii_case(word) && ends).then(|| rest.trim_ascii_start())
}

/// The inside of a quoted identifier; `None` if it is more than one.
fn unquote(quoted: &[u8]) -> Option<Vec<u8>> {
    let (mut name, mut bytes) = (Vec::new(), quoted.iter());
    while let Some(&byte) = bytes.next() {
        if byte == b'"' && bytes.next() != Some(&b'"') {
            return None;
        }
        name.push(byte);
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Option<String> {
        read(text.as_bytes()).map(|found| String::from_utf8(found.name).unwrap())
    }

    #[test]
    fn one_name_and_nothing_else() {
        for (text, expected) in [
            ("DEALLOCATE foo", "foo"),
            (" deallocate\n PREPARE Foo ; ", "foo"),
            ("deallocate \"Foo\"", "Foo"),
            ("deallocate\"a\"\"b\"", "a\"b"),
            ("DEALLOCATE prepare", "prepare"),
            ("DEALLOCATE _pg3_0", "_pg3_0"),
        ] {
            assert_eq!(name(text).as_deref(), Some(expected), "{text}");
        }
        for text in [
            "DEALLOCATE ALL",
            "deallocate prepare all",
            "DEALLOCATE",
            "DEALLOCATE a; SELECT 1",
            "DEALLOCATE \"a\"; SELECT \"b\"",
            "DEALLOCATE 1",
            "DEALLOCATE /* x */ a",
            "deallocated x",
            "DEALLOCATE \"\"",
        ] {
            assert_eq!(name(text), None, "{text}");
        }
    }
}
