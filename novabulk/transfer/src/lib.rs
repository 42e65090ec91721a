//! Streams, messages and credits as a pure state machine.
