//! Whole ports: a program that runs a guest speaks with them, a worker polls them.

use std::{
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use flowtable::{drop::DropReason, packet::Packet, types::PortNo};

use super::guest::{EVENT_INDEX, Guest, PROTOCOL, Program, VERSION_1, descriptor};
use crate::{
    pool::{Frame, Pool},
    port::{
        AnyOutlet, AnyQueue, AttachError, BATCH, Opened, Outlet as _, RxQueue as _,
        vhost::{VhostPort, open},
    },
    sys::event::Waker,
};

const PATIENCE: Duration = Duration::from_secs(20);
const FEATURES: u64 = VERSION_1 | EVENT_INDEX | PROTOCOL;

/// A socket's path of this test's own.
struct Path(PathBuf);

impl Path {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ff-vhost-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    fn port(&self, listens: bool, n_queues: u16) -> VhostPort {
        VhostPort { socket: self.0.clone(), listens, n_queues, mtu: None }
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A port as a worker has it.
struct Polled {
    opened: Opened,
    queues: Vec<AnyQueue>,
    outlets: Vec<AnyOutlet>,
    pool: Pool,
}

impl Polled {
    fn new(port: &VhostPort) -> Self {
        let mut opened = open("vm", port).unwrap();
        let waker = Arc::new(Waker::new().unwrap());
        let (mut queues, outlets) = (std::mem::take(&mut opened.queues), std::mem::take(&mut opened.outlets));
        queues.iter_mut().for_each(|queue| queue.set_waker(&waker));
        Self { opened, queues, outlets, pool: Pool::new(256) }
    }

    fn receive(&mut self, queue: usize) -> Vec<Packet<Frame>> {
        let mut batch = Vec::new();
        self.queues[queue].rx_burst(PortNo::ZERO, BATCH, &mut self.pool, &mut batch);
        batch
    }

    fn send(&mut self, outlet: usize, frame: &[u8]) -> Result<(), DropReason> {
        let sent = self.outlets[outlet].tx(frame);
        self.outlets[outlet].flush();
        sent
    }

    /// Waits until the port says this of itself; an empty text: nothing is wrong.
    fn wait_for(&self, why: &str) {
        let began = Instant::now();
        loop {
            let said = self.opened.metrics.down();
            match &said {
                None if why.is_empty() => return,
                Some(said) if !why.is_empty() && said.contains(why) => return,
                _ => assert!(began.elapsed() < PATIENCE, "`{said:?}`, and not `{why}`"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn connect(path: &Path) -> UnixStream {
    let began = Instant::now();
    loop {
        match UnixStream::connect(&path.0) {
            Ok(stream) => return stream,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
    }
}

/// A guest with its rings running.
fn start(path: &Path, n_rings: u32) -> (Guest, Program) {
    let guest = Guest::new(n_rings as usize);
    let mut program = Program::new(connect(path), n_rings as usize);
    program.begin(&guest, FEATURES);
    (0..n_rings).for_each(|ring| assert_eq!(program.start_ring(ring), Some(0)));
    (guest, program)
}

#[test]
fn frames_go_both_ways_and_a_guest_that_restarts_is_there_again() {
    let path = Path::new("restart");
    let mut port = Polled::new(&path.port(true, 1));
    assert_eq!(port.send(0, &[7; 60]), Err(DropReason::PortDown));
    port.wait_for("nobody has connected");
    for round in 0..3_u8 {
        let (mut guest, program) = start(&path, 2);
        port.wait_for("");
        guest.send(1, 3, &[round; 60]);
        let batch = port.receive(0);
        assert_eq!((batch.len(), batch[0].bytes()), (1, &[round; 60][..]));
        let addr = guest.give(0, 5, 1526);
        assert_eq!(port.send(0, &[round + 9; 99]), Ok(()));
        assert_eq!(guest.used(0), (1, 5, 12 + 99));
        assert_eq!(guest.read(addr + 12, 99), [round + 9; 99]);
        assert_eq!(port.send(0, &[1; 60]), Err(DropReason::TxRingFull));
        drop(program);
        port.wait_for("nobody has connected");
        assert_eq!(port.send(0, &[7; 60]), Err(DropReason::PortDown));
        assert!(port.receive(0).is_empty());
    }
    drop(port);
    assert!(!path.0.exists());
}

#[test]
fn a_port_finds_the_other_side_whenever_it_listens() {
    let path = Path::new("client");
    let mut port = Polled::new(&path.port(false, 1));
    port.wait_for("nobody listens at");
    for _ in 0..2 {
        let listener = UnixListener::bind(&path.0).unwrap();
        let mut guest = Guest::new(2);
        let mut program = Program::new(listener.accept().unwrap().0, 2);
        program.begin(&guest, FEATURES);
        (0..2).for_each(|ring| assert_eq!(program.start_ring(ring), Some(0)));
        port.wait_for("");
        guest.send(1, 0, &[5; 60]);
        assert_eq!(port.receive(0).len(), 1);
        drop((listener, program));
        std::fs::remove_file(&path.0).unwrap();
        port.wait_for("nobody listens at");
    }
}

#[test]
fn a_guest_that_breaks_its_ring_is_cut_off_and_may_come_back() {
    let path = Path::new("broken");
    let mut port = Polled::new(&path.port(true, 1));
    let (mut guest, _program) = start(&path, 2);
    port.wait_for("");
    guest.set_descriptor(1, 0, &descriptor(u64::MAX, 100, 0, 0));
    guest.post(1, 0);
    assert!(port.receive(0).is_empty());
    port.wait_for("an address outside the guest's memory");
    assert_eq!(port.send(0, &[7; 60]), Err(DropReason::PortDown));
    port.wait_for("before, it was cut off");
    let (mut guest, _program) = start(&path, 2);
    port.wait_for("");
    guest.send(1, 0, &[5; 60]);
    assert_eq!(port.receive(0).len(), 1);
}

#[test]
fn memory_made_shorter_cuts_the_guest_off_and_nothing_of_it_comes_in() {
    let path = Path::new("shorter");
    let mut port = Polled::new(&path.port(true, 1));
    let (mut guest, _program) = start(&path, 2);
    port.wait_for("");
    guest.send(1, 0, &[5; 60]);
    assert_eq!(port.receive(0).len(), 1);
    // The rings stay, the frame is gone.
    guest.send(1, 1, &[6; 60]);
    std::fs::File::from(guest.file.try_clone().unwrap()).set_len(0x1_0000).unwrap();
    assert!(port.receive(0).is_empty());
    port.wait_for("made shorter");
    assert_eq!(port.pool.n_free(), port.pool.n_frames());
}

#[test]
fn messages_that_cannot_be_close_the_connection_with_their_reason() {
    let path = Path::new("messages");
    let port = Polled::new(&path.port(true, 1));
    let (one, two) = (1_u64.to_le_bytes(), 2_u64.to_le_bytes());
    let null = || std::fs::File::open("/dev/null").unwrap().into();
    let wrong: [(u32, Vec<u8>, Vec<std::os::fd::OwnedFd>, &str); 9] = [
        (99, vec![], vec![], "not agreed on"),
        (2, (1_u64 << 34).to_le_bytes().to_vec(), vec![], "not offered"),
        (16, (1_u64 << 63).to_le_bytes().to_vec(), vec![], "not offered"),
        (5, [one, two, two, two, two].concat(), vec![], "with 0 files"),
        (5, [one, two, two, two, two].concat(), vec![null()], "in memory"),
        (12, one.to_vec(), vec![null()], "not an event file"),
        (12, two.to_vec(), vec![], "with 0 files"),
        (8, [77_u32, 256].map(u32::to_le_bytes).concat(), vec![], "ring 77"),
        (1, vec![], vec![null(), null()], "with 2 files"),
    ];
    for (kind, payload, files, why) in wrong {
        let mut program = Program::new(connect(&path), 2);
        program.say(kind, &payload, &files);
        assert_eq!(program.ask(1, &[]), None, "{why}");
        port.wait_for(why);
    }
}

#[test]
fn rings_that_cannot_be_where_they_are_said_to_be_are_refused() {
    let path = Path::new("places");
    let port = Polled::new(&path.port(true, 1));
    for (places, size, why) in [
        ([0, 8, 0x2000, 0x1000], 64_u32, "descriptors are not aligned"),
        ([0, 0, 0x2002, 0x1000], 64, "used entries are not aligned"),
        ([0, 0, 0x2000, 0x1001], 64, "available entries are not aligned"),
        ([0, 0xf_fff0, 0x2000, 0x1000], 64, "not inside"),
        ([0, 0, 0x2000, 0x1000], 63, "63 descriptors"),
        ([0, 0, 0x2000, 0x1000], 0, "0 descriptors"),
        ([0, 0, 0x2000, 0x1000], 1 << 16, "65536 descriptors"),
    ] {
        let guest = Guest::new(2);
        let mut program = Program::new(connect(&path), 2);
        program.begin(&guest, FEATURES);
        let [ring, descriptors, used, available] = places;
        let user = |offset: u64| super::guest::USER + offset;
        let places = [ring, user(descriptors), user(used), user(available), 0];
        program.say(8, &[0, size].map(u32::to_le_bytes).concat(), &[]);
        program.say(9, &places.map(u64::to_le_bytes).concat(), &[]);
        program.say(12, &0_u64.to_le_bytes(), &[program.kicks[0].passed().unwrap()]);
        assert_eq!(program.have_done(18, &[0_u32, 1].map(u32::to_le_bytes).concat(), &[]), None, "{why}");
        port.wait_for(why);
    }
}

#[test]
fn rings_stop_where_they_are_and_go_on_in_other_memory() {
    let path = Path::new("move");
    let mut port = Polled::new(&path.port(true, 1));
    let (mut guest, mut program) = start(&path, 2);
    port.wait_for("");
    guest.send(1, 0, &[5; 60]);
    assert_eq!(port.receive(0).len(), 1);
    // Memory is described anew while rings run.
    assert_eq!(program.share_memory(&guest), Some(0));
    guest.send(1, 1, &[6; 60]);
    assert_eq!(port.receive(0)[0].bytes(), [6; 60]);
    // Stopped, a ring is left alone; it is said where.
    assert_eq!(program.ask(11, &[1_u32, 0].map(u32::to_le_bytes).concat()), Some(2 << 32 | 1));
    guest.send(1, 2, &[7; 60]);
    assert!(port.receive(0).is_empty());
    assert_eq!(program.start_ring(1), Some(0));
    assert_eq!(port.receive(0)[0].bytes(), [7; 60]);
    // Disabled, it is left alone as well.
    assert_eq!(program.have_done(18, &[1_u32, 0].map(u32::to_le_bytes).concat(), &[]), Some(0));
    guest.send(1, 3, &[8; 60]);
    assert!(port.receive(0).is_empty());
    assert_eq!(program.have_done(18, &[1_u32, 1].map(u32::to_le_bytes).concat(), &[]), Some(0));
    assert_eq!(port.receive(0)[0].bytes(), [8; 60]);
    // A reset stops everything.
    assert_eq!(program.have_done(34, &[], &[]), Some(0));
    port.wait_for("has not started");
}

#[test]
fn guests_are_woken_when_they_want_to_be_and_wake_who_sleeps() {
    let path = Path::new("wake");
    let mut port = Polled::new(&path.port(true, 1));
    let (mut guest, program) = start(&path, 2);
    port.wait_for("");
    let _ = (program.calls[0].clear(), program.calls[1].clear());
    // Told after the third frame, and not before.
    guest.set_used_event(0, 2);
    for n in 0..4 {
        guest.give(0, n, 1526);
        assert_eq!(port.send(0, &[1; 60]), Ok(()));
        assert_eq!(program.calls[0].clear(), n == 2, "{n}");
    }
    // A worker that polls wants nothing; one that goes to sleep wants the next frame.
    guest.send(1, 0, &[5; 60]);
    assert_eq!(port.receive(0).len(), 1);
    assert!(port.queues[0].has_pending(), "the guest would not wake us");
    let fd = port.queues[0].wait_fd().unwrap();
    assert_eq!(guest.wishes(1), (1, 1));
    assert!(!port.queues[0].has_pending());
    guest.send(1, 1, &[5; 60]);
    program.kicks[1].signal();
    assert!(port.queues[0].has_pending());
    let mut set = crate::sys::event::PollSet::default();
    set.add(fd);
    set.wait(PATIENCE);
    assert_eq!(set.results().next(), Some(crate::sys::event::Readiness::Readable));
    assert_eq!(port.receive(0).len(), 1);
    set.wait(Duration::ZERO);
    assert_eq!(set.results().next(), Some(crate::sys::event::Readiness::Idle), "it has been taken note of");
}

#[test]
fn ways_out_share_what_rings_the_guest_has() {
    let path = Path::new("queues");
    let mut port = Polled::new(&path.port(true, 2));
    let mut program = Program::new(connect(&path), 4);
    let mut guest = Guest::new(4);
    program.begin(&guest, FEATURES);
    assert_eq!(program.ask(17, &[]), Some(2));
    for ring in 0..2 {
        assert_eq!(program.start_ring(ring), Some(0));
    }
    for idx in 0..2 {
        guest.give(0, idx, 1526);
    }
    assert_eq!((port.send(0, &[1; 60]), port.send(1, &[2; 60])), (Ok(()), Ok(())));
    assert_eq!(guest.used(0).0, 2);
    for ring in 2..4 {
        assert_eq!(program.start_ring(ring), Some(0));
    }
    for idx in 2..4 {
        guest.give(0, idx, 1526);
    }
    for idx in 0..2 {
        guest.give(2, idx, 1526);
    }
    assert_eq!((port.send(0, &[1; 60]), port.send(1, &[2; 60])), (Ok(()), Ok(())));
    assert_eq!((guest.used(0).0, guest.used(2).0), (3, 1));
    guest.send(3, 9, &[4; 60]);
    assert_eq!((port.receive(0).len(), port.receive(1).len()), (0, 1));
}

#[test]
fn a_socket_that_is_in_use_is_left_alone_and_one_left_over_is_not() {
    let path = Path::new("in-use");
    let listener = UnixListener::bind(&path.0).unwrap();
    assert!(matches!(open("vm", &path.port(true, 1)), Err(AttachError::Socket { .. })));
    drop(listener);
    assert!(path.0.exists());
    let port = Polled::new(&path.port(true, 1));
    let _ = connect(&path);
    drop(port);
    let nowhere = VhostPort { socket: "/no/such/directory/vm".into(), ..path.port(true, 1) };
    assert!(matches!(open("vm", &nowhere), Err(AttachError::Socket { .. })));
}
