//! Integration tests of the connection's state machine.
#[cfg(test)]
mod all {
    mod fuzz_peer;
    mod limits;
    mod pair;
    mod prop_chain;
    mod prop_delivery;
}
