//! Reads the description of a packet, for traces: like a match, but with values only,
//! and completed to a packet that can exist.

use super::{
    TextError,
    cursor::{Cursor, Form, Piece},
    matching::MatchReader,
};
use crate::{
    field::{Field, Prerequisites},
    flow::Match,
    key::{FlowKey, FlowMask},
    port::PortTable,
};

/// TTL of a packet that names none.
const DEFAULT_TTL: u8 = 64;

/// Reads a flow description into a key.
pub(super) fn parse(text: &str, ports: &PortTable) -> Result<FlowKey, TextError> {
    let mut cursor = Cursor::new(Piece::whole(text));
    let mut reader = MatchReader::new(ports);
    while let Some(name) = cursor.name()? {
        let form = cursor.form()?;
        if let Form::Value(value) = form
            && value.text.contains('/')
        {
            return Err(value.error("a packet has values, not masks"));
        }
        reader.item(name, form)?;
    }
    let matching = reader.finish()?;
    if !matching.memberships().is_empty() {
        return Err(Piece::whole("").error("a packet has values, not ranges or sets"));
    }
    Ok(complete(&matching))
}

/// Prints the headers of a packet: the fields that are not zero, so that [`parse`] reads
/// the same where the TTL is none of them.
pub(super) fn print_headers(key: &FlowKey) -> String {
    let mut mask = FlowMask::empty();
    for field in Field::ALL.iter().filter(|field| key.get(**field) != 0) {
        mask.add(*field, field.all_bits());
    }
    Match::from_key(key, &mask).to_string()
}

/// The packet that has what the match requires, and otherwise what is usual.
fn complete(matching: &Match) -> FlowKey {
    let (mut key, mask) = matching.expand();
    if matching.satisfies(Prerequisites::Ip) && mask.get(Field::NwTtl) == 0 {
        key.nw_ttl = DEFAULT_TTL;
    }
    if matching.satisfies(Prerequisites::Mpls) {
        key.n_mpls = key.n_mpls.max(1);
        if key.n_mpls == 1 && mask.get(Field::MplsBos) == 0 {
            key.set(Field::MplsBos, 1);
        }
        if mask.get(Field::MplsTtl) == 0 {
            key.set(Field::MplsTtl, DEFAULT_TTL.into());
        }
    }
    for (tci, tpid) in [(Field::VlanTci, Field::VlanTpid), (Field::CvlanTci, Field::CvlanTpid)] {
        if key.get(tci) != 0 {
            key.set(tci, key.get(tci) | 0x1000);
            if key.get(tpid) == 0 {
                key.set(tpid, 0x8100);
            }
        }
    }
    for idx in 0..64 {
        if Field::tun_metadata(idx).is_some_and(|option| mask.get(option) != 0) {
            key.set(Field::TunMetadataPresent, key.get(Field::TunMetadataPresent) | 1 << idx);
        }
    }
    key
}
