//! Drives a connection's state machine over lanes; keeps the pool of connections.
