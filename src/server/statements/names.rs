//! What one client calls its statements.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Interner, Naming, Shape, Statement};
use crate::server::{
    hints::{Hints, Reading},
    parameters::{Parameters, Planning},
};

/// An unnamed statement up to this size is remembered, for a client that binds it in a later transaction.
const REMEMBERED: usize = 1024 * 1024;
/// Memory beyond this is given back when the next one is shorter.
const KEPT: usize = 16 * 1024;

/// The statements of one client.
#[derive(Debug, Default)]
pub struct Names {
    named: HashMap<Box<[u8]>, Named>,
    unnamed: Unnamed,
    /// What follows the name in the unnamed statement's Parse message.
    unnamed_body: Vec<u8>,
    /// What it may do to the state of a session, if it may do anything.
    unnamed_reading: Option<Box<Reading>>,
    /// The settings that were last looked at, and what of them matters.
    settings: Option<(Parameters, Planning)>,
    /// What the unnamed statement will have the server forget when it is executed: number and name.
    pub deallocates: Option<(u64, Box<[u8]>)>,
    /// The rest of the unnamed statement is still to come.
    pub grows: bool,
    /// The end of what has been looked at of a text whose rest is still to come.
    pub tail: Option<Box<[u8]>>,
    /// What is executed next may have the server forget statements.
    pub waits: bool,
    /// The same when the rest of a Query has been sent.
    pub waits_for_end: bool,
    /// The portal that was bound last, and the number of its statement.
    pub portal: Option<(Box<[u8]>, u64)>,
    /// The beginning of a Parse message that has to be known as a whole.
    pub collected: Vec<u8>,
    /// Names that were given or given up in batches that are not answered.
    unsettled: HashMap<Box<[u8]>, Unsettled>,
    /// The last of them that has changed the unnamed statement; zero if none has.
    unsettled_unnamed: u64,
    /// The number of the batch that is being sent.
    batch: u64,
}

/// A statement that has a name.
#[derive(Debug)]
struct Named {
    statement: Arc<Statement>,
    /// What the client was told that its rows look like.
    told: Option<Shape>,
}

/// What was done to a name.
#[derive(Debug, Clone, Copy)]
struct Unsettled {
    /// The first batch that did something.
    since: u64,
    /// The number of the statement that it stood for last before it was given up.
    before: Option<u64>,
}

/// The statement without a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Unnamed {
    /// There is none.
    #[default]
    None,
    /// It has this number, and what it says is known.
    Known(u64),
    /// It has this number, and not all of it has come.
    Long(u64),
    /// It has this number, and was too long to be remembered.
    Lost(u64),
}

