//! Reading what FTP announces: `PORT` and `EPRT` of clients, answers 227 and 229 of
//! servers. Pure functions of bytes.

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::Range,
};

/// Bytes of the longest line that is waited for.
const MAX_LINE: usize = 512;

/// What a segment that begins with a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// No announcement.
    Nothing,
    /// The beginning of one.
    Partial,
    /// One.
    Announced(Announced),
}

/// Where a data connection is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announced {
    /// The text that names it, in the payload.
    pub(super) range: Range<usize>,
    form: Form,
    /// Nothing: the sender's own.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
}

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `h1,h2,h3,h4,p1,p2` (RFC 959 §4.1.2).
    Commas,
    /// `|family|address|port|`, with a delimiter of the sender's choice (RFC 2428 §2).
    Extended(u8),
    /// The port alone, of `|||port|` (RFC 2428 §3).
    Port,
}

impl Announced {
    /// The same for another place.
    pub(super) fn text(&self, address: IpAddr, port: u16) -> String {
        match (self.form, address) {
            (Form::Commas, IpAddr::V4(address)) => {
                let [a, b, c, d] = address.octets();
                let [high, low] = port.to_be_bytes();
                format!("{a},{b},{c},{d},{high},{low}")
            }
            (Form::Extended(delimiter), _) => {
                let family = if address.is_ipv4() { 1 } else { 2 };
                let by = char::from(delimiter);
                format!("{by}{family}{by}{address}{by}{port}{by}")
            }
            (Form::Port, _) | (Form::Commas, IpAddr::V6(_)) => port.to_string(),
        }
    }
}

/// The first announcement of a segment that begins with a line.
pub(super) fn find(payload: &[u8], by_client: bool) -> Found {
    let mut start = 0;
    while let Some(rest) = payload.get(start..).filter(|rest| !rest.is_empty()) {
        let Some(len) = rest.iter().position(|byte| *byte == b'\n') else {
            let may_become = rest.len() <= MAX_LINE && begins_one(rest, by_client);
            return if may_become { Found::Partial } else { Found::Nothing };
        };
        let line = &rest[..len];
        let found = if by_client { of_client(line) } else { of_server(line) };
        if let Some(mut announced) = found {
            announced.range = announced.range.start + start..announced.range.end + start;
            return Found::Announced(announced);
        }
        start += len + 1;
    }
    Found::Nothing
}

/// A line without its end may yet become an announcement.
fn begins_one(line: &[u8], by_client: bool) -> bool {
    let words: [&[u8]; 2] = if by_client { [b"PORT ", b"EPRT "] } else { [b"227 ", b"229 "] };
    let agrees = |word: &[u8]| {
        let n = word.len().min(line.len());
        word[..n].eq_ignore_ascii_case(&line[..n])
    };
    words.into_iter().any(agrees)
}

fn of_client(line: &[u8]) -> Option<Announced> {
    let (word, argument) = line.split_at_checked(5)?;
    let n_spaces = argument.iter().take_while(|byte| **byte == b' ').count();
    let start = word.len() + n_spaces;
    let argument = argument.get(n_spaces..)?;
    if word.eq_ignore_ascii_case(b"PORT ") {
        commas(argument, start)
    } else if word.eq_ignore_ascii_case(b"EPRT ") {
        extended(argument, start)
    } else {
        None
    }
}

fn of_server(line: &[u8]) -> Option<Announced> {
    let (code, text) = line.split_at_checked(4)?;
    match code {
        b"227 " => {
            // Servers differ in what is around the numbers (RFC 1123 §4.1.2.6).
            let at = text.iter().position(u8::is_ascii_digit)?;
            commas(text.get(at..)?, code.len() + at)
        }
        b"229 " => {
            let at = text.iter().position(|byte| *byte == b'(')? + 1;
            let (&[a, b, c], digits) = text.get(at..)?.split_first_chunk()?;
            let len = digits.iter().position(|byte| *byte == a).filter(|_| a == b && b == c)?;
            let start = code.len() + at + 3;
            let port = number(digits.get(..len)?)?;
            Some(Announced { range: start..start + len, form: Form::Port, address: None, port })
        }
        _ => None,
    }
}

/// Six numbers; what is behind them does not matter.
fn commas(text: &[u8], start: usize) -> Option<Announced> {
    let len = text.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b',').count();
    let mut numbers = [0; 6];
    let mut parts = text.get(..len)?.split(|byte| *byte == b',');
    for place in &mut numbers {
        *place = u8::try_from(number(parts.next()?)?).ok()?;
    }
    if parts.next().is_some() {
        return None;
    }
    let [a, b, c, d, high, low] = numbers;
    let address = Some(Ipv4Addr::new(a, b, c, d).into());
    let port = u16::from_be_bytes([high, low]);
    Some(Announced { range: start..start + len, form: Form::Commas, address, port })
}

/// `|1|10.0.0.1|1025|`.
fn extended(text: &[u8], start: usize) -> Option<Announced> {
    let delimiter = *text.first().filter(|byte| byte.is_ascii_graphic())?;
    let mut parts = text.get(1..)?.splitn(4, |byte| *byte == delimiter);
    let (family, address, port) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next()?;
    let len = 4 + family.len() + address.len() + port.len();
    let address: IpAddr = str::from_utf8(address).ok()?.parse().ok()?;
    if family != if address.is_ipv4() { b"1" } else { b"2" } {
        return None;
    }
    let (range, form) = (start..start + len, Form::Extended(delimiter));
    Some(Announced { range, form, address: Some(address), port: number(port)? })
}

