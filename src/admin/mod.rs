//! The admin console: the virtual databases `pgweir` and `pgbouncer`, where SQL clients look at the pooler and give it
//! orders, in the simple and in the extended protocol.
//!
//! It looks at copies of what pools and sessions show; it touches no client's work but by orders that they have for that.

mod command;
mod console;
mod error;
mod execute;
mod extended;
mod lexer;
mod portals;
mod premises;
mod show;
mod stats;

pub use self::{
    command::Shutdown,
    console::{Console, Level, Visitor},
    premises::{
        Asking, CertificateView, DatabaseView, Directive, HostView, Premises, ReplicaView, SetError,
        SettingView, UserView,
    },
    stats::Sampler,
};

/// The names under which the console is reached.
pub const DATABASES: [&str; 2] = ["pgweir", "pgbouncer"];
