//! Which functions of a database may change their session: by what stands in their bodies, and by which others they call.
//!
//! It has the question and reads the answer; it asks nobody. What it finds is for [`hints::Scanner`]. Functions in C
//! and what is called by a name that is put together remain unknown.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
};

use super::{
    hints::{self, Effect, Hints, Scanner},
    inquiry::{columns, from_hex},
};
use crate::wire::reader::Malformed;

/// More functions, or calls in them, are not looked at.
const MOST_FUNCTIONS: usize = 50_000;
const MOST_CALLS: usize = 2_000_000;
const MOST_NAMES: usize = 16;

/// The query for functions that users have made, for triggers (a table calls a function when it is written), and for views
/// and rules (which call functions, and use other views). Its rows are for [`Stateful::row`].
pub const SQL: &str = "\
    SELECT l.lanname::pg_catalog.text,\
    pg_catalog.encode(pg_catalog.convert_to(p.proname::pg_catalog.text,pg_catalog.getdatabaseencoding()),'hex'),\
    pg_catalog.encode(pg_catalog.convert_to(pg_catalog.left(CASE WHEN p.prosrc OPERATOR(pg_catalog.=) '' \
    THEN pg_catalog.pg_get_functiondef(p.oid) ELSE p.prosrc END,65536),pg_catalog.getdatabaseencoding()),'hex') \
    FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) p.prolang \
    JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace \
    WHERE l.lanname OPERATOR(pg_catalog.<>) 'internal' AND l.lanname OPERATOR(pg_catalog.<>) 'c' \
    AND n.nspname OPERATOR(pg_catalog.<>) 'pg_catalog' AND n.nspname OPERATOR(pg_catalog.<>) 'information_schema' \
    UNION ALL SELECT 'sql',\
    pg_catalog.encode(pg_catalog.convert_to(c.relname::pg_catalog.text,pg_catalog.getdatabaseencoding()),'hex'),\
    pg_catalog.encode(pg_catalog.convert_to(pg_catalog.concat(p.proname,'()'),pg_catalog.getdatabaseencoding()),'hex') \
    FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) t.tgrelid \
    JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) t.tgfoid \
    WHERE NOT t.tgisinternal \
    UNION ALL SELECT 'sql',\
    pg_catalog.encode(pg_catalog.convert_to(c.relname::pg_catalog.text,pg_catalog.getdatabaseencoding()),'hex'),\
    pg_catalog.encode(pg_catalog.convert_to(pg_catalog.left(pg_catalog.concat(pg_catalog.pg_get_ruledef(r.oid),\
    (SELECT pg_catalog.string_agg(pg_catalog.concat(' ',u.relname,'()'),'') FROM pg_catalog.pg_depend AS d \
    JOIN pg_catalog.pg_class AS u ON u.oid OPERATOR(pg_catalog.=) d.refobjid \
    WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass \
    AND d.objid OPERATOR(pg_catalog.=) r.oid AND u.oid OPERATOR(pg_catalog.<>) r.ev_class \
    AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass)),65536),\
    pg_catalog.getdatabaseencoding()),'hex') \
    FROM pg_catalog.pg_rewrite AS r JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) r.ev_class \
    JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
    WHERE n.nspname OPERATOR(pg_catalog.<>) 'pg_catalog' \
    AND n.nspname OPERATOR(pg_catalog.<>) 'information_schema'";

/// Puts the answer together.
#[derive(Debug, Default)]
pub struct Stateful {
    scanner: Scanner,
    hashes: RandomState,
    functions: Vec<Function>,
    calls: usize,
}

#[derive(Debug)]
struct Function {
    name: Box<str>,
    effect: Effect,
    /// Hashes of the names of what it calls.
    calls: Vec<u64>,
}

impl Stateful {
    /// Takes the body of a DataRow of the answer.
    ///
    /// # Errors
    /// It is no row of such an answer, or there is more than can be kept.
    pub fn row(&mut self, body: &[u8]) -> Result<(), Malformed> {
        let [Some(language), Some(name), Some(source)] = columns(body)? else {
            return Err(Malformed);
        };
        let (name, source) = (from_hex(name)?, from_hex(source)?);
        let is_sql = matches!(language, b"sql" | b"plpgsql");
        let mut calls: Vec<u64> = hints::calls(&source).map(|word| self.hash(word)).collect();
        calls.sort_unstable();
        calls.dedup();
        self.calls += calls.len();
        if self.functions.len() == MOST_FUNCTIONS || self.calls > MOST_CALLS {
            return Err(Malformed);
        }
        self.functions.push(Function {
            name: String::from_utf8_lossy(&name).to_lowercase().into(),
            effect: self.scanner.read_body(&source, is_sql),
            calls,
        });
        Ok(())
    }

