//! The replica group protocol as a pure state machine.
