//! The admin console: the virtual databases `pgweir` and `pgbouncer`, where SQL clients look at the pooler.
//!
//! It reads what the pools count; it touches no client's work.

mod command;
mod console;
mod show;
mod topology;

pub use self::console::{Console, Visitor};

/// The names under which the console is reached.
pub const DATABASES: [&str; 2] = ["pgweir", "pgbouncer"];
