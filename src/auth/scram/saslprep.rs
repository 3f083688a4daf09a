//! SASLprep (RFC 4013) of passwords, step by step as PostgreSQL does it.
//!
//! PostgreSQL looks for prohibited characters before it normalizes, where the RFC looks after. A password
//! must give the hash that PostgreSQL stored, so PostgreSQL is right here.

use std::borrow::Cow;

use stringprep::tables;
use unicode_normalization::UnicodeNormalization;

/// The bytes that are hashed for `password`: prepared where it is UTF-8 and allowed, else as it is.
pub(super) fn prepare(password: &[u8]) -> Cow<'_, [u8]> {
    if password.is_ascii() {
        return Cow::Borrowed(password);
    }
    std::str::from_utf8(password)
        .ok()
        .and_then(saslprep)
        .map_or(Cow::Borrowed(password), |prepared| {
            Cow::Owned(prepared.into_bytes())
        })
}

fn saslprep(password: &str) -> Option<String> {
    let mapped: Vec<char> = password.chars().filter_map(map).collect();
    let allowed =
        !mapped.is_empty() && !mapped.iter().copied().any(is_prohibited) && is_one_directional(&mapped);
    allowed.then(|| mapped.into_iter().nfkc().collect())
}

fn map(c: char) -> Option<char> {
    if tables::non_ascii_space_character(c) {
        Some(' ')
    } else if tables::commonly_mapped_to_nothing(c) {
        None
    } else {
        Some(c)
    }
}

fn is_prohibited(c: char) -> bool {
    tables::ascii_control_character(c)
        || tables::non_ascii_control_character(c)
        || tables::private_use(c)
        || tables::non_character_code_point(c)
        || tables::inappropriate_for_plain_text(c)
        || tables::inappropriate_for_canonical_representation(c)
        || tables::change_display_properties_or_deprecated(c)
        || tables::tagging_character(c)
        || tables::unassigned_code_point(c)
}

/// RFC 3454, section 6: text with a right-to-left character begins and ends with one and has no
/// left-to-right character.
fn is_one_directional(text: &[char]) -> bool {
    if !text.iter().copied().any(tables::bidi_r_or_al) {
        return true;
    }
    let at_both_ends = [text.first(), text.last()]
        .into_iter()
        .flatten()
        .copied()
        .all(tables::bidi_r_or_al);
    at_both_ends && !text.iter().copied().any(tables::bidi_l)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(password: &str) -> String {
        String::from_utf8(prepare(password.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn follows_rfc_4013_examples() {
        assert_eq!(prepared("I\u{AD}X"), "IX");
        assert_eq!(prepared("user"), "user");
        assert_eq!(prepared("USER"), "USER");
        assert_eq!(prepared("\u{AA}"), "a");
        assert_eq!(prepared("\u{2168}"), "IX");
    }

    #[test]
    fn maps_spaces_and_composes() {
        assert_eq!(prepared("a\u{A0}b\u{3000}c"), "a b c");
        assert_eq!(prepared("pa\u{308}ss"), "p\u{e4}ss");
    }

    #[test]
    fn leaves_what_is_not_allowed_as_it_is() {
        for password in [
            "\u{AD}",          // nothing is left of it
            "\u{627}1",        // right-to-left, but ends otherwise
            "\u{627}a\u{627}", // both directions
            "\u{e4}\u{7}",     // control character
            "\u{e4}\u{e000}",  // private use
            "\u{1F130}",       // not assigned in Unicode 3.2, although NFKC gives "A"
            "\u{340}x",        // deprecated, although NFKC gives U+0300
        ] {
            assert_eq!(prepared(password), password);
        }
        assert_eq!(prepare(b"\xff\xfe\xe4"), Cow::Borrowed(b"\xff\xfe\xe4"));
    }
}