impl Names {
    /// What stands for a name.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.named.get(name).map(|named| &named.statement)
    }

    /// What the client was told that the rows of the statement look like that has a name.
    pub fn told(&self, name: &[u8]) -> Option<Shape> {
        self.named.get(name)?.told
    }

    /// Notes what the client is told that the rows of a statement look like.
    pub fn tell(&mut self, id: u64, shape: Option<Shape>) {
        for named in self.named.values_mut() {
            if named.statement.id() == id {
                named.told = shape;
            }
        }
    }

    /// The statement that has a name, as it is under the settings that the client has now.
    pub fn resolve(
        &mut self,
        name: &[u8],
        parameters: &Parameters,
        interner: &Interner,
    ) -> Option<Arc<Statement>> {
        let settings = self.fingerprint(parameters).clone();
        let statement = &mut self.named.get_mut(name)?.statement;
        if *statement.settings() != settings {
            *statement = interner.intern(statement.body(), &settings);
        }
        Some(statement.clone())
    }

    /// What of the settings matters to statements.
    pub fn fingerprint(&mut self, parameters: &Parameters) -> &Planning {
        if !matches!(&self.settings, Some((last, _)) if last.is(parameters)) {
            self.settings = None;
        }
        let make = || (parameters.clone(), parameters.planning());
        &self.settings.get_or_insert_with(make).1
    }

    /// Whether what a name stands for depends on whether an earlier batch, not answered yet, has failed.
    pub fn is_unsettled(&self, name: &[u8]) -> bool {
        if name.is_empty() {
            return (1..=self.batch).contains(&self.unsettled_unnamed);
        }
        let unsettled = self.unsettled.get(name);
        unsettled.is_some_and(|unsettled| unsettled.since <= self.batch)
    }

    /// Whether that is so of any name.
    pub fn are_unsettled(&self) -> bool {
        self.unsettled_unnamed > 0 || !self.unsettled.is_empty()
    }

    /// Notes that a batch ends here, in the stream of messages.
    pub fn next_batch(&mut self) {
        self.batch += 1;
    }

    /// Notes that everything sent so far has been answered.
    pub fn settle(&mut self) {
        self.unsettled.clear();
        self.unsettled_unnamed = 0;
    }

    /// Notes that the server is given the unnamed statement, or has it taken away, in the batch that is being sent.
    pub fn unsettle_unnamed(&mut self) {
        self.unsettled_unnamed = self.batch + 1;
    }

    /// Notes that what a name stands for, or whether the server has it, depends on the batch that is being sent. `before`
    /// is the number of the statement that it stood for, if it was given up.
    pub fn unsettle(&mut self, name: &[u8], before: Option<u64>) {
        // The batch that is being sent has the next number, so that zero is none.
        let since = self.batch + 1;
        let unsettled = self.unsettled.entry(name.into());
        let unsettled = unsettled.or_insert(Unsettled { since, before });
        unsettled.before = before.or(unsettled.before);
    }

    /// Gives a name, and says what it stood for.
    pub fn give(&mut self, name: &[u8], statement: Arc<Statement>) -> Naming {
        self.unsettle(name, None);
        let told = None;
        let before = self.named.insert(name.into(), Named { statement, told });
        Naming {
            name: name.into(),
            before: before.map(|named| named.statement),
        }
    }

    /// Gives up a name that stands for something.
    pub fn give_up(&mut self, name: &[u8]) -> Option<Naming> {
        let (name, named) = self.named.remove_entry(name)?;
        self.unsettle(&name, Some(named.statement.id()));
        Some(Naming {
            name,
            before: Some(named.statement),
        })
    }

    /// Undoes what was done to a name.
    pub fn restore(&mut self, naming: Naming) {
        match naming.before {
            // What the client was told about it is forgotten: then it is not gone by.
            Some(statement) => {
                let told = None;
                self.named.insert(naming.name, Named { statement, told })
            }
            None => self.named.remove(&naming.name),
        };
    }

    /// The name of the statement with this number, also one that was given up in a batch that is not answered.
    pub fn name_of(&self, id: u64) -> Option<&[u8]> {
        let mut named = self.named.iter();
        let mut unsettled = self.unsettled.iter();
        let named = named
            .find(|(_, named)| named.statement.id() == id)
            .map(|(name, _)| name);
        let given_up = || {
            let found = unsettled.find(|(_, unsettled)| unsettled.before == Some(id));
            found.map(|(name, _)| name)
        };
        named.or_else(given_up).map(|name| &**name)
    }

    /// Forgets every name. What has none stays, as with PostgreSQL.
    pub fn clear(&mut self) {
        self.named.clear();
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.named.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// The number of the statement without a name; zero if there is none.
    pub fn unnamed(&self) -> u64 {
        match self.unnamed {
            Unnamed::None => 0,
            Unnamed::Known(number) | Unnamed::Long(number) | Unnamed::Lost(number) => number,
        }
    }

    /// What follows the name in its Parse message, where it is known.
    pub fn unnamed_body(&self) -> Option<&[u8]> {
        matches!(self.unnamed, Unnamed::Known(_)).then_some(&self.unnamed_body)
    }

    /// What the unnamed statement may do to the state of a session, if it may do anything.
    pub fn unnamed_reading(&self) -> Option<&Reading> {
        self.unnamed_reading.as_deref()
    }

    /// Notes that the unnamed statement may do anything to the state of a session.
    pub fn suspect_unnamed(&mut self) {
        let reading = self.unnamed_reading.get_or_insert_default();
        reading.hints.insert(Hints::ASKABLE);
    }

    /// Remembers the unnamed statement, which gets this number. `whole` tells whether `body` is all of it.
    pub fn set_unnamed(&mut self, number: u64, body: &[u8], whole: bool, reading: Reading) {
        self.unnamed_reading = (!reading.is_empty()).then(|| Box::new(reading));
        self.deallocates = None;
        self.waits = false;
        self.unsettle_unnamed();
        self.unnamed_body.clear();
        if self.unnamed_body.capacity() > KEPT {
            self.unnamed_body = Vec::new();
        }
        self.unnamed = Unnamed::Long(number);
        self.grow_unnamed(body, whole);
    }

    /// Takes more of the unnamed statement that has begun to come; `whole` tells whether it is there now.
    pub fn grow_unnamed(&mut self, more: &[u8], whole: bool) {
        let Unnamed::Long(number) = self.unnamed else {
            return;
        };
        if self.unnamed_body.len() + more.len() > REMEMBERED {
            self.unnamed_body = Vec::new();
            self.unnamed = Unnamed::Lost(number);
            return;
        }
        self.unnamed_body.extend_from_slice(more);
        if whole {
            self.unnamed = Unnamed::Known(number);
        }
    }

    fn has_nothing(&self) -> bool {
        self.named.is_empty()
            && self.unnamed == Unnamed::None
            && self.unsettled.is_empty()
            && self.collected.is_empty()
            && self.tail.is_none()
            && !self.waits
            && !self.waits_for_end
    }

    /// Forgets the unnamed statement. `unless_skipped` says that it depends on the batch whether the server does so too.
    pub fn drop_unnamed(&mut self, unless_skipped: bool) {
        self.unnamed = Unnamed::None;
        self.deallocates = None;
        if unless_skipped {
            self.unsettled_unnamed = self.batch + 1;
        }
    }
}

