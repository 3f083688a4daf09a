//! Server connections and the clients that wait for them.
