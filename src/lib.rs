//! pgweir, a PostgreSQL connection pooler.

pub mod config;
pub mod fault;
pub mod types;
pub mod wire;
