//! From text to documents, with errors that name the line and the word that was
//! probably meant.

use serde::Deserialize as _;

use super::Document;
use crate::{error::CtlError, spelling};

/// Largest file: a controller would not take more in one transaction.
pub const FILE_MAX: u64 = 16 << 20;

/// Reads all documents of `text`; `file` is what errors call it.
///
/// # Errors
/// [`CtlError::File`] with the first mistake.
pub fn parse(file: &str, text: &str) -> Result<Vec<Document>, CtlError> {
    let mut documents = Vec::new();
    for document in serde_norway::Deserializer::from_str(text) {
        match Option::<Document>::deserialize(document) {
            // `---` with nothing behind it.
            Ok(None) => {}
            Ok(Some(document)) => documents.push(document),
            Err(error) => return Err(mistake(file, &error)),
        }
    }
    Ok(documents)
}

fn mistake(file: &str, error: &serde_norway::Error) -> CtlError {
    let line = error.location().map(|location| location.line());
    let message = error.to_string();
    let message = match line.and_then(|line| message.rfind(&format!(" at line {line} "))) {
        Some(end) => &message[..end],
        None => &message,
    };
    let reason = unknown_word(message).unwrap_or_else(|| message.to_owned());
    CtlError::File { file: file.to_owned(), line, reason }
}

/// Serde's "switches.web: unknown field `prots`, expected one of `labels`, `ports`" in
/// our words. Words are quoted with backquotes in it, the unknown one first.
fn unknown_word(message: &str) -> Option<String> {
    let (place, what, rest) = ["field", "variant"].into_iter().find_map(|what| {
        let (place, rest) = message.split_once(&format!("unknown {what} `"))?;
        Some((place, what, rest))
    })?;
    // The unknown word may itself hold a backquote; what was expected never does.
    let (word, expected) =
        rest.rsplit_once("`, expected ").or_else(|| rest.rsplit_once("`, there are no"))?;
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let place = place.trim_end_matches([' ', ':']);
    let place = if place.is_empty() { String::new() } else { format!(" in {place}") };
    let thing = if what == "field" { "key" } else { "value" };
    let help = match spelling::nearest(word, known.iter().copied()) {
        Some(nearest) => format!("did you mean {nearest:?}?"),
        None => format!("there are: {}", known.join(", ")),
    };
    Some(format!("unknown {thing} {word:?}{place}; {help}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::net::switch_port::PortType;

    fn error(text: &str) -> String {
        parse("net.yaml", text).unwrap_err().to_string()
    }

    #[test]
    fn a_misspelt_key_is_found_with_its_line() {
        let text = "switches:\n  web:\n    ports:\n      web-1:\n        adresses: [unknown]\n";
        assert_eq!(
            error(text),
            "net.yaml:5: unknown key \"adresses\" in switches.web.ports.web-1; did you mean \"addresses\"?"
        );
        assert_eq!(
            error("# none\nswitchs: {}\n"),
            "net.yaml:2: unknown key \"switchs\"; did you mean \"switches\"?"
        );
    }

    #[test]
    fn an_unlike_key_lists_those_there_are() {
        assert_eq!(
            error("colour: red\n"),
            "net.yaml:1: unknown key \"colour\"; there are: labels, switches, routers, address_sets, port_groups, load_balancers, load_balancer_groups, ha_chassis_groups, template_variables, sample_collectors, dhcp_options, names, control_plane_limits"
        );
    }

    #[test]
    fn a_misspelt_value_is_found_with_its_line() {
        let text = "switches:\n  db:\n    acls:\n      a:\n        direction: to-port\n";
        let error = error(text);
        assert!(error.starts_with("net.yaml:5: unknown value \"to-port\""), "{error}");
        assert!(error.ends_with("did you mean \"to-lport\"?"), "{error}");
    }

    #[test]
    fn a_missing_key_is_named() {
        let text = "switches:\n  db:\n    acls:\n      a:\n        direction: to-lport\n";
        assert!(error(text).contains("missing field `priority`"), "{}", error(text));
        let text = "routers:\n  r1:\n    ports:\n      r1-web:\n";
        assert!(error(text).contains("\"r1-web\" has no value: missing field `mac`"), "{}", error(text));
    }

    #[test]
    fn a_key_stands_only_once() {
        let text = "switches:\n  web:\n  db:\n  web:\n";
        assert!(error(text).contains("\"web\" stands here twice"), "{}", error(text));
        assert!(error("switches: {}\nswitches: {}\n").contains("duplicate field"));
    }

    #[test]
    fn what_may_be_left_out() {
        let documents =
            parse("-", "---\nswitches:\n  web:\n  db:\n    ports:\n      db-1:\n---\n---\nrouters:\n")
                .unwrap();
        assert_eq!(documents.len(), 2);
        let port = &documents[0].switches["db"].ports["db-1"];
        assert_eq!((port.kind, port.enabled), (PortType::Workload, true));
        assert!(parse("-", "").unwrap().is_empty());
        assert!(parse("-", "# nothing\n").unwrap().is_empty());
    }

    #[test]
    fn plain_scalars_are_text() {
        let text = "switches:\n  1:\n    labels: {version: 1.20, on: yes}\n    ports:\n      p:\n        addresses: [0a:00:00:00:00:01 10.0.0.5]\n";
        let documents = parse("-", text).unwrap();
        let switch = &documents[0].switches["1"];
        assert_eq!(switch.labels["version"], "1.20");
        assert_eq!(switch.labels["on"], "yes");
        assert_eq!(switch.ports["p"].addresses, ["0a:00:00:00:00:01 10.0.0.5"]);
    }

    #[test]
    fn hostile_files_are_refused_not_followed() {
        let mut bomb = String::from("labels: {a: &a x}\nswitches: &b0 {}\n");
        bomb.push_str(&format!("{}{}", "[".repeat(20_000), "]".repeat(20_000)));
        let laughs = {
            let mut text = String::from("x0: &x0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
            for i in 1..30 {
                let before = vec![format!("*x{}", i - 1); 9].join(", ");
                text.push_str(&format!("x{i}: &x{i} [{before}]\n"));
            }
            text
        };
        let deep = format!("switches: {}", "{a: ".repeat(5_000));
        for text in [
            bomb.as_str(),
            laughs.as_str(),
            deep.as_str(),
            "switches: [web]",
            "switches: web",
            "- a",
            "text",
            "\u{0}",
            "switches: {web: {labels: {a: [1]}}}",
            "&a *a",
            "switches: *none",
            "!!binary x",
            "switches: {web: !x {}}",
            "switches: {? [a] : {}}",
            "\u{feff}\u{fffe}",
            "labels: {`, expected `: 1, x: }",
            "a`, expected `b: 1",
        ] {
            if let Err(error) = parse("x", text) {
                assert!(!error.to_string().is_empty());
            }
        }
        for text in [laughs.as_str(), deep.as_str(), "- a", "text", "switches: web", "a`, expected `b: 1"] {
            assert!(parse("x", text).is_err(), "{:.40} was taken", text);
        }
    }

    const SAMPLE: &str = include_str!("../../../examples/two-switches.yaml");

    #[test]
    fn a_truncated_file_never_panics() {
        for end in (0..SAMPLE.len()).filter(|&end| SAMPLE.is_char_boundary(end)).step_by(7) {
            let _ = parse("x", &SAMPLE[..end]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_damaged_file_never_panics(at in 0..SAMPLE.len(), byte in any::<u8>()) {
            let mut bytes = SAMPLE.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = parse("x", &String::from_utf8_lossy(&bytes));
        }
    }
}
