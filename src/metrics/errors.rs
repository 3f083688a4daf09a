//! Errors by the class of their SQLSTATE and by who has to act.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::fault::{Blame, SqlState};

/// The classes that PostgreSQL has. Functions may raise whatever they like: any other class is [`OTHER_CLASS`].
const CLASSES: [&str; 45] = [
    "00",
    "01",
    "02",
    "03",
    "08",
    "09",
    "0A",
    "0B",
    "0F",
    "0L",
    "0P",
    "0Z",
    "10",
    "20",
    "21",
    "22",
    "23",
    "24",
    "25",
    "26",
    "27",
    "28",
    "2B",
    "2D",
    "2F",
    "34",
    "38",
    "39",
    "3B",
    "3D",
    "3F",
    "40",
    "42",
    "44",
    "53",
    "54",
    "55",
    "57",
    "58",
    "72",
    "F0",
    "HV",
    "P0",
    "XX",
    OTHER_CLASS,
];
const OTHER_CLASS: &str = "other";

/// How many errors there were of each kind. What is not there costs nothing but memory.
#[derive(Debug)]
pub struct Errors([[AtomicU64; Blame::ALL.len()]; CLASSES.len()]);

impl Default for Errors {
    fn default() -> Self {
        Self(std::array::from_fn(|_| {
            std::array::from_fn(|_| AtomicU64::new(0))
        }))
    }
}

impl Errors {
    /// Counts one.
    pub fn count(&self, code: SqlState, blame: Blame) {
        self.add(class_of(code), blame, 1);
    }

    /// Counts all that others have counted.
    pub fn add_all(&self, other: &Self) {
        other.for_each(|class, blame, count| self.add(index_of(class), blame, count));
    }

    /// Shows each kind of which there were any.
    pub fn for_each(&self, mut see: impl FnMut(&'static str, Blame, u64)) {
        for (counts, class) in self.0.iter().zip(CLASSES) {
            for (count, blame) in counts.iter().zip(Blame::ALL) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    see(class, blame, count);
                }
            }
        }
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        let mut total = 0;
        self.for_each(|_, _, count| total += count);
        total
    }

    fn add(&self, class: usize, blame: Blame, count: u64) {
        let counts = self.0.get(class).and_then(|counts| counts.get(blame as usize));
        if let Some(counter) = counts {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }
}

fn class_of(code: SqlState) -> usize {
    index_of(code.class())
}

fn index_of(class: &str) -> usize {
    let known = CLASSES.iter().position(|known| *known == class);
    known.unwrap_or(CLASSES.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(errors: &Errors) -> Vec<(&'static str, &'static str, u64)> {
        let mut shown = Vec::new();
        errors.for_each(|class, blame, count| shown.push((class, blame.as_str(), count)));
        shown
    }

    #[test]
    fn errors_are_counted_by_class_and_blame_and_made_up_classes_are_one() {
        let (errors, more) = (Errors::default(), Errors::default());
        errors.count(SqlState(*b"42P01"), Blame::Client);
        errors.count(SqlState(*b"42601"), Blame::Client);
        errors.count(SqlState(*b"ZZ001"), Blame::Client);
        errors.count(SqlState([0xff; 5]), Blame::Client);
        more.count(SqlState::ADMIN_SHUTDOWN, Blame::Server);
        errors.add_all(&more);
        assert_eq!(
            shown(&errors),
            [("42", "client", 2), ("57", "server", 1), ("other", "client", 2)]
        );
        assert_eq!(errors.total(), 5);
    }
}
