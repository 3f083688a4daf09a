//! The unit tests of `./dev bench`, which has a `main` of its own instead of a test harness.

#[path = "../benches/versus/main.rs"]
mod versus;
