//! Random requests: never a panic, never half a change, the same answer twice.
#![allow(clippy::unwrap_used)]

use std::{collections::HashMap, sync::Arc};

use controller::{
    access::Caller,
    controller::Controller,
    northbound::Northbound,
    store::{LogLimits, MemoryStore},
};
use ferroflow_proto::northbound::{
    self as nb, northbound_service_server::NorthboundService as _, operation::Op, resource::Spec,
};
use proptest::prelude::*;
use prost_types::FieldMask;
use tonic::{Code, Request};

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(vec![
            "switches/s", "switches/t", "switches/s/ports/a", "switches/t/ports/b", "switches/s/acls/x",
            "routers/r", "routers/r/ports/p", "routers/r/ports/a", "chassis/h", "address-sets/a",
            "port-groups/g", "port-groups/g/acls/x", "load-balancers/lb", "routers/r/nats/n", "routers/r/policies/p",
            "load-balancer-groups/lg", "ha-chassis-groups/hg", "template-variables/v",
        ]).prop_map(str::to_owned),
        1 => "(switches|routers|chassis|port-groups|address-sets|load-balancers)(/[a-z.]{0,3}){0,5}",
        1 => "\\PC{0,12}",
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "",
            "unknown",
            "0a:00:00:00:00:01 10.0.0.5",
            "0a:00:00:00:00:02",
            "10.0.0.1/24",
            "10.0.0.0/8",
            "10.0.0.9",
            "10.0.0.9:80",
            "load-balancers/lb",
            "chassis/h1",
            "2001:db8::1/64",
            "routers/r/ports/p",
            "ip4 && tcp.dst == 80",
            "inport == \"a\"",
            "dynamic",
            "10.0.0.9..10.0.0.20",
            "10.0.0.0/24",
            "dhcp-options/x",
            "names/x",
            "server_id",
            "^v",
            "ip4.src == ^v",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,16}",
    ]
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(text(), 0..3)
}

