//! What people outside see of the process: logs, metrics, and the HTTP server that shows them.
//!
//! It names no metric of another layer: each registers its own into the registry that it is given.

pub mod exposition;
pub mod http;
pub mod logging;
mod process;
pub mod recent;
pub mod registry;
pub mod throttle;

pub use self::{process::Usage, recent::Recent, registry::Registry};
