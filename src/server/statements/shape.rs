//! What the rows of a statement look like, as far as a client goes by it that was told once.
//!
//! Drivers describe a statement when they prepare it and read every later result by that. PostgreSQL refuses to carry
//! it out when its rows have come to look different; behind a pooler the statement may be prepared anew on another
//! connection, where nothing is refused and every row would be misread.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::wire::{
    backend::tag,
    reader::{Malformed, Reader},
};

/// The columns of a result: their names and types, without where they come from and in which format they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape(u64);

impl Shape {
    /// What a RowDescription or NoData says. `None` for another message, and for one that is not there as a whole.
    pub fn of(tag: u8, body: &[u8]) -> Option<Self> {
        let mut hasher = DefaultHasher::new();
        match tag {
            tag::NO_DATA => {}
            tag::ROW_DESCRIPTION => columns(body, &mut hasher).ok()?,
            _ => return None,
        }
        Some(Self(hasher.finish()))
    }
}

fn columns(body: &[u8], hasher: &mut DefaultHasher) -> Result<(), Malformed> {
    let mut reader = Reader::new(body);
    let count = reader.uint16()?;
    count.hash(hasher);
    for _ in 0..count {
        reader.cstring()?.hash(hasher);
        // Table and column that it comes from.
        reader.bytes(6)?;
        // Type, its size, its modifier.
        reader.bytes(10)?.hash(hasher);
        // Format.
        reader.bytes(2)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, table: u8, oid: u8, format: u8) -> Option<Shape> {
        let mut body = vec![0, 1];
        body.extend(name.as_bytes());
        body.extend([
            0, 0, 0, 0, table, 0, 1, 0, 0, 0, oid, 0, 4, 255, 255, 255, 255, 0, format,
        ]);
        Shape::of(tag::ROW_DESCRIPTION, &body)
    }

    #[test]
    fn names_and_types_matter_and_nothing_else() {
        assert_eq!(row("a", 1, 23, 0), row("a", 2, 23, 1));
        assert_ne!(row("a", 1, 23, 0), row("b", 1, 23, 0));
        assert_ne!(row("a", 1, 23, 0), row("a", 1, 20, 0));
        assert_ne!(row("a", 1, 23, 0), Shape::of(tag::NO_DATA, b""));
        assert_eq!(Shape::of(tag::ROW_DESCRIPTION, b"\0\x01a"), None);
        assert_eq!(Shape::of(tag::DATA_ROW, b""), None);
    }
}
