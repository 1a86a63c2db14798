//! `KEY=VALUE` labels on the command line.

use clap::Args;

use crate::client::Labels;

/// Labels for a new object.
#[derive(Debug, Clone, Args)]
pub struct NewLabels {
    /// Give it this label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse)]
    labels: Vec<(String, String)>,
}

/// Changes of an object's labels.
#[derive(Debug, Clone, Args)]
pub struct LabelChanges {
    /// Give it this label, or change the label's value; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse)]
    labels: Vec<(String, String)>,
    /// Take this label away; may be repeated
    #[arg(long = "no-label", value_name = "KEY")]
    no_labels: Vec<String>,
}

/// Choice of objects by their labels.
#[derive(Debug, Clone, Args)]
pub struct Selector {
    /// Only those that have this label; may be repeated
    #[arg(short = 'l', long = "selector", value_name = "KEY=VALUE", value_parser = parse)]
    selector: Vec<(String, String)>,
}

impl NewLabels {
    /// The labels.
    pub fn labels(&self) -> Labels {
        self.labels.iter().cloned().collect()
    }
}

impl LabelChanges {
    /// Nothing is to change.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.no_labels.is_empty()
    }

    /// Makes the changes.
    pub fn apply(&self, labels: &mut Labels) {
        labels.retain(|key, _| !self.no_labels.contains(key));
        labels.extend(self.labels.iter().cloned());
    }
}

impl Selector {
    /// The labels that are asked for.
    pub fn labels(&self) -> Labels {
        self.selector.iter().cloned().collect()
    }
}

/// `KEY=VALUE`; the value may be empty and may contain `=`.
pub fn parse(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_a_key() {
        assert_eq!(parse("a=b=c").unwrap(), ("a".into(), "b=c".into()));
        assert_eq!(parse("a=").unwrap(), ("a".into(), String::new()));
        assert!(parse("a").is_err() && parse("=b").is_err() && parse("").is_err());
    }

    #[test]
    fn a_label_that_is_taken_and_given_is_given() {
        let changes =
            LabelChanges { labels: vec![("a".into(), "2".into())], no_labels: vec!["a".into(), "b".into()] };
        let mut labels = Labels::from([("a".into(), "1".into()), ("b".into(), "1".into())]);
        changes.apply(&mut labels);
        assert_eq!(labels, Labels::from([("a".into(), "2".into())]));
    }
}
