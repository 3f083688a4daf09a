//! Databases that clients have named and the server does not have. Pure: the time is passed in.

use std::{collections::HashMap, time::Instant};

/// Names that strangers make up must not fill the memory: neither many nor long ones.
const MOST: usize = 1000;
const LONGEST: usize = 256;

/// The names, each until the server is asked again.
#[derive(Debug, Default)]
pub(super) struct Missing(HashMap<Box<str>, Instant>);

impl Missing {
    pub(super) fn note(&mut self, name: &str, until: Instant, now: Instant) {
        if self.0.len() >= MOST {
            self.drop_expired(now);
        }
        if self.0.len() < MOST && name.len() <= LONGEST && until > now {
            self.0.insert(name.into(), until);
        }
    }

    pub(super) fn has(&self, name: &str, now: Instant) -> bool {
        self.0.get(name).is_some_and(|until| *until > now)
    }

    pub(super) fn drop_expired(&mut self, now: Instant) {
        self.0.retain(|_, until| *until > now);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Somebody tries one made-up name after the other; then a database is created under a name that was tried.
    #[test]
    fn a_name_is_known_for_a_while_and_names_do_not_add_up() {
        let (mut missing, now) = (Missing::default(), Instant::now());
        let until = now + Duration::from_secs(2);
        for number in 0..MOST * 3 {
            missing.note(&format!("n{number}"), until, now);
        }
        missing.note(&"x".repeat(LONGEST + 1), until, now);
        assert_eq!(missing.0.len(), MOST);
        assert!(missing.has("n0", now) && !missing.has("n0", until));
        missing.note("late", until + Duration::from_secs(2), until);
        assert_eq!(missing.0.len(), 1, "those from before have expired");
        missing.note("never", until, until);
        assert!(!missing.has("never", until), "a time of zero");
    }
}
