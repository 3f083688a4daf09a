//! The hard cases: bugs that poolers have had, each with a number and at least one test whose name begins with it, so
//! that `cargo test --test hard_cases case_14` shows that pgweir does not have that one. Every test opens with its story.
//!
//! | case | what goes wrong elsewhere | module |
//! |---|---|---|
//! | 1 | plaintext behind SSLRequest counts as sent inside TLS | `before_login` |
//! | 2 | GSSENCRequest ends the connection | `before_login` |
//! | 3 | encryption requests again and again, or in fragments | `before_login` |
//! | 4 | the startup packet's length is believed | `before_login` |
//! | 5 | partial and oversized log-in messages, log-ins without end | `before_login` |
//! | 6 | protocol negotiation twice or wrong; long cancel keys | `before_login`, `cancel::keys` |
//! | 7 | startup strings read as Latin-1 | `before_login` |
//! | 8 | a startup parameter reaches another connection, or becomes SQL | `before_login` |
//! | 10 | SCRAM with a hostile client or server; unknown users | `before_login` |
//! | 12 | errors without fields, notices during the log-in | `before_login` |
//! | 13 | accepting without descriptors, probes in the log | `before_login` |
//! | 14 | a server goes back before its last ReadyForQuery | `extended` |
//! | 15 | an error in a pipeline | `extended`, `prepared::ghosts` |
//! | 16 | Flush without Sync | `extended` |
//! | 17 | answers out of order | `extended`, `prepared::order` |
//! | 18 | Close of unknown names, statements and portals mixed up | `extended`, `prepared::order` |
//! | 19 | Bind of a statement that is not there | `extended`, `prepared::names` |
//! | 20 | a statement in use is evicted | `prepared::eviction` |
//! | 21 | DEALLOCATE and DISCARD in a pipeline forget too much | `prepared::forgetting` |
//! | 22 | one text under two settings shares a plan | `prepared::plans` |
//! | 23 | PortalSuspended taken for the end | `extended` |
//! | 24 | Query and FunctionCall among extended messages | `extended` |
//! | 25 | the pooler's own ReadyForQuery in mid-sequence | `extended` |
//! | 26 | one direction waits for the other; memory without bound | `streams` |
//! | 27 | messages larger than any buffer, headers in pieces | `streams` |
//! | 28 | COPY that fails, is abandoned, or goes both ways | `streams` |
//! | 31 | a client leaves in mid-transaction, mid-message, mid-COPY | `vanished`, `faults::clients` |
//! | 32 | an idle server says something, or goodbye | `faults::idle` |
//! | 34 | a server sees what no client has said, in the middle of a pipeline | `prepared::wire` |
//! | 35 | a cancel hits the next client | `cancel` |
//! | 36 | a cancel of a client that waits, or without TLS | `cancel` |
//! | 37 | places of a pool that are lost | `pool_life` |
//! | 38 | a server that dies, is restarted or falls silent | `faults` |
//! | 39 | a wrong password towards the server is hammered | `faults::reach` |
//! | 42 | a server that is out of memory, or out of step | `faults::protocol` |

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod before_login;
mod cancel;
mod checks;
mod extended;
mod faults;
mod pool_life;
mod prepared;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod vanished;
