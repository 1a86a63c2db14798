//! One memory, here and in another process.

use super::{super::Pool, *};

fn memory(n_frames: usize) -> Memory {
    Memory::new(n_frames, 2048, 4, None).unwrap()
}

fn slot(memory: &Memory) -> Slot {
    memory.claim(1).unwrap().remove(0)
}

fn lend(lent: &mut Lent, frame: Frame) -> Result<u64, Frame> {
    let mut at = None;
    lent.lend(frame, |address, _| {
        at = Some(address);
        true
    })?;
    Ok(at.unwrap())
}

/// The same memory, as another process finds it.
fn next(memory: &Memory) -> Result<Memory, String> {
    let (note, fd) = memory.to_keep().unwrap();
    Memory::adopt(Kept { note, files: vec![fd.try_clone_to_owned().unwrap()] })
}

#[test]
fn a_lent_frame_comes_back_once() {
    let memory = memory(100);
    let slot = slot(&memory);
    let mut lent = slot.lent(Side::Receive);
    let mut frames: Vec<Frame> = std::iter::from_fn(|| memory.take()).collect();
    assert_eq!(frames.len(), 100);
    for (n, frame) in frames.iter_mut().enumerate() {
        frame.as_mut()[300] = n as u8;
    }
    let addresses: Vec<u64> = frames.drain(..).map(|frame| lend(&mut lent, frame).unwrap()).collect();
    assert_eq!((lent.len(), memory.n_free()), (100, 0));
    for (n, address) in addresses.iter().enumerate().take(60) {
        let (frame, offset) = lent.take_back(address + 300).unwrap();
        assert_eq!((frame.as_ref()[offset], offset), (n as u8, 300));
        assert!(lent.take_back(address + 300).is_none());
    }
    assert!([u64::MAX, 100 * 2048, 1 << 40].iter().all(|wrong| lent.take_back(*wrong).is_none()));
    assert_eq!((lent.len(), memory.n_free()), (40, 60));
    drop(lent);
    assert_eq!(memory.n_free(), 100, "what the kernel had is free when the socket is gone");
}

#[test]
fn memory_that_cannot_be_had_is_no_memory() {
    assert!(Memory::new(u32::MAX as usize, usize::MAX / 2, 4, None).is_none());
    assert!(Memory::new(u32::MAX as usize, 1 << 28, 4, None).is_none(), "more than addresses can be");
    assert!(Memory::in_file(u32::MAX as usize, usize::MAX / 2, 4, None).is_err());
}

#[test]
fn frames_of_others_are_not_lent_nor_is_one_without_room() {
    let (memory, other) = (memory(1), memory(1));
    let slot = slot(&memory);
    let mut lent = slot.lent(Side::Send);
    let frame = lend(&mut lent, other.take().unwrap()).unwrap_err();
    drop(lend(&mut lent, Pool::new(1).get().unwrap()).unwrap_err());
    assert!(other.has(&frame) && !memory.has(&frame) && lent.len() == 0);
    drop(lent.lend(memory.take().unwrap(), |_, _| false).unwrap_err());
    assert_eq!((lent.len(), memory.n_free()), (0, 1));
}

#[test]
fn workers_have_some_at_hand_and_leave_some_to_others() {
    let memory = memory(2000);
    let (mut here, mut there) = (Pool::new(1), Pool::new(1));
    let frames: Vec<Frame> = (0..2000).map_while(|_| here.get_of(&memory)).collect();
    assert_eq!((frames.len(), there.get_of(&memory).is_none()), (2000, true));
    frames.into_iter().for_each(|frame| here.put(frame));
    let frames: Vec<Frame> = (0..2000).map_while(|_| there.get_of(&memory)).collect();
    assert!((1400..1600).contains(&frames.len()), "{} of 2000", frames.len());
    assert_eq!((here.n_free(), here.n_exhausted(), there.n_exhausted()), (1, 0, 2));
    // They come home from where they were not taken.
    frames.into_iter().for_each(drop);
    drop((here, there));
    assert_eq!(memory.n_free(), 2000);
}

