//! Replica groups as a pure slice: members, epochs, incarnations, placement.
