//! What is said to the API: sensible, wrong and hostile.

use ferroflow_proto::northbound::{
    self as pb, operation::Op as Asked, precondition::Condition, resource::Spec,
};

use crate::{
    model::{Net, Op},
    random::Random,
    workload::{self, Room},
};

/// Ports on each switch; hosts are not there.
pub(super) const ROOM: Room = Room { ports: 6, hosts: 0, has_gateways: false };

/// Texts that are names, addresses, matches and labels, or nearly, or not at all.
const TEXTS: &[&str] = &[
    "",
    " ",
    "/",
    "switches/",
    "switches/s0",
    "switches/s1",
    "switches/s9",
    "switches/s0/ports/s0p1",
    "switches/s0/ports/s0p2",
    "switches/s0/ports/s0p1/x",
    "switches/s0/acls/a1",
    "switches/../s0",
    "switches/S0",
    "switches/ü",
    "switches/\u{202e}s0",
    "switches/s0\0",
    "routers/r0",
    "routers/r0/ports/r0s0",
    "routers/r0/nats/n",
    "routers/r0/policies/p",
    "port-groups/g0",
    "port-groups/g0/acls/a0",
    "address-sets/as0",
    "load-balancers/lb0",
    "load-balancer-groups/lg",
    "ha-chassis-groups/hg",
    "template-variables/v",
    "sample-collectors/c",
    "dhcp-options/d",
    "names/n",
    "control-plane-limits/l",
    "chassis/h0",
    "10.0.0.1",
    "10.0.0.1/33",
    "10.0.0.0/0",
    "255.255.255.255/32",
    "2001:db8::1",
    "::/0",
    "fe80::1%eth0",
    "0a:00:00:00:00:01",
    "ff:ff:ff:ff:ff:ff",
    "0a:00:00:00:00:01 10.0.0.10 2001:db8::5",
    "0a:00:00:00:00:01 dynamic",
    "dynamic",
    "unknown",
    "10.0.0.1:80",
    "[2001:db8::1]:65536",
    "ip4",
    "ip4 && (tcp.dst == 80",
    "ip4.src == $as0",
    "ip4.src == $nobody",
    "inport == @g0 && udp.dst >= 1 && udp.dst <= 65535",
    "((((((((((((((((((((((((((((((((ip))))))))))))))))))))))))))))))))",
    "!!!!!!!!ip4",
    "labels",
    "addresses",
    "default_policy",
    "spec",
    "logical_switch.default_policy",
    "*",
    "name",
    "update_revision",
];

/// The network that sensible calls are about, and a way to say something about it.
pub(super) struct Words {
    pub(super) random: Random,
}

impl Words {
    /// Any text.
    fn text(&mut self) -> String {
        match self.random.below(20) {
            0 => "x".repeat(1 << self.random.below(17)),
            1 => (0..self.random.below(40))
                .filter_map(|_| char::from_u32(self.random.below(0x11_0000) as u32))
                .collect(),
            2 => format!("switches/s{}", self.random.below(6)),
            3 => format!("switches/s{}/ports/p{}", self.random.below(3), self.random.below(9)),
            4 => format!("routers/r{}/ports/q{}", self.random.below(3), self.random.below(9)),
            5 => {
                format!("10.{}.0.{}/{}", self.random.below(3), self.random.below(300), self.random.below(40))
            }
            6 => {
                let mut text = TEXTS[self.random.index(TEXTS.len())].to_owned();
                text.truncate(text.char_indices().nth(self.random.index(8)).map_or(text.len(), |(at, _)| at));
                text
            }
            _ => TEXTS[self.random.index(TEXTS.len())].to_owned(),
        }
    }

    fn texts(&mut self, most: u64) -> Vec<String> {
        (0..self.random.below(most + 1)).map(|_| self.text()).collect()
    }

    /// Any number: mostly small, now and then at an end.
    fn number(&mut self) -> u32 {
        match self.random.below(6) {
            0 => 0,
            1 => u32::MAX,
            2 => 1 << self.random.below(32),
            _ => self.random.below(100) as u32,
        }
    }

