//! Guests of vhost-user ports: DPDK's virtio-user, which is one without a machine, and virtual machines.

mod initramfs;
pub mod kernel;
pub mod machine;
pub mod testpmd;
