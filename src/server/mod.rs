//! One PostgreSQL server connection.
