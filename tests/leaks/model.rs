//! What one client must see, from what it has done: settings, statements, locks and the rest of a session, with
//! transactions and savepoints. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::step::{Prepared, Step};

/// The settings that clients change, and what they are in a new session.
pub(crate) const SETTINGS: [(&str, &str, &[&str]); 11] = [
    // Not reported.
    ("statement_timeout", "0", &["17s", "5min"]),
    ("work_mem", "4MB", &["5MB", "6MB"]),
    (
        "search_path",
        "\"$user\", public",
        &["one", "two", "two, one, public"],
    ),
    ("app.x", "", &["a''b\"c", "größe \\ x", "{1,2}"]),
    ("enable_seqscan", "on", &["off"]),
    ("extra_float_digits", "1", &["0", "2"]),
    (
        "default_transaction_isolation",
        "read committed",
        &["serializable", "repeatable read"],
    ),
    ("lock_timeout", "0", &["1min"]),
    // Reported.
    ("application_name", "", &["alpha", "be''ta, \\gamma"]),
    ("TimeZone", "Etc/UTC", &["Asia/Tokyo", "Europe/Berlin"]),
    ("DateStyle", "ISO, MDY", &["German, DMY", "SQL, MDY"]),
];
/// The first of them that is reported.
pub(crate) const REPORTED: usize = 8;

/// How many statements, tables, locks ... a client has names for.
pub(crate) const SLOTS: usize = 3;

/// A session's state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Session {
    /// Settings by their places in [`SETTINGS`].
    pub(crate) settings: BTreeMap<usize, String>,
    pub(crate) role: Option<&'static str>,
    pub(crate) tables: BTreeSet<usize>,
    pub(crate) channels: BTreeSet<usize>,
    pub(crate) cursors: BTreeSet<usize>,
}

/// A client, as it must find itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) session: Session,
    /// Settings for the rest of the transaction.
    local: BTreeMap<usize, String>,
    /// What ROLLBACK brings back: of the transaction, then of each savepoint.
    saved: Vec<(Session, BTreeMap<usize, String>)>,
    failed: bool,
    /// What no ROLLBACK undoes.
    pub(crate) prepared: BTreeMap<usize, Prepared>,
    pub(crate) sql_prepared: BTreeMap<usize, String>,
    pub(crate) locks: BTreeMap<usize, u32>,
}

impl Model {
    pub(crate) fn in_transaction(&self) -> bool {
        !self.saved.is_empty()
    }

    pub(crate) fn has_savepoint(&self) -> bool {
        self.saved.len() > 1
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether something ties it to its server connection.
    pub(crate) fn is_pinned(&self) -> bool {
        let Session {
            tables,
            channels,
            cursors,
            ..
        } = &self.session;
        let transactional = !(tables.is_empty() && channels.is_empty() && cursors.is_empty());
        transactional || !self.sql_prepared.is_empty() || !self.locks.is_empty()
    }

    /// What `SHOW` says.
    pub(crate) fn setting(&self, which: usize) -> &str {
        let set = self
            .local
            .get(&which)
            .or_else(|| self.session.settings.get(&which));
        set.map_or(SETTINGS[which].1, String::as_str)
    }

    /// What a prepared statement returns.
    pub(crate) fn result(&self, statement: &Prepared) -> String {
        match statement {
            Prepared::Constant(value) => value.clone(),
            Prepared::Table => {
                let path = self.setting(2);
                let first = path.split(", ").find(|schema| *schema != "\"$user\"");
                first.unwrap().to_owned()
            }
            Prepared::Setting(which) => self.setting(*which).to_owned(),
        }
    }

    /// What the step does.
    pub(crate) fn apply(&mut self, step: &Step) {
        match step {
            Step::Set(which, value) | Step::SetConfig(which, value) | Step::Put(which, value) => {
                self.set(*which, value);
            }
            Step::SetLocal(which, value) | Step::SetConfigLocal(which, value) => {
                if self.in_transaction() {
                    self.local.insert(*which, plain(value));
                }
            }
            Step::Reset(which) => {
                self.local.remove(which);
                self.session.settings.remove(which);
            }
            Step::ResetAll => {
                self.local.clear();
                self.session.settings.clear();
            }
            Step::Role(role) => self.session.role = *role,
            Step::Begin | Step::Savepoint => self.saved.push((self.session.clone(), self.local.clone())),
            Step::Commit if self.failed => self.roll_back(0),
            Step::Commit => {
                self.saved.clear();
                self.local.clear();
            }
            Step::Rollback => self.roll_back(0),
            Step::RollbackTo => {
                let last = self.saved.len() - 1;
                let (session, local) = self.saved[last].clone();
                (self.session, self.local, self.failed) = (session, local, false);
            }
            Step::Fail | Step::SetAndFail(..) => self.failed = self.in_transaction(),
            Step::Vanish => *self = Self::default(),
            Step::DiscardAll => *self = Self::default(),
            Step::Prepare(slot, statement) => drop(self.prepared.insert(*slot, statement.clone())),
            Step::Close(slot) | Step::Deallocate(slot) => drop(self.prepared.remove(slot)),
            Step::SqlPrepare(slot, value) => drop(self.sql_prepared.insert(*slot, value.clone())),
            Step::SqlDeallocate(slot) => drop(self.sql_prepared.remove(slot)),
            Step::DeallocateAll => {
                self.prepared.clear();
                self.sql_prepared.clear();
            }
            _ => self.apply_held(step),
        }
    }

    /// What the step does to what ties a client to its server connection.
    fn apply_held(&mut self, step: &Step) {
        let Session {
            tables,
            channels,
            cursors,
            ..
        } = &mut self.session;
        match step {
            Step::CreateTable(slot) => drop(tables.insert(*slot)),
            Step::DropTable(slot) => drop(tables.remove(slot)),
            Step::DiscardTemp => tables.clear(),
            Step::Listen(slot) => drop(channels.insert(*slot)),
            Step::Unlisten(slot) => drop(channels.remove(slot)),
            Step::UnlistenAll => channels.clear(),
            Step::Declare(slot) => drop(cursors.insert(*slot)),
            Step::CloseCursor(slot) => drop(cursors.remove(slot)),
            Step::CloseAll => cursors.clear(),
            Step::Lock(slot) | Step::Hold(slot) => *self.locks.entry(*slot).or_default() += 1,
            Step::Unlock(slot) => {
                if let Some(count) = self.locks.get_mut(slot) {
                    *count -= 1;
                }
                self.locks.retain(|_, count| *count > 0);
            }
            Step::UnlockAll => self.locks.clear(),
            _ => {}
        }
    }

    fn set(&mut self, which: usize, value: &str) {
        self.local.remove(&which);
        self.session.settings.insert(which, plain(value));
    }

    fn roll_back(&mut self, to: usize) {
        if let Some((session, _)) = self.saved.get(to) {
            self.session = session.clone();
        }
        self.saved.clear();
        self.local.clear();
        self.failed = false;
    }
}

/// A value as it is behind the quotes of a literal.
fn plain(value: &str) -> String {
    value.replace("''", "'")
}
