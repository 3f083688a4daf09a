//! Values of a `pgbouncer.ini` as PgBouncer reads them.
//!
//! It knows no setting.

/// The longest duration that a configuration takes, in milliseconds.
const LONGEST: f64 = 365.0 * 24.0 * 3600.0 * 1000.0;
const UNITS: [(u64, &str); 4] = [
    (24 * 3600 * 1000, "d"),
    (3600 * 1000, "h"),
    (60 * 1000, "m"),
    (1000, "s"),
];

/// Why a text is no value of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ValueError {
    #[error("is not a whole number")]
    Integer,
    #[error("is not a number of seconds")]
    Seconds,
    #[error("is neither 1 nor 0")]
    Flag,
}

/// A whole number, `0x...` in hexadecimal and `0...` in octal.
pub(super) fn integer(text: &str) -> Result<i64, ValueError> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None if digits.len() > 1 && digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    if digits.starts_with(['+', '-']) {
        return Err(ValueError::Integer);
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).map_err(|_| ValueError::Integer)
}

/// A switch: PgBouncer takes any number but zero for on.
pub(super) fn flag(text: &str) -> Result<bool, ValueError> {
    integer(text)
        .map(|number| number != 0)
        .map_err(|_| ValueError::Flag)
}

/// Seconds with a fraction, as milliseconds and whether they had to be cut to a year. What is not zero stays so.
pub(super) fn seconds(text: &str) -> Result<(u64, bool), ValueError> {
    let is_plain = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    let number: f64 = text.parse().map_err(|_| ValueError::Seconds)?;
    if !is_plain || number.is_nan() || number < 0.0 {
        return Err(ValueError::Seconds);
    }
    let milliseconds = (number * 1000.0).ceil();
    Ok((whole(milliseconds.min(LONGEST)), milliseconds > LONGEST))
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a whole number between zero and LONGEST"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

/// A duration with the largest unit that needs no fraction.
pub(super) fn duration(milliseconds: u64) -> String {
    if milliseconds == 0 {
        return "0".to_owned();
    }
    let fits = UNITS.iter().find(|(unit, _)| milliseconds.is_multiple_of(*unit));
    match fits {
        Some((unit, name)) => format!("{}{name}", milliseconds / unit),
        None => format!("{milliseconds}ms"),
    }
}

/// Names between commas.
pub(super) fn names(text: &str) -> Vec<String> {
    let names = text.split(',').map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::units;

    #[test]
    fn integers_have_c_s_bases() {
        for (text, number) in [
            ("20", Ok(20)),
            ("-1", Ok(-1)),
            ("+5", Ok(5)),
            ("0777", Ok(0o777)),
            ("0x10", Ok(16)),
            ("0", Ok(0)),
            ("", Err(ValueError::Integer)),
            ("1.5", Err(ValueError::Integer)),
            ("--1", Err(ValueError::Integer)),
            ("5 ; five", Err(ValueError::Integer)),
            ("09", Err(ValueError::Integer)),
        ] {
            assert_eq!(integer(text), number, "{text}");
        }
        assert_eq!(
            (flag("2"), flag("0"), flag("yes")),
            (Ok(true), Ok(false), Err(ValueError::Flag))
        );
    }

    #[test]
    fn seconds_become_durations() {
        for (text, shown) in [
            ("15.0", "15s"),
            ("0", "0"),
            ("0.5", "500ms"),
            ("3600", "1h"),
            ("90", "90s"),
            ("86400", "1d"),
            ("0.0001", "1ms"),
            ("1e3", "1000s"),
            ("99999999999", "365d"),
        ] {
            let (milliseconds, _) = seconds(text).unwrap();
            assert_eq!(duration(milliseconds), shown, "{text}");
        }
        for text in ["", "-1", "5s", "nan", "inf", "1 2"] {
            assert_eq!(seconds(text), Err(ValueError::Seconds), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_reads_back(milliseconds in 0..31_536_000_000_u64) {
            let read = units::duration(&duration(milliseconds)).unwrap();
            prop_assert_eq!(read.as_millis(), u128::from(milliseconds));
        }

        #[test]
        fn any_text_is_a_value_or_none(text in ".*") {
            let _ = (integer(&text), seconds(&text), flag(&text), names(&text));
        }
    }
}
