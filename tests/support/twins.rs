//! The same conversation twice: with PostgreSQL itself and through pgweir. What is said must be the same.

use super::{Frame, Pooler, Postgres, RawClient, Stage, postgres_with};

/// The database of those who talk with PostgreSQL itself, so that the two do not meet.
const DIRECT: &str = "direct";

/// A client of PostgreSQL itself and one of pgweir, who say the same.
pub struct Twins {
    pub direct: RawClient,
    pub pooled: RawClient,
    /// What was said so far, for whoever reads of a difference.
    said: Vec<Vec<Frame>>,
}

/// A PostgreSQL with a database in which twins talk with PostgreSQL itself.
pub fn postgres_for_twins() -> Postgres {
    let direct = format!("host {DIRECT} app all trust");
    let postgres = postgres_with(|builder| builder.hba(&[&direct, "host all all all scram-sha-256"]));
    postgres
        .psql(&format!("CREATE DATABASE {DIRECT} OWNER app"))
        .expect("a database is made");
    postgres
}

/// A transaction pool of `size` for twins.
pub fn stage_for_twins(size: usize) -> Stage {
    let postgres = postgres_for_twins();
    let pooler = Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", size.to_string())
        .start();
    Stage {
        pooler,
        size,
        postgres,
    }
}

impl Stage {
    /// Twins that are logged in. Needs a stage for them.
    pub fn twins(&self) -> Twins {
        Twins::new(&self.postgres, self.pooler.address())
    }
}

impl Twins {
    /// Twins that are logged in, in front of the same PostgreSQL.
    pub fn new(postgres: &Postgres, pooled: &str) -> Self {
        Self {
            direct: RawClient::log_in(&postgres.address(), "app", "secret", DIRECT),
            pooled: RawClient::log_in(pooled, "app", "secret", "app"),
            said: Vec::new(),
        }
    }

    /// Both send `bytes`, and read up to and with the `ready`th ReadyForQuery: the same, which is returned.
    #[track_caller]
    pub fn say(&mut self, bytes: impl AsRef<[u8]>, ready: usize) -> Vec<Frame> {
        let bytes = bytes.as_ref();
        self.direct.send(bytes);
        self.pooled.send(bytes);
        self.note(bytes);
        self.hear(b'Z', ready)
    }

    /// The same for bytes that end with a Flush and bring `count` messages of type `tag`, the last of them last.
    #[track_caller]
    pub fn flush(&mut self, bytes: impl AsRef<[u8]>, tag: u8, count: usize) -> Vec<Frame> {
        let bytes = bytes.as_ref();
        self.direct.send(bytes);
        self.pooled.send(bytes);
        self.note(bytes);
        self.hear(tag, count)
    }

    /// The same for bytes that the client of pgweir sends in two pieces.
    #[track_caller]
    pub fn say_in_two(&mut self, bytes: &[u8], cut: usize, ready: usize) -> Vec<Frame> {
        let (first, second) = bytes.split_at(cut);
        self.pooled.send(first);
        self.direct.send(bytes);
        // While the other is answered, pgweir has most likely seen the first piece.
        let direct = read(&mut self.direct, b'Z', ready);
        self.pooled.send(second);
        self.note(bytes);
        let pooled = read(&mut self.pooled, b'Z', ready);
        self.compare(&direct, &pooled);
        pooled
    }

    #[track_caller]
    fn hear(&mut self, tag: u8, count: usize) -> Vec<Frame> {
        let direct = read(&mut self.direct, tag, count);
        let pooled = read(&mut self.pooled, tag, count);
        self.compare(&direct, &pooled);
        pooled
    }

    #[track_caller]
    fn compare(&self, direct: &[Frame], pooled: &[Frame]) {
        let (expected, found) = (comparable(direct), comparable(pooled));
        assert!(
            expected == found,
            "PostgreSQL says\n{}\npgweir says\n{}\nafter\n{}",
            show(&expected),
            show(&found),
            self.said
                .iter()
                .map(|said| show(said))
                .collect::<Vec<_>>()
                .join("\n  --\n"),
        );
    }

    fn note(&mut self, mut bytes: &[u8]) {
        let mut said = Vec::new();
        while let Ok(message) = Frame::read(&mut bytes) {
            said.push(message);
        }
        self.said.push(said);
    }
}

#[track_caller]
fn read(client: &mut RawClient, tag: u8, count: usize) -> Vec<Frame> {
    (0..count).flat_map(|_| client.read_until(tag)).collect()
}

/// What has to be equal of replies: settings are told when they change, which is at other times for a client that
/// shares a server connection, a table has another number in another database, and where in its source PostgreSQL
/// raised an error is its own affair. That somebody waits is said by pgweir alone.
pub fn comparable(replies: &[Frame]) -> Vec<Frame> {
    let replies = replies
        .iter()
        .filter(|reply| reply.tag != b'S' && !says_that_it_waits(reply));
    replies
        .map(|reply| match reply.tag {
            b'T' => without_tables(reply),
            b'E' | b'N' => without_source(reply),
            _ => reply.clone(),
        })
        .collect()
}

fn says_that_it_waits(reply: &Frame) -> bool {
    let message = (reply.tag == b'N').then(|| reply.field(b'M')).flatten();
    message.is_some_and(|message| message.starts_with("waiting for a server connection"))
}

fn without_source(report: &Frame) -> Frame {
    let fields = report.body.split_inclusive(|&byte| byte == 0);
    let fields = fields.filter(|field| !matches!(field.first(), Some(b'F' | b'L' | b'R')));
    Frame {
        tag: report.tag,
        body: fields.collect::<Vec<_>>().concat(),
    }
}

fn without_tables(description: &Frame) -> Frame {
    const AFTER_NAME: usize = 18;
    let (count, mut rest) = description.body.split_at(2);
    let mut body = count.to_vec();
    while let Some(end) = rest.iter().position(|&byte| byte == 0) {
        let (name, after) = rest.split_at(end + 1);
        let (facts, next) = after.split_at(AFTER_NAME);
        body.extend(name);
        body.extend([0; 4]);
        body.extend(&facts[4..]);
        rest = next;
    }
    Frame { tag: b'T', body }
}

fn show(messages: &[Frame]) -> String {
    let lines = messages.iter().map(|message| format!("  {message:?}"));
    lines.collect::<Vec<_>>().join("\n")
}
