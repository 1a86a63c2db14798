//! Datagrams in fragments: out of order, twice, overlapping, incomplete. Whole ones pass as one packet, with
//! one opinion; of others nothing passes.

use anyhow::{Context, Result, ensure};
use ferroflow_tests::random::Random;

use crate::packet::{self, End, UDP};
use crate::pair::Pair;
use crate::{Family, Side};

/// Smallest fragment that is not the last.
const MIN_PIECE: u64 = 256;
const MAX_PAYLOAD: u64 = 3000;
/// Datagrams of a run that never become whole.
const MAX_LOSSY: u64 = 150;

/// What happens to a datagram on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Whole,
    Twice,
    Overlapping,
    Incomplete,
}

/// A few datagrams there and back, each in fragments.
pub(crate) fn converse(pair: &mut Pair, random: &mut Random, n: u64, family: Family) -> Result<()> {
    // Addresses of their own: fragments are told apart by address and number.
    let client = End { ip: family.address(Side::Client, 1000 + (n % 60_000) as u16), port: 5000 };
    let server = End { ip: family.address(Side::Server, 4), port: 53 };
    for _ in 0..1 + random.below(4) {
        let side = random.pick(&[Side::Client, Side::Client, Side::Server]);
        let (from, to) = if side == Side::Client { (client, server) } else { (server, client) };
        let payload = vec![0x55; (2 * MIN_PIECE + random.below(MAX_PAYLOAD)) as usize];
        let datagram = packet::udp(from, to, pair.next_mark(), &payload);
        let fate = random.pick(&[Fate::Whole, Fate::Whole, Fate::Twice, Fate::Overlapping, Fate::Incomplete]);
        // What is left of those waits for the rest, and memory for that is bounded.
        let is_lossy = matches!(fate, Fate::Overlapping | Fate::Incomplete);
        pair.n_lossy += u64::from(is_lossy);
        let fate = if is_lossy && pair.n_lossy > MAX_LOSSY { Fate::Whole } else { fate };
        let pieces = cut(&datagram, random, fate);
        check(pair, side, family, &datagram, &pieces, fate)?;
    }
    Ok(())
}

/// Pieces in some order, as their fate wants.
fn cut(datagram: &[u8], random: &mut Random, fate: Fate) -> Vec<Vec<u8>> {
    let mut ranges = Vec::new();
    let len = packet::payload_len(datagram);
    let mut start = 0;
    while start < len {
        let piece_len = ((MIN_PIECE + random.below(850)) / 8 * 8) as usize;
        // What is left over is not too small either.
        let end = if start + piece_len + MIN_PIECE as usize > len { len } else { start + piece_len };
        ranges.push((start, end));
        start = end;
    }
    if ranges.len() == 1 {
        ranges = vec![(0, MIN_PIECE as usize), (MIN_PIECE as usize, len)];
    }
    match fate {
        Fate::Whole | Fate::Twice => {}
        Fate::Overlapping => ranges[0].1 += 8,
        Fate::Incomplete => {
            let idx = random.below(ranges.len() as u64) as usize;
            ranges.remove(idx);
        }
    }
    let mut pieces: Vec<_> =
        ranges.iter().map(|(start, end)| packet::piece(datagram, *start, *end)).collect();
    for idx in (1..pieces.len()).rev() {
        pieces.swap(idx, random.below(idx as u64 + 1) as usize);
    }
    if fate == Fate::Twice {
        // Before the last one: afterwards it would begin another datagram.
        pieces.insert(0, pieces[0].clone());
    }
    pieces
}

fn check(
    pair: &mut Pair,
    side: Side,
    family: Family,
    datagram: &[u8],
    pieces: &[Vec<u8>],
    fate: Fate,
) -> Result<()> {
    let theirs = pair.kernel.send_all(side, family, pieces)?;
    let ours = pair.ours.send_all(side, family, pieces)?;
    pair.n_packets += pieces.len() as u64;
    let passes = matches!(fate, Fate::Whole | Fate::Twice);
    for (who, came) in [("Linux", &theirs), ("we", &ours)] {
        ensure!(
            came.is_empty() != passes,
            "{side:?} {family:?} {fate:?}: {who} let {} pieces of {} out",
            came.len(),
            pieces.len()
        );
    }
    let (Some((opinion, _)), Some((our_opinion, _))) = (theirs.first(), ours.first()) else { return Ok(()) };
    let same = theirs.iter().chain(&ours).all(|(other, _)| other == opinion);
    ensure!(same, "{side:?} {fate:?}: Linux says {opinion}, we say {our_opinion}");
    let whole = packet::read(datagram)?;
    for (who, came) in [("Linux", &theirs), ("we", &ours)] {
        let pieces: Vec<&[u8]> = came.iter().map(|(_, piece)| piece.as_slice()).collect();
        let joined = packet::join(&pieces).with_context(|| format!("{fate:?}: {who}"))?;
        ensure!(joined == whole.l4, "{fate:?}: {who} made another datagram of it");
    }
    let sizes = |pieces: &[&[u8]]| {
        let mut sizes: Vec<usize> = pieces.iter().map(|piece| piece.len()).collect();
        sizes.sort_unstable();
        sizes
    };
    let sent: Vec<&[u8]> = pieces.iter().skip(usize::from(fate == Fate::Twice)).map(Vec::as_slice).collect();
    let came: Vec<&[u8]> = ours.iter().map(|(_, piece)| piece.as_slice()).collect();
    ensure!(sizes(&sent) == sizes(&came) && whole.proto == UDP, "of another size than they came in");
    Ok(())
}
