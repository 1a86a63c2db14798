//! MPLS labels: what pushing, popping and rewriting does to the key, and to a copy.
//!
//! The key holds the outer labels of the stack. A label that is written to counts as
//! popped and pushed, so that a copy's labels are those that the key ends with. What is
//! below the last label has not been parsed: a packet whose labels are all gone can be
//! sent, but not looked at.

use super::{
    Tracer,
    walk::{Abort, Walk},
};
use crate::{
    drop::DropReason,
    field::{Field, Prerequisites},
    key::N_MPLS,
    program::LabelEdit,
};

/// TTL of a label on a packet without a TTL of its own.
const DEFAULT_TTL: u128 = 64;
/// Labels that stand for IPv4 and IPv6 without a label (RFC 3032 §2.1).
const EXPLICIT_NULL: [u128; 2] = [0, 2];
/// Bottom-of-stack bit of an entry.
const BOTTOM: u128 = 1 << 8;
/// Parts of the outermost entry, with the bits to their right.
const OUTERMOST: [(Field, u32); 4] =
    [(Field::MplsLabel, 12), (Field::MplsTc, 9), (Field::MplsBos, 8), (Field::MplsTtl, 0)];

/// The label stack, relative to the received one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LabelEdits {
    /// Received labels that are gone.
    n_pops: u8,
    /// Labels on top of what is left of the received ones.
    n_fresh: u8,
    /// What is below the labels is not in the key.
    pub(super) bare: bool,
}

impl LabelEdits {
    /// Bytes that the labels add to the received ones.
    pub(super) fn n_bytes_more(&self) -> i64 {
        4 * (i64::from(self.n_fresh) - i64::from(self.n_pops))
    }
}

fn is_mpls(eth_type: u128) -> bool {
    matches!(eth_type, 0x8847 | 0x8848)
}

