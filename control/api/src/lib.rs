//! Versioned wire messages; no behaviour.