fn spec() -> impl Strategy<Value = Option<Spec>> {
    let route = (text(), text(), text(), any::<(bool, bool)>()).prop_map(
        |(prefix, next_hop, output_port, (discard, by_source))| nb::StaticRoute {
            prefix,
            next_hop,
            output_port,
            discard,
            by_source,
            ecmp_symmetric_reply: by_source,
            route_table: if by_source { "red".to_owned() } else { "no name".to_owned() },
            selection_fields: if discard { vec![7] } else { vec![1] },
            bfd: by_source != discard,
            override_connected: by_source && discard,
        },
    );
    let small = -1..4i32;
    prop::option::weighted(
        0.95,
        prop_oneof![
            (any::<u32>(), small.clone(), texts(), (texts(), text(), text())).prop_map(
                |(tunnel_key, default_policy, load_balancers, (names, dhcpv4_options, subnet))| {
                    let management = nb::AddressManagement {
                        mac_prefix: dhcpv4_options.clone(),
                        ipv6_prefix: subnet.clone(),
                        exclude_ips: names.clone(),
                        subnet,
                    };
                    Spec::LogicalSwitch(nb::LogicalSwitch {
                        tunnel_key,
                        default_policy,
                        load_balancers,
                        address_management: (default_policy > 0).then_some(management),
                        names,
                        dhcpv4_options,
                        ..Default::default()
                    })
                }
            ),
            (any::<u32>(), 0..70_000u32, texts()).prop_map(|(set_id, probability, targets)| {
                Spec::SampleCollector(nb::SampleCollector {
                    set_id,
                    probability,
                    targets,
                    new_application: probability % 300,
                    established_application: 0,
                })
            }),
            texts().prop_map(|load_balancers| {
                Spec::LoadBalancerGroup(nb::LoadBalancerGroup { load_balancers })
            }),
            prop::collection::vec((text(), 0..70_000u32), 0..3).prop_map(|hosts| {
                let host = |(chassis, priority)| nb::GatewayChassis { chassis, priority };
                let chassis = hosts.into_iter().map(host).collect();
                Spec::HaChassisGroup(nb::HaChassisGroup { chassis })
            }),
            prop::collection::vec((text(), texts()), 0..3).prop_map(|values| {
                let value = |(chassis, values)| nb::ChassisValues { chassis, values };
                let values = values.into_iter().map(value).collect();
                Spec::TemplateVariable(nb::TemplateVariable { values })
            }),
            (text(), prop::collection::hash_map(text(), text(), 0..4))
                .prop_map(|(cidr, options)| Spec::DhcpOptions(nb::DhcpOptions { cidr, options })),
            (prop::collection::vec((text(), texts()), 0..3), any::<u32>()).prop_map(|(records, ttl)| {
                let record = |(name, addresses)| nb::NameRecord { name, addresses };
                Spec::Names(nb::Names { records: records.into_iter().map(record).collect(), ttl })
            }),
            prop::collection::vec((text(), 0..3u32, any::<u32>()), 0..3).prop_map(|limits| {
                let limit = |(class, rate, burst)| nb::ControlPlaneLimit { class, rate, burst };
                let limits = limits.into_iter().map(limit).collect();
                Spec::ControlPlaneLimits(nb::ControlPlaneLimits { limits })
            }),
            (small.clone(), prop::collection::vec((text(), texts()), 0..3), any::<bool>()).prop_map(
                |(protocol, vips, reject)| {
                    let backend = |address| nb::Backend { address, offline: reject, health: 1 };
                    let vip = |(address, backends): (String, Vec<String>)| nb::Vip {
                        address,
                        backends: backends.into_iter().map(backend).collect(),
                    };
                    let check = nb::HealthCheck { interval: 4000 * u32::from(reject), ..Default::default() };
                    let point = |(backend_ip, ports): &(String, Vec<String>)| nb::ProbePoint {
                        backend_ip: backend_ip.clone(),
                        logical_port: ports.first().cloned().unwrap_or_default(),
                        source_ip: "10.0.0.254".to_owned(),
                    };
                    let points = vips.iter().map(point).collect();
                    let template = |(address, backends): &(String, Vec<String>)| nb::TemplateService {
                        port: backends.first().cloned().unwrap_or_default(),
                        address: address.clone(),
                        backends: backends.clone(),
                        ipv6: reject,
                    };
                    let templates: Vec<_> = vips.iter().map(template).collect();
                    let vips = vips.into_iter().map(vip).collect();
                    Spec::LoadBalancer(nb::LoadBalancer {
                        protocol,
                        vips,
                        hash_fields: vec![protocol],
                        reject,
                        health_check: (protocol > 0).then_some(check),
                        probe_points: points,
                        affinity_timeout: 40_000 * protocol.unsigned_abs(),
                        skip_snat: reject,
                        neighbor_responder: protocol,
                        add_route: reject,
                        event: !reject,
                        hairpin_snat_ips: templates.iter().map(|template| template.address.clone()).collect(),
                        templates,
                        ct_flush: reject,
                        use_stateless_nat: reject,
                    })
                }
            ),
            (0..5i32, (text(), text(), text(), text()), any::<bool>(), (texts(), texts())).prop_map(
                |(r#type, (external_ip, logical_ip, external_port_range, gateway_port), stateless, peers)| {
                    Spec::Nat(nb::Nat {
                        r#type,
                        external_ip,
                        logical_ip,
                        external_port_range,
                        gateway_port,
                        stateless,
                        allowed_external_ips: peers.0,
                        exempted_external_ips: peers.1,
                        priority: u32::from(stateless) * 9000,
                        r#match: if stateless { "tcp".to_owned() } else { String::new() },
                        ..Default::default()
                    })
                }
            ),
            (0..40_000u32, text(), small.clone(), texts()).prop_map(
                |(priority, r#match, action, next_hops)| {
                    Spec::RouterPolicy(nb::RouterPolicy {
                        priority,
                        r#match,
                        action,
                        output_port: next_hops.first().cloned().unwrap_or_default(),
                        jump_chain: next_hops.last().cloned().unwrap_or_default(),
                        chain: "red".to_owned(),
                        pkt_mark: priority,
                        bfd: priority % 2 == 1,
                        next_hops,
                    })
                }
            ),
            (small.clone(), 0..40_000u32, text(), proptest::option::of(0..80u32), any::<[u32; 2]>())
                .prop_map(|(direction, priority, r#match, dscp, [rate_kbps, burst_kbit])| {
                    Spec::QosRule(nb::QosRule { direction, priority, r#match, dscp, rate_kbps, burst_kbit })
                },),
            texts().prop_map(|addresses| Spec::AddressSet(nb::AddressSet { addresses })),
            (texts(), small.clone()).prop_map(|(ports, default_policy)| {
                Spec::PortGroup(nb::PortGroup { ports, default_policy })
            }),
            (small.clone(), texts(), texts(), text(), any::<Option<bool>>()).prop_map(
                |(r#type, addresses, port_security, router_port, enabled)| {
                    Spec::LogicalSwitchPort(nb::LogicalSwitchPort {
                        r#type,
                        learn_fdb: enabled,
                        arp_proxy: port_security.clone(),
                        requested_chassis: addresses.clone(),
                        nat_addresses: addresses.clone(),
                        qos_min_rate: 100 * u64::from(r#type.unsigned_abs()),
                        qos_max_rate: port_security.len() as u64 * 150,
                        qos_burst: addresses.len() as u64,
                        peer: router_port.clone(),
                        addresses,
                        port_security,
                        router_port,
                        enabled,
                        ..Default::default()
                    })
                }
            ),
            (prop::collection::vec(route, 0..2), text(), texts()).prop_map(
                |(static_routes, chassis, load_balancers)| {
                    Spec::LogicalRouter(nb::LogicalRouter {
                        static_routes,
                        chassis,
                        load_balancers,
                        ..Default::default()
                    })
                }
            ),
            (text(), texts(), (small.clone(), any::<u32>(), texts(), any::<bool>())).prop_map(
                |(mac, networks, (address_mode, number, rdnss, periodic))| {
                    let bind = |ip: &String| nb::StaticMacBinding {
                        ip: ip.clone(),
                        mac: mac.clone(),
                        override_dynamic: periodic,
                    };
                    let bound = rdnss.iter().map(bind).collect();
                    let ra = nb::RouterAdvertisement {
                        address_mode,
                        mtu: number % 3000,
                        dnssl: rdnss.clone(),
                        rdnss,
                        periodic,
                        min_interval: number % 700,
                        max_interval: number % 2000,
                        ..Default::default()
                    };
                    Spec::LogicalRouterPort(nb::LogicalRouterPort {
                        mac,
                        networks,
                        router_advertisement: (number % 2 == 0).then_some(ra),
                        static_mac_bindings: bound,
                        gateway_mtu: number % 70_000,
                        ..Default::default()
                    })
                }
            ),
            ((small, -1..8i32), (0..40_000u32, 0..6u32, any::<u32>()), (text(), text())).prop_map(
                |((direction, action), (priority, tier, label), (r#match, log_name))| {
                    let (log, severity) = (label % 2 == 0, action);
                    Spec::Acl(nb::Acl {
                        direction,
                        priority,
                        r#match,
                        action,
                        tier,
                        label,
                        log,
                        log_name,
                        severity,
                        log_rate: label % 3,
                        log_burst: label % 5,
                        apply_after_lb: label % 3 == 0,
                        persist_established: label % 7 == 0,
                        log_related: label % 9 == 0,
                        sample_new: (label % 4 == 1).then(|| nb::AclSample {
                            observation_point: label % 3,
                            collectors: vec!["sample-collectors/c".to_owned(); tier as usize],
                        }),
                        sample_established: None,
                    })
                }
            ),
            text().prop_map(|encap_ip| Spec::Chassis(nb::Chassis { encap_ip, ..Default::default() })),
        ],
    )
}

/// A resource whose spec is mostly of the kind its name says.
fn resource() -> impl Strategy<Value = nb::Resource> {
    (name(), spec(), prop::collection::hash_map(text(), text(), 0..2)).prop_map(|(name, spec, labels)| {
        let fitting = match name.as_str() {
            "switches/s" | "switches/t" => Some(Spec::LogicalSwitch(Default::default())),
            "routers/r" => Some(Spec::LogicalRouter(Default::default())),
            "routers/r/ports/p" => Some(Spec::LogicalRouterPort(nb::LogicalRouterPort {
                mac: "0a:00:00:00:01:01".into(),
                networks: vec!["10.0.0.1/24".into()],
                ..Default::default()
            })),
            "switches/t/ports/b" if labels.is_empty() => Some(Spec::LogicalSwitchPort(Default::default())),
            _ => spec,
        };
        nb::Resource { name, labels, spec: fitting, ..Default::default() }
    })
}

fn operation() -> impl Strategy<Value = nb::Operation> {
    let paths = prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::collection::vec(prop_oneof![Just("labels".to_owned()), Just("match".to_owned()), text()], 0..3),
    ];
    let op = prop_oneof![
        5 => prop::option::weighted(0.98, resource()).prop_map(|resource| Op::Create(nb::Create { resource })),
        3 => (prop::option::weighted(0.98, resource()), paths, any::<bool>()).prop_map(
            |(resource, paths, allow_missing)| {
                Op::Update(nb::Update { resource, update_mask: Some(FieldMask { paths }), allow_missing })
            }
        ),
        1 => (name(), any::<bool>())
            .prop_map(|(name, allow_missing)| Op::Delete(nb::Delete { name, allow_missing })),
    ];
    prop::option::weighted(0.98, op).prop_map(|op| nb::Operation { op })
}

fn everything(controller: &Controller) -> HashMap<String, nb::Resource> {
    let state = controller.state();
    state.iter().map(|record| (record.name.to_string(), record.to_wire(|_| Default::default()))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_transaction_is_whole_or_nothing(
        transactions in prop::collection::vec(prop::collection::vec(operation(), 1..4), 1..12)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let controller =
            Controller::open(Box::new(MemoryStore::default()), LogLimits::default()).unwrap();
        let service = Northbound::new(controller.clone());
        let mut n_committed = 0;
        for operations in transactions {
            let (before, at) = (everything(&controller), controller.state().revision().get());
            let request = |validate_only| {
                let mut request = Request::new(nb::TransactRequest {
                    operations: operations.clone(), validate_only, ..Default::default()
                });
                request.extensions_mut().insert(Arc::new(Caller::local()));
                request
            };
            let dry = runtime.block_on(service.transact(request(true)));
            prop_assert_eq!(&everything(&controller), &before);
            let wet = runtime.block_on(service.transact(request(false)));
            match (dry, wet) {
                (Ok(dry), Ok(wet)) => {
                    let (dry, wet) = (dry.into_inner(), wet.into_inner());
                    prop_assert_eq!(dry.resources, wet.resources);
                    prop_assert!(wet.revision == at || wet.revision == at + 1);
                    n_committed += wet.revision - at;
                }
                (Err(dry), Err(wet)) => {
                    prop_assert_eq!(dry.message(), wet.message());
                    prop_assert!(!matches!(wet.code(), Code::Internal | Code::Unknown | Code::Unavailable));
                    prop_assert!(wet.message().starts_with("operation "), "{}", wet.message());
                    prop_assert_eq!(&everything(&controller), &before);
                }
                (dry, wet) => prop_assert!(false, "dry {dry:?}, wet {wet:?}"),
            }
        }
        prop_assert_eq!(controller.state().revision().get(), n_committed);
    }
}