    /// A request that changes something, or does not, and what of it makes sense.
    pub(super) fn transaction(&mut self, net: &Net, revision: u64) -> (pb::TransactRequest, Vec<Op>) {
        let mut sense = Vec::new();
        let mut request = pb::TransactRequest {
            validate_only: self.random.percent(8),
            preconditions: self.preconditions(revision),
            ..Default::default()
        };
        if self.random.percent(2) {
            // Too many.
            request.operations = vec![pb::Operation::default(); self.random.below(11_000) as usize];
        }
        for _ in 0..self.random.within(1, 4) {
            if self.random.percent(55) {
                let mut after = net.clone();
                sense.iter().for_each(|op| after.apply(op));
                for op in workload::change(&after.clone(), &mut self.random, ROOM) {
                    after.apply(&op);
                    request.operations.extend(op.words(&after));
                    sense.push(op);
                }
            } else {
                request.operations.push(self.operation());
            }
        }
        let request = if self.random.percent(25) { self.spoilt(&request) } else { request };
        (request, sense)
    }

    fn preconditions(&mut self, revision: u64) -> Vec<pb::Precondition> {
        if !self.random.percent(15) {
            return Vec::new();
        }
        let condition = match self.random.below(4) {
            0 => None,
            1 => Some(Condition::Exists(self.random.percent(50))),
            2 => Some(Condition::UpdateRevision(revision.saturating_sub(self.random.below(5)))),
            _ => Some(Condition::UpdateRevision(self.random.number())),
        };
        vec![pb::Precondition { name: self.text(), condition }]
    }

    fn operation(&mut self) -> pb::Operation {
        let op = match self.random.below(10) {
            0 => None,
            1..=3 => Some(Asked::Create(pb::Create { resource: self.resource() })),
            4..=7 => {
                let paths = self.texts(3);
                let update_mask = self.random.percent(40).then_some(prost_types::FieldMask { paths });
                Some(Asked::Update(pb::Update {
                    resource: self.resource(),
                    update_mask,
                    allow_missing: self.random.percent(60),
                }))
            }
            _ => {
                Some(Asked::Delete(pb::Delete { name: self.text(), allow_missing: self.random.percent(50) }))
            }
        };
        pb::Operation { op }
    }

    fn resource(&mut self) -> Option<pb::Resource> {
        if self.random.percent(3) {
            return None;
        }
        let labels = (0..self.random.below(3)).map(|_| (self.text(), self.text())).collect();
        let (create_revision, update_revision) = (self.random.below(3), self.random.below(3));
        Some(pb::Resource { name: self.text(), create_revision, update_revision, labels, spec: self.spec() })
    }

