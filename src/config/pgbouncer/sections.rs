//! What a `pgbouncer.ini` says, by section, and in which order it is translated.

use super::{
    auth,
    databases::{self, Database},
    document::Value,
    draft::{Draft, Given, Subject},
    ini::{Ini, Place, What},
    kinds::Kind,
    listen,
    main_section::Main,
    remark::Weight,
    settings::PEERS,
    tls, values,
};
use crate::config::hints;

const SECTIONS: [&str; 4] = ["pgbouncer", "databases", "users", "peers"];
const CAPPED: &str = "PgBouncer, too, never keeps more than the size of the pool";

/// What the file says, by section.
#[derive(Debug)]
pub(super) struct Sections {
    /// Where the file begins.
    pub(super) start: Place,
    /// Where `[pgbouncer]` begins.
    pub(super) place: Option<Place>,
    main: Main,
    databases: Vec<(String, Given)>,
    users: Vec<(String, Given)>,
    peers: Vec<(String, Given)>,
}

impl Sections {
    pub(super) fn of(ini: &Ini, draft: &mut Draft) -> Self {
        let mut sections = Self {
            start: Place {
                file: ini.file.clone(),
                line: 1,
            },
            place: None,
            main: Main::default(),
            databases: Vec::new(),
            users: Vec::new(),
            peers: Vec::new(),
        };
        let mut current = None;
        for said in &ini.said {
            match &said.what {
                What::Section(name) => {
                    sections.begin(name, &said.place, draft);
                    current = Some(name.as_str());
                }
                What::Value(key, value) => {
                    let given = Given {
                        place: said.place.clone(),
                        value: value.clone(),
                    };
                    sections.take(current, key, given, draft);
                }
            }
        }
        sections
    }

    fn begin(&mut self, name: &str, place: &Place, draft: &mut Draft) {
        if name == "pgbouncer" {
            self.main.start_over(draft);
            self.place = Some(place.clone());
        } else if !SECTIONS.contains(&name) {
            let hint = match hints::nearest(name, SECTIONS.into_iter()) {
                Some(near) => format!("did you mean [{near}]?"),
                None => format!("the sections are {}", SECTIONS.join(", ")),
            };
            draft
                .problems
                .push(place.problem("", format!("unknown section [{name}]"), Some(&hint)));
        }
    }

    fn take(&mut self, section: Option<&str>, key: &str, given: Given, draft: &mut Draft) {
        let list = match section {
            Some("pgbouncer") => return self.main.note(key, given, draft),
            Some("databases") => &mut self.databases,
            Some("users") => &mut self.users,
            Some("peers") => &mut self.peers,
            // That there is no such section has been said.
            Some(_) => return,
            None => {
                let problem = given.place.problem(key, "stands before the first section", None);
                return draft.problems.push(problem);
            }
        };
        if let Some((_, earlier)) = list.iter_mut().find(|(name, _)| name == key) {
            let why = format!("what {} says counts", given.place);
            let label = format!("{}.{key}", section.unwrap_or_default());
            let subject = Subject {
                name: &label,
                given: Some(earlier),
            };
            draft.discreet_remark(Weight::Warning, subject, why);
            *earlier = given;
        } else {
            list.push((key.to_owned(), given));
        }
    }

    /// What `[pgbouncer]` says by itself.
    pub(super) fn translate_main(&self, draft: &mut Draft) {
        self.main.translate(draft);
        tls::translate(&self.main, draft);
        cap(&self.main, draft);
    }

    /// What all of it says.
    pub(super) fn translate(&self, draft: &mut Draft) {
        if self.place.is_none() {
            let hint = "PgBouncer does not start without it";
            let problem = self
                .start
                .problem("", "there is no [pgbouncer] section", Some(hint));
            draft.problems.push(problem);
        }
        let mut databases = Vec::new();
        for (name, given) in &self.databases {
            databases.extend(Database::read(name, given, draft));
        }
        let elsewhere = auth::Elsewhere {
            has_auth_user: databases
                .iter()
                .any(|database| database.get("auth_user").is_some()),
            has_free_user: databases.iter().any(|database| database.get("user").is_none()),
        };
        listen::translate(&self.main, draft);
        self.main.translate(draft);
        tls::translate(&self.main, draft);
        auth::translate(&self.main, elsewhere, draft);
        for (index, database) in databases.iter().enumerate() {
            database.translate(self.main.in_force("unix_socket_dir"), index == 0, draft);
        }
        for (name, given) in &self.users {
            databases::translate_user(name, given, draft);
        }
        self.peers(draft);
        cap(&self.main, draft);
    }

    fn peers(&self, draft: &mut Draft) {
        for (name, given) in &self.peers {
            let label = format!("peers.{name}");
            databases::read_pairs(&label, given, draft);
            let subject = Subject {
                name: &label,
                given: Some(given),
            };
            draft.remark(Weight::Warning, subject, PEERS);
        }
    }
}

/// `min_pool_size`: more than the size of the pool is a mistake here.
fn cap(main: &Main, draft: &mut Draft) {
    let size = values::integer(main.in_force("default_pool_size")).unwrap_or(i64::MAX);
    let subject = main.subject("min_pool_size");
    if let Some((value, comment)) = Kind::Number.translate(draft, subject) {
        let is_capped = matches!(value, Value::Number(least) if least > size);
        let value = if is_capped { Value::Number(size) } else { value };
        let comment = if is_capped {
            Some(CAPPED.to_owned())
        } else {
            comment
        };
        draft.set("pool", "min_pool_size", value, subject).comment = comment;
    }
    for section in draft.document.named_mut("databases") {
        let number = |key: &str| section.number(key);
        let size = number("pool_size").unwrap_or(size);
        if number("min_pool_size").is_some_and(|least| least > size)
            && let Some(setting) = section
                .settings
                .iter_mut()
                .find(|setting| setting.key == "min_pool_size")
        {
            setting.value = Value::Number(size);
            setting.comment = Some(CAPPED.to_owned());
        }
    }
}