/// A decimal number of at most five digits.
fn number(digits: &[u8]) -> Option<u16> {
    let is_number = (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn announced(line: &str, by_client: bool) -> Option<(String, Option<IpAddr>, u16)> {
        match find(line.as_bytes(), by_client) {
            Found::Announced(found) => {
                Some((line[found.range.clone()].to_owned(), found.address, found.port))
            }
            Found::Nothing | Found::Partial => None,
        }
    }

    #[test]
    fn announcements_are_read_where_they_are() {
        let v4: IpAddr = [10, 0, 0, 1].into();
        let v6: IpAddr = "fd00::1".parse().unwrap();
        let one = |text: &str, address, port| Some((text.to_owned(), address, port));
        assert_eq!(announced("PORT 10,0,0,1,4,1\r\n", true), one("10,0,0,1,4,1", Some(v4), 1025));
        assert_eq!(announced("port  10,0,0,1,4,1\n", true), one("10,0,0,1,4,1", Some(v4), 1025));
        assert_eq!(announced("EPRT |1|10.0.0.1|1025|\r\n", true), one("|1|10.0.0.1|1025|", Some(v4), 1025));
        assert_eq!(announced("EPRT !2!fd00::1!99!\r\n", true), one("!2!fd00::1!99!", Some(v6), 99));
        assert_eq!(announced("TYPE I\r\nPORT 10,0,0,1,4,1\r\n", true), one("10,0,0,1,4,1", Some(v4), 1025));
        let passive = "227 Entering Passive Mode (10,0,0,1,4,1).\r\n";
        assert_eq!(announced(passive, false), one("10,0,0,1,4,1", Some(v4), 1025));
        assert_eq!(announced("227 =10,0,0,1,4,1\r\n", false), one("10,0,0,1,4,1", Some(v4), 1025));
        assert_eq!(announced("229 Entering (|||1025|)\r\n", false), one("1025", None, 1025));
        for (line, by_client) in [
            ("PORT 10,0,0,1,4\r\n", true),
            ("PORT 10,0,0,1,4,256\r\n", true),
            ("PORT 10,0,0,1,4,1,2\r\n", true),
            ("XPORT 10,0,0,1,4,1\r\n", true),
            ("EPRT |2|10.0.0.1|1025|\r\n", true),
            ("EPRT |1|10.0.0.1|99999|\r\n", true),
            ("227 Entering Passive Mode (10,0,0,1,4,1)\r\n", true),
            ("PORT 10,0,0,1,4,1\r\n", false),
            ("229 Entering (||!1025|)\r\n", false),
        ] {
            assert_eq!(announced(line, by_client), None, "{line}");
        }
    }

    #[test]
    fn a_cut_line_is_waited_for_only_while_it_can_be_one() {
        let line = b"PORT 10,0,0,1,4,1\r\n";
        for len in 1..line.len() {
            assert_eq!(find(&line[..len], true), Found::Partial, "{len} bytes");
        }
        assert_eq!(find(b"STOR x", true), Found::Nothing);
        assert_eq!(find(&[b"PORT ", [b'1'; 600].as_slice()].concat(), true), Found::Nothing);
        assert_eq!(find(b"", true), Found::Nothing);
    }

    proptest! {
        /// Printed anew, an announcement is read as what was printed.
        #[test]
        fn texts_are_read_back(form in 0_u8..4, address: u32, v6: u128, port in 1_u16.., other: u32, other_port: u16) {
            let ip: IpAddr = if form == 2 { IpAddr::V6(v6.into()) } else { Ipv4Addr::from_bits(address).into() };
            let [h, l] = port.to_be_bytes();
            let octets = Ipv4Addr::from_bits(address).octets();
            let line = match form {
                0 => format!("PORT {},{},{},{},{h},{l}\r\n", octets[0], octets[1], octets[2], octets[3]),
                1 => format!("EPRT |1|{ip}|{port}|\r\n"),
                2 => format!("EPRT |2|{ip}|{port}|\r\n"),
                _ => format!("229 ok (|||{port}|)\r\n"),
            };
            let Found::Announced(found) = find(line.as_bytes(), form != 3) else { panic!("{line}") };
            prop_assert_eq!(found.port, port);
            prop_assert_eq!(found.address, (form != 3).then_some(ip));
            let to: IpAddr = if form == 2 { ip } else { Ipv4Addr::from_bits(other).into() };
            let mut changed = line.clone();
            changed.replace_range(found.range.clone(), &found.text(to, other_port));
            let Found::Announced(again) = find(changed.as_bytes(), form != 3) else { panic!("{changed}") };
            prop_assert_eq!((again.port, again.address), (other_port, (form != 3).then_some(to)));
        }

        #[test]
        fn hostile_lines_do_no_harm(bytes: Vec<u8>, word in 0_usize..5, by_client: bool) {
            let word: &[u8] = [&b"PORT "[..], b"EPRT |", b"227 (1,", b"229 (|||", b""][word];
            let payload = [word, &bytes].concat();
            if let Found::Announced(found) = find(&payload, by_client) {
                prop_assert!(found.range.end <= payload.len() && found.range.start < found.range.end);
            }
        }
    }
}
