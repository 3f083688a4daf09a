//! Clients that have logged in and do nothing: what each adds to the pooler's resident memory.

use std::{io, sync::Arc, time::Duration};

use pgweir::{cli::demo::interrupt::Interrupt, lifecycle::raise_open_files};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        client::Resumption,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use super::{
    client::{Answers, ClientError, SSL_REQUEST, address, startup},
    error::MeasureError,
    measure::resident,
    metrics::{Metric, Sample},
    poolers::Pooler,
    site::{DATABASE, Site},
    statistics::as_f64,
    workloads::Workload,
};

/// Log-ins under way at once.
const AT_ONCE: usize = 32;
/// Clients that log in before anything is measured: what every pooler allocates once is not theirs.
const FIRST: u32 = 64;
const LOGIN_LIMIT: Duration = Duration::from_secs(60);
/// Descriptors of either process that are not clients.
const SPARE_FILES: u64 = 500;
/// Memory is read again after so long, until it has stopped changing.
const SETTLE: Duration = Duration::from_millis(200);
const SETTLE_TRIES: usize = 20;

/// A connection that is kept open.
enum Held {
    Plain { _stream: TcpStream },
    Tls { _stream: Box<TlsStream<TcpStream>> },
}

/// Logs the workload's clients in, and compares the pooler's memory before and after.
pub(crate) fn measure(
    site: &Site,
    pooler: &mut Pooler,
    workload: &Workload,
    interrupt: &Interrupt,
) -> Result<Sample, MeasureError> {
    let clients = workload.clients;
    let limit = raise_open_files().map_err(MeasureError::io("cannot raise the limit of open files"))?;
    if u64::from(clients + FIRST) + SPARE_FILES > limit {
        return Err(MeasureError::OpenFiles { clients, limit });
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(MeasureError::io("cannot start a runtime"))?;
    let connector = match workload.tls {
        true => Some(connector(site).map_err(MeasureError::io("cannot set up TLS"))?),
        false => None,
    };
    let port = pooler.port();
    let log_in = |count| runtime.block_on(log_in_all(port, count, connector.as_ref(), interrupt));
    let first = log_in(FIRST)?;
    let before = settled(pooler, interrupt)?;
    let all = log_in(clients)?;
    let after = settled(pooler, interrupt)?;
    drop((first, all));
    let growth = as_f64(after) - as_f64(before);
    Ok(Sample::from([(Metric::Memory, growth / f64::from(clients))]))
}

/// Resident memory when it no longer changes.
fn settled(pooler: &mut Pooler, interrupt: &Interrupt) -> Result<u64, MeasureError> {
    let mut last = 0;
    for _ in 0..SETTLE_TRIES {
        pooler.check()?;
        let now = resident(pooler.pid()).map_err(MeasureError::io("cannot read the pooler's memory"))?;
        if now == last {
            break;
        }
        last = now;
        if interrupt.came_within(SETTLE) {
            return Err(MeasureError::Interrupted);
        }
    }
    Ok(last)
}

async fn log_in_all(
    port: u16,
    count: u32,
    connector: Option<&TlsConnector>,
    interrupt: &Interrupt,
) -> Result<Vec<Held>, MeasureError> {
    let mut held = Vec::new();
    let mut under_way = JoinSet::new();
    let mut begun = 0;
    while begun < count || !under_way.is_empty() {
        while begun < count && under_way.len() < AT_ONCE {
            under_way.spawn(log_in(port, connector.cloned()));
            begun += 1;
        }
        if interrupt.came_within(Duration::ZERO) {
            return Err(MeasureError::Interrupted);
        }
        if let Some(client) = under_way.join_next().await {
            let client = client
                .map_err(io::Error::other)
                .map_err(ClientError::Io)
                .flatten();
            held.push(client.map_err(MeasureError::client("a client could not log in"))?);
        }
    }
    Ok(held)
}

async fn log_in(port: u16, connector: Option<TlsConnector>) -> Result<Held, ClientError> {
    let too_late = |_| ClientError::Io(io::ErrorKind::TimedOut.into());
    timeout(LOGIN_LIMIT, log_in_now(port, connector))
        .await
        .map_err(too_late)?
}

async fn log_in_now(port: u16, connector: Option<TlsConnector>) -> Result<Held, ClientError> {
    let mut stream = TcpStream::connect(address(port)).await?;
    let Some(connector) = connector else {
        wait_for_ready(&mut stream).await?;
        return Ok(Held::Plain { _stream: stream });
    };
    stream.write_all(&SSL_REQUEST).await?;
    if stream.read_u8().await? != b'S' {
        return Err(ClientError::NoTls);
    }
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut stream = Box::new(connector.connect(name, stream).await?);
    wait_for_ready(&mut *stream).await?;
    Ok(Held::Tls { _stream: stream })
}

async fn wait_for_ready(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(), ClientError> {
    stream.write_all(&startup(DATABASE)).await?;
    stream.flush().await?;
    let mut answers = Answers::default();
    let mut buffer = [0; 2048];
    loop {
        let count = stream.read(&mut buffer).await?;
        if answers.take(&buffer[..count])? {
            return Ok(());
        }
    }
}

fn connector(site: &Site) -> io::Result<TlsConnector> {
    let root = CertificateDer::from_pem_slice(site.authority.certificate_pem().as_bytes());
    let mut roots = RootCertStore::empty();
    roots
        .add(root.map_err(io::Error::other)?)
        .map_err(io::Error::other)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // libpq never resumes.
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}
