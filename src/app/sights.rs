//! Where the status page looks.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::serve::Reception;
use crate::{
    pool::Pools,
    session::Table,
    status::{Places, Sources, document::Certificate},
    topology::Cluster,
};

/// All that the page shows.
#[derive(Debug)]
pub(super) struct Sights {
    pub(super) reception: Arc<Reception>,
    pub(super) certificates: Arc<ArcSwap<Vec<Certificate>>>,
}

impl Sources for Sights {
    fn pools(&self) -> &Pools {
        &self.reception.pools
    }

    fn table(&self) -> &Table {
        &self.reception.table
    }

    fn clusters(&self) -> Vec<Arc<Cluster>> {
        self.reception.clusters.all()
    }

    fn places(&self) -> Places {
        let door = &self.reception.door;
        let (logging_in, logging_in_limit) = door.newcomers();
        Places {
            connected: door.slots.taken(),
            limit: door.slots.limit(),
            logging_in,
            logging_in_limit,
        }
    }

    fn certificates(&self) -> Vec<Certificate> {
        self.certificates.load().to_vec()
    }
}
