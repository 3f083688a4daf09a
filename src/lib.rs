#![doc = include_str!("../ARCHITECTURE.md")]

pub mod admin;
pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod discovery;
pub mod fault;
pub mod fleet;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
pub mod lifecycle;
pub mod metrics;
pub mod net;
pub mod pool;
pub mod routing;
pub mod server;
pub mod session;
pub mod startup;
pub mod status;
pub mod telemetry;
pub mod tls;
pub mod topology;
pub mod traces;
pub mod types;
pub mod wire;
