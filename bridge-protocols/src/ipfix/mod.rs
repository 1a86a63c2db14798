//! Flows as collectors of IPFIX are told of them (RFC 7011, by UDP): templates say what records
//! are made of (`element.rs`), and come again from time to time, since nobody says whether they
//! have arrived. How packets were chosen is told by options (RFC 5477).

mod element;

use std::{collections::BTreeMap, time::Duration};

use flowtable::{account::FlowId, types::Timestamp};

use self::element::{TEMPLATES, Template};
use crate::flows::Told;

const VERSION: u16 = 10;
const HEADER_LEN: usize = 16;
const SET_HEADER_LEN: usize = 4;
/// Sets of templates, and of those of options.
const TEMPLATE_SET: u16 = 2;
const OPTIONS_TEMPLATE_SET: u16 = 3;
/// Template of what is told of a selector.
const SELECTOR: u16 = 300;
/// selectorId, selectorAlgorithm, samplingProbability.
const SELECTOR_ELEMENTS: [(u16, u16); 3] = [(302, 8), (304, 2), (311, 8)];
/// Uniform probabilistic sampling.
const UNIFORM: u16 = 3;
/// Longest message that no link cuts.
const MAX_LEN: usize = 1400;
/// Domains that one exporter has at most.
const MAX_DOMAINS: usize = 256;

/// Where and how packets of a flow were observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Observation {
    /// Domain, within which numbers mean something.
    pub domain: u32,
    /// Point in it.
    pub point: u32,
    /// Which of the exporter's selectors has chosen them.
    pub selector: u16,
    /// They were on their way out.
    pub is_egress: bool,
    /// The port that they leave by, where that was said; 0: it was not.
    pub out_port: u32,
}

/// A flow, as it was observed somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Observed {
    /// The flow.
    pub flow: FlowId,
    /// Where and how.
    pub observation: Observation,
}

/// What is known of a domain.
#[derive(Debug, Clone, Default)]
struct Domain {
    /// Records told of so far.
    sequence: u32,
    /// When its templates were sent last.
    templates: Option<Timestamp>,
}

/// Who tells.
#[derive(Debug, Clone)]
pub struct Exporter {
    /// Between two times that templates are sent.
    resend: Duration,
    /// With which probability packets are chosen, by selector.
    selectors: BTreeMap<u16, f64>,
    domains: BTreeMap<u32, Domain>,
}

impl Exporter {
    /// That sends templates again after so long.
    pub fn new(resend: Duration) -> Self {
        Self { resend, selectors: BTreeMap::new(), domains: BTreeMap::new() }
    }

    /// Says with which probability a selector chooses packets.
    pub fn set_selector(&mut self, selector: u16, probability: f64) {
        if self.selectors.insert(selector, probability) != Some(probability) {
            self.domains.values_mut().for_each(|domain| domain.templates = None);
        }
    }

    /// The messages that tell of flows. `since_1970`: of the present, `now`.
    pub fn write(&mut self, now: Timestamp, since_1970: Duration, flows: &[Told<Observed>]) -> Vec<Vec<u8>> {
        let base = since_1970.saturating_sub(Duration::from_nanos(now.nanos())).as_millis() as u64;
        let mut by_domain: BTreeMap<u32, Vec<&Told<Observed>>> = BTreeMap::new();
        for told in flows {
            by_domain.entry(told.flow.observation.domain).or_default().push(told);
        }
        let mut messages = Vec::new();
        for (id, mut flows) in by_domain {
            if self.domains.len() >= MAX_DOMAINS && !self.domains.contains_key(&id) {
                self.domains.pop_first();
            }
            let domain = self.domains.entry(id).or_default();
            let mut writer =
                Writer { domain, id, since_1970, message: Vec::new(), set: None, messages: &mut messages };
            let is_due = writer.domain.templates.is_none_or(|sent| now.since(sent) >= self.resend);
            if is_due {
                writer.domain.templates = Some(now);
                writer.templates();
                writer.selectors(&self.selectors);
            }
            // Records of one kind have one header.
            flows.sort_by_key(|told| Template::of(&told.flow).id);
            for told in flows {
                let template = Template::of(&told.flow);
                writer.add(template.id, &template.record(told, base));
            }
            writer.close();
        }
        messages
    }
}

/// Packs sets into messages.
struct Writer<'a> {
    domain: &'a mut Domain,
    id: u32,
    since_1970: Duration,
    /// The one under way, with room for its header, and records in it.
    message: Vec<u8>,
    /// Kind of the set under way, and where it begins.
    set: Option<(u16, usize)>,
    messages: &'a mut Vec<Vec<u8>>,
}

