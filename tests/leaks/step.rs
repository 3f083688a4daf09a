//! What a client may do next, and how it says so.

use super::model::{Model, REPORTED, SETTINGS, SLOTS};

/// Kinds of state that clients make use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kinds(u8);

impl Kinds {
    /// Prepared statements, and settings that the server reports.
    pub(crate) const STATEMENTS: Self = Self(0);
    /// The same, all settings and roles.
    pub(crate) const SETTINGS: Self = Self(1);
    /// The same, and what ties a client to its server connection.
    pub(crate) const HELD: Self = Self(2);
    /// The same, also by functions whose calls do not say what they do.
    pub(crate) const ALL: Self = Self(3);

    fn has_functions(self) -> bool {
        self >= Self::ALL
    }
}

/// A prepared statement of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Prepared {
    Constant(String),
    /// What a table of one of several schemas says.
    Table,
    Setting(usize),
}

/// One thing that a client does.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Set(usize, &'static str),
    SetLocal(usize, &'static str),
    SetConfig(usize, &'static str),
    SetConfigLocal(usize, &'static str),
    /// By a function that sets it.
    Put(usize, &'static str),
    Reset(usize),
    ResetAll,
    Role(Option<&'static str>),
    Begin,
    Commit,
    Rollback,
    Savepoint,
    RollbackTo,
    Fail,
    /// Both in one Query: nothing of it stays.
    SetAndFail(usize, &'static str),
    /// The client goes, and another one comes.
    Vanish,
    DiscardAll,
    DeallocateAll,
    Prepare(usize, Prepared),
    Use(usize),
    Close(usize),
    Deallocate(usize),
    SqlPrepare(usize, String),
    SqlExecute(usize),
    SqlDeallocate(usize),
    CreateTable(usize),
    DropTable(usize),
    DiscardTemp,
    Listen(usize),
    Unlisten(usize),
    UnlistenAll,
    Declare(usize),
    CloseCursor(usize),
    CloseAll,
    Lock(usize),
    /// By a function that takes it.
    Hold(usize),
    Unlock(usize),
    UnlockAll,
    Check,
}

/// `xorshift64*`: the same numbers from the same seed, everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64, name: u64) -> Self {
        let mut random = Self(seed.wrapping_add(name).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % limit
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}

/// Something that client `owner` may do now.
pub(crate) fn choose(random: &mut Random, model: &Model, kinds: Kinds, owner: usize) -> Step {
    if model.has_failed() {
        return match random.below(6) {
            0 => Step::Commit,
            1 | 2 if model.has_savepoint() => Step::RollbackTo,
            3 => Step::Vanish,
            _ => Step::Rollback,
        };
    }
    if model.is_pinned() && random.one_in(5) {
        return release(random, model);
    }
    if model.in_transaction() && random.one_in(6) {
        return random
            .of(&[Ends::Commit, Ends::Commit, Ends::Rollback, Ends::Fail])
            .step();
    }
    match random.below(20) {
        0..=4 => Step::Check,
        5..=8 => statement(random, model, owner),
        9..=12 => setting(random, model, kinds),
        13 if kinds >= Kinds::SETTINGS => Step::Role(random.of(&[None, Some("reader"), Some("writer")])),
        14..=16 if kinds >= Kinds::HELD => held(random, model, kinds, owner),
        17 => seldom(random, model),
        _ if model.in_transaction() => random
            .of(&[Ends::Savepoint, Ends::RollbackTo, Ends::Commit])
            .within(model),
        _ => Step::Begin,
    }
}

#[derive(Clone, Copy)]
enum Ends {
    Commit,
    Rollback,
    Fail,
    Savepoint,
    RollbackTo,
}

impl Ends {
    fn step(self) -> Step {
        match self {
            Self::Commit => Step::Commit,
            Self::Rollback => Step::Rollback,
            Self::Fail => Step::Fail,
            Self::Savepoint => Step::Savepoint,
            Self::RollbackTo => Step::RollbackTo,
        }
    }

    fn within(self, model: &Model) -> Step {
        match self {
            Self::RollbackTo if !model.has_savepoint() => Step::Check,
            other => other.step(),
        }
    }
}

fn seldom(random: &mut Random, model: &Model) -> Step {
    match random.below(5) {
        0 => Step::Fail,
        1 => Step::DeallocateAll,
        2 if !model.in_transaction() => Step::DiscardAll,
        3 => Step::Vanish,
        _ => Step::ResetAll,
    }
}

fn statement(random: &mut Random, model: &Model, owner: usize) -> Step {
    let slot = random.below(SLOTS);
    match random.below(6) {
        _ if !model.prepared.contains_key(&slot) => {
            let shared = random.below(3);
            Step::Prepare(
                slot,
                match random.below(4) {
                    0 => Prepared::Constant(format!("own {owner} {shared}")),
                    1 => Prepared::Constant(format!("shared {shared}")),
                    2 => Prepared::Table,
                    _ => Prepared::Setting(random.below(SETTINGS.len())),
                },
            )
        }
        0 => Step::Close(slot),
        1 => Step::Deallocate(slot),
        _ => Step::Use(slot),
    }
}

fn setting(random: &mut Random, model: &Model, kinds: Kinds) -> Step {
    let first = if kinds >= Kinds::SETTINGS { 0 } else { REPORTED };
    let which = first + random.below(SETTINGS.len() - first);
    let value = random.of(SETTINGS[which].2);
    match random.below(8) {
        0 | 1 => Step::Set(which, value),
        2 => Step::SetLocal(which, value),
        3 => Step::SetConfig(which, value),
        4 => Step::SetConfigLocal(which, value),
        5 if kinds.has_functions() => Step::Put(which, value),
        // In a transaction it is the transaction that fails.
        6 if !model.in_transaction() => Step::SetAndFail(which, value),
        _ => Step::Reset(which),
    }
}

/// Something that ties the client to its server connection, or unties it.
fn held(random: &mut Random, model: &Model, kinds: Kinds, owner: usize) -> Step {
    let slot = random.below(SLOTS);
    let at_rest = !model.in_transaction();
    // A role that may not touch what another has made is not what this is about.
    let own_role = model.session.role.is_none();
    match random.below(6) {
        0 if model.sql_prepared.contains_key(&slot) => {
            if random.one_in(3) {
                Step::SqlDeallocate(slot)
            } else {
                Step::SqlExecute(slot)
            }
        }
        0 => Step::SqlPrepare(slot, format!("sql {owner} {}", random.below(100))),
        1 if own_role && model.session.tables.contains(&slot) => Step::DropTable(slot),
        1 if own_role => Step::CreateTable(slot),
        2 if model.session.channels.contains(&slot) => Step::Unlisten(slot),
        2 => Step::Listen(slot),
        // A cursor that was closed stays closed, whatever becomes of the transaction.
        3 if model.session.cursors.contains(&slot) && at_rest => Step::CloseCursor(slot),
        3 if !model.session.cursors.contains(&slot) => Step::Declare(slot),
        4 if model.locks.contains_key(&slot) && random.one_in(2) => Step::Unlock(slot),
        4 => Step::Lock(slot),
        _ if kinds.has_functions() => Step::Hold(slot),
        _ => Step::Lock(slot),
    }
}

/// Something that brings a client nearer to the end of its pin.
fn release(random: &mut Random, model: &Model) -> Step {
    if model.in_transaction() {
        return random.of(&[Ends::Commit, Ends::Rollback]).step();
    }
    if random.one_in(4) {
        return if random.one_in(3) {
            Step::Vanish
        } else {
            Step::DiscardAll
        };
    }
    if !model.locks.is_empty() {
        return Step::UnlockAll;
    }
    if let Some(&slot) = model.sql_prepared.keys().next() {
        return Step::SqlDeallocate(slot);
    }
    if !model.session.channels.is_empty() {
        return Step::UnlistenAll;
    }
    if !model.session.cursors.is_empty() {
        return Step::CloseAll;
    }
    match (model.session.role, model.session.tables.first()) {
        (Some(_), _) => Step::DiscardAll,
        (None, Some(&slot)) if random.one_in(2) => Step::DropTable(slot),
        _ => Step::DiscardTemp,
    }
}

impl Step {
    /// The text of a step that is one, by client `owner`.
    pub(crate) fn sql(&self, owner: usize) -> Option<String> {
        let name = |which: &usize| SETTINGS[*which].0;
        let literal = |which: &usize, value: &&str| match name(which) {
            "search_path" => (*value).to_owned(),
            _ => format!("'{value}'"),
        };
        Some(match self {
            Self::Set(which, value) => format!("SET {} = {}", name(which), literal(which, value)),
            Self::SetLocal(which, value) => format!("SET LOCAL {} TO {}", name(which), literal(which, value)),
            Self::SetConfig(which, value) => {
                format!("SELECT set_config('{}', '{value}', false)", name(which))
            }
            Self::SetConfigLocal(which, value) => {
                format!("SELECT set_config('{}', '{value}', true)", name(which))
            }
            Self::Put(which, value) => format!("SELECT public.put('{}', '{value}')", name(which)),
            Self::SetAndFail(which, value) => {
                format!("SET {} = {}; SELECT 1/0", name(which), literal(which, value))
            }
            Self::Reset(which) => format!("RESET {}", name(which)),
            Self::ResetAll => "RESET ALL".into(),
            Self::Role(Some(role)) => format!("SET ROLE {role}"),
            Self::Role(None) => "RESET ROLE".into(),
            Self::Begin => "BEGIN".into(),
            Self::Commit => "COMMIT".into(),
            Self::Rollback => "ROLLBACK".into(),
            Self::Savepoint => "SAVEPOINT s".into(),
            Self::RollbackTo => "ROLLBACK TO s".into(),
            Self::Fail => "SELECT 1/0".into(),
            Self::DiscardAll => "DISCARD ALL".into(),
            Self::DeallocateAll => "DEALLOCATE ALL".into(),
            Self::Deallocate(slot) => format!("DEALLOCATE s{slot}"),
            Self::SqlPrepare(slot, value) => format!("PREPARE q{slot} AS SELECT '{value}'::text"),
            Self::SqlExecute(slot) => format!("EXECUTE q{slot}"),
            Self::SqlDeallocate(slot) => format!("DEALLOCATE q{slot}"),
            Self::CreateTable(slot) => format!("CREATE TEMP TABLE mine{slot} AS SELECT {owner} AS a"),
            Self::DropTable(slot) => format!("DROP TABLE pg_temp.mine{slot}"),
            Self::DiscardTemp => "DISCARD TEMP".into(),
            Self::Listen(slot) => format!("LISTEN channel{slot}"),
            Self::Unlisten(slot) => format!("UNLISTEN channel{slot}"),
            Self::UnlistenAll => "UNLISTEN *".into(),
            Self::Declare(slot) => format!("DECLARE c{slot} CURSOR WITH HOLD FOR SELECT {owner}"),
            Self::CloseCursor(slot) => format!("CLOSE c{slot}"),
            Self::CloseAll => "CLOSE ALL".into(),
            Self::Lock(slot) => format!("SELECT pg_advisory_lock({})", key(owner, *slot)),
            Self::Hold(slot) => format!("SELECT public.hold({})", key(owner, *slot)),
            Self::Unlock(slot) => format!("SELECT pg_advisory_unlock({})", key(owner, *slot)),
            Self::UnlockAll => "SELECT pg_advisory_unlock_all()".into(),
            Self::Prepare(..) | Self::Use(_) | Self::Close(_) | Self::Vanish | Self::Check => return None,
        })
    }

    /// Whether it is more than one statement, which only a Query can be.
    pub(crate) fn is_query_only(&self) -> bool {
        matches!(self, Self::SetAndFail(..))
    }
}

/// The key of an advisory lock: nobody waits for another's.
pub(crate) fn key(owner: usize, slot: usize) -> usize {
    owner * SLOTS + slot + 1
}

impl Prepared {
    /// Its text.
    pub(crate) fn sql(&self) -> String {
        match self {
            Self::Constant(value) => format!("SELECT '{value}'::text"),
            Self::Table => "SELECT a FROM t".into(),
            Self::Setting(which) => format!(
                "SELECT coalesce(current_setting('{}', true), '')",
                SETTINGS[*which].0
            ),
        }
    }
}
