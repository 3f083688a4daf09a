//! Durations and sizes with units.
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

/// Why a text is no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SizeError {
    #[error("a size starts with a number")]
    NoNumber,
    #[error("a size needs a unit")]
    NoUnit,
    #[error("unknown unit of a size")]
    UnknownUnit,
    #[error("the size is too large")]
    TooLarge,
}

/// Bytes: `"512B"`, `"64KiB"`, `"16MiB"`, `"1GiB"` or `"0"`.
pub(super) fn size(text: &str) -> Result<u64, SizeError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(SizeError::NoNumber);
    }
    let bytes = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "" if number.bytes().all(|digit| digit == b'0') => 0,
        "" => return Err(SizeError::NoUnit),
        _ => return Err(SizeError::UnknownUnit),
    };
    number
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(bytes))
        .ok_or(SizeError::TooLarge)
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

    #[test]
    fn sizes() {
        assert_eq!(size("512B"), Ok(512));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("16MiB"), Ok(16 << 20));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!((size("0"), size("0MiB")), (Ok(0), Ok(0)));
        assert_eq!(size(""), Err(SizeError::NoNumber));
        assert_eq!(size("-1B"), Err(SizeError::NoNumber));
        assert_eq!(size("64"), Err(SizeError::NoUnit));
        assert_eq!(size("64MB"), Err(SizeError::UnknownUnit));
        assert_eq!(size("17179869184GiB"), Err(SizeError::TooLarge));
        assert_eq!(size("99999999999999999999B"), Err(SizeError::TooLarge));
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in ".*") {
            let _ = size(&text);
            if let Ok(duration) = duration(&text) {
                prop_assert!(duration <= LONGEST);
            }
        }
    }
}
