//! TLS between lanes in memory, and against other implementations over sockets.
#[cfg(test)]
mod all {
    mod ends;
    mod handshake;
    mod hostile;
    mod interop;
    mod reference;
    mod stream;
}
