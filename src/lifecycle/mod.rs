//! Phases, owned tasks and signals.
