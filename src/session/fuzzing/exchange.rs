//! Two clients, one server connection, and everything that a pooler does in between.

use std::{path::Path, pin::Pin, rc::Rc, sync::Arc, task::Poll};

use prometheus::Registry;
use tokio::runtime;

use super::peers::{Client, LAST_CLIENT, Said, Server};
use crate::{
    config::{self, PoolSettings},
    lifecycle::Tasks,
    net::{PeerAddress, Socket},
    pool::{Catalog, Families, Plan, Pool, Pools, StartupSettings},
    server::{self, Target, statements::Interner},
    session::{Arrival, Identity, Table, Worker, go_on, serve},
    tls::Stream,
    traces::Tracer,
    types::{PoolKey, PoolMode, Role},
    wire::{fuzzing::Input, reply, stream::Framed},
};

/// What clients send: all types, the frequent ones more often, and the end.
const MESSAGES: &[u8] = b"QQQPBDECSSFHdcfX";
/// Rounds without progress after which there is none to come.
const STILL: usize = 4;

/// Whatever the clients send, in whatever pieces anything arrives, whoever leaves when: each client gets the
/// server's answers to what it asked, all of them, in order, and nobody else's.
pub fn session(data: &[u8]) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("there is a reactor").block_on(async {
        let mut input = Input(data);
        let mut scene = Scene::new(&mut input);
        while !input.is_empty() {
            scene.step(&mut input);
            scene.run().await;
        }
        scene.finish().await;
    });
}

/// One connection that is there from the beginning, and no timeouts.
const SETTINGS: &str = r#"
    [auth]
    auth_type = "trust"
    [pool]
    default_pool_size = 1
    max_prepared_statements = 0
    function_scan_interval = "0"
    min_pool_size = 1
    query_wait_timeout = "0"
    query_wait_notify = "0"
    server_idle_timeout = "0"
    server_lifetime = "0"
    server_check_query = ""
    [databases."*"]
    hosts = "nowhere"
"#;

/// One database with one pool.
struct OneDatabase(Plan);

impl Catalog for OneDatabase {
    fn pool(&self, database: &str, user: &str) -> Option<PoolKey> {
        Some(PoolKey {
            database: database.into(),
            user: user.into(),
            role: Role::Any,
        })
    }

    fn plan(&self, _: &PoolKey) -> Option<Plan> {
        Some(self.0.clone())
    }
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

struct Scene {
    target: Arc<Target>,
    pool: Arc<Pool>,
    table: Arc<Table>,
    worker: Rc<Worker>,
    /// How much a wire holds.
    room: usize,
    clients: [(Client, Option<Task>); 2],
    /// What they call themselves, which is a setting.
    names: [&'static str; 2],
    last_client: u8,
    server: Server,
    said: Said,
}

fn plan(target: Arc<Target>, mode: PoolMode) -> Plan {
    let settings = config::parse(SETTINGS, Path::new("")).expect("they are right");
    let database = settings.database("d").expect("every name is one");
    let settings = PoolSettings {
        mode,
        ..settings.pool_settings(database, "u")
    };
    Plan {
        settings,
        target,
        secret: None,
    }
}

impl Scene {
    fn new(input: &mut Input<'_>) -> Self {
        let room = usize::from(input.byte()) + 1;
        let mode = input.one_of(&[PoolMode::Transaction, PoolMode::Transaction, PoolMode::Session]);
        let different = input.byte() % 2 == 1;
        let target = Arc::new(server::fuzzing::target());
        let registry = Registry::new();
        let families = Families::new(&registry, 10).expect("the registry is empty");
        let tasks = Tasks::new(runtime::Handle::current());
        let pools = Pools::new(
            Box::new(OneDatabase(plan(target.clone(), mode))),
            families,
            Arc::new(Interner::new(1 << 20)),
            Arc::new(Tracer::new(&registry, None, tasks.clone()).expect("the registry is empty")),
            tasks,
        );
        let pool = pools.get("d", "u").expect("it is there for every name");
        let (table, worker) = (Arc::new(Table::default()), Rc::new(Worker::new(1)));
        let server = open(&pool, &target, room);
        let nobody = || (Client::new(0, tokio::io::duplex(1).0), None);
        let mut scene = Self {
            clients: [nobody(), nobody()],
            names: ["one", if different { "two" } else { "one" }],
            last_client: 0,
            target,
            table,
            worker,
            room,
            server,
            said: Said::new(),
            pool,
        };
        scene.enter(0);
        scene.enter(1);
        scene
    }

