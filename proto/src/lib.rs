//! The gRPC contracts of Ferroflow and the code generated from them.
//!
//! Nothing else lives here: no logic, no sockets. Read the `.proto` files under
//! `proto/`; their comments are the API's documentation. Three packages:
//!
//! - [`northbound`]: operators, orchestrators and `vswitchctl` ⇄ `vswitch-controller`
//! - [`chassis`]: `vswitchd` ⇄ `vswitch-controller`
//! - [`host`]: `vswitchctl` and the container shims ⇄ `vswitchd`, on a local socket

#![forbid(unsafe_code)]

/// The logical-network northbound API.
#[allow(missing_docs, clippy::all)]
pub mod northbound {
    tonic::include_proto!("ferroflow.northbound.v1");
}

/// The stream between a controller and a host.
#[allow(missing_docs, clippy::all)]
pub mod chassis {
    tonic::include_proto!("ferroflow.chassis.v1");
}

/// The API of one host's daemon.
#[allow(missing_docs, clippy::all)]
pub mod host {
    tonic::include_proto!("ferroflow.host.v1");
}

/// Encoded `FileDescriptorSet` of all packages, for the reflection service.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ferroflow.bin"));
