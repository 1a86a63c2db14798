//! What follows the tracker, remembered: which entry the second pass of a packet leads to,
//! by the entry of its first pass and what the tracker said. A packet of a known connection
//! then needs neither a key nor a second lookup.
//!
//! Why it is sound: all that the second entry compares is what the first one compares (so
//! all packets of the first agree in it), the recirculation (which follows from the first
//! program), or state, mark and label of the connection, which are compared here. Where an
//! entry looks at more, at ports for example that the first pass has not looked at, nothing
//! is remembered. Both entries must be current when it is used; renewed ones keep their
//! masks, and their programs are compared.

use std::{mem::offset_of, sync::Arc};

use crate::{
    cache::Handle,
    conntrack::Touched,
    field::Field,
    key::{FlowKey, FlowMask},
    program::Program,
    types::PortNo,
};

/// Places of the table: entries of first passes times the states of their connections.
const N_PLACES: usize = 4096;
/// How rarely what is remembered makes way for something else.
const REPLACE_ONE_IN: u32 = 16;

/// Words of the key that the tracker fills in.
const CONNECTION: std::ops::Range<usize> =
    offset_of!(FlowKey, ct_mark) / 8..offset_of!(FlowKey, tun_tos).div_ceil(8);

/// Where a packet leaves after its second pass.
#[derive(Debug)]
pub(super) struct End {
    /// The entry of the second pass.
    pub(super) to: Handle,
    /// What it did when this was remembered.
    pub(super) program: Arc<Program>,
    pub(super) port: PortNo,
    /// The tracker is asked once more, for what it has noted already unless the packet is one
    /// of TCP or SCTP.
    pub(super) is_noted: bool,
}

#[derive(Debug)]
struct Known {
    from: Handle,
    program: Arc<Program>,
    state: u16,
    mark: u32,
    label: u128,
    /// Nothing: there is no short way.
    end: Option<End>,
}

/// What is known of a way.
pub(super) enum Way<'a> {
    /// Nothing yet.
    Unknown,
    /// That it is not short.
    Long,
    /// Where it ends.
    Short(&'a End),
}

/// The ways of a worker's packets.
#[derive(Debug)]
pub(super) struct Passes {
    places: Box<[Option<Known>]>,
    n_clashes: u32,
}

impl Passes {
    pub(super) fn new() -> Self {
        Self { places: (0..N_PLACES).map(|_| None).collect(), n_clashes: 0 }
    }

    /// The way of a packet of this entry, after what the tracker said.
    #[inline]
    pub(super) fn find(&self, from: Handle, program: &Arc<Program>, said: &Touched) -> Way<'_> {
        let known = self.places.get(place(from, said)).and_then(Option::as_ref);
        let known = known.filter(|known| {
            known.from == from
                && Arc::ptr_eq(&known.program, program)
                && (known.state, known.mark, known.label) == (said.state, said.mark, said.label)
        });
        match known.map(|known| &known.end) {
            None => Way::Unknown,
            Some(None) => Way::Long,
            Some(Some(end)) => Way::Short(end),
        }
    }

    /// Remembers where such packets end, or that it is not to be remembered. What is in the
    /// place already stays, mostly: more ways than places shall not cost more than none.
    pub(super) fn remember(
        &mut self,
        (from, program): (Handle, &Arc<Program>),
        said: &Touched,
        end: Option<End>,
    ) {
        let Some(known) = self.places.get_mut(place(from, said)) else { return };
        if known.as_ref().is_some_and(|known| known.from != from) {
            self.n_clashes = self.n_clashes.wrapping_add(1);
            if !self.n_clashes.is_multiple_of(REPLACE_ONE_IN) {
                return;
            }
        }
        let Touched { state, mark, label, .. } = *said;
        *known = Some(Known { from, program: Arc::clone(program), state, mark, label, end });
    }
}

/// What `second` compares follows from what `first` compares and from state, mark and label.
pub(super) fn follows(first: &FlowMask, second: &FlowMask) -> bool {
    let mut free = *first;
    free.add(Field::RecircId, Field::RecircId.all_bits());
    for word in CONNECTION {
        free.words_mut()[word] = 0;
    }
    // The zone is the program's.
    for field in [Field::CtState, Field::CtMark, Field::CtLabel, Field::CtZone] {
        free.add(field, field.all_bits());
    }
    free.covers(second)
}

fn place(from: Handle, said: &Touched) -> usize {
    let what = u64::from(said.mark) << 16 | u64::from(said.state);
    let mixed = (u64::from(from.slot()) << 32 ^ what).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize % N_PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(fields: &[Field]) -> FlowMask {
        let mut mask = FlowMask::empty();
        fields.iter().for_each(|field| mask.add(*field, field.all_bits()));
        mask
    }

    #[test]
    fn a_second_pass_follows_unless_it_looks_at_more() {
        let first = mask(&[Field::EthType, Field::NwDst]);
        let yes: [&[Field]; 4] = [
            &[],
            &[Field::EthType, Field::RecircId, Field::CtState],
            &[Field::CtMark, Field::CtLabel, Field::CtZone],
            &[Field::NwDst],
        ];
        for second in yes {
            assert!(follows(&first, &mask(second)), "{second:?}");
        }
        for field in
            [Field::TcpDst, Field::NwSrc, Field::CtNwSrc, Field::CtIpv6Dst, Field::CtTpDst, Field::CtNwProto]
        {
            assert!(!follows(&first, &mask(&[field, Field::CtState])), "{field:?}");
        }
        // Whatever the first pass looked at of an earlier connection is not this one.
        assert!(!follows(&mask(&[Field::CtNwSrc]), &mask(&[Field::CtNwSrc])));
    }
}
