//! What a pool's queues cost per transaction: an idle connection lent and returned, and a hand-over from one
//! client to the next; and the question whether client and server agree on the settings.

use std::{
    hint::black_box,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use pgweir::{
    pool::state::{Limits, Placed, State},
    server::parameters::{Parameters, Source},
};

fn pool(size: usize) -> State<Box<u64>, u64> {
    let size = NonZeroUsize::new(size).unwrap_or(NonZeroUsize::MIN);
    let mut pool = State::new(Limits {
        size,
        min: 0,
        reserve: 0,
        reserve_after: Duration::ZERO,
    });
    for connection in 0..size.get() as u64 {
        let _ = pool.connected(Box::new(connection));
    }
    pool
}

fn checkout(c: &mut Criterion) {
    let mut lent = pool(150);
    c.bench_function("check out and in, 150 idle", |b| {
        b.iter(|| {
            if let Some(connection) = lent.check_out(|_| true) {
                let _ = black_box(lent.check_in(connection));
            }
        });
    });
    let mut busy = pool(1);
    let mut connection = busy.check_out(|_| true);
    let now = Instant::now();
    for waiter in 0..699 {
        busy.enqueue(now, waiter);
    }
    c.bench_function("hand over, 699 waiting", |b| {
        b.iter(|| {
            busy.enqueue(now, 0);
            if let Some(returned) = connection.take()
                && let Placed::HandedOver(_, next) = busy.check_in(returned)
            {
                connection = Some(next);
            }
        });
    });
}

fn settings(c: &mut Criterion) {
    let make = |application: &str| {
        let mut parameters = Parameters::default();
        for index in 0..13 {
            parameters.set(&format!("setting_{index}"), b"value", Source::Reported);
        }
        parameters.set("application_name", application.as_bytes(), Source::Reported);
        parameters
    };
    let (server, same, equal, other) = (make("a"), make("a"), make("a"), make("b"));
    let shared = same.clone();
    c.bench_function("settings, the same allocation", |b| {
        b.iter(|| same.difference(black_box(&shared)));
    });
    c.bench_function("settings, equal", |b| {
        b.iter(|| server.difference(black_box(&equal)));
    });
    c.bench_function("settings, one differs", |b| {
        b.iter(|| server.difference(black_box(&other)));
    });
}

criterion_group!(benches, checkout, settings);
criterion_main!(benches);
