//! What daemons hear from each other and from clients: protobuf by strangers, made into typed values.

use ferroflow_proto::{
    chassis::SyncResponse,
    northbound::{Resource, TransactRequest, operation::Op},
};
use ovn_northd_lite::southbound::Southbound;
use prost::Message as _;
use vswitchd::agent;

/// A northbound name.
pub fn nb_name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = controller::resource::Name::parse(text) {
        assert_eq!(name.to_string(), text);
    }
}

/// A northbound transaction, each of its resources.
pub fn nb_transaction(data: &[u8]) {
    let Ok(request) = TransactRequest::decode(data) else { return };
    for operation in request.operations {
        match operation.op {
            Some(Op::Create(create)) => create.resource.iter().for_each(nb_resource),
            Some(Op::Update(update)) => update.resource.iter().for_each(nb_resource),
            _ => {}
        }
    }
}

fn nb_resource(resource: &Resource) {
    let _ = controller::resource::check_labels(&resource.labels);
    if let Ok(name) = controller::resource::Name::parse(&resource.name) {
        let _ = controller::resource::parse_spec(&name, resource.spec.as_ref());
    }
}

/// An update of a host's view: decoded, applied, lowered to rules that the tables take.
pub fn chassis_update(data: &[u8]) {
    let Ok(update) = SyncResponse::decode(data) else { return };
    let Ok(delta) = agent::decode(update) else { return };
    let mut view = Southbound::default();
    delta.apply(&mut view);
    let local = ovn_northd_lite::LocalPorts {
        chassis: view.chassis.keys().next().cloned().unwrap_or_default(),
        ports: view
            .bindings
            .keys()
            .take(8)
            .zip(1..)
            .filter_map(|(name, port)| Some((name.clone(), flowtable::types::PortNo::new(port).ok()?)))
            .collect(),
        tunnel: flowtable::types::PortNo::new(100).ok(),
        vxlan: flowtable::types::PortNo::new(101).ok(),
        ..ovn_northd_lite::LocalPorts::default()
    };
    let lowered = ovn_northd_lite::lower(&view, &local);
    let changes = lowered.rules.into_iter().map(flowtable::table::Change::Add).collect();
    if let Err(error) = flowtable::table::Tables::default().transact(changes) {
        panic!("a lowered rule is refused: {error}");
    }
}
