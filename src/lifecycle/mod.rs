//! What happens to the process as a whole: its phases, the tasks it owns, the signals it gets.
//!
//! It knows nothing of connections, pools or protocols; it hands out tokens and watches, and others act.

pub mod limits;
pub mod phase;
pub mod scheduling;
pub mod signals;
pub mod tasks;

pub use limits::{raise_open_files, refuse_huge_pages};
pub use phase::{Phase, PhaseSender};
pub use scheduling::{SchedulingError, batch_this_thread};
pub use signals::{Action, Signal, Signals};
pub use tasks::Tasks;