#[test]
fn another_process_finds_what_is_lent_and_has_the_rest() {
    let first = Memory::in_file(1000, 2048, 4, Some(0)).unwrap();
    let slots = first.claim(2).unwrap();
    let [mut receiving, mut sending] = [slots[0].lent(Side::Receive), slots[1].lent(Side::Send)];
    let mut at_hand: Vec<_> = std::iter::from_fn(|| first.take()).take(300).collect();
    let lent: Vec<_> = at_hand.drain(..70).map(|frame| lend(&mut receiving, frame).unwrap()).collect();
    let sent = lend(&mut sending, at_hand.remove(0)).unwrap();

    let second = next(&first).unwrap();
    assert_eq!((second.id(), second.frame_len(), second.node()), (first.id(), 2048, Some(0)));
    assert_eq!((second.n_free(), second.is_settled()), (0, false), "the first one still goes on");
    let again = second.claim_again(&[0]).unwrap();
    drop((receiving.take_back(lent[69]), at_hand.remove(0)));
    second.settle();
    assert_eq!(second.n_free(), 1000 - 69 - 1);
    assert!(second.claim_again(&[0]).is_none() && second.claim_again(&[4]).is_none());
    // That of the other socket is nobody else's.
    let others = second.claim(2).unwrap();
    assert!(others.iter().all(|slot| slot.number() > 1) && second.claim(1).is_none());
    let mut found = again[0].found(Side::Receive);
    assert!(lent[..69].iter().all(|address| found.lent_at(*address).is_some()));
    assert_eq!((found.len(), found.lent_at(sent), found.take_back(sent).is_some()), (69, None, false));
    drop((found, again));
    assert_eq!(second.n_free(), 999);
    second.claim_again(&[1]).unwrap().iter().for_each(Slot::reclaim);
    assert_eq!((second.n_free(), second.claim(2).map(|slots| slots.len())), (1000, Some(2)));
    // What the first one says of them counts no more.
    first.give_away();
    drop((receiving, sending, slots));
    assert_eq!(second.claim(1).map(|slots| slots[0].word(Side::Send, 0).load(Relaxed)), Some(0));
}

#[test]
fn what_is_not_given_back_stays_nobody_elses() {
    let memory = memory(10);
    let slot = slot(&memory);
    let mut lent = slot.lent(Side::Receive);
    let _ = lend(&mut lent, memory.take().unwrap()).unwrap();
    lent.leave();
    drop(slot);
    assert_eq!((memory.n_free(), memory.claim(4).is_none()), (9, true));
    memory.claim_again(&[0]).unwrap()[0].reclaim();
    assert_eq!((memory.n_free(), memory.claim(4).is_some()), (10, true));
}

#[test]
fn a_frame_that_two_have_is_nobodys() {
    let first = Memory::in_file(10, 2048, 1, None).unwrap();
    let slot = slot(&first);
    let notes = |side: Side| &first.region.words()[first.notes_of(side as usize)];
    Side::BOTH.into_iter().for_each(|side| notes(side).store(1 << 3, Relaxed));
    let second = next(&first).unwrap();
    second.settle();
    assert!(second.is_given() && second.take().is_none() && second.claim_again(&[0]).is_none());
    Side::BOTH.into_iter().for_each(|side| notes(side).store(0, Relaxed));
    drop(slot);
}

#[test]
fn memory_of_another_kind_is_not_gone_on_with() {
    let memory = Memory::in_file(10, 2048, 4, None).unwrap();
    let adopt = |change: &dyn Fn(&str) -> String| {
        let (note, fd) = memory.to_keep().unwrap();
        Memory::adopt(Kept { note: change(&note), files: vec![fd.try_clone_to_owned().unwrap()] }).map(drop)
    };
    let same = |note: &str| note.to_owned();
    adopt(&same).unwrap();
    let wrong: [&dyn Fn(&str) -> String; 6] = [
        &|_| String::new(),
        &|note| note.replacen("10 ", "11 ", 1),
        &|note| note.replacen("2048", "4096", 1),
        &|note| note.replacen("10 ", "18446744073709551615 ", 1),
        &|note| format!("{note}0"),
        &|note| note.replacen(' ', " -", 1),
    ];
    for wrong in wrong {
        assert!(adopt(wrong).is_err(), "{}", wrong("10 2048 4 0 24576"));
    }
    let layout = &memory.region.words()[head::LAYOUT];
    layout.store(layout.load(Relaxed) + 1, Relaxed);
    assert!(adopt(&same).unwrap_err().contains("damaged"));
    let words: Vec<_> =
        memory.region.words()[..head::CHECKSUM].iter().map(|word| word.load(Relaxed)).collect();
    memory.region.words()[head::CHECKSUM].store(checksum(&words), Relaxed);
    assert!(adopt(&same).unwrap_err().contains("another version"));
    let none = Kept { note: memory.to_keep().unwrap().0, files: Vec::new() };
    assert!(Memory::adopt(none).is_err());
}
