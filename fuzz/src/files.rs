//! What operators hand to `vswitchctl`, and what the daemon finds in its state directory after a crash.

use ferroflow_proto::chassis::SyncResponse;
use prost::Message as _;
use vswitchctl::{
    file::{objects::Objects, parse},
    host::{frame, pcap},
    name, net,
};
use vswitchd::state::journal_records;

/// A capture file.
pub fn pcap(data: &[u8]) {
    if let Ok(frames) = pcap::parse(data) {
        assert!(frames.iter().map(Vec::len).sum::<usize>() <= data.len());
    }
}

/// A file for `apply`.
pub fn yaml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(documents) = parse::parse("net.yaml", text) {
        let _ = Objects::of("net.yaml", documents);
    }
}

/// A frame in hexadecimal digits.
pub fn frame_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(frame) = frame::parse_frame(text) {
        assert_eq!(frame::parse_frame(&frame::hex(&frame.0)), Ok(frame));
    }
}

/// Words of a command line: ids, labels, addresses of daemons, misspelt things.
pub fn words(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    name::is_id(text);
    let _ = net::labels::parse(text);
    let _ = text.parse::<vswitchctl::address::Address>();
    vswitchctl::spelling::nearest(text, ["switch", "switch-port", "router"]);
}

/// The journal of the last network, damaged or not: what is whole is read, and no more.
pub fn journal(data: &[u8]) {
    let (updates, n_left) = journal_records(data);
    let len: usize = updates.iter().map(SyncResponse::encoded_len).sum();
    assert!(n_left <= data.len());
    // Fields that nobody knows are not kept.
    assert!(len <= data.len());
}
