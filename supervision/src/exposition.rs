//! The text format of Prometheus, version 0.0.4: families of samples, each with its labels.

use std::fmt::{self, Display, Write as _};

/// What a daemon counts, at one moment.
///
/// # Invariants
/// Each family is declared once, and its samples are together.
#[derive(Debug)]
pub struct Page {
    prefix: &'static str,
    text: String,
}

/// What its samples mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It only rises, as long as the process runs.
    Counter,
    /// It rises and falls.
    Gauge,
}

impl Page {
    /// An empty page; names of its families begin so.
    pub fn new(prefix: &'static str) -> Self {
        Self { prefix, text: String::new() }
    }

    /// A family of what only rises; its name must end in `_total`, or in a unit and that.
    pub fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        debug_assert!(name.ends_with("_total"), "{name}");
        self.family(Kind::Counter, name, help)
    }

    /// A family of what rises and falls.
    pub fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        debug_assert!(!name.ends_with("_total"), "{name}");
        self.family(Kind::Gauge, name, help)
    }

    /// A gauge that is one, and says by its labels what does not change.
    pub fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) {
        self.gauge(name, help).add(labels, 1);
    }

    fn family(&mut self, kind: Kind, name: &str, help: &str) -> Family<'_> {
        let name = if self.prefix.is_empty() { name.to_owned() } else { format!("{}_{name}", self.prefix) };
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        // Writing to a text does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.text, name }
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.text
    }
}

/// A family that is being written.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: String,
}

impl Family<'_> {
    /// Adds a sample. Labels of one family are the same each time, their values differ.
    pub fn add(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        let _ = writeln!(self.text, "{}{} {value}", self.name, Labels(labels));
        self
    }

    /// The family's only sample.
    pub fn set(&mut self, value: impl Display) {
        self.add(&[], value);
    }
}

struct Labels<'a>(&'a [(&'a str, &'a str)]);

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (idx, (name, value)) in self.0.iter().enumerate() {
            let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            write!(f, "{}{name}=\"{value}\"", if idx == 0 { '{' } else { ',' })?;
        }
        if self.0.is_empty() { Ok(()) } else { f.write_char('}') }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn families_are_declared_once_with_their_samples() {
        let mut page = Page::new("x");
        page.counter("rx_packets_total", "Packets.").add(&[("port", "a")], 3).add(&[("port", "b\"")], 4);
        page.gauge("up", "Line\nbreak.").set(0.5);
        assert_eq!(
            page.into_text(),
            "# HELP x_rx_packets_total Packets.\n# TYPE x_rx_packets_total counter\n\
             x_rx_packets_total{port=\"a\"} 3\nx_rx_packets_total{port=\"b\\\"\"} 4\n\
             # HELP x_up Line\\nbreak.\n# TYPE x_up gauge\nx_up 0.5\n"
        );
    }

    /// The value that a reader sees.
    fn unescaped(text: &str) -> String {
        let mut value = String::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            value.push(match (c, if c == '\\' { rest.next() } else { None }) {
                (_, Some('n')) => '\n',
                (_, Some(escaped)) => escaped,
                (c, None) => c,
            });
        }
        value
    }

    proptest! {
        #[test]
        fn any_value_of_a_label_comes_back(value in ".*\n?.*") {
            let mut page = Page::new("");
            page.gauge("a", "").add(&[("l", &value)], 1);
            let text = page.into_text();
            let line = text.strip_prefix("# HELP a \n# TYPE a gauge\na{l=\"").unwrap();
            let line = line.strip_suffix("\"} 1\n").unwrap();
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(unescaped(line), value);
        }
    }
}
