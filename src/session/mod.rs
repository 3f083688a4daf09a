//! One client, from log-in to goodbye.
