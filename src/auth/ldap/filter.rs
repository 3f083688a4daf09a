//! Search filters, from the text of RFC 4515 to the bytes of RFC 4511.

use thiserror::Error;

use super::ber::{OCTET_STRING, SEQUENCE, constructed, element};

/// How deep filters may be nested.
const MAX_DEPTH: usize = 16;

/// A text that is no filter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FilterError {
    /// Parentheses that do not fit each other.
    #[error("unbalanced parentheses")]
    Unbalanced,
    /// Too many, one in the other.
    #[error("more than {MAX_DEPTH} filters within each other")]
    TooDeep,
    /// What is between two of them.
    #[error("\"{0}\" is not attribute=value")]
    Item(String),
}

/// The bytes of a filter. One without parentheses is as good as with them.
pub(super) fn compile(text: &str) -> Result<Vec<u8>, FilterError> {
    if !text.starts_with('(') {
        return item(text);
    }
    match filter(text, 0)? {
        (bytes, "") => Ok(bytes),
        _ => Err(FilterError::Unbalanced),
    }
}

/// What is between the parentheses that the text begins with, and what follows them.
fn filter(text: &str, depth: usize) -> Result<(Vec<u8>, &str), FilterError> {
    if depth == MAX_DEPTH {
        return Err(FilterError::TooDeep);
    }
    let inner = text.strip_prefix('(').ok_or(FilterError::Unbalanced)?;
    let (bytes, rest) = match inner.as_bytes().first() {
        Some(b'&') => list(0xa0, &inner[1..], depth)?,
        Some(b'|') => list(0xa1, &inner[1..], depth)?,
        Some(b'!') => {
            let (bytes, rest) = filter(&inner[1..], depth + 1)?;
            (element(0xa2, &bytes), rest)
        }
        _ => {
            let end = inner.find(')').ok_or(FilterError::Unbalanced)?;
            (item(&inner[..end])?, &inner[end..])
        }
    };
    let rest = rest.strip_prefix(')').ok_or(FilterError::Unbalanced)?;
    Ok((bytes, rest))
}

fn list(tag: u8, mut rest: &str, depth: usize) -> Result<(Vec<u8>, &str), FilterError> {
    let mut all = Vec::new();
    while rest.starts_with('(') {
        let (bytes, next) = filter(rest, depth + 1)?;
        all.extend(bytes);
        rest = next;
    }
    Ok((element(tag, &all), rest))
}

fn item(text: &str) -> Result<Vec<u8>, FilterError> {
    let wrong = || FilterError::Item(text.to_owned());
    let (left, right) = text.split_once('=').ok_or_else(wrong)?;
    let compare = |tag, attribute: &str| {
        let value = value(right).ok_or_else(wrong)?;
        let attribute = described(attribute).ok_or_else(wrong)?;
        Ok(constructed(tag, &[attribute, element(OCTET_STRING, &value)]))
    };
    match left.as_bytes().last() {
        Some(b'>') => compare(0xa5, &left[..left.len() - 1]),
        Some(b'<') => compare(0xa6, &left[..left.len() - 1]),
        Some(b'~') => compare(0xa8, &left[..left.len() - 1]),
        Some(b':') => extensible(&left[..left.len() - 1], right).ok_or_else(wrong),
        Some(_) if right == "*" => {
            described(left).ok_or_else(wrong)?;
            Ok(element(0x87, left.as_bytes()))
        }
        Some(_) if right.contains('*') => substrings(left, right).ok_or_else(wrong),
        _ => compare(0xa3, left),
    }
}

/// An attribute's name, perhaps with options (`cn;lang-en`), as a string.
fn described(name: &str) -> Option<Vec<u8>> {
    is_name(name).then(|| element(OCTET_STRING, name.as_bytes()))
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b';' | b'_');
    !name.is_empty() && name.bytes().all(allowed)
}

fn substrings(attribute: &str, pattern: &str) -> Option<Vec<u8>> {
    let (initial, rest) = pattern.split_once('*')?;
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let mut parts = Vec::new();
    let ends = [(0x80, initial)].into_iter();
    let between = middle.split('*').map(|part| (0x81, part));
    for (tag, part) in ends.chain(between).chain([(0x82, last)]) {
        if !part.is_empty() {
            parts.extend(element(tag, &value(part)?));
        }
    }
    if parts.is_empty() {
        return None;
    }
    Some(constructed(
        0xa4,
        &[described(attribute)?, element(SEQUENCE, &parts)],
    ))
}

