//! Tracked connections as `ovs-appctl dpctl/dump-conntrack` prints them, and the text that
//! chooses some: `zone=1,tcp,src=10.0.0.1,dport=80`.

use std::net::IpAddr;

use super::{
    TextError,
    cursor::{Cursor, Form, Piece},
    value,
};
use crate::{
    conntrack::{Connection, Filter, State, Tuple},
    wire::ip_proto,
};

const PROTOCOLS: &[(&str, u8)] = &[
    ("tcp", ip_proto::TCP),
    ("udp", ip_proto::UDP),
    ("sctp", ip_proto::SCTP),
    ("icmp", ip_proto::ICMP),
    ("icmpv6", ip_proto::ICMPV6),
];
/// Words of a choice, without those of protocols.
const WORDS: &[&str] = &[
    "zone",
    "mark",
    "label",
    "labels",
    "src",
    "dst",
    "sport",
    "dport",
    "proto",
    "unreplied",
    "ct_zone",
    "ct_mark",
    "ct_label",
    "ct_nw_src",
    "ct_nw_dst",
    "ct_ipv6_src",
    "ct_ipv6_dst",
    "ct_nw_proto",
    "ct_tp_src",
    "ct_tp_dst",
];

/// Prints a connection; with `timeout` also how long it is kept without a packet.
pub fn print_connection(connection: &Connection, timeout: bool) -> String {
    let Connection { original, reply, mark, label, state, .. } = connection;
    let mut text = format!(
        "{},orig=({}),reply=({})",
        protocol_name(original),
        print_tuple(original),
        print_tuple(reply)
    );
    if original.zone != 0 {
        text += &format!(",zone={}", original.zone);
    }
    if *mark != 0 {
        text += &format!(",mark={mark}");
    }
    if *label != 0 {
        text += &format!(",labels={label:#x}");
    }
    if let Some(name) = state_name(*state) {
        text += &format!(",protoinfo=(state={name})");
    }
    if let Some(alg) = connection.alg {
        text += &format!(",helper={}", alg.name());
    }
    if timeout {
        text += &format!(",timeout={}", connection.expires_in.as_secs());
        if !connection.has_replied {
            text += ",unreplied";
        }
    }
    text
}

/// Name of a tuple's protocol; its number, where it has none.
pub fn protocol_name(tuple: &Tuple) -> String {
    let named = PROTOCOLS.iter().find(|(_, proto)| *proto == tuple.proto);
    named.map_or_else(|| tuple.proto.to_string(), |(name, _)| (*name).to_owned())
}

fn print_tuple(tuple: &Tuple) -> String {
    let (src, dst) = (tuple.address(tuple.src), tuple.address(tuple.dst));
    let (first, second) = tuple.key_ports();
    match tuple.proto {
        _ if tuple.is_icmp() => {
            format!("src={src},dst={dst},id={},type={first},code={second}", tuple.src_port)
        }
        ip_proto::TCP | ip_proto::UDP | ip_proto::SCTP => {
            format!("src={src},dst={dst},sport={first},dport={second}")
        }
        _ => format!("src={src},dst={dst}"),
    }
}

/// State of a protocol that has states.
fn state_name(state: State) -> Option<&'static str> {
    match state {
        State::TcpSynSent => Some("SYN_SENT"),
        State::TcpSynRecv => Some("SYN_RECV"),
        State::TcpEstablished | State::SctpEstablished => Some("ESTABLISHED"),
        State::TcpFinWait => Some("FIN_WAIT_1"),
        State::TcpClosing | State::SctpClosing => Some("CLOSING"),
        State::TcpTimeWait => Some("TIME_WAIT"),
        State::TcpClosed => Some("CLOSED"),
        State::SctpInit => Some("INIT"),
        State::UdpFirst
        | State::UdpSingle
        | State::UdpMultiple
        | State::IcmpFirst
        | State::IcmpReply
        | State::OtherFirst
        | State::OtherSingle
        | State::OtherMultiple => None,
    }
}

/// Reads which connections are meant; nothing means all. Addresses and ports are those of
/// either direction; the words of `dpctl/flush-conntrack` are known, too.
///
/// # Errors
/// Says where the text is wrong, and why.
pub fn parse_connection_filter(text: &str) -> Result<Filter, TextError> {
    let mut filter = Filter::default();
    let mut cursor = Cursor::new(Piece::whole(text));
    while let Some(name) = cursor.name()? {
        let form = cursor.form()?;
        item(&mut filter, name, form)?;
    }
    Ok(filter)
}

