//! Which Geneve options have `tun_metadata` fields (RFC 8926 §3.5; ovs-fields(7), "Geneve and
//! tunnel metadata"), and those that a packet brought.

use std::fmt;

/// Options that can have fields: a header with all of them leaves room for tags in front of a
/// packet.
pub const MAX_OPTIONS: usize = 8;
/// Fields there are.
const N_FIELDS: usize = 64;
/// Bytes of a field, and so of an option's value.
pub(super) const VALUE_LEN: usize = 4;

/// An option that has a `tun_metadata` field of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneveOption {
    /// Class: who defined it.
    pub class: u16,
    /// Type; the high bit says "critical".
    pub kind: u8,
    /// Bytes of the value.
    pub len: usize,
    /// Which of `tun_metadata0..63` holds it.
    pub idx: usize,
}

impl GeneveOption {
    /// Its bit in `tun_metadata_present`.
    pub const fn bit(self) -> u64 {
        1 << self.idx
    }

    fn is(self, class: u16, kind: u8) -> bool {
        (self.class, self.kind) == (class, kind)
    }
}

impl fmt::Display for GeneveOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { class, kind, len, idx } = self;
        write!(f, "{{class={class:#x},type={kind:#x},len={len}}}->tun_metadata{idx}")
    }
}

/// OVN's option: bit 31 reserved, bits 16 to 30 logical input port, bits 0 to 15 logical
/// output port (ovn-architecture(7), "Tunnel Encapsulations").
pub const OVN_OPTION: GeneveOption = GeneveOption { class: 0x0102, kind: 0x80, len: VALUE_LEN, idx: 0 };

/// A change of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionChange {
    /// Gives an option a field.
    Map(GeneveOption),
    /// Takes its field from the option of this class and type.
    Unmap {
        /// Class.
        class: u16,
        /// Type.
        kind: u8,
    },
}

/// Why an option cannot have a field, or not lose it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Of another length.
    #[error("a field has room for {VALUE_LEN} bytes, not for {0}")]
    WrongLen(usize),
    /// No such field.
    #[error("there is no tun_metadata{0}; the last one is tun_metadata63")]
    NoSuchField(usize),
    /// It has one.
    #[error("the option has a field already: {0}")]
    IsMapped(GeneveOption),
    /// Another option has it.
    #[error("the field belongs to another option: {0}")]
    FieldTaken(GeneveOption),
    /// Too many.
    #[error("{MAX_OPTIONS} options have fields, and more do not fit in front of a packet")]
    TooMany,
    /// It has none.
    #[error("the option of class {class:#x} and type {kind:#x} has no field")]
    IsNotMapped {
        /// Class.
        class: u16,
        /// Type.
        kind: u8,
    },
    /// Logical networks need it.
    #[error("logical networks need this one: {OVN_OPTION}")]
    IsNeeded,
}

/// The options that have fields, by field. [`OVN_OPTION`] always has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionMap(Vec<GeneveOption>);

impl Default for OptionMap {
    fn default() -> Self {
        Self(vec![OVN_OPTION])
    }
}

impl OptionMap {
    /// The options.
    pub fn iter(&self) -> impl Iterator<Item = GeneveOption> {
        self.0.iter().copied()
    }

    /// Bits of their fields in `tun_metadata_present`.
    pub fn bits(&self) -> u64 {
        self.iter().fold(0, |bits, option| bits | option.bit())
    }

    /// Gives an option a field, or takes it away.
    ///
    /// # Errors
    /// The map stays as it is.
    pub fn change(&mut self, change: OptionChange) -> Result<(), OptionError> {
        match change {
            OptionChange::Map(option) => self.map(option),
            OptionChange::Unmap { class, kind } => self.unmap(class, kind),
        }
    }

    fn map(&mut self, option: GeneveOption) -> Result<(), OptionError> {
        if option.len != VALUE_LEN {
            return Err(OptionError::WrongLen(option.len));
        }
        if option.idx >= N_FIELDS {
            return Err(OptionError::NoSuchField(option.idx));
        }
        if let Some(known) = self.find(option.class, option.kind) {
            return Err(OptionError::IsMapped(known));
        }
        if let Some(other) = self.iter().find(|other| other.idx == option.idx) {
            return Err(OptionError::FieldTaken(other));
        }
        if self.0.len() >= MAX_OPTIONS {
            return Err(OptionError::TooMany);
        }
        let place = self.0.partition_point(|other| other.idx < option.idx);
        self.0.insert(place, option);
        Ok(())
    }

    fn unmap(&mut self, class: u16, kind: u8) -> Result<(), OptionError> {
        if OVN_OPTION.is(class, kind) {
            return Err(OptionError::IsNeeded);
        }
        let place = self.0.iter().position(|option| option.is(class, kind));
        let place = place.ok_or(OptionError::IsNotMapped { class, kind })?;
        self.0.remove(place);
        Ok(())
    }

    /// The option of a class and type.
    pub(super) fn find(&self, class: u16, kind: u8) -> Option<GeneveOption> {
        self.iter().find(|option| option.is(class, kind))
    }
}

/// Fields that hold the options of nearly all packets: they are kept as a key has them.
const N_FIRST: usize = 2;

