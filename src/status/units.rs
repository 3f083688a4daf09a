//! Numbers for people: three digits, and always a unit.

use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// `12,345`
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 client`, `12,345 clients`
pub fn many(number: usize, one: &str, more: &str) -> String {
    let word = if number == 1 { one } else { more };
    format!("{} {word}", count(number as u64))
}

/// `850 µs`, `12.3 ms`, `1.25 s`, `3 min 20 s`
pub fn seconds(value: f64) -> String {
    match value {
        value if value < 0.001 => format!("{} µs", digits(value * 1e6)),
        value if value < 1.0 => format!("{} ms", digits(value * 1e3)),
        value if value < 60.0 => format!("{} s", digits(value)),
        value => period(value),
    }
}

/// What is measured begins here; below that an estimate would be made up.
const LEAST: f64 = 0.000_1;

/// A quantile, or a dash.
pub fn quantile(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value <= LEAST => format!("< {}", seconds(LEAST)),
        Some(value) => seconds(value),
    }
}

/// The two largest parts of a longer time: `3 d 4 h`, `2 min`, `7 s`
pub fn period(seconds: f64) -> String {
    let all = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    let parts = [
        (all / DAY, "d"),
        (all / HOUR % 24, "h"),
        (all / MINUTE % 60, "min"),
        (all % MINUTE, "s"),
    ];
    let Some(first) = parts.iter().position(|(amount, _)| *amount > 0) else {
        return "0 s".to_owned();
    };
    let shown = parts.iter().skip(first).take(2).filter(|(amount, _)| *amount > 0);
    let words: Vec<_> = shown.map(|(amount, unit)| format!("{amount} {unit}")).collect();
    words.join(" ")
}

/// `512 B`, `1.5 MB`
pub fn bytes(value: f64) -> String {
    let mut value = value;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return format!("{} {unit}", digits(value));
        }
        value /= 1000.0;
    }
    format!("{} TB", digits(value))
}

/// `1,234/s`
pub fn rate(value: f64) -> String {
    format!("{}/s", digits(value))
}

/// As many digits as mean something.
pub fn digits(value: f64) -> String {
    let places = match value.abs() {
        size if size >= 100.0 => return grouped(value),
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.places$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn grouped(value: f64) -> String {
    let text = format!("{:.0}", value.abs());
    let number = text.parse().map_or(text, count);
    let sign = if value < 0.0 { "-" } else { "" };
    format!("{sign}{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(seconds(0.000_208_4), "208 µs");
        assert_eq!(seconds(0.002_01), "2.01 ms");
        assert_eq!(seconds(1.25), "1.25 s");
        assert_eq!(seconds(200.0), "3 min 20 s");
        assert_eq!(bytes(999.0), "999 B");
        assert_eq!(bytes(29_300_000.0), "29.3 MB");
        assert_eq!(rate(12_345.6), "12,346/s");
        assert_eq!(rate(0.0), "0/s");
        assert_eq!(quantile(Some(0.000_05)), "< 100 µs");
        assert_eq!(quantile(Some(0.000_15)), "150 µs");
        assert_eq!(quantile(None), "–");
    }

    #[test]
    fn long_times_have_two_parts() {
        assert_eq!(period(0.4), "0 s");
        assert_eq!(period(60.0), "1 min");
        assert_eq!(period(86_400.0 * 3.0 + 4.0 * 3600.0 + 59.0), "3 d 4 h");
        assert_eq!(period(-5.0), "0 s");
        assert_eq!(many(1, "client", "clients"), "1 client");
        assert_eq!(many(2000, "client", "clients"), "2,000 clients");
    }
}
