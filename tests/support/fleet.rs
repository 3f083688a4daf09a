//! Several poolers that know of each other.

use pgweir::cli::demo::ports;

use super::{Pooler, PoolerBuilder};

/// Poolers in front of `server` that know of each other and of those at `others`.
pub fn fleet(
    server: &str,
    count: usize,
    others: &[&str],
    more: impl Fn(PoolerBuilder) -> PoolerBuilder,
) -> Vec<Pooler> {
    let own: Vec<_> = (0..count)
        .map(|_| format!("127.0.0.1:{}", ports::free(None).expect("there is a free port")))
        .collect();
    let all = own.iter().map(String::as_str).chain(others.iter().copied());
    let list = format!("{:?}", all.collect::<Vec<_>>());
    let start = |address: &String| {
        let builder = Pooler::builder(server)
            .set("http.address", format!("'{address}'"))
            .set("fleet.replicas", list.clone())
            .set("fleet.timeout", "'1s'");
        more(builder).start()
    };
    own.iter().map(start).collect()
}