/// Options of a packet, by field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Options {
    /// Bits of the fields, as in `tun_metadata_present`.
    present: u64,
    first: [[u8; VALUE_LEN]; N_FIRST],
    /// Values of the other fields that are present, in their order.
    more: [[u8; VALUE_LEN]; MAX_OPTIONS - 1],
}

impl Options {
    pub(super) const NONE: Self =
        Self { present: 0, first: [[0; VALUE_LEN]; N_FIRST], more: [[0; VALUE_LEN]; MAX_OPTIONS - 1] };

    /// Nothing when there is one for that field already, or the value is of another length.
    #[inline]
    pub(super) fn insert(&mut self, option: GeneveOption, value: &[u8]) -> Option<()> {
        let value = value.try_into().ok()?;
        if self.present & option.bit() != 0 {
            return None;
        }
        match self.first.get_mut(option.idx) {
            Some(field) => *field = value,
            None => self.insert_more(option, value)?,
        }
        self.present |= option.bit();
        Some(())
    }

    #[cold]
    fn insert_more(&mut self, option: GeneveOption, value: [u8; VALUE_LEN]) -> Option<()> {
        let before = self.present >> N_FIRST << N_FIRST & (option.bit() - 1);
        let behind = self.more.get_mut(before.count_ones() as usize..)?;
        behind.rotate_right(1);
        *behind.first_mut()? = value;
        Some(())
    }

    /// Bits of the fields in `tun_metadata_present`.
    #[inline]
    pub(super) fn bits(&self) -> u64 {
        self.present
    }

    /// The first two fields, as a key has them.
    #[inline]
    pub(super) fn first_fields(&self) -> u64 {
        let [[a, b, c, d], [e, f, g, h]] = self.first;
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }

    /// Writes all fields that are present.
    pub(super) fn describe(&self, fields: &mut [[u8; VALUE_LEN]]) {
        for (idx, (field, value)) in fields.iter_mut().zip(&self.first).enumerate() {
            if self.present & 1 << idx != 0 {
                *field = *value;
            }
        }
        let mut more = self.more.iter();
        for (idx, field) in fields.iter_mut().enumerate().skip(N_FIRST) {
            if self.present >> idx == 0 {
                break;
            }
            if let Some(value) = Some(()).filter(|()| self.present & 1 << idx != 0).and_then(|()| more.next())
            {
                *field = *value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(class: u16, kind: u8, idx: usize) -> GeneveOption {
        GeneveOption { class, kind, len: 4, idx }
    }

    #[test]
    fn each_option_has_one_field_and_each_field_one_option() {
        let mut map = OptionMap::default();
        let first = option(0xffff, 7, 5);
        assert_eq!(map.change(OptionChange::Map(first)), Ok(()));
        let refused = [
            (option(0xffff, 7, 6), OptionError::IsMapped(first)),
            (option(0xffff, 8, 5), OptionError::FieldTaken(first)),
            (option(0xffff, 8, 0), OptionError::FieldTaken(OVN_OPTION)),
            (option(0xffff, 8, 64), OptionError::NoSuchField(64)),
            (GeneveOption { len: 8, ..option(0xffff, 8, 9) }, OptionError::WrongLen(8)),
        ];
        for (option, error) in refused {
            assert_eq!(map.change(OptionChange::Map(option)), Err(error));
        }
        assert_eq!(map.change(OptionChange::Map(option(1, 1, 3))), Ok(()));
        assert_eq!(map.iter().map(|option| option.idx).collect::<Vec<_>>(), [0, 3, 5]);
        assert_eq!(map.bits(), 0b101001);
        let unmap = |class, kind| OptionChange::Unmap { class, kind };
        assert_eq!(map.change(unmap(1, 2)), Err(OptionError::IsNotMapped { class: 1, kind: 2 }));
        assert_eq!(map.change(unmap(0x0102, 0x80)), Err(OptionError::IsNeeded));
        assert_eq!(map.change(unmap(0xffff, 7)), Ok(()));
        for n in 0..MAX_OPTIONS {
            let full = n >= MAX_OPTIONS - 2;
            assert_eq!(map.change(OptionChange::Map(option(9, n as u8, 10 + n))).is_err(), full);
        }
    }

    #[test]
    fn options_are_by_field_whatever_their_order() {
        let all = [(63, 1), (0, 2), (7, 3), (1, 4), (9, 5), (2, 6), (40, 7), (8, 8)];
        for turn in 0..all.len() {
            let mut options = Options::NONE;
            let mut order = all;
            order.rotate_left(turn);
            for (idx, value) in order {
                assert_eq!(options.insert(option(1, idx as u8, idx), &[value; 4]), Some(()));
                assert_eq!(options.insert(option(1, idx as u8, idx), &[value; 4]), None, "twice");
            }
            let mut fields = [[0; 4]; 64];
            options.describe(&mut fields);
            for (idx, field) in fields.iter().enumerate() {
                let value = all.iter().find(|(known, _)| *known == idx).map_or(0, |(_, value)| *value);
                assert_eq!(*field, [value; 4], "{idx}");
                assert_eq!(options.bits() >> idx & 1 != 0, value != 0);
            }
            assert_eq!(options.first_fields().to_ne_bytes(), [2, 2, 2, 2, 4, 4, 4, 4]);
        }
        let mut options = Options::NONE;
        assert_eq!(options.insert(option(1, 1, 4), &[1, 2, 3]), None, "too short");
    }
}
