//! An API server of Kubernetes as a client sees one: EndpointSlices, `Cluster` objects and Leases, listed and watched,
//! and everything that goes wrong with a real one. It speaks what was recorded from a real server.

mod fault;
mod http;
mod objects;
mod selector;
mod serve;
mod store;

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    thread::{self, JoinHandle},
};

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use tempfile::TempDir;
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::{Authority, Leaf};

pub use self::{
    fault::{Fault, WatchEnd},
    objects::{ClusterSpec, EndpointSpec, NAMESPACE, Resource, Service},
    store::{Framing, Request},
};
use self::{http::Stream, serve::Hub};

/// A played API server on a loopback port of its own. It ends with its value.
pub struct ApiServer {
    hub: Arc<Hub>,
    sockets: Arc<Sockets>,
    address: SocketAddr,
    /// Keeps the port for as long as nobody listens on it.
    _place: Socket,
    tls: Option<Arc<ServerConfig>>,
    listening: Mutex<Option<(Arc<TcpListener>, JoinHandle<()>)>>,
    directory: TempDir,
    names: Mutex<Names>,
}

#[derive(Default)]
struct Sockets(Mutex<Vec<Weak<TcpStream>>>);

/// The names that slices have, by service and port: made up when the first is written.
#[derive(Default)]
struct Names {
    made: usize,
    slices: BTreeMap<(String, u16), String>,
}

