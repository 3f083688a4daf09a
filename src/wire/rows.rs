//! A result of the pooler's own: columns with types, rows of values that may be NULL, in the format that was asked for.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use super::{backend::tag, frame::MAX_LENGTH};

/// What a column's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// `text`
    Text,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `numeric`, of whole numbers.
    Numeric,
    /// `bytea`
    Bytes,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: Cow<'static, str>,
    /// What its values are.
    pub kind: ColumnType,
}

impl Column {
    /// A column of this name and type.
    pub const fn new(name: &'static str, kind: ColumnType) -> Self {
        Self {
            name: Cow::Borrowed(name),
            kind,
        }
    }
}

/// A row: the values as text.
pub type Row = Vec<Option<String>>;

/// Which columns are to be binary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Formats(Vec<bool>);

impl Formats {
    /// From the codes of a Bind: none is text, one is for all columns.
    pub fn new(codes: impl IntoIterator<Item = u16>) -> Self {
        Self(codes.into_iter().map(|code| code == 1).collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn is_binary(&self, column: usize) -> bool {
        match self.0[..] {
            [all] => all,
            ref each => each.get(column).copied().unwrap_or(false),
        }
    }
}

impl ColumnType {
    /// Type and size as `pg_type` has them.
    fn oid_and_size(self) -> (u32, i16) {
        match self {
            Self::Text => (25, -1),
            Self::Int4 => (23, 4),
            Self::Int8 => (20, 8),
            Self::Numeric => (1700, -1),
            Self::Bytes => (17, -1),
        }
    }

    fn put(self, value: &str, binary: bool, out: &mut BytesMut) {
        match self {
            Self::Int4 if binary => out.put_i32(value.parse().unwrap_or_default()),
            Self::Int8 if binary => out.put_i64(value.parse().unwrap_or_default()),
            Self::Numeric if binary => put_numeric(value.parse().unwrap_or_default(), out),
            _ => out.put_slice(value.as_bytes()),
        }
    }
}

/// Appends a RowDescription.
pub fn row_description(columns: &[Column], formats: &Formats, out: &mut BytesMut) {
    message(tag::ROW_DESCRIPTION, out, |out| {
        out.put_u16(u16::try_from(columns.len()).unwrap_or(u16::MAX));
        for (index, column) in columns.iter().enumerate() {
            out.put_slice(column.name.as_bytes());
            out.put_u8(0);
            let (oid, size) = column.kind.oid_and_size();
            // Neither a table nor a column of one.
            out.put_u32(0);
            out.put_u16(0);
            out.put_u32(oid);
            out.put_i16(size);
            out.put_i32(-1);
            out.put_u16(formats.is_binary(index).into());
        }
    });
}

/// Appends a DataRow.
pub fn data_row(columns: &[Column], row: &Row, formats: &Formats, out: &mut BytesMut) {
    message(tag::DATA_ROW, out, |out| {
        out.put_u16(u16::try_from(row.len()).unwrap_or(u16::MAX));
        for (index, (value, column)) in row.iter().zip(columns).enumerate() {
            let Some(value) = value else {
                out.put_i32(-1);
                continue;
            };
            let mut encoded = BytesMut::new();
            column.kind.put(value, formats.is_binary(index), &mut encoded);
            out.put_u32(u32::try_from(encoded.len()).unwrap_or_default());
            out.put_slice(&encoded);
        }
    });
}

/// Appends a ParameterDescription of no parameter.
pub fn no_parameters(out: &mut BytesMut) {
    message(tag::PARAMETER_DESCRIPTION, out, |out| out.put_u16(0));
}

/// Appends NoData.
pub fn no_data(out: &mut BytesMut) {
    message(tag::NO_DATA, out, |_| {});
}

/// Appends PortalSuspended.
pub fn portal_suspended(out: &mut BytesMut) {
    message(tag::PORTAL_SUSPENDED, out, |_| {});
}

fn message(tag: u8, out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let mut body = BytesMut::new();
    write(&mut body);
    out.put_u8(tag);
    out.put_u32(u32::try_from(body.len()).map_or(MAX_LENGTH, |length| length.saturating_add(4)));
    out.put_slice(&body);
}

/// As `numeric_send` does: digits to the base 10,000, the weight of the first, sign, no digits after the point.
fn put_numeric(number: i128, out: &mut BytesMut) {
    let (mut digits, mut rest) = (Vec::new(), number.unsigned_abs());
    while rest > 0 {
        digits.push(u16::try_from(rest % 10_000).unwrap_or_default());
        rest /= 10_000;
    }
    let count = u16::try_from(digits.len()).unwrap_or_default();
    out.put_u16(count);
    out.put_u16(count.saturating_sub(1));
    out.put_u16(if number < 0 { 0x4000 } else { 0 });
    out.put_u16(0);
    for digit in digits.into_iter().rev() {
        out.put_u16(digit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column::new("a", ColumnType::Text),
        Column::new("b", ColumnType::Int4),
        Column::new("c", ColumnType::Numeric),
    ];

    fn encoded(row: [Option<&str>; 3], codes: &[u16]) -> Vec<u8> {
        let mut out = BytesMut::new();
        let row = row.map(|value| value.map(str::to_owned)).to_vec();
        data_row(&COLUMNS, &row, &Formats::new(codes.iter().copied()), &mut out);
        out.to_vec()
    }

    #[test]
    fn a_row_is_text_unless_asked_otherwise() {
        assert_eq!(
            encoded([Some("x"), None, Some("10")], &[]),
            b"D\0\0\0\x15\0\x03\0\0\0\x01x\xff\xff\xff\xff\0\0\0\x0210"
        );
    }

    #[test]
    fn numbers_can_be_binary() {
        let row = encoded([Some("x"), Some("-2"), Some("120003")], &[1]);
        assert_eq!(
            row[7..],
            *b"\0\0\0\x01x\0\0\0\x04\xff\xff\xff\xfe\0\0\0\x0c\0\x02\0\x01\0\0\0\0\0\x0c\0\x03"
        );
        let mixed = encoded([None, Some("1"), Some("0")], &[0, 1, 1]);
        assert_eq!(mixed[11..], *b"\0\0\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn a_description_has_types_and_formats() {
        let mut out = BytesMut::new();
        row_description(&COLUMNS[1..2], &Formats::new([1]), &mut out);
        assert_eq!(
            out[..],
            *b"T\0\0\0\x1a\0\x01b\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\x01"
        );
    }
}
