//! A client that does what is chosen for it, and looks whether it finds itself as it must be.

use std::{collections::VecDeque, fmt::Write};

use super::{
    model::{Model, SETTINGS, SLOTS},
    step::{Kinds, Random, Step, choose, key},
    support::{Frame, RawClient, frames, sqlstates, values},
};

/// How many of its last steps a client can tell of.
const REMEMBERED: usize = 60;

pub(crate) struct Hunter {
    address: String,
    database: &'static str,
    client: RawClient,
    owner: usize,
    kinds: Kinds,
    model: Model,
    last: VecDeque<String>,
    steps: u64,
}

impl Hunter {
    pub(crate) fn new(address: &str, database: &'static str, owner: usize, kinds: Kinds) -> Self {
        Self {
            address: address.to_owned(),
            database,
            client: RawClient::log_in(address, "app", "secret", database),
            owner,
            kinds,
            model: Model::default(),
            last: VecDeque::new(),
            steps: 0,
        }
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Does what this number chooses.
    pub(crate) fn step(&mut self, choice: u64) -> Result<(), String> {
        let mut random = Random::new(choice, 0);
        let step = choose(&mut random, &self.model, self.kinds, self.owner);
        let extended = random.below(2) == 0 && !step.is_query_only();
        self.steps += 1;
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last
            .push_back(format!("{step:?}{}", if extended { ", extended" } else { "" }));
        let done = match &step {
            Step::Check => self.check(),
            Step::Vanish => {
                self.client = RawClient::log_in(&self.address, "app", "secret", self.database);
                Ok(())
            }
            Step::Prepare(slot, statement) => {
                let parse = frames::parse(&format!("s{slot}"), &statement.sql());
                self.say([parse, frames::sync()].concat(), &[])
            }
            Step::Close(slot) => {
                let close = frames::close(b'S', &format!("s{slot}"));
                self.say([close, frames::sync()].concat(), &[])
            }
            Step::Use(slot) => {
                let expected = self.model.result(&self.model.prepared[slot]);
                self.use_statement(*slot, &[&expected])
            }
            Step::SqlExecute(slot) => {
                let expected = self.model.sql_prepared[slot].clone();
                self.query(&step, extended)
                    .and_then(|replies| expect(&replies, &[&expected]))
            }
            Step::Fail | Step::SetAndFail(..) => self
                .query(&step, extended)
                .and_then(|replies| expect(&replies, &["22012"])),
            _ => self.query(&step, extended).and_then(|replies| no_error(&replies)),
        };
        self.model.apply(&step);
        done.map_err(|error| self.tell(&error))
    }

    fn query(&mut self, step: &Step, extended: bool) -> Result<Vec<Frame>, String> {
        let sql = step.sql(self.owner).unwrap();
        self.ask(if extended {
            frames::extended(&sql, &[])
        } else {
            frames::query(&sql)
        })
    }

    fn use_statement(&mut self, slot: usize, expected: &[&str]) -> Result<(), String> {
        let name = format!("s{slot}");
        let using = [frames::bind("", &name, &[]), frames::execute(""), frames::sync()];
        self.say(using.concat(), expected)
    }

    fn say(&mut self, bytes: Vec<u8>, expected: &[&str]) -> Result<(), String> {
        self.ask(bytes).and_then(|replies| expect(&replies, expected))
    }

    fn ask(&mut self, bytes: Vec<u8>) -> Result<Vec<Frame>, String> {
        self.client.try_send(bytes).map_err(|error| error.to_string())?;
        let mut replies = Vec::new();
        loop {
            let reply = self.client.try_read();
            replies.push(reply.map_err(|error| format!("{error} after {replies:?}"))?);
            if replies.last().is_some_and(|reply| reply.tag == b'Z') {
                return Ok(replies);
            }
        }
    }

    /// Looks at all there is of the session.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        if self.model.has_failed() {
            return Ok(());
        }
        let replies = self.ask(frames::query(&question()))?;
        let row = replies.iter().find(|reply| reply.tag == b'D');
        let row = row.ok_or_else(|| self.tell(&format!("{replies:?}")))?;
        let found: Vec<_> = row.columns().into_iter().map(Option::unwrap_or_default).collect();
        let mut differences = String::new();
        for ((what, expected), found) in self.expected().into_iter().zip(found) {
            if expected.as_ref().is_some_and(|expected| *expected != found) {
                writeln!(
                    differences,
                    "{what} is {found:?} and should be {:?}",
                    expected.unwrap()
                )
                .unwrap();
            }
        }
        let absent = (0..SLOTS)
            .filter(|slot| !self.model.prepared.contains_key(slot))
            .min();
        if let (Some(slot), false, true) = (absent, self.model.in_transaction(), differences.is_empty()) {
            self.use_statement(slot, &["26000"])?;
        }
        match differences.is_empty() {
            true => Ok(()),
            false => Err(self.tell(&differences)),
        }
    }

    /// What the answer to [`question`] must be; `None` where that cannot be known.
    fn expected(&self) -> Vec<(String, Option<String>)> {
        let model = &self.model;
        let mut expected: Vec<_> = (0..SETTINGS.len())
            .map(|which| {
                (
                    SETTINGS[which].0.to_owned(),
                    Some(model.setting(which).to_owned()),
                )
            })
            .collect();
        let list = |items: Vec<String>| Some(items.join(","));
        let named = |prefix: &str, slots: Vec<&usize>| {
            list(slots.iter().map(|slot| format!("{prefix}{slot}")).collect())
        };
        expected.push((
            "user".into(),
            Some(model.session.role.unwrap_or("app").to_owned()),
        ));
        expected.push((
            "tables".into(),
            named("mine", model.session.tables.iter().collect()),
        ));
        // LISTEN takes effect when its transaction has ended.
        let channels = named("channel", model.session.channels.iter().collect());
        expected.push(("channels".into(), channels.filter(|_| !model.in_transaction())));
        expected.push((
            "cursors".into(),
            named("c", model.session.cursors.iter().collect()),
        ));
        expected.push(("prepared".into(), named("q", model.sql_prepared.keys().collect())));
        let keys = model.locks.keys().map(|&slot| key(self.owner, slot).to_string());
        expected.push(("locks".into(), list(keys.collect())));
        expected.push(("foreign settings".into(), Some(String::new())));
        expected
    }

    fn tell(&self, error: &str) -> String {
        let last = self.last.iter().map(|step| format!("\n  {step}"));
        format!(
            "{error}\nexpected {:#?}\nafter{}",
            self.model,
            last.collect::<String>()
        )
    }
}

