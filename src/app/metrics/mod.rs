//! What there is to measure of the process as a whole. What belongs to a layer is measured there.

mod cancels;
mod clients;
mod compatibility;
mod logins;
mod runtimes;

pub(super) use self::{
    cancels::CancelMetrics,
    clients::ClientMetrics,
    compatibility::CompatibilityMetrics,
    logins::LoginMetrics,
    runtimes::{RuntimeMetrics, Runtimes},
};
