//! The region's CA, certificates and the TLS configuration made of them.
