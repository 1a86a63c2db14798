//! Packets are made in the place where they are looked at.

use flowtable::{packet::Packet, types::PortNo};

use super::Frame;

/// Makes a packet of the bytes `start..start + len` of a frame, at the end of a batch.
///
/// [`Vec::push`] takes what was made elsewhere, as it may have to grow first: a packet's fields would be written one by
/// one and read back in larger parts at once, for which a processor waits.
#[inline(always)]
pub(crate) fn add(batch: &mut Vec<Packet<Frame>>, (frame, start, len): (Frame, usize, usize), from: PortNo) {
    if batch.len() == batch.capacity() {
        grow(batch);
    }
    let n = batch.len();
    // SAFETY: there is room for one more behind the last, as has just been looked after; from then on it is a packet.
    unsafe {
        batch.as_mut_ptr().add(n).write(Packet::new(frame, start, len, from));
        batch.set_len(n + 1);
    }
}

#[cold]
fn grow(batch: &mut Vec<Packet<Frame>>) {
    batch.reserve(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Pool;

    #[test]
    fn a_batch_grows_as_it_has_to() {
        let mut pool = Pool::new(64);
        let mut batch = Vec::new();
        for len in 0..40 {
            let frame = pool.get().unwrap();
            add(&mut batch, (frame, 7, len), PortNo::ZERO);
        }
        assert!(batch.iter().enumerate().all(|(len, packet)| (packet.start(), packet.len()) == (7, len)));
        batch.drain(..).for_each(|packet| pool.put_packet(packet));
        assert_eq!(pool.n_free(), pool.n_frames());
    }
}
