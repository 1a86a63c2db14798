//! The rules of the workloads, in the syntax of ovs-ofctl(8): one text for both switches.

use super::{BACKEND, REMOTE, VNI};

/// Copies the whole 5-tuple, so that each flow is an entry of its own.
const LOOK_AT_ALL: &str = "move:NXM_OF_IP_SRC[]->NXM_NX_REG1[],move:NXM_OF_IP_DST[]->NXM_NX_REG2[],\
                           move:NXM_OF_UDP_SRC[]->NXM_NX_REG3[0..15],\
                           move:NXM_OF_UDP_DST[]->NXM_NX_REG4[0..15]";
/// Prefix lengths of [`twenty_masks`], and networks of each.
const N_MASKS: u32 = 20;
const N_NETWORKS: u32 = 500;
/// The shortest of the prefixes.
const FIRST_PREFIX: u32 = 13;

fn lines<const N: usize>(lines: [&str; N]) -> Vec<String> {
    lines.map(str::to_owned).to_vec()
}

/// One rule, one mask.
pub fn one_rule() -> Vec<String> {
    lines(["priority=10,ip,nw_dst=10.0.0.0/8,in_port=1,actions=output:2"])
}

/// An allowed TCP port, an allowed network, an allowed host; everything else is dropped.
pub fn three_allowed() -> Vec<String> {
    lines([
        "priority=30,tcp,tp_dst=443,actions=output:2",
        "priority=20,ip,nw_src=10.1.0.0/16,actions=output:2",
        "priority=10,ip,nw_dst=10.2.3.4,actions=output:2",
        "priority=1,actions=drop",
    ])
}

/// Twenty tables, chosen by the destination MAC, each with 500 networks of one prefix length.
pub fn twenty_masks() -> Vec<String> {
    let mut rules = Vec::new();
    for k in 0..N_MASKS {
        let (table, prefix_len) = (k + 1, FIRST_PREFIX + k);
        rules
            .push(format!("table=0,priority=10,ip,dl_dst=02:00:00:00:aa:{k:02x},actions=resubmit(,{table})"));
        rules.extend((0..N_NETWORKS).map(|network| {
            let network = std::net::Ipv4Addr::from_bits(0x2000_0000 | network << (32 - prefix_len));
            format!("table={table},priority=10,ip,nw_src={network}/{prefix_len},actions=output:2")
        }));
    }
    rules
}

/// An access list of ten thousand rules in the manner of ClassBench: pairs of prefixes of nine
/// kinds, with and without ports. About every other packet of [`super::Shape::Plain`] is let
/// through by some of them; which one differs from packet to packet.
pub fn access_list() -> Vec<String> {
    const LENS: [(u32, u32); 9] =
        [(32, 32), (24, 32), (32, 24), (24, 24), (20, 24), (16, 32), (16, 24), (28, 16), (18, 18)];
    let mut rules = vec!["priority=1,actions=drop".to_owned()];
    rules.extend((0..10_000_u32).map(|n| {
        let spread = n.wrapping_mul(0x9e37_79b9);
        let (src_len, dst_len) = LENS[n as usize % LENS.len()];
        let network = |base: u32, bits: u32, len: u32| {
            std::net::Ipv4Addr::from_bits((base | bits & 0xffff) & u32::MAX << (32 - len))
        };
        let (src, dst) = (network(0x0a01_0000, spread, src_len), network(0x0a02_0000, spread >> 16, dst_len));
        let ports = match n / 9 % 3 {
            0 => String::new(),
            1 => format!(",tp_dst={}", spread >> 7 & 1023),
            _ => format!(",tp_dst={:#x}/0xffe0", spread >> 7 & 0x3e0),
        };
        let actions = if n % 2 == 0 { "output:2" } else { "drop" };
        let priority = 30_000 - n;
        format!(
            "priority={priority},udp,nw_src={src}/{src_len},nw_dst={dst}/{dst_len}{ports},actions={actions}"
        )
    }));
    rules
}

