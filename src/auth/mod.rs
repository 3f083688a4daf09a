//! Proving who one is: SCRAM, md5, passwords and where secrets come from. Pure: no socket, no clock.