impl Writer<'_> {
    fn templates(&mut self) {
        for template in &TEMPLATES {
            let mut record =
                [template.id.to_be_bytes(), (template.all().count() as u16).to_be_bytes()].concat();
            for element in template.all() {
                record.extend(element.number.to_be_bytes());
                record.extend(element.len.to_be_bytes());
            }
            self.put(TEMPLATE_SET, &record);
        }
        let counts = [SELECTOR, SELECTOR_ELEMENTS.len() as u16, 1];
        let elements = SELECTOR_ELEMENTS.into_iter().flat_map(|(number, len)| [number, len]);
        let record: Vec<u8> = counts.into_iter().chain(elements).flat_map(u16::to_be_bytes).collect();
        self.put(OPTIONS_TEMPLATE_SET, &record);
    }

    fn selectors(&mut self, selectors: &BTreeMap<u16, f64>) {
        for (selector, probability) in selectors {
            let (id, algorithm) = (u64::from(*selector).to_be_bytes(), UNIFORM.to_be_bytes());
            self.add(SELECTOR, &[&id[..], &algorithm, &probability.to_be_bytes()].concat());
        }
    }

    /// A record that counts.
    fn add(&mut self, set: u16, record: &[u8]) {
        self.put(set, record);
        self.domain.sequence = self.domain.sequence.wrapping_add(1);
    }

    fn put(&mut self, set: u16, record: &[u8]) {
        if self.message.len() + SET_HEADER_LEN + record.len() > MAX_LEN {
            self.close();
        }
        if self.message.is_empty() {
            let mut header = Vec::with_capacity(MAX_LEN);
            header.extend(VERSION.to_be_bytes());
            header.extend([0, 0]);
            header.extend((self.since_1970.as_secs() as u32).to_be_bytes());
            // Records before this message.
            header.extend(self.domain.sequence.to_be_bytes());
            header.extend(self.id.to_be_bytes());
            debug_assert_eq!(header.len(), HEADER_LEN);
            self.message = header;
        }
        if self.set.is_none_or(|(kind, _)| kind != set) {
            self.end_set();
            self.set = Some((set, self.message.len()));
            self.message.extend(set.to_be_bytes());
            self.message.extend([0, 0]);
        }
        self.message.extend(record);
    }

    fn end_set(&mut self) {
        if let Some((_, at)) = self.set.take() {
            let len = (self.message.len() - at) as u16;
            place(&mut self.message, at + 2, len);
        }
    }

    fn close(&mut self) {
        self.end_set();
        if !self.message.is_empty() {
            let len = self.message.len() as u16;
            place(&mut self.message, 2, len);
            self.messages.push(std::mem::take(&mut self.message));
        }
    }
}

