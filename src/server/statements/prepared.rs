//! What is prepared on one server connection.

use std::collections::HashMap;

use super::Shape;

/// The statements that a server connection has, and when each was last used.
#[derive(Debug, Default)]
pub struct Prepared {
    statements: HashMap<u64, Entry>,
    /// The number of the batch that is being sent.
    batch: u64,
    /// The first batch that has not been answered.
    unanswered: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The last batch that used it.
    used: u64,
    state: Known,
    /// What its rows look like, if that was asked.
    shape: Option<Shape>,
    /// The batch in which it was asked because a client goes by it.
    verified: Option<u64>,
}

/// What is known of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// The server has said that it has it, or a client is responsible for what it asked for.
    Fresh,
    /// The pooler has asked for it in this batch.
    Asked(u64),
    /// It may be there, and if it is, it may be of no use.
    Uncertain,
}

/// What a server connection has of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Has {
    /// The statement.
    Fresh,
    /// That is not known: it must be closed, which is never an error, and prepared again.
    Uncertain,
    /// Nothing.
    Nothing,
}

impl Prepared {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.statements.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// Notes that a batch ends here, in the stream of messages.
    pub fn next_batch(&mut self) {
        self.batch += 1;
    }

    /// Notes that everything sent so far has been answered: what was used before may be evicted.
    pub fn settle(&mut self) {
        self.batch += 1;
        self.unanswered = self.batch;
    }

    /// Whether every batch before this one has been answered.
    pub fn is_first_batch(&self) -> bool {
        self.batch == self.unanswered
    }

    /// Notes that the statement is used in this batch, and says what there is of it. What the pooler has asked for in
    /// an earlier batch, still unanswered, may have been skipped there.
    pub fn touch(&mut self, id: u64) -> Has {
        let Some(entry) = self.statements.get_mut(&id) else {
            return Has::Nothing;
        };
        entry.used = self.batch;
        match entry.state {
            Known::Fresh => Has::Fresh,
            Known::Asked(batch) if batch == self.batch => Has::Fresh,
            Known::Asked(_) | Known::Uncertain => Has::Uncertain,
        }
    }

    /// Whether it is asked for in this batch, or not there at all.
    pub fn is_asked(&self, id: u64) -> bool {
        let entry = self.statements.get(&id);
        entry.is_none_or(|entry| entry.state == Known::Asked(self.batch))
    }

    /// Notes that the pooler asks for it here.
    pub fn ask(&mut self, id: u64) {
        self.insert(id, Known::Asked(self.batch));
    }

    /// Notes that it is prepared, or that a client asks for it here.
    pub fn add(&mut self, id: u64) {
        match self.statements.get_mut(&id) {
            // What is known of its rows was asked behind it.
            Some(entry) => entry.state = Known::Fresh,
            None => self.insert(id, Known::Fresh),
        }
    }

    fn insert(&mut self, id: u64, state: Known) {
        let entry = Entry {
            used: self.batch,
            state,
            shape: None,
            verified: None,
        };
        self.statements.insert(id, entry);
    }

    /// Notes that it is not there.
    pub fn remove(&mut self, id: u64) {
        self.statements.remove(&id);
    }

    /// Notes that it may not be there, or be of no use.
    pub fn doubt(&mut self, id: u64) {
        let used = self.batch;
        let entry = self.statements.entry(id).or_insert(Entry {
            used,
            state: Known::Uncertain,
            shape: None,
            verified: None,
        });
        entry.state = Known::Uncertain;
        entry.shape = None;
    }

    /// Notes that the pooler asks in this batch what its rows look like.
    pub fn verify(&mut self, id: u64) {
        if let Some(entry) = self.statements.get_mut(&id) {
            entry.verified = Some(self.batch);
        }
    }

    /// Whether that was asked in this batch.
    pub fn is_verified(&self, id: u64) -> bool {
        let entry = self.statements.get(&id);
        entry.is_some_and(|entry| entry.verified == Some(self.batch))
    }

    /// Notes what its rows look like.
    pub fn set_shape(&mut self, id: u64, shape: Option<Shape>) {
        if let Some(entry) = self.statements.get_mut(&id) {
            entry.shape = shape;
        }
    }

    /// What its rows look like, if that is known.
    pub fn shape(&self, id: u64) -> Option<Shape> {
        self.statements.get(&id)?.shape
    }

    /// Takes out the statement that was used longest ago, if there is no room for another beside `most` and nothing
    /// unanswered uses it.
    pub fn evict(&mut self, most: usize) -> Option<u64> {
        if self.statements.len() < most {
            return None;
        }
        let unused = self
            .statements
            .iter()
            .filter(|(_, entry)| entry.used < self.unanswered);
        let (&id, _) = unused.min_by_key(|(id, entry)| (entry.used, **id))?;
        self.statements.remove(&id);
        Some(id)
    }

    /// Notes that the server has forgotten them all.
    pub fn clear(&mut self) {
        self.statements.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_used_longest_ago_makes_room_and_never_one_that_is_in_use() {
        let mut prepared = Prepared::default();
        for id in 1..=3 {
            prepared.settle();
            prepared.add(id);
        }
        assert_eq!(prepared.evict(4), None);
        prepared.settle();
        assert_eq!(prepared.touch(1), Has::Fresh);
        assert_eq!(prepared.evict(3), Some(2));
        prepared.next_batch();
        assert_eq!(prepared.touch(3), Has::Fresh);
        assert_eq!(
            (prepared.evict(2), prepared.len()),
            (None, 2),
            "both are in use, one of them in a batch that is not answered"
        );
        prepared.settle();
        assert_eq!(prepared.evict(2), Some(1));
    }

    #[test]
    fn what_the_pooler_asked_for_may_have_been_skipped() {
        let mut prepared = Prepared::default();
        prepared.ask(7);
        assert_eq!(
            prepared.touch(7),
            Has::Fresh,
            "in the same batch, it is asked for before"
        );
        prepared.next_batch();
        assert_eq!(prepared.touch(7), Has::Uncertain);
        prepared.add(7);
        assert_eq!(prepared.touch(7), Has::Fresh);
    }

    /// A statement whose rows a client goes by was prepared and described again and again, because the answer to the
    /// one made the other forgotten.
    #[test]
    fn what_was_asked_about_its_rows_outlives_its_being_prepared() {
        let mut prepared = Prepared::default();
        prepared.ask(7);
        prepared.verify(7);
        prepared.add(7);
        assert!(prepared.is_verified(7));
        let shape = Shape::of(crate::wire::backend::tag::NO_DATA, b"");
        prepared.set_shape(7, shape);
        assert_eq!(prepared.shape(7), shape);
        prepared.next_batch();
        assert!(!prepared.is_verified(7));
        prepared.doubt(7);
        assert_eq!(prepared.shape(7), None);
    }

    #[test]
    fn what_is_in_doubt_is_asked_for_again() {
        let mut prepared = Prepared::default();
        prepared.add(7);
        prepared.doubt(7);
        assert_eq!(prepared.touch(7), Has::Uncertain);
        assert_eq!(prepared.touch(8), Has::Nothing);
        prepared.add(7);
        assert_eq!(prepared.touch(7), Has::Fresh);
        prepared.clear();
        assert!(prepared.is_empty());
    }
}
