//! Compiles the part of the container runtime interface by which scenarios run pods.

/// Where it is.
const PROTO: &str = "tests/cri/proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed={PROTO}");
    let descriptors = protox::compile(["cri.proto"], [PROTO])?;
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    Ok(())
}