fn place(message: &mut [u8], at: usize, number: u16) {
    if let Some(place) = message.get_mut(at..at + 2) {
        place.copy_from_slice(&number.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use flowtable::{
        account::Way,
        types::{MacAddr, PortNo, VlanId},
    };
    use proptest::{prelude::*, strategy::ValueTree as _};

    use super::*;
    use crate::flows::{Count, End};

    /// A dull reader, which knows only what the templates say.
    #[derive(Default)]
    struct Collector {
        templates: HashMap<(u32, u16), Vec<(u16, u16)>>,
        /// Records of each domain so far.
        sequence: HashMap<u32, u32>,
        /// Records, each with its template and its elements.
        records: Vec<(u32, u16, HashMap<u16, Vec<u8>>)>,
        n_templates: usize,
    }

    fn u16_at(bytes: &[u8], at: usize) -> u16 {
        u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    impl Collector {
        fn read(&mut self, message: &[u8]) {
            assert!(message.len() <= MAX_LEN);
            assert_eq!((u16_at(message, 0), usize::from(u16_at(message, 2))), (10, message.len()));
            let domain = u32_at(message, 12);
            assert_eq!(u32_at(message, 8), *self.sequence.entry(domain).or_default());
            let mut rest = &message[16..];
            while !rest.is_empty() {
                let (kind, len) = (u16_at(rest, 0), usize::from(u16_at(rest, 2)));
                let mut set = &rest[4..len];
                rest = &rest[len..];
                while !set.is_empty() {
                    set = match kind {
                        2 | 3 => self.template(domain, kind, set),
                        id => self.record(domain, id, set),
                    };
                }
            }
        }

        fn template<'a>(&mut self, domain: u32, kind: u16, set: &'a [u8]) -> &'a [u8] {
            let (id, n) = (u16_at(set, 0), usize::from(u16_at(set, 2)));
            let from = if kind == 3 { 6 } else { 4 };
            let elements = (0..n).map(|idx| (u16_at(set, from + 4 * idx), u16_at(set, from + 4 * idx + 2)));
            self.templates.insert((domain, id), elements.collect());
            self.n_templates += 1;
            &set[from + 4 * n..]
        }

        fn record<'a>(&mut self, domain: u32, id: u16, set: &'a [u8]) -> &'a [u8] {
            let (mut values, mut rest) = (HashMap::new(), set);
            for (number, len) in &self.templates[&(domain, id)] {
                let (value, after) = rest.split_at((*len).into());
                values.insert(*number, value.to_vec());
                rest = after;
            }
            self.records.push((domain, id, values));
            *self.sequence.get_mut(&domain).unwrap() += 1;
            rest
        }
    }

    fn told() -> impl Strategy<Value = Told<Observed>> {
        let ips = prop_oneof![
            Just((0x0806, None)),
            any::<[[u8; 4]; 2]>().prop_map(|[a, b]| (0x0800, Some((a.into(), b.into())))),
            any::<[[u8; 16]; 2]>().prop_map(|[a, b]| (0x86dd, Some((a.into(), b.into())))),
        ];
        let numbers = any::<(u8, u8, u16, u16, u32, u32, bool)>();
        (ips, numbers, 0..3_u32, any::<([u8; 6], u16, u32)>()).prop_map(
            |(
                (eth_type, ips),
                (protocol, tos, a, b, n_packets, n_bytes, is_egress),
                domain,
                (mac, tcp_flags, at),
            )| {
                let protocol =
                    if eth_type == 0x0806 { 0 } else { [1, 6, 17, 58, protocol][usize::from(tos % 5)] };
                let flow = FlowId {
                    in_port: PortNo::new(a.into()).unwrap(),
                    vlan: VlanId::new(b & 0xfff).unwrap(),
                    macs: (MacAddr::new(mac), MacAddr::ZERO),
                    eth_type,
                    ips,
                    protocol,
                    tos,
                    ports: (a, b),
                };
                let point = u32::from(b);
                let observation = Observation { domain, point, selector: 1, is_egress, out_port: 0 };
                let first = Timestamp::from_nanos(u64::from(at) * 1_000_000);
                let n_bytes = u64::from(n_bytes) + 18 * u64::from(n_packets);
                let count = Count {
                    n_packets: n_packets.into(),
                    n_bytes,
                    tcp_flags,
                    way: Way::Several,
                    first,
                    last: first,
                };
                Told { flow: Observed { flow, observation }, count, end: End::Inactive }
            },
        )
    }

    fn value(values: &HashMap<u16, Vec<u8>>, number: u16) -> u128 {
        values[&number].iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Who only knows the templates finds everything that was told.
        #[test]
        fn what_is_told_is_read(flows in proptest::collection::vec(told(), 1..60)) {
            let mut exporter = Exporter::new(Duration::from_secs(60));
            exporter.set_selector(1, 0.25);
            let mut collector = Collector::default();
            let (now, since_1970) = (Timestamp::from_nanos(7_000_000_000), Duration::from_secs(1_000_007));
            for message in exporter.write(now, since_1970, &flows) {
                collector.read(&message);
            }
            let mut read: Vec<_> = collector.records.iter().filter(|(_, id, _)| *id != SELECTOR).collect();
            prop_assert_eq!(read.len(), flows.len());
            for one in &flows {
                let Observed { flow, observation } = one.flow;
                let expected = |(domain, _, values): &&(u32, u16, HashMap<u16, Vec<u8>>)| {
                    let is_common = *domain == observation.domain
                        && value(values, 138) == observation.point.into()
                        && value(values, 61) == u128::from(observation.is_egress)
                        && value(values, 10) == flow.in_port.get().into()
                        && value(values, 14) == u32::MAX.into()
                        && value(values, 58) == flow.vlan.get().into()
                        && value(values, 2) == one.count.n_packets.into()
                        && value(values, 352) == one.count.n_bytes.into()
                        && value(values, 152) == 1_000_000_000 + u128::from(one.count.first.nanos() / 1_000_000);
                    let is_ip = match flow.ips {
                        None => !values.contains_key(&4),
                        Some(_) => values.get(&4) == Some(&vec![flow.protocol]) && values.get(&5) == Some(&vec![flow.tos]),
                    };
                    let v4 = values.get(&8).map(|bytes| <[u8; 4]>::try_from(&bytes[..]).unwrap().into());
                    let v6 = values.get(&27).map(|bytes| <[u8; 16]>::try_from(&bytes[..]).unwrap().into());
                    is_common && is_ip && v4.or(v6) == flow.ips.map(|ips| ips.0)
                };
                let at = read.iter().position(expected);
                prop_assert!(at.is_some(), "{:?} was not told: {:?}", one, read);
                read.remove(at.unwrap());
            }
            let selectors: Vec<_> = collector.records.iter().filter(|(_, id, _)| *id == SELECTOR).collect();
            prop_assert!(selectors.iter().all(|(_, _, values)| values[&311] == 0.25_f64.to_be_bytes()));
        }
    }

    #[test]
    fn templates_come_again_from_time_to_time() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let flow = told().new_tree(&mut runner).unwrap().current();
        let mut exporter = Exporter::new(Duration::from_secs(60));
        let mut collector = Collector::default();
        let mut seen = Vec::new();
        for secs in [0_u64, 30, 59, 60, 61, 119, 120] {
            let now = Timestamp::from_nanos(secs * 1_000_000_000);
            for message in exporter.write(now, Duration::from_secs(secs + 99), &[flow]) {
                collector.read(&message);
            }
            seen.push(collector.n_templates / (TEMPLATES.len() + 1));
        }
        assert_eq!(seen, [1, 1, 1, 2, 2, 2, 3]);
        exporter.set_selector(1, 0.5);
        exporter
            .write(Timestamp::from_nanos(121_000_000_000), Duration::from_secs(220), &[flow])
            .iter()
            .for_each(|message| collector.read(message));
        assert_eq!(collector.n_templates, 4 * (TEMPLATES.len() + 1), "a selector is another one");
    }
}
