//! Prints packets for controllers, as `ovs-ofctl monitor` does.

use std::fmt::Write as _;

use super::{controller::print_bytes, matching};
use crate::switch::PacketIn;

/// One line for what the packet had, one for userdata where there is some, and one for the
/// id that it goes on by where it waits.
///
/// The frame itself is left out: who shows it knows how to.
pub fn print_packet_in(packet_in: &PacketIn) -> String {
    let PacketIn { punt, bytes, n_bytes, continuation, .. } = packet_in;
    let mut text = "NXT_PACKET_IN2:".to_owned();
    // Writing to a string cannot fail.
    if punt.table.get() != 0 {
        let _ = write!(text, " table_id={}", punt.table);
    }
    // Where no rule is to blame there is no cookie.
    if punt.cookie != u64::MAX {
        let _ = write!(text, " cookie={:#x}", punt.cookie);
    }
    let _ = write!(text, " total_len={n_bytes}");
    let metadata = matching::print(&punt.metadata);
    if !metadata.is_empty() {
        let _ = write!(text, " {metadata}");
    }
    let _ = write!(text, " (via {}) data_len={} (unbuffered)", punt.to.reason, bytes.len());
    if !punt.to.userdata.is_empty() {
        let _ = write!(text, "\n userdata={}", print_bytes(&punt.to.userdata));
    }
    if let Some(id) = continuation {
        let _ = write!(text, "\n continuation={id}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{
        field::Field,
        flow::{Match, ToController},
        program::Punt,
        switch::{ContinuationId, PacketIn},
        types::{PortNo, TableId},
    };

    #[test]
    fn a_packet_in_reads_like_that_of_ovs_ofctl() {
        let to = ToController { userdata: vec![1, 2], pause: true, ..ToController::default() };
        let metadata = Match::any().with(Field::InPort, 1).with(Field::Reg0, 0x5);
        let table = TableId::new(7).unwrap();
        let punt = Punt { to, table, cookie: 0xff, metadata, next: None };
        let continuation = Some(ContinuationId::new(0x1_0000_0002));
        let in_port = PortNo::new(1).unwrap();
        let waiting =
            PacketIn { in_port, punt: Arc::new(punt.clone()), bytes: vec![0; 60], n_bytes: 98, continuation };
        assert_eq!(
            super::print_packet_in(&waiting),
            "NXT_PACKET_IN2: table_id=7 cookie=0xff total_len=98 reg0=0x5,in_port=1 (via action) data_len=60 (unbuffered)\
             \n userdata=01.02\n continuation=0x0000000100000002"
        );
        let to = ToController::default();
        let punt = Punt { to, table: TableId::FIRST, cookie: u64::MAX, metadata: Match::any(), next: None };
        let plain = PacketIn { punt: Arc::new(punt), continuation: None, ..waiting };
        let text = "NXT_PACKET_IN2: total_len=98 (via action) data_len=60 (unbuffered)";
        assert_eq!(super::print_packet_in(&plain), text);
    }
}
