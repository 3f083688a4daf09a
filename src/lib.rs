//! pgweir, a PostgreSQL connection pooler.

pub mod fault;
pub mod types;
