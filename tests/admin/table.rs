//! Answers as tables.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
};

use crate::support::{Frame, RawClient};

/// A row: values by column.
pub(super) type Row = BTreeMap<String, Option<String>>;

/// Names and type oids of a RowDescription.
pub(super) fn columns(messages: &[Frame]) -> Vec<(String, u32)> {
    let Some(description) = messages.iter().find(|message| message.tag == b'T') else {
        return Vec::new();
    };
    let mut body = &description.body[2..];
    let mut columns = Vec::new();
    while !body.is_empty() {
        let end = body.iter().position(|byte| *byte == 0).unwrap();
        let name = String::from_utf8(body[..end].to_vec()).unwrap();
        let rest = &body[end + 1..];
        columns.push((name, u32::from_be_bytes(rest[6..10].try_into().unwrap())));
        body = &rest[18..];
    }
    columns
}

/// The rows of an answer.
#[track_caller]
pub(super) fn rows(messages: &[Frame]) -> Vec<Row> {
    assert!(
        !messages.iter().any(|message| message.tag == b'E'),
        "an error: {messages:?}"
    );
    let columns = columns(messages);
    let data = messages.iter().filter(|message| message.tag == b'D');
    data.map(|row| {
        let values = row.columns();
        assert_eq!(values.len(), columns.len());
        columns.iter().map(|(name, _)| name.clone()).zip(values).collect()
    })
    .collect()
}

/// What a SHOW shows.
#[track_caller]
pub(super) fn show<S: Read + Write>(console: &mut RawClient<S>, topic: &str) -> Vec<Row> {
    rows(&console.query(&format!("SHOW {topic}")))
}

/// The row in which a column has this value.
#[track_caller]
pub(super) fn row_where(rows: &[Row], column: &str, value: &str) -> Row {
    let row = rows.iter().find(|row| row[column].as_deref() == Some(value));
    row.unwrap_or_else(|| panic!("no row with {column} = {value}: {rows:#?}"))
        .clone()
}

/// A value that is not NULL.
#[track_caller]
pub(super) fn value<'a>(row: &'a Row, column: &str) -> &'a str {
    row[column]
        .as_deref()
        .unwrap_or_else(|| panic!("{column} of {row:?}"))
}

/// A value that is a number.
#[track_caller]
pub(super) fn number(row: &Row, column: &str) -> i64 {
    value(row, column).parse().unwrap()
}

/// The tags of CommandComplete.
pub(super) fn tags_of_commands(messages: &[Frame]) -> Vec<String> {
    let complete = messages.iter().filter(|message| message.tag == b'C');
    complete.map(|message| message.strings().remove(0)).collect()
}

/// SQLSTATE, message and hint of the only error.
#[track_caller]
pub(super) fn error(messages: &[Frame]) -> (String, String, String) {
    let errors: Vec<_> = messages.iter().filter(|message| message.tag == b'E').collect();
    let [error] = errors[..] else {
        panic!("not one error: {messages:?}")
    };
    let field = |code| error.field(code).unwrap_or_default();
    (
        field(b'C'),
        field(b'M'),
        format!("{} {}", field(b'D'), field(b'H')),
    )
}