    /// The names of functions and tables that may change their session, each with what it may do itself or through others.
    pub fn finish(self) -> BTreeMap<Box<str>, Effect> {
        let mut effects: HashMap<u64, Effect> = HashMap::new();
        // Each round goes one call further; effects only grow, and there are few.
        loop {
            let mut grown = false;
            for function in &self.functions {
                let mut effect = function.effect.clone();
                for called in function.calls.iter().filter_map(|call| effects.get(call)) {
                    add(&mut effect, called);
                }
                if !effect.hints.is_empty() {
                    let known = effects.entry(self.hash(function.name.as_bytes())).or_default();
                    grown |= add(known, &effect);
                }
            }
            if !grown {
                break;
            }
        }
        let named = self.functions.iter().filter_map(|function| {
            let effect = effects.get(&self.hash(function.name.as_bytes()))?;
            Some((function.name.clone(), effect.clone()))
        });
        named.collect()
    }

    fn hash(&self, word: &[u8]) -> u64 {
        self.hashes.hash_one(word.to_ascii_lowercase())
    }
}

/// Adds an effect to another; whether it grew.
fn add(effect: &mut Effect, other: &Effect) -> bool {
    let before = (effect.hints, effect.names.len());
    effect.hints.insert(other.hints);
    for name in &other.names {
        if effect.names.len() == MOST_NAMES {
            effect.hints.insert(Hints::OPAQUE);
        } else if !effect.names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            effect.names.push(name.clone());
        }
    }
    before != (effect.hints, effect.names.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(language: &str, name: &str, source: &str) -> Vec<u8> {
        let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut body = 3u16.to_be_bytes().to_vec();
        for column in [language.to_owned(), hex(name), hex(source)] {
            body.extend(u32::try_from(column.len()).unwrap().to_be_bytes());
            body.extend(column.bytes());
        }
        body
    }

    fn effects(functions: &[(&str, &str)]) -> BTreeMap<Box<str>, Effect> {
        let mut stateful = Stateful::default();
        for (name, source) in functions {
            stateful.row(&row("plpgsql", name, source)).unwrap();
        }
        stateful.finish()
    }

    #[test]
    fn effects_go_up_to_those_who_call() {
        let found = effects(&[
            ("outer", "BEGIN PERFORM app.\"Middle\"(1); END"),
            ("middle", "begin if x then call INNER (2); end if; end"),
            (
                "inner",
                "begin perform outer(), pg_advisory_lock(1), set_config('app.x', '1', false); end",
            ),
            ("bystander", "begin update inner set a = lower(b); end"),
            ("table_with_trigger", "middle()"),
        ]);
        let all = Effect {
            hints: Hints::LOCKS.union(Hints::SETTINGS),
            names: vec!["app.x".into()],
        };
        let names = ["inner", "middle", "outer", "table_with_trigger"];
        assert_eq!(found.keys().map(|name| &**name).collect::<Vec<_>>(), names);
        assert_eq!(
            (&found["inner"].hints, &found["inner"].names),
            (&all.hints, &all.names)
        );
    }

    #[test]
    fn many_names_are_not_told_apart() {
        let many: Vec<_> = (0..20).map(|n| format!("begin set a.b{n} = 1; end")).collect();
        let names: Vec<_> = (0..20).map(|n| format!("f{n}")).collect();
        let calls: String = names.iter().map(|name| format!("perform {name}();")).collect();
        let mut functions: Vec<_> = names
            .iter()
            .zip(&many)
            .map(|(name, body)| (&**name, &**body))
            .collect();
        functions.push(("all", &calls));
        let found = effects(&functions);
        assert!(found["all"].hints.contains(Hints::OPAQUE) && found["all"].names.len() == MOST_NAMES);
        assert_eq!(found["f1"].names, ["a.b1".into()]);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        assert_eq!(Stateful::default().row(b"\0\0"), Err(Malformed));
        let mut odd = row("sql", "f", "x");
        *odd.last_mut().unwrap() = b'x';
        assert_eq!(Stateful::default().row(&odd), Err(Malformed));
    }
}
