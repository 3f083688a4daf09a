//! Both sides against each other, in memory, with certificates made on the spot.

mod certificates;
mod clients;
mod end_point;
mod fixtures;
mod revocation;
mod servers;
mod stream;
mod validity;