    fn spec(&mut self) -> Option<Spec> {
        Some(match self.random.below(20) {
            0 => return None,
            1 => Spec::LogicalSwitch(pb::LogicalSwitch {
                tunnel_key: self.number(),
                load_balancers: self.texts(2),
                default_policy: self.number() as i32,
                fdb_age_threshold: self.random.percent(50).then(|| self.number()),
                names: self.texts(1),
                address_management: self.random.percent(30).then(|| pb::AddressManagement {
                    subnet: self.text(),
                    exclude_ips: self.texts(2),
                    ipv6_prefix: self.text(),
                    mac_prefix: self.text(),
                }),
                ..Default::default()
            }),
            2 | 3 => Spec::LogicalSwitchPort(pb::LogicalSwitchPort {
                r#type: self.random.below(10) as i32,
                addresses: self.texts(3),
                port_security: self.texts(2),
                router_port: self.text(),
                network_name: self.text(),
                tag: self.number(),
                parent: self.text(),
                peer: self.text(),
                virtual_ip: self.text(),
                ..Default::default()
            }),
            4 => Spec::LogicalRouter(pb::LogicalRouter {
                static_routes: vec![pb::StaticRoute {
                    prefix: self.text(),
                    next_hop: self.text(),
                    output_port: self.text(),
                    discard: self.random.percent(50),
                    ..Default::default()
                }],
                chassis: self.text(),
                load_balancers: self.texts(2),
                ..Default::default()
            }),
            5 => Spec::LogicalRouterPort(pb::LogicalRouterPort {
                mac: self.text(),
                networks: self.texts(3),
                gateway_mtu: self.number(),
                ..Default::default()
            }),
            6 | 7 => Spec::Acl(pb::Acl {
                direction: self.random.below(5) as i32,
                priority: self.number(),
                r#match: self.text(),
                action: self.random.below(9) as i32,
                tier: self.number(),
                label: self.number(),
                ..Default::default()
            }),
            8 => Spec::Chassis(pb::Chassis { encap_ip: self.text(), ..Default::default() }),
            9 => Spec::AddressSet(pb::AddressSet { addresses: self.texts(20) }),
            10 => Spec::PortGroup(pb::PortGroup {
                ports: self.texts(5),
                default_policy: self.random.below(4) as i32,
            }),
            11 => Spec::LoadBalancer(pb::LoadBalancer {
                protocol: self.random.below(5) as i32,
                vips: vec![pb::Vip {
                    address: self.text(),
                    backends: vec![pb::Backend { address: self.text(), ..Default::default() }],
                }],
                affinity_timeout: self.number(),
                ..Default::default()
            }),
            12 => Spec::Nat(pb::Nat {
                r#type: self.random.below(5) as i32,
                external_ip: self.text(),
                logical_ip: self.text(),
                external_port_range: self.text(),
                gateway_port: self.text(),
                stateless: self.random.percent(50),
                ..Default::default()
            }),
            13 => Spec::RouterPolicy(pb::RouterPolicy {
                priority: self.number(),
                r#match: self.text(),
                ..Default::default()
            }),
            14 => Spec::DhcpOptions(pb::DhcpOptions::default()),
            15 => Spec::Names(pb::Names::default()),
            16 => Spec::QosRule(pb::QosRule {
                priority: self.number(),
                r#match: self.text(),
                ..Default::default()
            }),
            18 => Spec::SampleCollector(pb::SampleCollector {
                set_id: self.number(),
                targets: self.texts(3),
                ..Default::default()
            }),
            17 => Spec::LoadBalancerGroup(pb::LoadBalancerGroup { load_balancers: self.texts(3) }),
            _ => Spec::TemplateVariable(pb::TemplateVariable::default()),
        })
    }

    /// A message with some of its bytes changed, if it still is one.
    fn spoilt<M: prost::Message + Default + Clone>(&mut self, message: &M) -> M {
        let mut bytes = message.encode_to_vec();
        for _ in 0..self.random.within(1, 4) {
            let at = self.random.index(bytes.len().max(1));
            if let Some(byte) = bytes.get_mut(at) {
                *byte = self.random.number() as u8;
            }
        }
        M::decode(bytes.as_slice()).unwrap_or_else(|_| message.clone())
    }

    pub(super) fn get(&mut self) -> pb::GetResourceRequest {
        pb::GetResourceRequest { name: self.text() }
    }

    pub(super) fn list(&mut self) -> pb::ListResourcesRequest {
        let request = pb::ListResourcesRequest {
            kind: self.random.below(60) as i32,
            parent: if self.random.percent(50) { String::new() } else { self.text() },
            page_size: self.number(),
            page_token: if self.random.percent(50) { String::new() } else { self.text() },
            ..Default::default()
        };
        if self.random.percent(20) { self.spoilt(&request) } else { request }
    }

    pub(super) fn receipt(&mut self, revision: u64) -> pb::GetReceiptRequest {
        let revision =
            if self.random.percent(20) { self.random.number() } else { self.random.below(revision + 2) };
        pb::GetReceiptRequest { revision, wait: false }
    }
}
