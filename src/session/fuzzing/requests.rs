//! Where requests begin, and where one ends that is refused.

use crate::session::{
    refusal::{Passed, Refusal},
    request::{self, Found},
};
use crate::wire::{
    frame::{FrameError, Splitter},
    fuzzing::Input,
};

/// The most that is held back of a request that is not there as a whole, its header included.
const HELD: usize = 8 * 1024;

/// Requests begin, and refused ones end, at the same places whichever way the stream is cut.
pub fn requests(data: &[u8]) {
    let pieces = Input(data).pieces();
    let stream = pieces.concat();
    assert_eq!(find(&pieces), find(&[&stream]));
    assert_eq!(pass(&pieces), pass(&[&stream]));
}

/// What is found, at its place in the whole stream.
fn find(pieces: &[&[u8]]) -> Result<Found, FrameError> {
    let (mut splitter, mut held, mut before) = (Splitter::default(), Vec::new(), 0);
    for piece in pieces {
        held.extend_from_slice(piece);
        match request::find(&mut splitter, &held)? {
            Found::Request(start) => {
                let tag = held.get(start).copied();
                assert!(splitter.at_boundary() && tag.is_some_and(request::is_request));
                return Ok(Found::Request(before + start));
            }
            Found::Nothing(passed) => {
                held.drain(..passed);
                before += passed;
                assert!(held.len() <= HELD);
            }
            found => return Ok(found),
        }
    }
    Ok(Found::Nothing(before))
}

fn pass(pieces: &[&[u8]]) -> Result<Passed, FrameError> {
    let (mut refusal, mut splitter) = (Refusal::Whole, Splitter::default());
    let (mut held, mut before) = (Vec::new(), 0);
    for piece in pieces {
        held.extend_from_slice(piece);
        match refusal.pass(&mut splitter, &held)? {
            Passed::End(at) => return Ok(Passed::End(before + at)),
            Passed::More(at) => {
                held.drain(..at);
                before += at;
                assert!(held.len() <= HELD);
            }
            Passed::Terminate => return Ok(Passed::Terminate),
        }
    }
    Ok(Passed::More(before))
}
