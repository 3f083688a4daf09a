//! Counters, gauges and histograms that cost a few relaxed atomics, and the families that show them.
//!
//! They know nothing of what they count. Who counts a lot has its own, and shows all when somebody looks.

mod errors;
mod family;
mod histogram;
mod share;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

pub use self::{
    errors::Errors,
    family::{Kind, Shown, descriptions, labels},
    histogram::{BOUNDS, Buckets, Histogram},
    share::{OTHER, Shares},
};

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// So many more.
    pub fn inc_by(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Gauge {
    /// One more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// This many.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// So many things.
    pub fn set_count(&self, count: usize) {
        self.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The number.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}
