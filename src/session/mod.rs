//! One client, from log-in to goodbye.
//!
//! One task owns a client, and while a transaction runs the server connection too: there is no channel, no
//! lock and no second task on the path of a query. The task is one hand-written future, `run::Session`,
//! whose phases are the states of the client; it lives on one data worker and borrows the worker's scratch
//! memory for the time of a poll, so that an idle client holds no buffer.

mod activity;
mod aside;
mod cancel;
mod cancels;
mod control;
mod course;
mod deadline;
mod deallocate;
mod error;
mod forward;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod identity;
mod member;
mod origin;
mod overdue;
mod passage;
mod pinned;
mod recovery;
mod refusal;
mod relay;
mod request;
mod run;
mod signal;
mod sweep;
mod table;
mod view;
mod welcome;
mod worker;

pub use self::{
    aside::{Introduction, Shown},
    cancel::{CancelTarget, send as send_cancel},
    control::{Control, Interruption, Order},
    course::{go_on, serve, turn_away},
    deadline::Expired,
    error::{End, SessionError},
    identity::{Arrival, Identity},
    member::Holder,
    origin::Origin,
    passage::{Passage, pass},
    sweep::keep_time,
    table::{Entry, Table},
    view::{ClientState, ClientView},
    welcome::Welcomed,
    worker::Worker,
};
