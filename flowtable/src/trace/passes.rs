//! Passes through the tables: the first one, and one for each copy that comes back from the
//! connection tracker.
//!
//! The frame of a later pass is made of the packet's headers, changed by the code that
//! changes real ones, and parsed again. What the tracker would say is assumed: the state bits
//! that were asked for or those of a new connection, the mark and label that the rule itself
//! gives, the packet's own addresses as those of the connection. Addresses are not
//! translated, since the connection there would have to be is not known.

use std::{collections::VecDeque, sync::Arc};

use super::{Passed, Trace, TraceOptions, TracedPass, recorder::Recorder};
use crate::{
    build,
    conntrack::{Tuple, Verdict, View},
    drop::DropReason,
    execute,
    key::{FlowKey, ct_state},
    parse::parse,
    pipeline::{self, Frozen, MAX_PASSES, Translation},
    program::{CtPass, Emit},
    snapshot::Snapshot,
    types::PortNo,
};

/// Passes that are traced after the first.
const MAX_TRACED: usize = 64;

/// A copy that goes to the connection tracker and comes back.
struct Waiting {
    key: FlowKey,
    emit: Emit,
    pass: Arc<CtPass>,
    next: Arc<Frozen>,
    depth: usize,
}

pub(super) fn trace(snapshot: &Snapshot, key: &FlowKey, options: &TraceOptions) -> Trace {
    let mut recorder = Recorder::new(snapshot, options.why);
    let mut translation = pipeline::translate(snapshot, key, &mut recorder);
    let mut queue = VecDeque::new();
    let mut last_id = 0;
    put_off(&mut translation, (key, 1), &mut last_id, &mut queue);
    let (steps, mut n_omitted) = (recorder.steps, recorder.n_omitted);
    let mut ct_next = options.ct_next.iter();
    let mut passes = Vec::new();
    while let Some(waiting) = queue.pop_front().filter(|_| passes.len() < MAX_TRACED) {
        let knows = waiting.next.knows_connection();
        let asked = if knows { ct_next.next().copied() } else { None };
        let assumed = knows.then(|| asked.unwrap_or(ct_state::TRK | ct_state::NEW));
        let outcome = come_back(&waiting, assumed).map(|key| {
            let mut recorder = Recorder::new(snapshot, options.why);
            let mut translation = pipeline::translate_frozen(snapshot, &key, &waiting.next, &mut recorder);
            put_off(&mut translation, (&key, waiting.depth + 1), &mut last_id, &mut queue);
            n_omitted += recorder.n_omitted;
            Passed { key, steps: recorder.steps, translation }
        });
        let (recirc_id, is_asked) = (waiting.pass.recirc_id, asked.is_some());
        passes.push(TracedPass { recirc_id, assumed, is_asked, outcome });
    }
    let n_omitted_passes = if passes.len() < MAX_TRACED { 0 } else { queue.len() + 1 };
    Trace { steps, n_omitted, translation, passes, n_omitted_passes }
}

/// Gives the copies that come back their numbers, and puts them into the queue.
fn put_off(
    translation: &mut Translation,
    (key, depth): (&FlowKey, usize),
    last_id: &mut u32,
    queue: &mut VecDeque<Waiting>,
) {
    for emit in &mut translation.program.emits {
        let Some((pass, next)) = emit.ct.as_ref().and_then(|pass| Some((pass, pass.next.clone()?))) else {
            continue;
        };
        *last_id += 1;
        let numbered = CtPass { request: pass.request, next: Some(Arc::clone(&next)), recirc_id: *last_id };
        let pass = Arc::new(numbered);
        emit.ct = Some(Arc::clone(&pass));
        queue.push_back(Waiting { key: *key, emit: emit.clone(), pass, next, depth });
    }
}

/// The packet as it comes back.
fn come_back(waiting: &Waiting, assumed: Option<u16>) -> Result<FlowKey, DropReason> {
    if waiting.depth >= MAX_PASSES {
        return Err(DropReason::RecircLimit);
    }
    let in_port = PortNo::new(waiting.key.in_port.get()).unwrap_or(PortNo::ZERO);
    let mut packet = build::packet(&build::frame_from_key(&waiting.key, 0), in_port);
    parse(&mut packet, &mut FlowKey::zero())?;
    execute::apply(&mut packet, &waiting.emit, 0)?;
    let tuple = View::read(&packet).map(|view| view.tuple);
    let mut frame = FlowKey::zero();
    parse(&mut packet, &mut frame)?;
    frame.set_frame_len(packet.len());
    let mut key = waiting.key;
    waiting.next.take_frame(&mut key, &frame);
    waiting.next.restore(&mut key);
    key.recirc_id.set(waiting.pass.recirc_id);
    if let Some(state) = assumed {
        let request = &waiting.pass.request;
        pipeline::set_connection(&mut key, request.zone, &verdict(waiting, state, tuple));
    }
    Ok(key)
}

/// What the tracker is assumed to say.
fn verdict(waiting: &Waiting, state: u16, tuple: Option<Tuple>) -> Verdict {
    let request = &waiting.pass.request;
    let tuple = tuple.map(|tuple| Tuple { zone: request.zone, ..tuple });
    let original = tuple.map(|tuple| if state & ct_state::RPL != 0 { tuple.reversed() } else { tuple });
    let (mark, label) = if request.commit { (request.mark.0, request.label.0) } else { (0, 0) };
    let original = original.filter(|_| state & ct_state::INV == 0);
    Verdict { state, mark, label, original, rewrite: None, alg: None }
}
