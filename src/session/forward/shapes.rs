//! Statements whose rows a client reads by what it was told once: they are not carried out where they have come to look
//! different.

use super::{Message, Pass};
use crate::{
    server::statements::Shape,
    wire::{frontend::tag, reader::Reader},
};

impl Pass<'_> {
    /// Whether the server has to be asked, before this Bind, what the rows of its statement look like: the client was
    /// told once, is not told again now, and the statement may be another one since, on this server connection.
    pub(super) fn must_verify(&mut self, message: &Message<'_>) -> bool {
        let Some((name, told)) = self.relied_on(message) else {
            return false;
        };
        let statement = self
            .names
            .resolve(name, self.sender.parameters, self.sender.pool.statements());
        let Some(id) = statement.map(|statement| statement.id()) else {
            return false;
        };
        let prepared = self.connection.prepared();
        !self.connection.ledger().skips() && prepared.shape(id) != Some(told) && !prepared.is_verified(id)
    }

    /// The name of the statement that a Bind uses, and what its rows look like as far as the client knows, if it is
    /// going to read them by that.
    pub(super) fn relied_on<'m>(&self, message: &Message<'m>) -> Option<(&'m [u8], Shape)> {
        let mut reader = Reader::new(message.body);
        reader.cstring().ok()?;
        let name = reader.cstring().ok()?;
        let told = self.names.told(name)?;
        let id = self.names.get(name)?.id();
        (!self.is_told_anew(message, id)).then_some((name, told))
    }

    pub(super) fn verify(&mut self, message: &Message<'_>) {
        self.copy_to(message.start);
        let Some((name, _)) = self.relied_on(message) else {
            return;
        };
        if let Some(statement) = self.names.get(name).cloned() {
            let supply = self.connection.verify(&statement, self.most(), self.out);
            self.count(supply);
        }
    }

    /// Whether the rows of the statement look different, here, from what the client goes by.
    pub(super) fn has_changed(&self, message: &Message<'_>, name: &[u8], id: u64) -> bool {
        let shape = self.connection.prepared().shape(id);
        let told = self.names.told(name);
        // One that is too long to be compared may be any.
        let is_known = shape.is_some() || self.connection.prepared().is_verified(id);
        told.is_some() && is_known && shape != told && !self.is_told_anew(message, id)
    }

    /// Whether the client is told, with this Bind, what the rows look like: the message before it describes the statement,
    /// or the one after it the portal.
    pub(super) fn is_told_anew(&self, message: &Message<'_>, id: u64) -> bool {
        let next = self.bytes.get(message.end..).unwrap_or_default();
        self.described == Some(id) || matches!(next, [tag::DESCRIBE, _, _, _, _, b'P', ..])
    }
}