/// `attribute:dn:rule:=value`, each of the three optional but not attribute and rule both.
fn extensible(left: &str, right: &str) -> Option<Vec<u8>> {
    let mut words = left.split(':');
    let attribute = words.next().filter(|name| !name.is_empty());
    let mut words = words.peekable();
    let by_name = words.next_if(|word| word.eq_ignore_ascii_case("dn")).is_some();
    let rule = words.next();
    if words.next().is_some() || (attribute.is_none() && rule.is_none()) {
        return None;
    }
    let mut parts = Vec::new();
    for (tag, name) in [(0x81, rule), (0x82, attribute)] {
        if let Some(name) = name {
            parts.extend(is_name(name).then(|| element(tag, name.as_bytes()))?);
        }
    }
    parts.extend(element(0x83, &value(right)?));
    if by_name {
        parts.extend(element(0x84, &[0xff]));
    }
    Some(element(0xa9, &parts))
}

/// A value without its escapes (`\2a`).
fn value(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut value = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        value.push(match byte {
            b'(' | b')' | b'*' | 0 => return None,
            b'\\' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            byte => byte,
        });
    }
    Some(value)
}

pub(super) fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn each_kind_is_what_rfc_4511_says() {
        let equals = bytes(&[&[0xa3, 8, 4, 3], b"uid", &[4, 1], b"a"]);
        for (text, expected) in [
            ("(uid=a)", equals.clone()),
            ("uid=a", equals.clone()),
            ("(uid=\\61)", equals.clone()),
            ("(&(uid=a)(uid=a))", bytes(&[&[0xa0, 20], &equals, &equals])),
            ("(|(uid=a))", bytes(&[&[0xa1, 10], &equals])),
            ("(!(uid=a))", bytes(&[&[0xa2, 10], &equals])),
            ("(&)", vec![0xa0, 0]),
            ("(uid=*)", bytes(&[&[0x87, 3], b"uid"])),
            ("(n>=1)", bytes(&[&[0xa5, 6, 4, 1], b"n", &[4, 1], b"1"])),
            ("(n<=1)", bytes(&[&[0xa6, 6, 4, 1], b"n", &[4, 1], b"1"])),
            ("(n~=1)", bytes(&[&[0xa8, 6, 4, 1], b"n", &[4, 1], b"1"])),
            ("(n=)", bytes(&[&[0xa3, 5, 4, 1], b"n", &[4, 0]])),
            (
                "(n=a*b*c*d)",
                bytes(&[
                    &[0xa4, 17, 4, 1],
                    b"n",
                    &[0x30, 12, 0x80, 1],
                    b"a",
                    &[0x81, 1],
                    b"b",
                    &[0x81, 1],
                    b"c",
                    &[0x82, 1],
                    b"d",
                ]),
            ),
            (
                "(n=*b)",
                bytes(&[&[0xa4, 8, 4, 1], b"n", &[0x30, 3, 0x82, 1], b"b"]),
            ),
            (
                "(n:dn:1.2:=v)",
                bytes(&[
                    &[0xa9, 14, 0x81, 3],
                    b"1.2",
                    &[0x82, 1],
                    b"n",
                    &[0x83, 1],
                    b"v",
                    &[0x84, 1, 0xff],
                ]),
            ),
        ] {
            assert_eq!(compile(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in [
            "",
            "(",
            "()",
            "(uid)",
            "(=a)",
            "(uid=a",
            "(uid=a))",
            "(uid=a)(uid=b)",
            "(&(uid=a)",
            "(!uid=a)",
            "(uid=(a)",
            "(uid=\\2)",
            "(uid=\\zz)",
            "(u d=a)",
            "(n=**)",
            "(:=v)",
            "(n:dn:r:x:=v)",
            "uid=a)",
        ] {
            assert!(compile(text).is_err(), "{text}");
        }
        let deep = |depth| format!("{}(a=b){}", "(!".repeat(depth), ")".repeat(depth));
        assert!(compile(&deep(MAX_DEPTH - 1)).is_ok());
        assert_eq!(compile(&deep(100_000)), Err(FilterError::TooDeep));
    }
}
