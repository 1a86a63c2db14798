//! A collector of IPFIX (RFC 7011) that knows as much of it as templates say: fields of fixed length, and nothing
//! of enterprises.

use std::collections::HashMap;
use std::net::{SocketAddrV4, UdpSocket};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

const HEADER_LEN: usize = 16;
/// Sets of templates; those of data begin at 256.
const TEMPLATES: u16 = 2;
const FIRST_DATA: u16 = 256;

/// Information elements that are told of (IANA's registry).
const FIELDS: [(u16, &str); 4] = [(138, "point"), (2, "packets"), (7, "from"), (11, "to")];

/// Elements of a record, each with its length.
type Template = Vec<(u16, usize)>;

/// Prints each record with a port until it is killed: its observation domain and point, its packets and ports.
pub(super) fn listen(at: SocketAddrV4) -> Result<Value> {
    let socket = UdpSocket::bind(at).with_context(|| format!("cannot listen at {at}"))?;
    let mut templates = HashMap::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let len = socket.recv(&mut buffer).context("listen")?;
        for record in records(&mut templates, &buffer[..len])? {
            crate::print_line(&record.to_string())?;
        }
    }
}

/// The records of a message.
fn records(templates: &mut HashMap<(u32, u16), Template>, message: &[u8]) -> Result<Vec<Value>> {
    let header = message.get(..HEADER_LEN).context("a message without a header")?;
    ensure!(half(header, 0) == Some(10), "another version");
    let domain = u32::from_be_bytes([header[12], header[13], header[14], header[15]]);
    let (mut rest, mut found) = (&message[HEADER_LEN..], Vec::new());
    while let (Some(kind), Some(len)) = (half(rest, 0), half(rest, 2)) {
        let set = rest.get(4..usize::from(len)).context("a set that is longer than its message")?;
        rest = &rest[usize::from(len)..];
        match kind {
            TEMPLATES => learn(templates, domain, set)?,
            FIRST_DATA.. => {
                let Some(template) = templates.get(&(domain, kind)) else { continue };
                let record_len: usize = template.iter().map(|(_, len)| *len).sum();
                found.extend(
                    set.chunks_exact(record_len.max(1)).filter_map(|set| read(domain, template, set)),
                );
            }
            _ => {}
        }
    }
    Ok(found)
}

fn learn(templates: &mut HashMap<(u32, u16), Template>, domain: u32, mut set: &[u8]) -> Result<()> {
    while let (Some(id), Some(n)) = (half(set, 0), half(set, 2)) {
        let fields = set.get(4..4 + 4 * usize::from(n)).context("a template that is cut")?;
        let fields =
            fields.chunks_exact(4).filter_map(|field| Some((half(field, 0)?, half(field, 2)?.into())));
        templates.insert((domain, id), fields.collect());
        set = &set[4 + 4 * usize::from(n)..];
    }
    Ok(())
}

/// What is told of a record that has ports.
fn read(domain: u32, template: &Template, mut record: &[u8]) -> Option<Value> {
    let mut told = json!({ "domain": domain });
    for (element, len) in template {
        let (field, rest) = record.split_at_checked(*len)?;
        record = rest;
        if let Some((_, name)) = FIELDS.iter().find(|(number, _)| number == element) {
            told[*name] = field.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)).into();
        }
    }
    told.get("to").is_some().then_some(told)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}
