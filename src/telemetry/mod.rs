//! Logs, metrics exposition and the HTTP server.
