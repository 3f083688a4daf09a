//! Asking a server what a transaction has left in its session, and what the answer means for the connection.

use bytes::BytesMut;

use super::{
    connection::Connection,
    hints::{Hints, may_release},
    inquiry::{self, Findings},
    parameters::{Parameters, Source},
    pins::{Pin, Pins},
};

/// A question under way.
#[derive(Debug, Default)]
pub(super) struct Inquiry {
    asked: Hints,
    findings: Findings,
    /// The server has not answered it, or not so that it can be understood.
    failed: bool,
}

impl Inquiry {
    pub(super) fn row(&mut self, body: &[u8]) {
        self.failed |= self.findings.row(body).is_err();
    }

    pub(super) fn fail(&mut self) {
        self.failed = true;
    }
}

impl Connection {
    /// Whether statements may have left something in the session that the server does not report.
    pub fn owes_inquiry(&self) -> bool {
        !self.suspicion.hints().is_empty()
    }

    /// Whether the server is being asked.
    pub fn inquires(&self) -> bool {
        self.inquiry.is_some()
    }

    /// What keeps the connection with its client.
    pub fn pins(&self) -> Pins {
        self.pins
    }

    /// Whether there is, or may be, something in the session that no other client may find.
    pub fn needs_cleaning(&self) -> bool {
        self.owes_inquiry() || self.inquiry.is_some() || !self.pins.is_empty()
    }

    /// Appends the question for what statements may have left; false if there is nothing to ask. `known` are the
    /// settings of the client.
    pub fn inquire(&mut self, known: &Parameters, out: &mut BytesMut) -> bool {
        let (asked, mut names) = self.suspicion.take();
        self.pins = self.pins.union(Pins::without_asking(asked));
        if asked.contains(Hints::SETTINGS) {
            // What it has set before may be set no longer.
            let custom = known
                .iter()
                .chain(self.parameters.iter())
                .filter(|parameter| parameter.source != Source::Reported && parameter.name.contains('.'));
            for parameter in custom {
                if !names
                    .iter()
                    .any(|name| name.eq_ignore_ascii_case(&parameter.name))
                {
                    names.push(parameter.name.as_ref().into());
                }
            }
        }
        let sql = inquiry::sql(asked, &names);
        if sql.is_empty() {
            return false;
        }
        self.query(&sql, out);
        self.inquiry = Some(Box::new(Inquiry {
            asked,
            ..Inquiry::default()
        }));
        true
    }

    /// The answer, when it is there and says something about settings.
    pub fn take_findings(&mut self) -> Option<Findings> {
        if self.ledger.owes_pooler() {
            return None;
        }
        let Inquiry {
            asked,
            findings,
            failed,
        } = *self.inquiry.take()?;
        if failed {
            self.pins.insert(Pin::Unknown);
            return None;
        }
        self.pins = self.pins.after(asked, findings.pins());
        if !findings.has_settings() {
            return None;
        }
        self.parameters.found(&findings);
        if self.note_search_path() {
            // It was set by a statement that did not show it; others of its transaction may have gone by it.
            self.suspicion.note_hints(Hints::TEMP);
        }
        Some(findings)
    }

    /// Notes whether the search path has `pg_temp` in it. Whether it has now and had not before.
    pub(super) fn note_search_path(&mut self) -> bool {
        let path = self.parameters.get("search_path");
        let names_temp =
            path.is_some_and(|path| path.windows(7).any(|part| part.eq_ignore_ascii_case(b"pg_temp")));
        !std::mem::replace(&mut self.makes_temporary, names_temp) && names_temp
    }

    /// Follows what a statement of the client's may have done to its session, as far as its tag says it.
    pub(super) fn suspect_tag(&mut self, tag: &[u8]) {
        self.suspicion.note_tag(tag);
        if self.makes_temporary {
            self.suspicion.note_hints(Hints::TEMP);
        }
        if self.pins.is_empty() {
            return;
        }
        if !may_release(tag).is_empty() {
            // A statement of SQL PREPARE may have done anything meanwhile, and its text was not seen again.
            self.suspicion.note_hints(Hints::ASKABLE);
        }
        if tag == b"DISCARD ALL\0" {
            self.pins.remove(Pin::Unknown);
        }
    }

    /// Whether there is something in the session that only its end takes away.
    pub fn is_beyond_cleaning(&self) -> bool {
        let pins = self.pins.union(Pins::without_asking(self.suspicion.hints()));
        pins.contains(Pin::Load)
    }

    /// Notes that the answer to a question does not matter any more. The session is as unclean as before.
    pub fn stop_inquiring(&mut self) {
        if self.inquiry.take().is_some() {
            self.pins.insert(Pin::Unknown);
        }
    }

    /// Notes that nothing is left in the session, or that nobody minds.
    pub fn forget_state(&mut self) {
        let (hints, _) = self.suspicion.take();
        if hints.contains(Hints::SETTINGS) {
            // Of a session pool, whose reset query may be any.
            self.parameters.doubt();
        }
        self.inquiry = None;
        self.pins = Pins::default();
    }
}
