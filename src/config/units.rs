//! Durations with units.
//!
//! It knows no setting and no TOML.

use std::time::Duration;

/// The longest duration that is accepted: a year. Longer ones are mistakes, and clocks overflow on them.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why a text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum DurationError {
    #[error("a duration starts with a number")]
    NoNumber,
    #[error("a duration cannot be negative")]
    Negative,
    #[error("a duration needs a unit")]
    NoUnit,
    #[error("unknown unit of a duration")]
    UnknownUnit,
    #[error("a duration is at most a year")]
    TooLong,
}

/// `"500ms"`, `"30s"`, `"2m"`, `"1h"`, `"7d"` or `"0"`.
pub(super) fn duration(text: &str) -> Result<Duration, DurationError> {
    if text.starts_with('-') {
        return Err(DurationError::Negative);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(DurationError::NoNumber);
    }
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "d" => 24 * 3600 * 1000,
        "" if number.bytes().all(|digit| digit == b'0') => 0,
        "" => return Err(DurationError::NoUnit),
        _ => return Err(DurationError::UnknownUnit),
    };
    number
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(milliseconds))
        .map(Duration::from_millis)
        .filter(|duration| *duration <= LONGEST)
        .ok_or(DurationError::TooLong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(duration("365d"), Ok(LONGEST));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("0h"), Ok(Duration::ZERO));
    }

    #[test]
    fn refusals() {
        assert_eq!(duration(""), Err(DurationError::NoNumber));
        assert_eq!(duration("s"), Err(DurationError::NoNumber));
        assert_eq!(duration("-1s"), Err(DurationError::Negative));
        assert_eq!(duration("30"), Err(DurationError::NoUnit));
        assert_eq!(duration("30 s"), Err(DurationError::UnknownUnit));
        assert_eq!(duration("1.5h"), Err(DurationError::UnknownUnit));
        assert_eq!(duration("30min"), Err(DurationError::UnknownUnit));
        assert_eq!(duration("366d"), Err(DurationError::TooLong));
        assert_eq!(duration("18446744073709551615d"), Err(DurationError::TooLong));
        assert_eq!(duration("99999999999999999999ms"), Err(DurationError::TooLong));
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in ".*") {
            if let Ok(duration) = duration(&text) {
                prop_assert!(duration <= LONGEST);
            }
        }
    }
}