fn item(filter: &mut Filter, name: Piece<'_>, form: Form<'_>) -> Result<(), TextError> {
    if let Some((_, proto)) = PROTOCOLS.iter().find(|(known, _)| *known == name.text) {
        form.bare(name)?;
        filter.proto = Some(*proto);
        return Ok(());
    }
    match name.text {
        "zone" | "ct_zone" => filter.zone = Some(value::integer(form.value(name)?)?),
        "mark" | "ct_mark" => {
            let (bits, mask) = masked(form.value(name)?, u32::MAX.into())?;
            filter.mark = Some((bits as u32, mask as u32));
        }
        "label" | "labels" | "ct_label" => filter.label = Some(masked(form.value(name)?, u128::MAX)?),
        "src" | "ct_nw_src" | "ct_ipv6_src" => filter.src = Some(address(form.value(name)?)?),
        "dst" | "ct_nw_dst" | "ct_ipv6_dst" => filter.dst = Some(address(form.value(name)?)?),
        "sport" | "ct_tp_src" => filter.src_port = Some(value::integer(form.value(name)?)?),
        "dport" | "ct_tp_dst" => filter.dst_port = Some(value::integer(form.value(name)?)?),
        "proto" | "ct_nw_proto" => filter.proto = Some(value::integer(form.value(name)?)?),
        "unreplied" => {
            form.bare(name)?;
            filter.unreplied = true;
        }
        word => {
            let known = WORDS.iter().copied().chain(PROTOCOLS.iter().map(|(known, _)| *known));
            return Err(name.misspelt(format!("connections have no `{word}`"), known));
        }
    }
    Ok(())
}

fn masked(text: Piece<'_>, max: u128) -> Result<(u128, u128), TextError> {
    match text.split_once("/") {
        Some((bits, mask)) => Ok((value::number_up_to(bits, max)?, value::number_up_to(mask, max)?)),
        None => Ok((value::number_up_to(text, max)?, max)),
    }
}

fn address(text: Piece<'_>) -> Result<IpAddr, TextError> {
    let text = text.trim();
    text.text.parse().map_err(|_| text.error(format!("`{}` is not an IP address", text.text)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn connection() -> Connection {
        let original = Tuple {
            zone: 3,
            ipv6: false,
            proto: 6,
            src: 0x0a00_0001,
            dst: 0x0a00_0002,
            src_port: 4000,
            dst_port: 80,
        };
        Connection {
            original,
            reply: original.reversed(),
            state: State::TcpEstablished,
            has_replied: true,
            snat: false,
            dnat: false,
            master: None,
            alg: None,
            mark: 5,
            label: 0x10,
            policy: 0,
            in_port: 1,
            expires_in: Duration::from_millis(59_900),
        }
    }

    #[test]
    fn connections_look_like_those_of_dpctl() {
        let plain = "tcp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=4000,dport=80),\
                     reply=(src=10.0.0.2,dst=10.0.0.1,sport=80,dport=4000),\
                     zone=3,mark=5,labels=0x10,protoinfo=(state=ESTABLISHED)";
        assert_eq!(print_connection(&connection(), false), plain);
        assert_eq!(print_connection(&connection(), true), format!("{plain},timeout=59"));
        let mut echo = connection();
        echo.original = Tuple { proto: 1, zone: 0, src_port: 77, dst_port: 8 << 8, ..echo.original };
        echo.reply = echo.original.reversed();
        (echo.mark, echo.label, echo.state, echo.has_replied) = (0, 0, State::IcmpFirst, false);
        assert_eq!(
            print_connection(&echo, true),
            "icmp,orig=(src=10.0.0.1,dst=10.0.0.2,id=77,type=8,code=0),\
             reply=(src=10.0.0.2,dst=10.0.0.1,id=77,type=0,code=0),timeout=59,unreplied"
        );
    }

    #[test]
    fn a_choice_is_by_either_direction() {
        let chosen = |text: &str| parse_connection_filter(text).unwrap().accepts(&connection());
        for text in ["", "zone=3", "tcp,dport=80", "src=10.0.0.2,sport=80", "mark=0x1/0x1", "label=0x10"] {
            assert!(chosen(text), "{text}");
        }
        assert!(chosen("ct_nw_src=10.0.0.1,ct_nw_dst=10.0.0.2,ct_nw_proto=6,ct_tp_src=4000,ct_tp_dst=80"));
        // Each half is right, but of another direction.
        for text in ["zone=4", "udp", "src=10.0.0.1,sport=80", "mark=4", "unreplied", "src=fd00::1"] {
            assert!(!chosen(text), "{text}");
        }
    }

    #[test]
    fn mistakes_have_a_place() {
        let said = |text: &str| parse_connection_filter(text).unwrap_err().to_string();
        assert_eq!(said("zone=1,spotr=3"), "character 8: connections have no `spotr`; did you mean `sport`?");
        assert_eq!(said("src=10.0.0"), "character 5: `10.0.0` is not an IP address");
        for text in ["zone=65536", "mark=0x100000000", "zone", "tcp=1", "unreplied=1", "sport=70000"] {
            assert!(parse_connection_filter(text).is_err(), "{text} was taken");
        }
    }
}
