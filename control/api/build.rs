//! Generates the wire messages. protox parses the schema, so no protoc is needed.

use std::path::Path;

/// The schema; a file here is a package of its own with its version in the name.
const SCHEMA: [&str; 4] = ["files.proto", "cluster.proto", "keys.proto", "raft.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new("proto");
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(SCHEMA, [folder])?;
    let grpc = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure()
        .bytes(".")
        .build_client(grpc)
        .build_server(grpc)
        .compile_fds(descriptors)?;
    Ok(())
}
