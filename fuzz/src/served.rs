//! Packets that workloads send to the host's responder: DHCP, DNS, router solicitations.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use flowtable::{
    build,
    field::Field,
    flow::{Match, ToController},
    key::FlowKey,
    parse::parse,
    program::Punt,
    switch::PacketIn,
    types::{MacAddr, PortNo, TableId, Timestamp},
};
use ovn_northd_lite::{
    dhcp::{OfferV4, OfferV6, OptionV4, OptionV6},
    key::DatapathKey,
    punt::{Request, Service},
    southbound::{Datapath, Southbound},
};
use vswitchd::responder::{Effect, Responder};

const SERVICES: [Service; 4] = [Service::DhcpV4, Service::DhcpV6, Service::Dns, Service::Advertise];

/// A network with one switch, whose workloads see two names.
static VIEW: LazyLock<Southbound> = LazyLock::new(|| {
    let mut view = Southbound::default();
    let key = DatapathKey::new(1).expect("a small number is a key");
    let (name, sets) = ("switches/s".to_owned(), ["#zone".to_owned()].into());
    view.datapaths.insert(
        key,
        Datapath {
            name,
            is_router: false,
            sets,
            limits: BTreeMap::new(),
            snooping: None,
            max_connections: None,
            snat_zone: None,
        },
    );
    let records = ["web.example 60 10.0.0.5", "web.example 60 2001:db8::5", "b.example 60 10.0.0.6"];
    view.sets.insert("#zone".to_owned(), records.map(str::to_owned).into());
    view
});

/// What a service is told with a packet.
fn told(service: Service) -> Vec<u8> {
    let mac = MacAddr::new([2, 0, 0, 0, 0, 1]);
    match service {
        Service::DhcpV4 => {
            let pairs = [("server_id", "10.0.0.1"), ("router", "10.0.0.1"), ("lease_time", "60")];
            let options = pairs.into_iter().filter_map(|(name, text)| {
                let option = OptionV4::named(name).ok()?;
                Some((option, option.parse(text).ok()?))
            });
            OfferV4::new([10, 0, 0, 5].into(), &options.collect())
                .map(|offer| offer.encode())
                .unwrap_or_default()
        }
        Service::DhcpV6 => {
            let option = OptionV6::named("dns_server").ok();
            let options = option.and_then(|option| Some((option, option.parse("2001:db8::53").ok()?)));
            let ip = Some([0x2001, 0xdb8, 0, 0, 0, 0, 0, 5].into());
            OfferV6::new(ip, mac, &options.into_iter().collect())
                .map(|offer| offer.encode())
                .unwrap_or_default()
        }
        Service::Advertise => vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0],
        _ => Vec::new(),
    }
}

/// The first byte says which service; with its highest bit set the next ones, by their number, are what the service
/// is told. The rest is the frame. Whatever is answered is a frame that can be read.
pub fn served(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let service = SERVICES[usize::from(first & 3)];
    let (payload, frame) = match rest.split_first() {
        Some((len, rest)) if first & 0x80 != 0 => {
            let (payload, frame) = rest.split_at(usize::from(*len).min(rest.len()));
            (payload.to_vec(), frame)
        }
        _ => (told(service), rest),
    };
    let mut responder = Responder::default();
    responder.set_names(&VIEW);
    let request = Request { service, continuation: 7, table: 30 };
    let userdata = [request.encode(), payload].concat();
    let (in_port, table) = (PortNo::CONTROLLER, TableId::FIRST);
    let metadata = Match::any().with(Field::Metadata, 1);
    let to = ToController { userdata, ..ToController::default() };
    let punt = Arc::new(Punt { to, table, cookie: 0, metadata, next: None });
    let packet_in =
        PacketIn { in_port, punt, bytes: frame.to_vec(), n_bytes: frame.len(), continuation: None };
    let effects = responder.answer(Timestamp::default(), &packet_in);
    assert!(effects.len() <= 1, "one packet, one answer");
    for effect in effects {
        let Effect::Send(sent) = effect else { panic!("a service does nothing but answer: {effect:?}") };
        assert!(sent.frame.len() <= 1600.max(frame.len()), "{} bytes", sent.frame.len());
        if sent.frame != frame {
            let mut packet = build::packet(&sent.frame, in_port);
            assert!(parse(&mut packet, &mut FlowKey::zero()).is_ok(), "the answer is no frame");
        }
    }
}
