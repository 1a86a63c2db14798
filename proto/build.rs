//! Compiles the `.proto` files without a protoc on the machine: protox parses
//! them, tonic-prost-build generates the Rust.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 12] = [
    "ferroflow/northbound/v1/northbound.proto",
    "ferroflow/chassis/v1/chassis.proto",
    "ferroflow/host/v1/bridge.proto",
    "ferroflow/host/v1/capture.proto",
    "ferroflow/host/v1/conntrack.proto",
    "ferroflow/host/v1/endpoint.proto",
    "ferroflow/host/v1/event.proto",
    "ferroflow/host/v1/host.proto",
    "ferroflow/host/v1/lab.proto",
    "ferroflow/host/v1/rules.proto",
    "ferroflow/host/v1/underlay.proto",
    "ferroflow/host/v1/worker.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("ferroflow.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
