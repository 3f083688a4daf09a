//! Which servers a cluster has, which of them is the primary, and whether it may be used now. Pure values and decisions;
//! time is passed in.
//!
//! It opens no connection, watches nothing and knows no pool.

mod facts;
mod observation;

pub use self::{
    facts::{ClusterFacts, ClusterPhase, Condition, Facts, Fenced, Instance, LeaseFacts},
    observation::{Failure, Observation, Seen},
};