impl ApiServer {
    /// One that speaks plain HTTP.
    pub fn start() -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST, None)
    }

    /// One that speaks TLS, with a certificate for its address by this authority.
    pub fn start_with_tls(authority: &Authority) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST, Some(authority))
    }

    /// One at this loopback address.
    pub fn start_on(address: Ipv4Addr, authority: Option<&Authority>) -> Self {
        let place = bound(SocketAddr::from((address, 0)));
        let address = place
            .local_addr()
            .ok()
            .and_then(|address| address.as_socket())
            .expect("a bound socket has an address");
        let directory = tempfile::Builder::new()
            .prefix("pgweir-api-")
            .tempdir()
            .expect("a directory is made");
        if let Some(authority) = authority {
            let pem = authority.certificate_pem();
            fs::write(directory.path().join("ca.crt"), pem).expect("the CA is written");
        }
        let server = Self {
            hub: Arc::new(Hub::new()),
            sockets: Arc::default(),
            address,
            _place: place,
            tls: authority.map(|authority| server_config(authority, address)),
            listening: Mutex::default(),
            directory,
            names: Mutex::default(),
        };
        let token = server.token();
        server.write_token(&token);
        server.listen();
        server
    }

    /// `http://127.0.0.1:PORT`, or `https`.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The file with the service account's token.
    pub fn token_file(&self) -> PathBuf {
        self.directory.path().join("token")
    }

    /// The CA of its certificate, if it has one.
    pub fn ca_file(&self) -> Option<PathBuf> {
        self.tls.as_ref().map(|_| self.directory.path().join("ca.crt"))
    }

    /// The keys of `[kubernetes]` that lead here, with their values in TOML.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let quoted = |path: &Path| format!("'{}'", path.display());
        let mut settings = vec![
            ("kubernetes.namespace", format!("'{NAMESPACE}'")),
            ("kubernetes.api_server", format!("'{}'", self.url())),
            ("kubernetes.token_file", quoted(&self.token_file())),
        ];
        if let Some(file) = self.ca_file() {
            settings.push(("kubernetes.ca_file", quoted(&file)));
        }
        settings
    }

    /// What a service lists: all of it. A slice has one list of ports, so there is one slice for each port; a slice whose
    /// endpoints are gone stays, with lists that are null. One that stays as it is, is not written.
    pub fn slice(&self, cluster: &str, service: Service, endpoints: &[EndpointSpec]) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_port: BTreeMap<u16, Vec<EndpointSpec>> = BTreeMap::new();
        let known = names.slices.keys();
        for (_, port) in known.filter(|(name, _)| *name == service.of(cluster)) {
            by_port.insert(*port, Vec::new());
        }
        for endpoint in endpoints {
            by_port.entry(endpoint.port).or_default().push(endpoint.clone());
        }
        if by_port.is_empty() {
            by_port.insert(5432, Vec::new());
        }
        let objects: Vec<_> = by_port
            .iter()
            .map(|(port, endpoints)| {
                let name = names.of(&service.of(cluster), *port);
                objects::slice(&name, cluster, service, endpoints)
            })
            .collect();
        self.hub.change(|store| {
            for object in objects {
                store.apply(Resource::EndpointSlices, object);
            }
        });
    }

    /// Deletes the slices of a service; the next ones have other names.
    pub fn delete_slice(&self, cluster: &str, service: Service) {
        let service = service.of(cluster);
        self.names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .slices
            .retain(|(name, _), _| *name != service);
        self.hub.change(|store| {
            for name in store.names(Resource::EndpointSlices, "kubernetes.io/service-name", &service) {
                store.delete(Resource::EndpointSlices, &name);
            }
        });
    }

    /// Writes a new slice with this in it, and deletes the old ones afterwards.
    pub fn replace_slice(&self, cluster: &str, service: Service, endpoints: &[EndpointSpec]) {
        let name = service.of(cluster);
        let old = self
            .hub
            .store()
            .names(Resource::EndpointSlices, "kubernetes.io/service-name", &name);
        self.names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .slices
            .retain(|(service, _), _| *service != name);
        self.slice(cluster, service, endpoints);
        self.hub.change(|store| {
            for name in old {
                store.delete(Resource::EndpointSlices, &name);
            }
        });
    }

    /// Creates or changes a `Cluster` object.
    pub fn cluster(&self, name: &str, change: impl FnOnce(&mut ClusterSpec)) {
        self.hub.change(|store| {
            let spec = store.clusters.entry(name.to_owned()).or_default();
            change(spec);
            let object = spec.json(name);
            store.apply(Resource::Clusters, object);
        });
    }

    /// Gives a lease to a holder, or renews it; `""` releases it.
    pub fn lease(&self, name: &str, holder: &str) {
        self.hub.change(|store| {
            store.renewals += 1;
            let object = objects::lease(name, holder, store.renewals);
            store.apply(Resource::Leases, object);
        });
    }

    /// Writes an object as it is, such as one that was recorded; its name, labels and contents count.
    pub fn apply(&self, resource: Resource, object: Value) {
        self.hub.change(|store| store.apply(resource, object));
    }

    /// Deletes an object.
    pub fn delete(&self, resource: Resource, name: &str) {
        self.hub.change(|store| {
            store.delete(resource, name);
            if resource == Resource::Clusters {
                store.clusters.remove(name);
            }
        });
    }

    /// An object as it is.
    pub fn object(&self, resource: Resource, name: &str) -> Option<Value> {
        self.hub.store().object(resource, name).cloned()
    }

    /// No role allows to list or watch this any more. Open watches go on.
    pub fn forbid(&self, resource: Resource) {
        self.hub.change(|store| {
            for verb in ["list", "watch"] {
                store.forbidden.insert((resource, verb));
            }
        });
    }

    /// A role that has forgotten `watch`.
    pub fn forbid_watch(&self, resource: Resource) {
        self.hub
            .change(|store| store.forbidden.insert((resource, "watch")));
    }

    /// A role allows it.
    pub fn allow(&self, resource: Resource) {
        self.hub.change(|store| {
            for verb in ["list", "watch"] {
                store.forbidden.remove(&(resource, verb));
            }
        });
    }

    /// There is no such resource: its CRD is not installed.
    pub fn uninstall(&self, resource: Resource) {
        self.hub.change(|store| store.missing.insert(resource));
    }

    /// There is.
    pub fn install(&self, resource: Resource) {
        self.hub.change(|store| store.missing.remove(&resource));
    }

    /// What all new requests get until [`ApiServer::heal`].
    pub fn fault(&self, fault: Fault) {
        self.hub
            .change(|store| store.fault = Some((fault, usize::MAX, None)));
    }

    /// What so many new requests of this verb (`list`, `watch`) get.
    pub fn fault_once(&self, fault: Fault, verb: &'static str, times: usize) {
        self.hub
            .change(|store| store.fault = Some((fault, times, Some(verb))));
    }

    /// Ends all open watches.
    pub fn end_watches(&self, how: WatchEnd) {
        self.hub.change(|store| store.end_watches(how));
    }

    /// Forgets what has happened until now, as a restart does: who watches from before is told 410. Open watches are cut.
    pub fn compact(&self) {
        self.hub.change(|store| {
            store.compact();
            store.end_watches(WatchEnd::Cut);
        });
    }

    /// Comes back from an old backup: its versions are smaller than those that clients have seen. Open watches are cut.
    pub fn roll_back(&self) {
        self.hub.change(|store| {
            store.roll_back();
            store.end_watches(WatchEnd::Cut);
        });
    }

    /// As SIGSTOP: connections are accepted, and nothing is ever said.
    pub fn freeze(&self) {
        self.hub.change(|store| store.is_frozen = true);
    }

    /// As SIGKILL: connections are reset, and refused.
    pub fn kill(&self) {
        self.stop_listening();
        self.hub.change(|store| store.end_watches(WatchEnd::Reset));
        self.sockets.end();
    }

    /// As SIGTERM: connections are refused, and open watches go on.
    pub fn terminate(&self) {
        self.stop_listening();
    }

    /// Ends what [`ApiServer::fault`], [`ApiServer::freeze`], [`ApiServer::kill`] and [`ApiServer::terminate`] have begun.
    pub fn heal(&self) {
        self.hub.change(|store| {
            store.fault = None;
            store.is_frozen = false;
        });
        self.listen();
    }

    /// From now on a server without bookmarks and `sendInitialEvents`.
    pub fn without_bookmarks(&self) {
        self.hub.change(|store| store.is_old = true);
    }

    /// How events are cut.
    pub fn framing(&self, framing: Framing) {
        self.hub.change(|store| store.framing = framing);
    }

    /// The token that is valid.
    pub fn token(&self) -> String {
        self.hub.store().token.clone()
    }

    /// Another token is valid from now on; it is in no file yet. Open watches go on.
    pub fn expire_token(&self) -> String {
        self.hub.change(|store| {
            store.token = format!("token-{}", store.requests.len() + 2);
            store.token.clone()
        })
    }

    /// Puts a token into the file, as the kubelet does.
    pub fn write_token(&self, token: &str) {
        let unfinished = self.directory.path().join("token.new");
        fs::write(&unfinished, token).expect("the token is written");
        fs::rename(&unfinished, self.token_file()).expect("the token is put in its place");
    }

    /// What has been asked for.
    pub fn requests(&self) -> Vec<Request> {
        self.hub.store().requests.clone()
    }

    /// How many watches are open.
    pub fn watches(&self) -> usize {
        self.hub.store().watches
    }

    /// How many of them have told a bookmark since they began.
    pub fn bookmarked(&self) -> usize {
        self.hub.store().bookmarked
    }

    fn listen(&self) {
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if listening.is_some() {
            return;
        }
        let socket = bound(self.address);
        socket.listen(128).expect("the port is ours");
        let listener = Arc::new(TcpListener::from(socket));
        let thread = {
            let (hub, sockets) = (Arc::clone(&self.hub), Arc::clone(&self.sockets));
            let (listener, tls) = (Arc::clone(&listener), self.tls.clone());
            thread::spawn(move || accept(&listener, &hub, &sockets, tls.as_ref()))
        };
        *listening = Some((listener, thread));
    }

    fn stop_listening(&self) {
        let listening = self
            .listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((listener, thread)) = listening {
            super::stop_listening(&listener);
            let _ = thread.join();
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.hub.change(|store| store.is_stopped = true);
        self.stop_listening();
        self.sockets.end();
    }
}

