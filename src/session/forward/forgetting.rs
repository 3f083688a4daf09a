//! Requests that may have a server forget statements, and those that depend on whether others have failed: what follows
//! them waits for the answer.

use super::{Message, Pass, statements::deallocating, text_of};
use crate::{
    server::{
        hints::Hints,
        statements::{self, Effect},
    },
    session::deallocate,
    wire::{
        frontend::{self, tag},
        reader::Reader,
    },
};

impl Pass<'_> {
    /// Whether a message is about a name that a batch has changed which may have failed, for all that is known: it
    /// might mean another statement then, or none.
    pub(super) fn must_wait(&self, message: &Message<'_>) -> bool {
        let mut reader = Reader::new(message.body);
        match message.tag {
            tag::PARSE => match (reader.cstring(), reader.cstring()) {
                (Ok(b""), Ok(text)) => self.deallocates_unsettled(text),
                (Ok(name), _) => self.names.is_unsettled(name),
                _ => false,
            },
            tag::BIND => {
                let _ = reader.cstring();
                reader.cstring().is_ok_and(|name| self.names.is_unsettled(name))
            }
            tag::DESCRIBE | tag::CLOSE => {
                let name = message.body.strip_prefix(b"S").map(Reader::new);
                let name = name.and_then(|mut reader| reader.cstring().ok());
                name.is_some_and(|name| self.names.is_unsettled(name))
            }
            tag::QUERY => self.deallocates_unsettled(message.body.strip_suffix(b"\0").unwrap_or_default()),
            _ => false,
        }
    }

    pub(super) fn deallocates_unsettled(&self, text: &[u8]) -> bool {
        deallocate::read(text).is_some_and(|found| self.names.is_unsettled(&found.name))
    }

    pub(super) fn execute(&mut self, message: Message<'_>) {
        if !std::mem::take(&mut self.names.waits) {
            return self.connection.note_sent(tag::EXECUTE);
        }
        match self.names.deallocates.take() {
            Some((id, name)) => self
                .connection
                .note_sent_with(tag::EXECUTE, Effect::Deallocated { id, name }),
            None => self.connection.note_sent(tag::EXECUTE),
        }
        self.wait_after(tag::EXECUTE, message.end);
    }

    pub(super) fn query(&mut self, message: Message<'_>) {
        self.names.drop_unnamed(self.connection.ledger().has_open_batch());
        if !message.whole {
            self.read_later(message.body);
        }
        if !self.suspect(message.body).contains(Hints::PREPARED) {
            self.connection.note_sent(tag::QUERY);
        } else {
            if !(message.whole && self.query_deallocate(message)) {
                self.connection.note_sent(tag::QUERY);
            }
            if message.whole {
                self.wait_after(tag::QUERY, message.end);
            } else {
                self.names.waits_for_end = true;
            }
        }
        self.connection.set_unnamed(0);
    }

    /// A Query that is nothing but `DEALLOCATE` of a name that stands for a shared statement.
    pub(super) fn query_deallocate(&mut self, message: Message<'_>) -> bool {
        let Some((id, name)) = self.deallocated(text_of(message.body)) else {
            return false;
        };
        self.copy_to(message.start);
        if !self.connection.stand_in(id, true, self.out) {
            return false;
        }
        let text = deallocate::of(&statements::name(id));
        frontend::message(tag::QUERY, &[&text, &[0]], self.out);
        self.connection
            .note_sent_with(tag::QUERY, Effect::Deallocated { id, name });
        self.leave_out(message.start, message.end);
        true
    }

    /// The same as the text of an unnamed statement.
    pub(super) fn parse_deallocate(&mut self, message: Message<'_>, body: &[u8]) -> bool {
        let text = text_of(body);
        let Some((id, name)) = self.deallocated(text) else {
            return false;
        };
        self.copy_to(message.start);
        self.connection.stand_in(id, false, self.out);
        frontend::message(tag::PARSE, &[&[0], &deallocating(id, body)], self.out);
        let number = self.names.unnamed();
        self.connection
            .note_sent_with(tag::PARSE, Effect::Unnamed { number });
        self.leave_out(message.start, message.end);
        self.record = None;
        self.names.deallocates = Some((id, name));
        self.connection.set_unnamed(self.names.unnamed());
        true
    }

    pub(super) fn deallocated(&self, text: &[u8]) -> Option<(u64, Box<[u8]>)> {
        let name = deallocate::read(text)?.name;
        let statement = self.names.get(&name)?;
        Some((statement.id(), name.into()))
    }
}
