//! Whether a transaction may have changed state that the server does not report: gathered while it runs, asked for
//! when it has ended.

use super::hints::{Hints, Reading, of_tag};

/// More custom settings in one transaction are not told apart.
const MOST_NAMES: usize = 256;

/// What statements may have done since the server was last asked.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    hints: Hints,
    /// Custom settings that the server lists nowhere.
    names: Vec<Box<str>>,
    /// Statements whose texts say that they set for their transaction only, less those that were answered.
    local_sets: u32,
}

impl Suspicion {
    /// Notes the text of a statement.
    pub(super) fn note_text(&mut self, reading: &Reading) {
        self.hints.insert(reading.hints);
        self.local_sets = self.local_sets.saturating_add(reading.local_sets);
        for name in &reading.names {
            if self.names.len() == MOST_NAMES {
                self.hints.insert(Hints::OPAQUE);
            } else if !self.names.contains(name) {
                self.names.push(name.clone());
            }
        }
    }

    /// Notes the tag of a CommandComplete.
    pub(super) fn note_tag(&mut self, tag: &[u8]) {
        let hints = of_tag(tag);
        if tag.starts_with(b"SET") && self.local_sets > 0 {
            self.local_sets -= 1;
        } else {
            self.hints.insert(hints);
        }
    }

    /// Notes what the server has to be asked about in any case.
    pub(super) fn note_hints(&mut self, hints: Hints) {
        self.hints.insert(hints);
    }

    /// Notes that a transaction begins: what was set for another one is gone.
    pub(super) fn begin(&mut self) {
        self.local_sets = 0;
    }

    /// Whether statements that are prepared now may be read under settings that are not the client's.
    pub(super) fn has_settings(&self) -> bool {
        self.local_sets > 0 || self.hints.contains(Hints::SETTINGS)
    }

    /// What the server has to be asked about.
    pub(super) fn hints(&self) -> Hints {
        self.hints
    }

    /// Forgets everything, because the server is asked, and says which custom settings to ask for.
    pub(super) fn take(&mut self) -> (Hints, Vec<Box<str>>) {
        let Self { hints, names, .. } = std::mem::take(self);
        (hints, names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_as_many_sets_are_local_as_texts_say() {
        let mut suspicion = Suspicion::default();
        let local = Reading {
            local_sets: 1,
            ..Reading::default()
        };
        suspicion.note_text(&local);
        suspicion.note_tag(b"SET\0");
        assert!(suspicion.hints().is_empty());
        suspicion.note_tag(b"SET\0");
        assert_eq!(suspicion.take().0, Hints::SETTINGS);
        assert!(suspicion.hints().is_empty());
    }
}
