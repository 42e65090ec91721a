//! Hosts and their devices as a pure slice: registration, failure detection.
