//! Reads and prints `multipath`, `bundle` and `bundle_load`.

use super::{TextError, action::writable, cursor::Piece, names, value};
use crate::{
    flow::{Bundle, BundleAlgorithm, HashFields, Multipath, MultipathAlgorithm},
    port::PortTable,
};

/// Arguments with commas between them.
struct Arguments<'a> {
    rest: Option<Piece<'a>>,
    end: Piece<'a>,
}

impl<'a> Arguments<'a> {
    fn new(list: Piece<'a>) -> Self {
        let end = Piece { text: "", at: list.at + list.text.len() };
        Self { rest: Some(list), end }
    }

    fn next(&mut self, what: &str) -> Result<Piece<'a>, TextError> {
        let Some(list) = self.rest else { return Err(self.end.error(format!("expected {what}"))) };
        let (first, rest) = list.split_once(",").map_or((list, None), |(first, rest)| (first, Some(rest)));
        self.rest = rest;
        let first = first.trim();
        if first.text.is_empty() { Err(first.error(format!("expected {what}"))) } else { Ok(first) }
    }

    fn one_of<T: Copy>(&mut self, what: &str, known: &[(&'static str, T)]) -> Result<T, TextError> {
        let text = self.next(what)?;
        let found = known.iter().find(|(name, _)| *name == text.text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names = known.iter().map(|(name, _)| *name);
            let all = names.clone().collect::<Vec<_>>().join(", ");
            text.misspelt(format!("`{}` is no {what}; there are {all}", text.text), names)
        })
    }
}

/// Reads the arguments of `multipath`.
pub(super) fn parse_multipath(list: Piece<'_>) -> Result<Multipath, TextError> {
    let mut arguments = Arguments::new(list);
    let fields = arguments.one_of("choice of fields", HashFields::ALL)?;
    let basis = value::integer(arguments.next("a basis")?)?;
    let algorithm = arguments.one_of("algorithm", MultipathAlgorithm::ALL)?;
    let n_links = value::integer(arguments.next("a number of links")?)?;
    let argument = value::integer(arguments.next("an argument")?)?;
    let text = arguments.next("a sub-field")?;
    let dst = names::sub_field(text)?;
    writable(text, dst.field)?;
    match arguments.rest {
        Some(more) => Err(more.error("unexpected text behind the sub-field")),
        None => Ok(Multipath { fields, basis, algorithm, n_links, argument, dst }),
    }
}

/// Reads the arguments of `bundle`, or of `bundle_load`.
pub(super) fn parse_bundle(list: Piece<'_>, load: bool, ports: &PortTable) -> Result<Bundle, TextError> {
    let mut arguments = Arguments::new(list);
    let fields = arguments.one_of("choice of fields", HashFields::ALL)?;
    let basis = value::integer(arguments.next("a basis")?)?;
    let algorithm = arguments.one_of("algorithm", BundleAlgorithm::ALL)?;
    arguments.one_of("kind of member", &[("ofport", ())])?;
    let dst = if load {
        let text = arguments.next("a sub-field")?;
        let dst = names::sub_field(text)?;
        writable(text, dst.field)?;
        Some(dst)
    } else {
        None
    };
    let list = arguments.rest.unwrap_or(arguments.end).trim();
    let members = ["members:", "slaves:"].iter().find_map(|word| list.text.strip_prefix(word));
    let Some(members) = members else { return Err(list.error("expected members:1,2,3")) };
    let mut arguments =
        Arguments::new(Piece { text: members, at: list.at + list.text.len() - members.len() });
    if members.trim().is_empty() {
        arguments.rest = None;
    }
    let mut members = Vec::new();
    while arguments.rest.is_some() {
        members.push(names::port(arguments.next("a port")?, ports)?);
    }
    Ok(Bundle { fields, basis, algorithm, members, dst })
}

/// Prints `multipath`.
pub(super) fn print_multipath(multipath: &Multipath) -> String {
    let Multipath { fields, basis, algorithm, n_links, argument, dst } = multipath;
    let (fields, algorithm) =
        (name_of(*fields, HashFields::ALL), name_of(*algorithm, MultipathAlgorithm::ALL));
    format!("multipath({fields},{basis},{algorithm},{n_links},{argument},{dst})")
}

/// Prints `bundle` or `bundle_load`.
pub(super) fn print_bundle(bundle: &Bundle) -> String {
    let Bundle { fields, basis, algorithm, members, dst } = bundle;
    let (fields, algorithm) = (name_of(*fields, HashFields::ALL), name_of(*algorithm, BundleAlgorithm::ALL));
    let (name, dst) = match dst {
        Some(dst) => ("bundle_load", format!(",{dst}")),
        None => ("bundle", String::new()),
    };
    let members: Vec<_> = members.iter().map(|port| names::print_port(port.get().into())).collect();
    format!("{name}({fields},{basis},{algorithm},ofport{dst},members:{})", members.join(","))
}

fn name_of<T: PartialEq>(value: T, known: &[(&'static str, T)]) -> &'static str {
    known.iter().find(|(_, other)| *other == value).map_or("", |(name, _)| name)
}