impl<T: Tracer> Walk<'_, T> {
    /// Labels of the packet as it is now.
    fn n_labels(&mut self) -> usize {
        if is_mpls(self.key.read(Field::EthType)) { self.key.read(Field::MplsDepth) as usize } else { 0 }
    }

    /// Puts a label in front of the others: a copy of the outermost one, or what RFC 3032
    /// has for a packet without one.
    pub(super) fn push_mpls(&mut self, eth_type: u16) -> Result<(), Abort> {
        self.see_payload()?;
        let n_labels = self.n_labels();
        if n_labels >= N_MPLS {
            self.note(format_args!("the packet has {N_MPLS} labels already"));
            return Err(Abort(DropReason::Unsupported));
        }
        let entry = if n_labels > 0 { self.outermost() & !BOTTOM } else { self.first_label() };
        self.key.write(Field::EthType, eth_type.into());
        if n_labels > 0 {
            let second = self.key.read(Field::MplsLse1);
            self.key.write(Field::MplsLse2, second);
            let first = self.outermost();
            self.key.write(Field::MplsLse1, first);
        }
        self.set_outermost(entry);
        self.key.write(Field::MplsDepth, n_labels as u128 + 1);
        self.labels.n_fresh += 1;
        Ok(())
    }

    /// Takes the outermost label away; nothing happens to a packet without one.
    pub(super) fn pop_mpls(&mut self, eth_type: u16) -> Result<(), Abort> {
        let n_labels = self.n_labels();
        if n_labels == 0 {
            return Ok(());
        }
        if n_labels == N_MPLS && self.key.read(Field::MplsLse2) & BOTTOM == 0 {
            self.note(format_args!("the packet has labels that the switch does not know"));
            return Err(Abort(DropReason::Unsupported));
        }
        let (second, third) = (self.key.read(Field::MplsLse1), self.key.read(Field::MplsLse2));
        self.set_outermost(second);
        self.key.write(Field::MplsLse1, third);
        self.key.write(Field::MplsLse2, 0);
        self.key.write(Field::MplsDepth, n_labels as u128 - 1);
        self.key.write(Field::EthType, eth_type.into());
        if self.labels.n_fresh > 0 {
            self.labels.n_fresh -= 1;
        } else {
            self.labels.n_pops += 1;
        }
        // The start of each walk has recorded the received EtherType.
        let received = self.key.original().get(Field::EthType);
        let as_received = self.labels.n_pops == 0 && self.labels.n_fresh == 0;
        self.labels.bare = if is_mpls(eth_type.into()) {
            n_labels == 1
        } else {
            !(as_received && received == u128::from(eth_type))
        };
        Ok(())
    }

    /// Writes into the outermost label, if there is one.
    pub(super) fn set_mpls(&mut self, field: Field, value: u128, bits: u128) {
        if self.n_labels() == 0 {
            return;
        }
        if self.labels.n_fresh == 0 {
            let entry = self.outermost();
            self.set_outermost(entry);
            self.labels.n_pops += 1;
            self.labels.n_fresh = 1;
        }
        self.key.write_bits(field, value, bits);
    }

    /// Takes one from the TTL of the outermost label. False: it has run out.
    pub(super) fn dec_mpls_ttl(&mut self) -> bool {
        if self.n_labels() == 0 {
            return true;
        }
        match self.key.read(Field::MplsTtl) {
            0 | 1 => false,
            ttl => {
                self.set_mpls(Field::MplsTtl, ttl - 1, 0xff);
                true
            }
        }
    }

    /// Ends a walk that would look at what has not been parsed.
    pub(super) fn see_payload(&mut self) -> Result<(), Abort> {
        if self.labels.bare {
            self.note(format_args!("what was below the labels has not been parsed: it can only be sent"));
            return Err(Abort(DropReason::Unsupported));
        }
        Ok(())
    }

    /// The same, for fields behind the L2 header.
    pub(super) fn see_header(&mut self, needs: Prerequisites) -> Result<(), Abort> {
        match needs {
            Prerequisites::None | Prerequisites::Vlan => Ok(()),
            _ => self.see_payload(),
        }
    }

    /// The labels of a copy, where they differ from those received.
    pub(super) fn label_edit(&mut self) -> Option<LabelEdit> {
        let LabelEdits { n_pops, n_fresh, .. } = self.labels;
        let eth_type = self.key.read(Field::EthType);
        if n_pops == 0 && n_fresh == 0 && eth_type == self.key.original().get(Field::EthType) {
            return None;
        }
        let mut entries = vec![];
        if n_fresh > 0 {
            entries.push(self.outermost());
        }
        let below = [Field::MplsLse1, Field::MplsLse2];
        for field in below.into_iter().take(usize::from(n_fresh).saturating_sub(1)) {
            entries.push(self.key.read(field));
        }
        let pushes = entries.into_iter().rev().map(|entry| entry as u32).collect();
        Some(LabelEdit { n_pops, pushes, eth_type: eth_type as u16 })
    }

    fn outermost(&mut self) -> u128 {
        OUTERMOST.iter().fold(0, |entry, (field, shift)| entry | self.key.read(*field) << shift)
    }

    fn set_outermost(&mut self, entry: u128) {
        for (field, shift) in OUTERMOST {
            self.key.write(field, entry >> shift & field.all_bits());
        }
    }

    /// The label of a packet that has none: its class and TTL are those of IP.
    fn first_label(&mut self) -> u128 {
        let eth_type = self.key.read(Field::EthType);
        let [ipv4, ipv6] = EXPLICIT_NULL;
        let label = if eth_type == 0x86dd { ipv6 } else { ipv4 };
        let (class, ttl) = match eth_type {
            0x0800 | 0x86dd => (self.key.read(Field::IpDscp) & 7, self.key.read(Field::NwTtl)),
            _ => (0, 0),
        };
        let ttl = if ttl == 0 { DEFAULT_TTL } else { ttl };
        label << 12 | class << 9 | BOTTOM | ttl
    }
}
