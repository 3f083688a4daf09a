//! The question what is set and held in a session, as one query of the pooler's own, and its answer.
//!
//! The query is ASCII without a backslash and names everything with its schema, and texts come back as hexadecimal digits
//! of UTF-8: nothing that a client can set changes what it means. It knows no connection.

use std::{fmt::Write, str};

use bytes::Bytes;

use super::{
    hints::Hints,
    parameters::expression,
    pins::{ASKED, Pin, Pins},
};
use crate::wire::reader::{Malformed, Reader};

/// An answer beyond this is none: what a session has set has to be kept for it.
const MOST_SETTINGS: usize = 2048;
const MOST_BYTES: usize = 4 << 20;

/// What a text becomes: digits of UTF-8, or of its bytes where the database has none or no way to UTF-8.
const HEX: [&str; 2] = [
    "pg_catalog.encode(pg_catalog.convert_to(",
    ",CASE WHEN pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) 'SQL_ASCII' THEN 'SQL_ASCII' \
     WHEN pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) 'MULE_INTERNAL' THEN 'MULE_INTERNAL' \
     ELSE 'UTF8' END),'hex')",
];

/// The query that asks for `parts`; `names` are custom settings, which a server lists nowhere. Its rows are for
/// [`Findings::row`]. Empty if there is nothing to ask.
pub fn sql(parts: Hints, names: &[Box<str>]) -> String {
    let mut selects = Vec::new();
    if parts.contains(Hints::SETTINGS) {
        let hex = |text: &str| format!("{}{text}{}", HEX[0], HEX[1]);
        // Those of the transaction are of the session as well while nobody has set them.
        selects.push(format!(
            "SELECT 'setting',{},{} FROM pg_catalog.pg_settings WHERE source OPERATOR(pg_catalog.=) 'session' \
             AND name OPERATOR(pg_catalog.<>) ALL \
             (ARRAY['transaction_isolation','transaction_read_only','transaction_deferrable'])",
            hex("name"),
            hex("setting"),
        ));
        selects.push(format!(
            "SELECT 'role',NULL,{}",
            hex("pg_catalog.current_setting('role')")
        ));
        if !names.is_empty() {
            selects.push(custom(names, hex));
        }
    }
    for (kind, pin) in ASKED {
        if parts.contains(kind) {
            selects.push(format!(
                "SELECT 'pin','{}',NULL WHERE {}",
                pin.as_str(),
                is_held(pin)
            ));
        }
    }
    // A table of no rows gives the columns their types.
    let types = "SELECT NULL::pg_catalog.text,NULL::pg_catalog.text,NULL::pg_catalog.text WHERE false";
    selects.iter().fold(
        if selects.is_empty() { "" } else { types }.to_owned(),
        |mut sql, select| {
            // Writing to a string does not fail.
            let _ = write!(sql, " UNION ALL {select}");
            sql
        },
    )
}

/// Values of custom settings. One that an extension has defined is listed, and has a value that nobody has set.
fn custom(names: &[Box<str>], hex: impl Fn(&str) -> String) -> String {
    let names: Vec<_> = names
        .iter()
        .map(|name| format!("({})", expression(name.as_bytes())))
        .collect();
    format!(
        "SELECT 'custom',{},CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_settings AS s \
         WHERE pg_catalog.lower(s.name) OPERATOR(pg_catalog.=) pg_catalog.lower(c.name)) THEN NULL ELSE {} END \
         FROM (VALUES {}) AS c(name)",
        hex("c.name"),
        hex("pg_catalog.current_setting(c.name,true)"),
        names.join(","),
    )
}

