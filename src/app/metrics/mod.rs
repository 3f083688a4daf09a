//! What there is to measure of the process as a whole. What belongs to a layer is measured there.

mod clients;
mod compatibility;
mod logins;
mod runtimes;

pub(super) use self::{
    clients::ClientMetrics,
    compatibility::CompatibilityMetrics,
    logins::LoginMetrics,
    runtimes::{RuntimeMetrics, Runtimes},
};
