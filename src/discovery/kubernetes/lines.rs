//! Bytes that come in any pieces, to lines.

use bytes::{Bytes, BytesMut};

use super::{error::WatchError, event::LONGEST};

/// What has come and is no whole line yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: BytesMut,
    /// Up to here there is no end of a line.
    searched: usize,
}

impl Lines {
    /// Takes a piece in.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), WatchError> {
        if self.buffer.len() + piece.len() > LONGEST {
            return Err(WatchError::TooLong);
        }
        self.buffer.extend_from_slice(piece);
        Ok(())
    }

    /// The next whole line, if there is one.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        loop {
            let rest = self.buffer.get(self.searched..)?;
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                return None;
            };
            let line = self.buffer.split_to(self.searched + end + 1).freeze();
            self.searched = 0;
            let text = line.trim_ascii();
            if !text.is_empty() {
                return Some(line.slice_ref(text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(lines: &mut Lines) -> Vec<String> {
        std::iter::from_fn(|| lines.next())
            .map(|line| String::from_utf8(line.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn a_line_without_end_is_not_kept_for_ever() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; 1 << 20];
        let error = (0..9).find_map(|_| lines.push(&piece).err());
        assert!(matches!(error, Some(WatchError::TooLong)));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            texts in prop::collection::vec("[a-z{}]{1,20}", 0..8),
            cuts in prop::collection::vec(1..9usize, 1..9),
        ) {
            let whole = texts.iter().map(|text| format!("{text}\r\n\n")).collect::<String>();
            let (mut lines, mut found, mut rest) = (Lines::default(), Vec::new(), whole.as_bytes());
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                lines.push(piece).unwrap();
                found.extend(read(&mut lines));
                rest = after;
            }
            prop_assert_eq!(found, texts);
        }
    }
}