impl Names {
    fn of(&mut self, service: &str, port: u16) -> String {
        let made = &mut self.made;
        let key = (service.to_owned(), port);
        let name = self.slices.entry(key).or_insert_with(|| {
            *made += 1;
            format!("{service}-{:05x}", *made * 0x3_1d2f % 0xf_ffff)
        });
        name.clone()
    }
}

impl Sockets {
    fn add(&self, socket: &Arc<TcpStream>) {
        let mut sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.retain(|socket| socket.strong_count() > 0);
        sockets.push(Arc::downgrade(socket));
    }

    fn end(&self) {
        for socket in self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if let Some(socket) = socket.upgrade() {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }
}

/// A socket that shares its port with others of ours, of which one at most listens.
fn bound(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("there are sockets");
    socket.set_reuse_address(true).expect("ports can be shared");
    socket.bind(&address.into()).expect("loopback has a free port");
    socket
}

fn accept(listener: &TcpListener, hub: &Arc<Hub>, sockets: &Sockets, tls: Option<&Arc<ServerConfig>>) {
    // The end of listening is an error of accept.
    while let Ok((socket, _)) = listener.accept() {
        let socket = Arc::new(socket);
        sockets.add(&socket);
        let _ = socket.set_nodelay(true);
        let stream = Stream::new(socket, tls);
        let hub = Arc::clone(hub);
        thread::spawn(move || {
            // A client that goes is no failure.
            let _ = serve::connection(&hub, stream);
        });
    }
}

fn server_config(authority: &Authority, address: SocketAddr) -> Arc<ServerConfig> {
    let names = [address.ip().to_string()];
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let certificate = authority
        .issue(&Leaf::server(&names))
        .expect("the authority signs");
    let chain = CertificateDer::pem_slice_iter(certificate.certificate_pem.as_bytes())
        .collect::<Result<_, _>>()
        .expect("it is PEM");
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes()).expect("it is PEM");
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("the key is the certificate's");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}
