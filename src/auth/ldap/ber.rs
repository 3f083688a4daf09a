//! BER as LDAP uses it (RFC 4511, 5.1): tags of one byte and definite lengths. It knows no LDAP.
//!
//! The reader goes into nothing by itself, so that no nesting costs stack.

use thiserror::Error;

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const SEQUENCE: u8 = 0x30;

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed LDAP message")]
pub struct Malformed;

/// One element.
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let leading = length.iter().take_while(|&&byte| byte == 0).count();
    let mut out = vec![tag];
    match content.len() {
        short @ 0..0x80 => out.extend(u8::try_from(short)),
        _ => {
            // A length has at most eight bytes.
            out.extend(u8::try_from(length.len() - leading).map(|count| 0x80 | count));
            out.extend(&length[leading..]);
        }
    }
    out.extend(content);
    out
}

/// Elements one after the other, within one.
pub(super) fn constructed(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    element(tag, &parts.concat())
}

/// Tag, length of the content, and where it begins; `None` as long as that is not all there.
pub(super) fn header(input: &[u8]) -> Result<Option<(u8, usize, usize)>, Malformed> {
    let [tag, first, rest @ ..] = input else {
        return Ok(None);
    };
    if tag & 0x1f == 0x1f {
        return Err(Malformed);
    }
    let count = usize::from(first & 0x7f);
    match first {
        0..=0x7f => Ok(Some((*tag, count, 2))),
        0x81..=0x84 => Ok(rest.get(..count).map(|bytes| {
            let length = bytes.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
            (*tag, length, 2 + count)
        })),
        // The length is open (0x80), or more than four bytes long.
        0x80 | 0x85..=0xff => Err(Malformed),
    }
}

/// Elements, one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next element's tag and content.
    pub(super) fn next(&mut self) -> Result<(u8, &'a [u8]), Malformed> {
        let (tag, length, start) = header(self.0)?.ok_or(Malformed)?;
        let end = start.checked_add(length).ok_or(Malformed)?;
        let content = self.0.get(start..end).ok_or(Malformed)?;
        self.0 = &self.0[end..];
        Ok((tag, content))
    }

    /// The content of the next element, which has to have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        match self.next()? {
            (found, content) if found == tag => Ok(content),
            _ => Err(Malformed),
        }
    }

    /// The next element, a number that is not negative.
    pub(super) fn number(&mut self, tag: u8) -> Result<u32, Malformed> {
        match self.expect(tag)? {
            bytes @ ([0..0x80] | [0..0x80, _] | [0..0x80, _, _] | [0..0x80, _, _, _]) => {
                Ok(bytes.iter().fold(0, |sum, &byte| sum << 8 | u32::from(byte)))
            }
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let content = vec![7; length];
            let written = element(OCTET_STRING, &content);
            let mut reader = Reader(&written);
            assert_eq!(reader.expect(OCTET_STRING), Ok(&content[..]), "{length}");
            assert!(reader.0.is_empty());
            for cut in 0..written.len().min(6) {
                assert!(Reader(&written[..cut]).next().is_err() || length == 0);
            }
        }
    }

    #[test]
    fn what_is_not_allowed_is_refused() {
        for bytes in [
            &[0x1f, 0x01, 0x00][..],
            &[0x04, 0x80],
            &[0x04, 0x85],
            &[0x04, 0xff],
        ] {
            assert_eq!(header(bytes), Err(Malformed), "{bytes:?}");
        }
        assert_eq!(Reader(&[2, 1, 0xff]).number(INTEGER), Err(Malformed));
        assert_eq!(Reader(&[2, 0]).number(INTEGER), Err(Malformed));
        assert_eq!(Reader(&[2, 2, 1, 1]).number(INTEGER), Ok(257));
    }
}
