//! What following the protocol costs per message: the splitter, the ledger on top of it, and the look at statements.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pgweir::{
    server::{
        hints::{Scanner, of_tag},
        state::{Ledger, Origin},
    },
    wire::frame::{HEADER, Splitter, Step},
};

/// One message with a body of this size.
fn message(tag: u8, body: usize) -> Vec<u8> {
    let length = u32::try_from(body + 4).unwrap_or(u32::MAX);
    [&[tag], &length.to_be_bytes()[..], &vec![0; body]].concat()
}

/// What a driver sends for one extended query, and what a server answers to `select abalance ...`.
fn request() -> Vec<u8> {
    [(b'P', 70), (b'B', 24), (b'D', 2), (b'E', 5), (b'S', 0)]
        .into_iter()
        .flat_map(|(tag, body)| message(tag, body))
        .collect()
}

fn reply() -> Vec<u8> {
    let mut bytes: Vec<u8> = [(b'1', 0), (b'2', 0), (b'T', 33), (b'D', 11), (b'C', 9)]
        .into_iter()
        .flat_map(|(tag, body)| message(tag, body))
        .collect();
    bytes.extend(b"Z\0\0\0\x05I");
    bytes
}

fn split(c: &mut Criterion) {
    let bytes: Vec<u8> = std::iter::repeat_with(reply).take(100).flatten().collect();
    let mut group = c.benchmark_group("split");
    group.throughput(Throughput::Elements(600));
    group.bench_function("600 messages of replies", |b| {
        b.iter(|| {
            let (mut splitter, mut at, mut seen) = (Splitter::default(), 0, 0u32);
            while let Ok(Step::Whole { .. } | Step::Begun { .. }) =
                splitter.step(black_box(&bytes), &mut at, |_| 0)
            {
                seen += 1;
            }
            seen
        });
    });
    group.finish();
}

fn exchange(c: &mut Criterion) {
    let (request, reply) = (request(), reply());
    let mut ledger = Ledger::default();
    c.bench_function("extended query, both directions", |b| {
        b.iter(|| {
            let (mut splitter, mut at) = (Splitter::default(), 0);
            while let Ok(Step::Whole { tag, .. }) = splitter.step(black_box(&request), &mut at, |_| HEADER) {
                ledger.sent(tag, Origin::Client);
            }
            at = 0;
            while let Ok(Step::Whole { tag, body }) = splitter.step(black_box(&reply), &mut at, |_| HEADER) {
                let _ = black_box(ledger.received(tag, body));
            }
            ledger.is_idle()
        });
    });
}

fn look(c: &mut Criterion) {
    let scanner = Scanner::new();
    let mut group = c.benchmark_group("look at a statement");
    for (name, text) in [
        ("SELECT of 150 bytes", SELECT),
        ("UPDATE of 150 bytes", UPDATE),
        ("SET", &b"SET app.tenant = 'x'"[..]),
    ] {
        group.bench_function(name, |b| b.iter(|| scanner.read(black_box(text))));
    }
    group.bench_function("command tag", |b| b.iter(|| of_tag(black_box(b"SELECT 1\0"))));
    group.finish();
}

/// 150 bytes each.
const SELECT: &[u8] =
    b"SELECT o.id, o.total, c.name, c.email FROM orders o JOIN customers c ON c.id = o.customer_id \
      WHERE o.status = $1 AND o.created > $2 ORDER BY o.id DESC";
const UPDATE: &[u8] =
    b"UPDATE accounts SET balance = balance + 1234, updated = now(), note = 'transfer of the month' \
      WHERE id = 42 AND version = 17 RETURNING id, balance, nam";

criterion_group!(benches, split, exchange, look);
criterion_main!(benches);
