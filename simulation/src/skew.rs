//! Peers of the next version: what they say has something in each message that this version does not know, and has to
//! read over.

use std::{collections::BTreeMap, sync::LazyLock};

use prost::{
    Message as _,
    encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint},
};
use prost_types::{DescriptorProto, FileDescriptorSet};

/// Numbers of fields that no message has.
const UNKNOWN: [u32; 2] = [40_000, 40_001];
/// Messages are not nested deeper.
const DEPTH: u32 = 20;

/// The contracts of this version.
static CONTRACTS: LazyLock<Contracts> = LazyLock::new(Contracts::new);

/// A message of this kind, `Ack` of the stream between controllers and hosts for instance, as the next version says
/// it; none: it is none.
pub(crate) fn said_by_next(kind: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    CONTRACTS.copy(&format!(".ferroflow.chassis.v1.{kind}"), bytes, DEPTH)
}

/// What the contracts' messages consist of.
#[derive(Debug, Default)]
struct Contracts {
    /// Fields of a message that are messages, by number.
    messages: BTreeMap<String, BTreeMap<u32, String>>,
}

impl Contracts {
    fn new() -> Self {
        let mut contracts = Self::default();
        let files = FileDescriptorSet::decode(ferroflow_proto::FILE_DESCRIPTOR_SET).unwrap_or_default();
        for file in &files.file {
            file.message_type
                .iter()
                .for_each(|message| contracts.add(&format!(".{}", file.package()), message));
        }
        contracts
    }

    fn add(&mut self, within: &str, message: &DescriptorProto) {
        let name = format!("{within}.{}", message.name());
        message.nested_type.iter().for_each(|nested| self.add(&name, nested));
        let nested = message
            .field
            .iter()
            .filter(|field| field.r#type() == prost_types::field_descriptor_proto::Type::Message);
        let nested = nested.map(|field| (field.number().unsigned_abs(), field.type_name().to_owned()));
        self.messages.insert(name, nested.collect());
    }

    fn copy(&self, kind: &str, mut bytes: &[u8], depth: u32) -> Option<Vec<u8>> {
        let fields = self.messages.get(kind).filter(|_| depth > 0)?;
        let mut out = Vec::with_capacity(bytes.len() * 2);
        encode_key(UNKNOWN[0], WireType::Varint, &mut out);
        encode_varint(7, &mut out);
        while !bytes.is_empty() {
            let (number, wire) = decode_key(&mut bytes).ok()?;
            encode_key(number, wire, &mut out);
            let len = match wire {
                WireType::Varint => {
                    encode_varint(decode_varint(&mut bytes).ok()?, &mut out);
                    continue;
                }
                WireType::SixtyFourBit => 8,
                WireType::ThirtyTwoBit => 4,
                WireType::LengthDelimited => usize::try_from(decode_varint(&mut bytes).ok()?).ok()?,
                WireType::StartGroup | WireType::EndGroup => return None,
            };
            let (value, rest) = bytes.split_at_checked(len)?;
            bytes = rest;
            if wire == WireType::LengthDelimited {
                let nested = fields.get(&number).map(|kind| self.copy(kind, value, depth - 1));
                let value = nested.unwrap_or_else(|| Some(value.to_vec()))?;
                encode_varint(value.len() as u64, &mut out);
                out.extend(value);
            } else {
                out.extend(value);
            }
        }
        encode_key(UNKNOWN[1], WireType::LengthDelimited, &mut out);
        encode_varint(5, &mut out);
        out.extend(b"newer");
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use ferroflow_proto::chassis::{Claim, Claims, SyncRequest, sync_request::Message};

    use super::*;

    #[test]
    fn what_the_next_version_says_is_longer_and_read_as_the_same() {
        let claims = ["a", "b"].map(|port| Claim { logical_port: port.to_owned(), up: true });
        let said = SyncRequest { message: Some(Message::Claims(Claims { claims: claims.into() })) };
        let bytes = said_by_next("SyncRequest", &said.encode_to_vec()).unwrap();
        // Four messages, each with two fields more.
        assert!(bytes.len() >= said.encoded_len() + 4 * 12, "{} bytes", bytes.len());
        assert_eq!(SyncRequest::decode(bytes.as_slice()).unwrap(), said);
        assert_eq!(said_by_next("SyncRequest", &bytes[..bytes.len() - 1]), None);
        assert_eq!(said_by_next("Nothing", &[]), None);
    }
}