/// The condition that the session holds something of a kind.
fn is_held(pin: Pin) -> &'static str {
    match pin {
        Pin::Prepared => "EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)",
        Pin::Listen => "EXISTS (SELECT FROM pg_catalog.pg_listening_channels())",
        Pin::Cursor => "EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)",
        Pin::Lock => {
            "EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND granted \
             AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())"
        }
        // Whatever is in a schema depends on it, and there is an index of that. 2615 is pg_namespace.
        Pin::Temp => {
            "CASE WHEN pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN false \
             ELSE EXISTS (SELECT FROM pg_catalog.pg_depend \
             WHERE refclassid OPERATOR(pg_catalog.=) 2615::pg_catalog.oid \
             AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) END"
        }
        Pin::Load | Pin::Unknown => "false",
    }
}

/// What a server has answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// Whether settings were asked for: then those that are not here are not set.
    settings: bool,
    /// Set in the session, or asked for by name and not set. In UTF-8, as a rule.
    values: Vec<(Box<str>, Option<Bytes>)>,
    pins: Pins,
    bytes: usize,
}

impl Findings {
    /// Takes the body of a DataRow of the answer.
    ///
    /// # Errors
    /// It is no row of such an answer, or there is more than can be kept.
    pub fn row(&mut self, body: &[u8]) -> Result<(), Malformed> {
        let [kind, name, value] = columns(body)?;
        self.bytes += body.len();
        if self.values.len() > MOST_SETTINGS || self.bytes > MOST_BYTES {
            return Err(Malformed);
        }
        match (kind, name, value) {
            (Some(b"setting" | b"custom"), Some(name), value) => {
                let name = String::from_utf8(from_hex(name)?).map_err(|_| Malformed)?;
                self.add(name.into(), value.map(from_hex).transpose()?.map(Bytes::from));
            }
            (Some(b"role"), None, Some(value)) => {
                self.settings = true;
                let role = from_hex(value)?;
                if role != b"none" {
                    self.add("role".into(), Some(Bytes::from(role)));
                }
            }
            (Some(b"pin"), Some(name), None) if self.pins.insert_word(name) => {}
            _ => return Err(Malformed),
        }
        Ok(())
    }

    /// What keeps the connection with its client, of the kinds that were asked about.
    pub fn pins(&self) -> Pins {
        self.pins
    }

    /// Whether the answer is about settings.
    pub fn has_settings(&self) -> bool {
        self.settings
    }

    /// The settings that are set in the session, and their values.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.values
            .iter()
            .filter_map(|(name, value)| Some((&**name, value.as_ref()?)))
    }

    /// What the answer says about a setting: `None` if it says nothing, which is so for custom ones that were not asked
    /// for by name, and `Some(None)` if it is not set.
    pub fn get(&self, name: &str) -> Option<Option<&Bytes>> {
        let found = self
            .values
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        match found {
            Some((_, value)) => Some(value.as_ref()),
            None if self.settings && !name.contains('.') => Some(None),
            None => None,
        }
    }

    /// A value beats none: a custom setting that is listed is also asked for by name, in vain.
    fn add(&mut self, name: Box<str>, value: Option<Bytes>) {
        let mut known = self.values.iter_mut();
        match known.find(|(known, _)| known.eq_ignore_ascii_case(&name)) {
            Some((_, known)) => *known = value.or_else(|| known.take()),
            None => self.values.push((name, value)),
        }
    }
}

pub(super) fn columns(body: &[u8]) -> Result<[Option<&[u8]>; 3], Malformed> {
    let mut reader = Reader::new(body);
    if reader.uint16()? != 3 {
        return Err(Malformed);
    }
    let mut columns = [None; 3];
    for column in &mut columns {
        let length = reader.int32()?;
        if length == -1 {
            continue;
        }
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        let (value, rest) = reader.rest().split_at_checked(length).ok_or(Malformed)?;
        *column = Some(value);
        reader = Reader::new(rest);
    }
    if reader.is_empty() {
        Ok(columns)
    } else {
        Err(Malformed)
    }
}