/// One question about everything.
fn question() -> String {
    let settings: String = SETTINGS
        .iter()
        .map(|(name, ..)| format!("current_setting('{name}', true), "))
        .collect();
    let known: String = SETTINGS.iter().map(|(name, ..)| format!("'{name}', ")).collect();
    let tables: String = (0..SLOTS)
        .map(|slot| {
            format!("CASE WHEN to_regclass('pg_temp.mine{slot}') IS NOT NULL THEN 'mine{slot}' END, ")
        })
        .collect();
    // Keys of locks are sorted as numbers.
    format!(
        "SELECT {settings}current_user, concat_ws(',', {tables}NULL),
        (SELECT string_agg(c, ',' ORDER BY c) FROM pg_listening_channels() AS c),
        (SELECT string_agg(name, ',' ORDER BY name) FROM pg_cursors WHERE is_holdable),
        (SELECT string_agg(name, ',' ORDER BY name) FROM pg_prepared_statements WHERE from_sql),
        (SELECT string_agg(objid::text, ',' ORDER BY objid) FROM pg_locks
            WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
        (SELECT string_agg(name, ',') FROM pg_settings WHERE source = 'session' AND name NOT IN ({known}
            'client_encoding', 'transaction_isolation', 'transaction_read_only', 'transaction_deferrable'))"
    )
}

fn expect(replies: &[Frame], expected: &[&str]) -> Result<(), String> {
    let found = [values(replies), sqlstates(replies)].concat();
    match found == expected {
        true => Ok(()),
        false => Err(format!("{found:?} came and not {expected:?}: {replies:?}")),
    }
}

fn no_error(replies: &[Frame]) -> Result<(), String> {
    match sqlstates(replies).is_empty() {
        true => Ok(()),
        false => Err(format!("{replies:?}")),
    }
}
