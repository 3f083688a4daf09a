//! The way to the servers of a cluster that nobody lists: its services, whose names are known without asking.

use std::time::Instant;

use super::{Machine, Source, UNLISTED};
use crate::{topology::Services, types::Endpoint};

impl Machine {
    /// A machine that knows the services.
    pub(in crate::topology) fn reached_by(mut self, services: Services) -> Self {
        self.services = Some(services);
        self
    }

    /// The services, where nobody has listed the servers in time.
    pub(super) fn services_in_use(&self) -> Option<&Services> {
        let services = self.services.as_ref().filter(|_| self.is_list_overdue);
        services.filter(|_| self.is_unlisted())
    }

    /// When the list of servers is overdue, if it is not yet.
    pub(super) fn list_due(&self) -> Option<Instant> {
        let waits = self.services.is_some() && !self.is_list_overdue && self.is_unlisted();
        let absence = self.absence.as_ref().filter(|_| waits)?;
        absence.began.checked_add(UNLISTED)
    }

    /// Whether this leads to the primary whichever server that is.
    pub(super) fn is_service(&self, endpoint: &Endpoint) -> bool {
        let services = self.services_in_use();
        services.is_some_and(|services| services.rw == *endpoint)
    }

    /// Whether this leads now to one server and now to another, so that what one shows says nothing of the next.
    pub(super) fn is_of_many(&self, endpoint: &Endpoint) -> bool {
        let services = self.services.as_ref();
        services.is_some_and(|services| services.ro == *endpoint || services.r == *endpoint)
    }

    /// The servers are listed: the primary is used by its own address from here on. What is about to be done by way of
    /// the service may be done.
    pub(super) fn leave_service(&mut self) {
        let service = self.services.as_ref().map(|services| services.rw.clone());
        // While it is looked for, it is found where it is listed.
        if service.is_none() || self.primary != service || self.is_unlisted() || self.absence.is_some() {
            return;
        }
        if let Some(endpoint) = self.named().and_then(|name| self.endpoint_of(&name)) {
            self.appoint(endpoint);
            self.alias = service;
        }
    }

    fn is_unlisted(&self) -> bool {
        matches!(&self.source, Source::Facts(facts) if !facts.slices_known)
    }
}
