//! Which addresses host names stand for, as long as there are connections to them.
//!
//! Nothing is answered from memory: whoever connects asks the resolver, together with those who ask at the same moment. What
//! is remembered says only which connections lead to a server that its name does not stand for any more.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::{OnceCell, watch};

use crate::net;

/// A look-up under way; the addresses have no port yet.
type LookUp = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;
/// What it has come to, for all who asked.
type Found = Result<Vec<SocketAddr>, Arc<io::Error>>;

/// How long one name may take when all are looked up again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The names in use.
pub struct Names {
    look_up: Box<dyn Fn(&str) -> LookUp + Send + Sync>,
    under_way: Mutex<HashMap<Box<str>, Weak<OnceCell<Found>>>>,
    hosts: Mutex<HashMap<Box<str>, Weak<Host>>>,
    /// `dns_max_ttl`
    max_ttl: watch::Sender<Duration>,
}

/// A name that connections were opened by.
#[derive(Debug)]
pub(super) struct Host {
    name: Box<str>,
    /// Every address that has been found since the name was last looked up for all connections.
    addresses: ArcSwap<Vec<IpAddr>>,
}

impl Names {
    /// Asks the system's resolver.
    pub fn system() -> Self {
        Self::new(|name| {
            let name = name.to_owned();
            Box::pin(async move { net::resolve(&name, 0).await })
        })
    }

    fn new(look_up: impl Fn(&str) -> LookUp + Send + Sync + 'static) -> Self {
        Self {
            look_up: Box::new(look_up),
            under_way: Mutex::default(),
            hosts: Mutex::default(),
            max_ttl: watch::Sender::default(),
        }
    }

    /// Sets how often the names of connections are looked up again; zero is never.
    pub fn set_max_ttl(&self, max_ttl: Duration) {
        self.max_ttl.send_if_modified(|current| {
            let is_new = *current != max_ttl;
            *current = max_ttl;
            is_new
        });
    }

    /// Looks the names of connections up again and again. Never ends.
    pub async fn keep(&self) {
        let mut max_ttl = self.max_ttl.subscribe();
        loop {
            let pause = *max_ttl.borrow_and_update();
            let is_never = pause.is_zero();
            tokio::select! {
                // The sender is here, so that it is not gone.
                _ = max_ttl.changed() => {}
                () = tokio::time::sleep(pause), if !is_never => self.refresh().await,
            }
        }
    }

    /// The names of connections, with the addresses that were found, and how often they are looked up again.
    pub fn known(&self) -> (Duration, Vec<(String, Vec<IpAddr>)>) {
        let hosts: Vec<_> = {
            let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            hosts.values().filter_map(Weak::upgrade).collect()
        };
        let known = |host: &Arc<Host>| (host.name.to_string(), host.addresses.load().to_vec());
        let mut hosts: Vec<_> = hosts.iter().map(known).collect();
        hosts.sort();
        (*self.max_ttl.borrow(), hosts)
    }

    /// The addresses of a name now, in the resolver's order. Not bounded in time; cancel-safe.
    ///
    /// # Errors
    /// The resolver's.
    pub(super) async fn resolve(&self, name: &str, port: u16) -> io::Result<(Arc<Host>, Vec<SocketAddr>)> {
        let mut found = self.look_up(name).await?;
        for address in &mut found {
            address.set_port(port);
        }
        let host = self.host(name);
        host.add(&found);
        Ok((host, found))
    }

    /// Looks the name up, together with whoever does so already. Whoever asks later gets a later answer.
    async fn look_up(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        let flight = self.flight(name);
        let found = flight.get_or_init(|| async { (self.look_up)(name).await.map_err(Arc::new) });
        found
            .await
            .clone()
            .map_err(|error| io::Error::new(error.kind(), error))
    }

