//! What the tracker knows of an SCTP association (RFC 9260): its verification tags and
//! how far it has come.

use super::{tcp::Fit, timeout::State};

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

/// The tags that each side must send, as far as known (0: not), when this is an
/// association's first packet.
pub(super) fn begin((chunk, tag, initiate): (u8, u32, u32)) -> Option<[u32; 2]> {
    (chunk == INIT && tag == 0 && initiate != 0).then_some([0, initiate])
}

/// A packet of side `from`: its first chunk, its tag, and the tag that it asks for.
pub(super) fn step(
    state: &mut State,
    tags: &mut [u32; 2],
    from: usize,
    (chunk, tag, initiate): (u8, u32, u32),
) -> Fit {
    let from = from & 1;
    match (chunk, *state) {
        (INIT, _) if tag != 0 || initiate == 0 => return Fit::Invalid,
        (INIT, State::SctpClosing) => return Fit::Restart,
        // Sent again; an association that is up answers by itself (RFC 9260 §5.2).
        (INIT, State::SctpInit) => tags[1 - from] = initiate,
        (INIT, _) => {}
        (INIT_ACK, State::SctpInit) if from == 1 && tag == tags[1] && initiate != 0 => tags[0] = initiate,
        (INIT_ACK, State::SctpInit) => return Fit::Invalid,
        // These may carry the receiver's own tag back (RFC 9260 §8.5.1).
        (ABORT | SHUTDOWN_COMPLETE, _) if tag != 0 && tags.contains(&tag) => *state = State::SctpClosing,
        _ if tag == 0 || tags[from] != tag => return Fit::Invalid,
        (COOKIE_ACK, State::SctpInit) if from == 1 => *state = State::SctpEstablished,
        (SHUTDOWN | SHUTDOWN_ACK, _) => *state = State::SctpClosing,
        _ => {}
    }
    Fit::Valid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_association_comes_and_goes() {
        let (mut state, mut tags) = (State::SctpInit, begin((INIT, 0, 7)).unwrap());
        assert_eq!(begin((INIT, 5, 7)), None);
        assert_eq!(begin((0, 5, 0)), None, "data of an association that nobody saw begin");
        let mut step = |from, packet| (step(&mut state, &mut tags, from, packet), state);
        assert_eq!(step(1, (INIT_ACK, 6, 9)).0, Fit::Invalid, "a tag that was not asked for");
        assert_eq!(step(1, (INIT_ACK, 7, 9)), (Fit::Valid, State::SctpInit));
        assert_eq!(step(0, (10, 9, 0)), (Fit::Valid, State::SctpInit));
        assert_eq!(step(1, (COOKIE_ACK, 7, 0)), (Fit::Valid, State::SctpEstablished));
        assert_eq!(step(0, (0, 8, 0)).0, Fit::Invalid);
        assert_eq!(step(0, (ABORT, 8, 0)).0, Fit::Invalid);
        assert_eq!(step(0, (SHUTDOWN, 9, 0)), (Fit::Valid, State::SctpClosing));
        assert_eq!(step(1, (SHUTDOWN_ACK, 7, 0)), (Fit::Valid, State::SctpClosing));
        assert_eq!(step(0, (INIT, 0, 3)).0, Fit::Restart);
    }
}
