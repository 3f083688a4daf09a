//! What the sessions of one data worker share: scratch memory. They run one at a time, and none keeps a
//! borrow beyond its poll.

use std::cell::{RefCell, RefMut};

use crate::server::Home;

/// How much is read at once. Held-back bytes stand in front of what is read, so this also bounds them.
const SCRATCH: usize = 64 * 1024;

/// One data worker.
#[derive(Debug)]
pub struct Worker {
    home: Home,
    scratch: RefCell<Box<[u8]>>,
}

impl Worker {
    /// The worker of this number.
    pub fn new(number: usize) -> Self {
        Self {
            home: Home::Worker(number),
            scratch: RefCell::new(vec![0; SCRATCH].into_boxed_slice()),
        }
    }

    /// Which reactor it is.
    pub fn home(&self) -> Home {
        self.home
    }

    /// The scratch memory, for the time of one poll.
    pub(super) fn scratch(&self) -> RefMut<'_, Box<[u8]>> {
        self.scratch.borrow_mut()
    }
}
