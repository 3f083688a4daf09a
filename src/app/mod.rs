//! The composition root: the only place that sees a whole configuration, where components are built out of
//! it and meet each other.

mod budget;
mod cancels;
mod catalog;
mod certificates;
mod clusters;
mod drain;
mod guests;
mod housekeeping;
mod inbox;
mod leave;
mod metrics;
mod premises;
mod prepare;
mod reload;
mod replicas;
mod roll_call;
mod run;
mod serve;
mod set;
mod sights;
mod site;
mod trial;
mod warnings;
mod watch;
mod workers;

pub use self::{
    prepare::{Digest, PrepareError, Prepared, prepare},
    run::{RunError, run},
    trial::{Finding, Trial, try_out},
    warnings::warnings,
};