    /// Puts a new client in the place of one whose session has ended.
    fn enter(&mut self, which: usize) {
        if self.last_client == LAST_CLIENT {
            return;
        }
        let (near, far) = tokio::io::duplex(self.room);
        let arrival = Box::new(arrive(far, &self.pool, &self.table, self.names[which]));
        let worker = self.worker.clone();
        let task = async move {
            match arrival.welcome().await {
                Ok(welcomed) => go_on(welcomed, worker).await,
                Err(arrival) => serve(arrival, worker).await,
            }
        };
        self.last_client += 1;
        self.clients[which] = (Client::new(self.last_client, near), Some(Box::pin(task)));
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        let which = usize::from(what >> 7);
        let (client, task) = &mut self.clients[which];
        match what % 16 {
            0..4 => client.say(input.one_of(MESSAGES)),
            4 | 5 => _ = client.write(input.byte().into()),
            6 => _ = client.read(input.byte().into(), &self.said),
            7 | 8 => _ = self.server.read(input.byte().into()),
            9..12 => self.server.work(input, &mut self.said),
            12 => _ = self.server.write(input.byte().into()),
            13 => self.server.on_its_own(input, &mut self.said),
            14 => _ = self.all_of_it(),
            _ if what & 0x40 > 0 && task.is_some() => client.leave(),
            _ if what & 0x40 > 0 => self.enter(which),
            _ if self.server.is_connected() => {}
            _ => self.server = open(&self.pool, &self.target, self.room),
        }
    }

    /// Moves everything that can be moved; says whether anything was.
    fn all_of_it(&mut self) -> bool {
        let mut moved = 0;
        for (client, _) in &mut self.clients {
            moved += client.write(usize::MAX);
            moved += client.read(4096, &self.said);
        }
        moved += self.server.read(4096);
        moved += self.server.write(usize::MAX);
        moved > 0
    }

    /// Lets the pooler do what it can.
    async fn run(&mut self) {
        for (_, task) in &mut self.clients {
            let Some(running) = task else { continue };
            if std::future::poll_fn(|cx| Poll::Ready(running.as_mut().poll(cx).is_ready())).await {
                *task = None;
            }
        }
        tokio::task::yield_now().await;
    }

    /// Lets everything come to an end, and looks at what is left.
    async fn finish(&mut self) {
        let mut still = 0;
        while still < STILL {
            self.run().await;
            let unread = !self.server.backend().has_read();
            self.server.work(&mut Input(&[]), &mut self.said);
            still = if self.all_of_it() || unread { 0 } else { still + 1 };
        }
        if !self.server.is_connected() {
            return;
        }
        for (client, task) in &self.clients {
            if task.is_some() && client.is_connected() {
                let said = self.said.get(&client.number()).map_or(0, Vec::len);
                assert_eq!(client.got(), said, "client {} waits for answers", client.number());
            }
        }
        let backend = self.server.backend();
        let lent = self.pool.counts().active;
        assert!(
            backend.is_clean() || lent == 1,
            "nobody holds a server that is not done: {backend:?}"
        );
    }
}

fn open(pool: &Arc<Pool>, target: &Arc<Target>, room: usize) -> Server {
    let (near, far) = tokio::io::duplex(room);
    pool.adopt(server::fuzzing::connection(Socket::memory(near), target.clone()));
    Server::new(far)
}

fn arrive(end: tokio::io::DuplexStream, pool: &Arc<Pool>, table: &Arc<Table>, name: &str) -> Arrival<()> {
    let mut stream = Framed::new(Stream::Plain(Socket::memory(end)));
    reply::authentication_ok(stream.output());
    let startup = [("application_name".to_owned(), name.to_owned())];
    Arrival {
        stream,
        identity: Identity {
            client: table.next_client(),
            database: "d".into(),
            user: "u".into(),
            peer: PeerAddress::Local,
        },
        startup: StartupSettings::new(startup),
        pool: pool.clone(),
        entry: table.enter(0).expect("there are random numbers"),
        slot: (),
    }
}
