//! The gRPC contracts of Ferroflow and the code generated from them.
//!
//! Nothing else lives here: no logic, no sockets. Read the `.proto` files under
//! `proto/`; their comments are the API's documentation. Three packages:
//!
//! - [`northbound`]: operators, orchestrators and `vswitchctl` ⇄ `vswitch-controller`
//! - [`chassis`]: `vswitchd` ⇄ `vswitch-controller`
//! - [`host`]: `vswitchctl` and the container shims ⇄ `vswitchd`, on a local socket

#![forbid(unsafe_code)]

/// Packages as the `.proto` files name them: that is how they refer to each other.
#[allow(missing_docs, unreachable_pub, clippy::all)]
mod packages {
    pub mod northbound {
        pub mod v1 {
            tonic::include_proto!("ferroflow.northbound.v1");
        }
    }
    pub mod chassis {
        pub mod v1 {
            tonic::include_proto!("ferroflow.chassis.v1");
        }
    }
    pub mod host {
        pub mod v1 {
            tonic::include_proto!("ferroflow.host.v1");
        }
    }
}

/// The stream between a controller and a host.
pub use packages::chassis::v1 as chassis;
/// The API of one host's daemon.
pub use packages::host::v1 as host;
/// The logical-network northbound API.
pub use packages::northbound::v1 as northbound;

/// Encoded `FileDescriptorSet` of all packages, for the reflection service.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ferroflow.bin"));