    fn flight(&self, name: &str) -> Arc<OnceCell<Found>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let current = under_way.get(name).and_then(Weak::upgrade);
        if let Some(flight) = current.filter(|flight| !flight.initialized()) {
            return flight;
        }
        under_way.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::<OnceCell<Found>>::default();
        under_way.insert(name.into(), Arc::downgrade(&flight));
        flight
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(name).and_then(Weak::upgrade) {
            return host;
        }
        hosts.retain(|_, host| host.strong_count() > 0);
        let host = Arc::new(Host {
            name: name.into(),
            addresses: ArcSwap::default(),
        });
        hosts.insert(name.into(), Arc::downgrade(&host));
        host
    }

    fn live(&self) -> Vec<Arc<Host>> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.values().filter_map(Weak::upgrade).collect()
    }

    /// Looks every name up that there are connections for, once for all of them. What cannot be looked up stays as it is.
    async fn refresh(&self) {
        for host in self.live() {
            let before = host.addresses.load_full();
            match tokio::time::timeout(PATIENCE, self.look_up(&host.name)).await {
                Ok(Ok(found)) => host.replace(&before, &found),
                Ok(Err(error)) => {
                    tracing::debug!(host = &*host.name, %error, "cannot look a host name up again");
                }
                Err(_) => {
                    tracing::debug!(host = &*host.name, "the resolver says nothing");
                }
            }
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Host {
    /// Whether the name still stands for this address, as far as it is known. One load.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.addresses.load().contains(&address)
    }

    fn add(&self, found: &[SocketAddr]) {
        let known = self.addresses.load();
        if found.iter().all(|address| known.contains(&address.ip())) {
            return;
        }
        self.addresses.rcu(|known| {
            let mut all = Vec::clone(known);
            all.extend(found.iter().map(SocketAddr::ip).filter(|ip| !known.contains(ip)));
            all
        });
    }

    /// Takes what was found in place of what was known before the look-up, unless more has been found meanwhile.
    fn replace(&self, before: &Arc<Vec<IpAddr>>, found: &[SocketAddr]) {
        let found: Vec<_> = found.iter().map(SocketAddr::ip).collect();
        let gone: Vec<_> = before.iter().filter(|ip| !found.contains(ip)).collect();
        if found.is_empty() || gone.is_empty() {
            return;
        }
        let replaced = self.addresses.compare_and_swap(before, Arc::new(found.clone()));
        if Arc::ptr_eq(&replaced, before) {
            tracing::info!(host = &*self.name, ?gone, now = ?found, "a host name stands for other addresses");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    };

    use super::*;

    /// A resolver that says what it is told to say, and counts.
    #[derive(Clone, Default)]
    struct Zone {
        addresses: Arc<Mutex<Vec<u8>>>,
        asked: Arc<AtomicUsize>,
        is_silent: Arc<AtomicBool>,
    }

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    impl Zone {
        fn names(&self) -> Names {
            let zone = self.clone();
            Names::new(move |_| {
                let zone = zone.clone();
                Box::pin(async move {
                    zone.asked.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    if zone.is_silent.load(Ordering::Relaxed) {
                        pending::<()>().await;
                    }
                    let addresses = zone.addresses.lock().unwrap().clone();
                    if addresses.is_empty() {
                        return Err(io::ErrorKind::NotFound.into());
                    }
                    Ok(addresses
                        .into_iter()
                        .map(|last| SocketAddr::new(ip(last), 0))
                        .collect())
                })
            })
        }

        fn say(&self, addresses: &[u8]) {
            *self.addresses.lock().unwrap() = addresses.to_vec();
        }

        fn asked(&self) -> usize {
            self.asked.swap(0, Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn connections_to_addresses_that_are_gone_are_known() {
        let zone = Zone::default();
        let names = zone.names();
        zone.say(&[1, 2]);
        let (host, found) = names.resolve("db", 5432).await.unwrap();
        assert_eq!(
            found,
            [SocketAddr::new(ip(1), 5432), SocketAddr::new(ip(2), 5432)]
        );
        // Another connection finds another server: the first is as good as before, until all names are looked up.
        zone.say(&[3]);
        let (same, _) = names.resolve("db", 5432).await.unwrap();
        assert!(Arc::ptr_eq(&host, &same));
        assert!(host.has(ip(1)) && host.has(ip(3)) && !host.has(ip(4)));
        names.refresh().await;
        assert!(!host.has(ip(1)) && !host.has(ip(2)) && host.has(ip(3)));
    }

    #[tokio::test]
    async fn a_resolver_that_fails_changes_nothing() {
        let zone = Zone::default();
        let names = zone.names();
        assert!(names.resolve("db", 5432).await.is_err());
        zone.say(&[1]);
        // A failure is not remembered either.
        let (host, _) = names.resolve("db", 5432).await.unwrap();
        zone.say(&[]);
        names.refresh().await;
        assert!(host.has(ip(1)));
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_for_all_who_ask_at_the_same_time_and_again_for_who_asks_later() {
        let zone = Zone::default();
        let names = zone.names();
        zone.say(&[1]);
        let (a, b, c) = tokio::join!(
            names.resolve("db", 1),
            names.resolve("db", 2),
            names.resolve("other", 1)
        );
        assert_eq!(zone.asked(), 2);
        zone.say(&[2]);
        let (host, found) = names.resolve("db", 1).await.unwrap();
        assert_eq!((zone.asked(), found), (1, vec![SocketAddr::new(ip(2), 1)]));
        // Nobody looks up what nobody is connected by.
        drop((b, c));
        drop((a, host));
        names.refresh().await;
        assert_eq!(zone.asked(), 0);
    }

    #[tokio::test]
    async fn who_gives_up_does_not_take_the_others_along() {
        let zone = Zone::default();
        let names = Arc::new(zone.names());
        zone.is_silent.store(true, Ordering::Relaxed);
        let given_up = tokio::time::timeout(Duration::from_millis(20), names.resolve("db", 1));
        assert!(given_up.await.is_err());
        zone.is_silent.store(false, Ordering::Relaxed);
        zone.say(&[1]);
        assert!(names.resolve("db", 1).await.is_ok());
    }

    #[tokio::test]
    async fn names_are_looked_up_again_as_often_as_is_said_last() {
        let zone = Zone::default();
        let names = zone.names();
        zone.say(&[1]);
        let (host, _) = names.resolve("db", 1).await.unwrap();
        zone.say(&[2]);
        let told = async {
            tokio::task::yield_now().await;
            names.set_max_ttl(Duration::from_secs(3600));
            tokio::task::yield_now().await;
            names.set_max_ttl(Duration::from_millis(5));
            while host.has(ip(1)) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            () = names.keep() => {}
            told = tokio::time::timeout(Duration::from_secs(20), told) => told.unwrap(),
        }
        assert!(host.has(ip(2)));
    }

    #[tokio::test]
    async fn what_is_found_during_a_look_up_stays() {
        let zone = Zone::default();
        let names = zone.names();
        zone.say(&[1]);
        let (host, _) = names.resolve("db", 1).await.unwrap();
        let before = host.addresses.load_full();
        // The resolver has changed its mind since the look-up for all.
        host.add(&[SocketAddr::new(ip(2), 1)]);
        host.replace(&before, &[SocketAddr::new(ip(3), 0)]);
        assert!(host.has(ip(1)) && host.has(ip(2)));
    }
}
