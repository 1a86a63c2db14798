//! What ACLs have logged: a line for each packet that is told of, in the daemon's log under
//! the target `acl`. How many there are is bounded before, by a meter.

use flowtable::{
    key::FlowKey, packet::Packet, parse::parse, switch::PacketIn, text::print_headers, types::PortNo,
};
use ovn_northd_lite::{
    model::Severity,
    punt::{LogEntry, Verdict},
};

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// How much it matters.
    pub severity: Severity,
    /// What was decided.
    pub verdict: Verdict,
    /// Which ACL did.
    pub acl: String,
    /// The packet's headers.
    pub packet: String,
}

/// The line for a packet, if it is for the log.
pub(super) fn line(packet_in: &PacketIn) -> Option<Line> {
    let LogEntry { verdict, severity, name } = LogEntry::decode(&packet_in.punt.to.userdata)?;
    Some(Line { severity, verdict, acl: name, packet: headers(&packet_in.bytes, packet_in.in_port) })
}

impl Line {
    /// Writes it.
    pub(crate) fn write(&self) {
        let Self { severity, verdict, acl, packet } = self;
        let (severity, verdict) = (severity.name(), verdict.name());
        match self.severity {
            Severity::Debug => tracing::debug!(target: "acl", acl, verdict, severity, packet),
            Severity::Info | Severity::Notice => {
                tracing::info!(target: "acl", acl, verdict, severity, packet);
            }
            Severity::Warning => tracing::warn!(target: "acl", acl, verdict, severity, packet),
            Severity::Alert => tracing::error!(target: "acl", acl, verdict, severity, packet),
        }
    }
}

/// The headers, in the language of flows.
fn headers(bytes: &[u8], port: PortNo) -> String {
    let mut packet = Packet::new(bytes.to_vec(), 0, bytes.len(), port);
    let mut key = FlowKey::zero();
    match parse(&mut packet, &mut key) {
        Ok(()) => print_headers(&key),
        Err(reason) => format!("{} bytes: {reason}", bytes.len()),
    }
}