/// One table; the 5-tuple is looked at whole.
pub fn exact() -> Vec<String> {
    vec![format!("table=0,priority=10,udp,in_port=1,actions={LOOK_AT_ALL},output:2")]
}

/// Twenty tables as a logical network has them: sixty rules of a few shapes in each, registers,
/// a chain of resubmits; the 5-tuple is looked at whole.
pub fn exact_through_twenty_tables() -> Vec<String> {
    let mut rules = vec![format!(
        "table=0,priority=100,udp,in_port=1,actions=load:0x1->OXM_OF_METADATA[],\
         load:0x1->NXM_NX_REG14[],{LOOK_AT_ALL},resubmit(,1)"
    )];
    for table in 1..20 {
        let next = match table {
            19 => "load:0x2->NXM_NX_REG15[],output:2".to_owned(),
            _ => format!("resubmit(,{})", table + 1),
        };
        for n in 0..25 {
            rules.push(format!(
                "table={table},priority={},udp,metadata=0x1,reg14=0x1,nw_src=192.168.{n}.0/24,tp_dst={},\
                 actions=drop",
                2000 + n,
                5000 + n
            ));
            let egress = n + 5;
            rules.push(format!(
                "table={table},priority={},ip,metadata=0x1,reg15={egress:#x},actions=drop",
                1000 + n
            ));
        }
        rules.extend((0..10).map(|n| {
            let priority = 500 + n;
            format!(
                "table={table},priority={priority},metadata=0x1,dl_dst=02:00:00:00:cc:{n:02x},actions=drop"
            )
        }));
        rules.push(format!(
            "table={table},priority=50,ip,metadata=0x1,actions=load:{table:#x}->NXM_NX_REG10[],{next}"
        ));
        rules.push(format!("table={table},priority=0,metadata=0x1,actions={next}"));
    }
    rules
}

/// A stateful firewall: whatever comes in may begin conversations.
pub fn stateful() -> Vec<String> {
    lines([
        "table=0,priority=10,ip,in_port=1,ct_state=-trk,actions=ct(zone=1,table=1)",
        "table=1,priority=10,ip,in_port=1,ct_state=+trk+new,actions=ct(commit,zone=1),output:2",
        "table=1,priority=10,ip,in_port=1,ct_state=+trk+est,actions=output:2",
        "table=1,priority=1,actions=drop",
    ])
}

/// What a pod's packets meet on their way to a service on another host: connections of a load balancer, a policy
/// for each direction, the tunnel.
pub fn pod() -> Vec<String> {
    let mut rules = lines([
        "table=0,priority=10,ip,in_port=1,ct_state=-trk,actions=ct(zone=1,nat,table=1)",
        "table=1,priority=20,ip,ct_state=+trk+est,actions=resubmit(,2)",
        "table=1,priority=1,actions=drop",
        "table=2,priority=30,ip,ct_state=+rpl+est,actions=resubmit(,3)",
        "table=2,priority=1,actions=drop",
    ]);
    rules.extend([
        format!(
            "table=1,priority=30,udp,ct_state=+trk+new,nw_src=10.1.0.0/16,nw_dst=10.2.0.0/16,\
             actions=ct(commit,zone=1,nat(dst={BACKEND}),table=2)"
        ),
        format!(
            "table=2,priority=20,udp,nw_src=10.1.0.0/16,nw_dst={BACKEND},tp_dst=0/0xfc00,actions=resubmit(,3)"
        ),
        format!("table=3,actions=set_field:{VNI}->tun_id,set_field:{REMOTE}->tun_dst,output:4"),
    ]);
    rules
}

/// Everything goes into the tunnel.
pub fn encap() -> Vec<String> {
    vec![format!("in_port=1,actions=set_field:{VNI}->tun_id,set_field:{REMOTE}->tun_dst,output:4")]
}

/// What comes out of the tunnel goes to its port.
pub fn decap() -> Vec<String> {
    vec![format!("in_port=4,tun_id={VNI},actions=output:2")]
}
