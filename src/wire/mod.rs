//! The PostgreSQL protocol as bytes: frames, startup packets, replies.