/// The statements of a client, for those who send for it and those who listen, and the process id that it was told.
/// There are none until it has one.
#[derive(Debug)]
pub struct SharedNames {
    names: Mutex<Option<Box<Names>>>,
    pid: i32,
    neighbours: Arc<dyn Neighbours>,
}

/// Who knows the other clients.
pub trait Neighbours: std::fmt::Debug + Send + Sync {
    /// The process id that the client was told for which the server process with this id has worked last.
    fn told_by_backend(&self, backend: i32) -> Option<i32>;
}

impl SharedNames {
    /// Those of a client that was told this process id.
    pub fn new(pid: i32, neighbours: Arc<dyn Neighbours>) -> Self {
        Self {
            names: Mutex::default(),
            pid,
            neighbours,
        }
    }

    /// The process id that the client was told for which the server process with this id has worked last.
    pub fn told_by_backend(&self, backend: i32) -> Option<i32> {
        self.neighbours.told_by_backend(backend)
    }

    /// The process id that the client was told.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Lets `with` have them. Who still has none afterwards costs nothing.
    pub fn with<T>(&self, with: impl FnOnce(&mut Names) -> T) -> T {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = names.as_deref_mut() {
            return with(names);
        }
        let mut first = Names::default();
        let result = with(&mut first);
        if !first.has_nothing() {
            *names = Some(Box::new(first));
        }
        result
    }

    /// Whether there have been any.
    pub fn are_any(&self) -> bool {
        self.names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// Lets `with` have them, if there have been any.
    pub fn with_any<T>(&self, with: impl FnOnce(&mut Names) -> T) -> Option<T> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.as_deref_mut().map(with)
    }
}
