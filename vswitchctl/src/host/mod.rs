//! Commands for the switch of one host, over its local socket, each in its file.

pub mod bundle;
pub mod cni;
pub mod ct;
pub mod drops;
pub mod endpoint;
pub mod fdb;
pub mod flow;
pub mod frame;
pub mod group;
pub mod lab;
pub mod megaflow;
pub mod meter;
pub mod monitor;
pub mod origin;
pub mod packet_out;
pub mod pcap;
pub mod perf;
pub mod port;
pub mod set;
pub mod status;
pub mod table;
pub mod trace;
pub mod worker;
