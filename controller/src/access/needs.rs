//! What each method needs. A method that is not in the list is nobody's.

use super::Who;

/// Class of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// It tells nothing of the network.
    Nothing,
    /// It reads the network; tenants and hosts see their part.
    Read,
    /// It reads the whole network, or asks hosts.
    Inspect,
    /// It writes the network; tenants and hosts their part.
    Write,
    /// It is for hosts.
    Host,
}

/// The methods by their paths.
pub const METHODS: &[(&str, Need)] = &[
    ("/ferroflow.northbound.v1.NorthboundService/Transact", Need::Write),
    ("/ferroflow.northbound.v1.NorthboundService/GetResource", Need::Read),
    ("/ferroflow.northbound.v1.NorthboundService/ListResources", Need::Read),
    ("/ferroflow.northbound.v1.NorthboundService/CreateResource", Need::Write),
    ("/ferroflow.northbound.v1.NorthboundService/UpdateResource", Need::Write),
    ("/ferroflow.northbound.v1.NorthboundService/DeleteResource", Need::Write),
    ("/ferroflow.northbound.v1.NorthboundService/Watch", Need::Read),
    ("/ferroflow.northbound.v1.NorthboundService/GetReceipt", Need::Read),
    ("/ferroflow.northbound.v1.NorthboundService/GetStatus", Need::Inspect),
    ("/ferroflow.northbound.v1.NorthboundService/Explain", Need::Read),
    ("/ferroflow.northbound.v1.NorthboundService/TracePacket", Need::Inspect),
    ("/ferroflow.chassis.v1.ChassisService/Sync", Need::Host),
    ("/ferroflow.chassis.v1.ChassisService/Assist", Need::Host),
    ("/grpc.health.v1.Health/Check", Need::Nothing),
    ("/grpc.health.v1.Health/Watch", Need::Nothing),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Need::Nothing),
];

/// Class of the method with this path.
pub fn of(path: &str) -> Option<Need> {
    METHODS.iter().find(|(known, _)| *known == path).map(|(_, need)| *need)
}

impl Who {
    /// Whether calls of a class are let through.
    pub const fn has(&self, need: Need) -> bool {
        match (self, need) {
            (_, Need::Nothing) | (Self::Master, _) => true,
            (Self::Admin, Need::Read | Need::Inspect | Need::Write) => true,
            (Self::ReadOnly, Need::Read | Need::Inspect) => true,
            (Self::Tenant(_), Need::Read | Need::Write) => true,
            (Self::Chassis(_), Need::Read | Need::Write | Need::Host) => true,
            (Self::Admin | Self::ReadOnly | Self::Tenant(_) | Self::Chassis(_) | Self::Controller, _) => {
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ferroflow_proto::FILE_DESCRIPTOR_SET;
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_method_has_a_class_and_every_class_is_of_a_method() {
        let sets = [FILE_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET];
        let mut served =
            BTreeSet::from(["/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".to_owned()]);
        for file in sets.iter().flat_map(|set| FileDescriptorSet::decode(*set).unwrap().file) {
            let package = file.package().to_owned();
            if package == "ferroflow.host.v1" {
                // That of one host's daemon, on a socket of its own.
                continue;
            }
            for service in &file.service {
                let path = |method: &prost_types::MethodDescriptorProto| {
                    format!("/{package}.{}/{}", service.name(), method.name())
                };
                served.extend(service.method.iter().map(path));
            }
        }
        assert!(served.len() > 14);
        let known: BTreeSet<_> = METHODS.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(served, known);
        assert_eq!(known.len(), METHODS.len());
    }

    #[test]
    fn roles_have_what_they_are_for_and_no_more() {
        use Need::{Host, Inspect, Nothing, Read, Write};
        let all = [Nothing, Read, Inspect, Write, Host];
        let has = |who: Who| all.into_iter().filter(|need| who.has(*need)).collect::<Vec<_>>();
        assert_eq!(has(Who::Master), all);
        assert_eq!(has(Who::Admin), [Nothing, Read, Inspect, Write]);
        assert_eq!(has(Who::ReadOnly), [Nothing, Read, Inspect]);
        assert_eq!(has(Who::Tenant("a".to_owned())), [Nothing, Read, Write]);
        assert_eq!(has(Who::Chassis("h".to_owned())), [Nothing, Read, Write, Host]);
        assert_eq!(has(Who::Controller), [Nothing]);
    }
}