pub(super) fn from_hex(digits: &[u8]) -> Result<Vec<u8>, Malformed> {
    let digits = str::from_utf8(digits).map_err(|_| Malformed)?.as_bytes();
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Malformed);
    }
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect::<Option<_>>()
        .ok_or(Malformed)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A row as a server sends it; texts in UTF-8 become digits where the answer has them.
    pub(in crate::server) fn row(kind: &str, name: Option<&str>, value: Option<&str>) -> Vec<u8> {
        let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        let name = name.map(|name| if kind == "pin" { name.to_owned() } else { hex(name) });
        let mut body = 3u16.to_be_bytes().to_vec();
        for column in [Some(kind.to_owned()), name, value.map(hex)] {
            let Some(column) = column else {
                body.extend((-1i32).to_be_bytes());
                continue;
            };
            body.extend(u32::try_from(column.len()).unwrap().to_be_bytes());
            body.extend(column.bytes());
        }
        body
    }

    #[test]
    fn only_what_is_asked_for_is_asked() {
        assert_eq!(sql(Hints::NONE, &["a.b".into()]), "");
        assert_eq!(sql(Hints::LOAD.union(Hints::OPAQUE), &[]), "");
        let locks = sql(Hints::LOCKS, &["a.b".into()]);
        assert!(locks.contains("pg_locks") && !locks.contains("pg_settings") && !locks.contains("a.b"));
        let settings = sql(Hints::SETTINGS, &[]);
        assert!(
            settings.contains("pg_settings")
                && !settings.contains("pg_locks")
                && !settings.contains("VALUES")
        );
    }

    #[test]
    fn the_question_is_plain() {
        let sql = sql(Hints::ASKABLE, &["a.b'\\".into(), "a.\u{fc}".into()]);
        assert!(
            sql.bytes()
                .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'\\'),
            "{sql}"
        );
    }

    #[test]
    fn an_answer_is_put_together() {
        let mut findings = Findings::default();
        for (kind, name, value) in [
            ("setting", Some("TimeZone"), Some("Gr\u{fc}n")),
            ("setting", Some("plpgsql.x"), Some("1")),
            ("custom", Some("PLPGSQL.X"), None),
            ("custom", Some("app.set"), Some("")),
            ("custom", Some("app.unset"), None),
            ("role", None, Some("reader")),
            ("pin", Some("temp"), None),
        ] {
            findings.row(&row(kind, name, value)).unwrap();
        }
        let settings: Vec<_> = findings
            .settings()
            .map(|(name, value)| (name, &value[..]))
            .collect();
        assert_eq!(
            settings,
            [
                ("TimeZone", "Gr\u{fc}n".as_bytes()),
                ("plpgsql.x", b"1"),
                ("app.set", b""),
                ("role", b"reader")
            ]
        );
        assert_eq!(findings.get("app.unset"), Some(None));
        assert_eq!(findings.get("work_mem"), Some(None));
        assert_eq!(findings.get("app.other"), None, "it was not asked for");
        assert_eq!(findings.pins().iter().collect::<Vec<_>>(), [Pin::Temp]);
    }

    #[test]
    fn no_role_is_no_setting_and_without_settings_nothing_is_said() {
        let mut findings = Findings::default();
        assert_eq!(findings.get("work_mem"), None);
        findings.row(&row("role", None, Some("none"))).unwrap();
        assert!(findings.has_settings());
        assert_eq!(findings.get("role"), Some(None));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for body in [
            row("pin", Some("x"), None),
            row("setting", None, Some("x")),
            row("other", Some("x"), Some("x")),
            [&row("role", None, Some("none"))[..], b"x"].concat(),
            b"\0\x02\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
            b"\0\x03\0\0\0\x7f".to_vec(),
            b"".to_vec(),
        ] {
            assert_eq!(Findings::default().row(&body), Err(Malformed), "{body:?}");
        }
        for digits in [&b"1"[..], b"1g", b"\xff\xff"] {
            assert_eq!(from_hex(digits), Err(Malformed));
        }
        assert_eq!(from_hex(b"00fF"), Ok(vec![0, 255]));
        let mut endless = Findings::default();
        let row = |n: u32| row("setting", Some(&n.to_string()), Some("x"));
        assert!((0..10_000).any(|n| endless.row(&row(n)).is_err()));
    }
}
