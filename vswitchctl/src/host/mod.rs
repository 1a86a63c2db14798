//! Commands for the switch of one host, over its local socket, each in its file.

pub mod bridge;
pub mod bundle;
pub mod coverage;
pub mod ct;
pub mod drops;
pub mod fdb;
pub mod features;
pub mod flow;
pub mod frame;
pub mod group;
pub mod item;
pub mod lab;
pub mod log;
pub mod megaflow;
pub mod meter;
pub mod monitor;
pub mod origin;
pub mod packet_out;
pub mod parse_frame;
pub mod pcap;
pub mod port;
pub mod set;
pub mod status;
pub mod table;
pub mod trace;
