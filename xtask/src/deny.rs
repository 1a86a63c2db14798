//! `deny`: licences and sources of what we depend on, by the rules of `deny.toml`.
//!
//! cargo-deny does it where it is installed. It takes minutes to compile, so without it the two rules that
//! protect users are checked here from the same file: licences allowed, crates from crates.io only.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ferroflow_tests::command::run;
use ferroflow_tests::say;
use serde_json::Value;

use crate::cargo::{cargo, metadata, root, show};

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Checks what the workspace depends on.
///
/// # Errors
/// When a crate breaks a rule.
pub(crate) fn check(deadline: Option<Instant>) -> Result<()> {
    let version = run(&mut cargo(&["deny", "--version"]), Duration::from_secs(30))?;
    if version.status.success() {
        return show(&mut cargo(&["deny", "--workspace", "check", "bans", "licenses", "sources"]), deadline);
    }
    say("            cargo-deny is not installed: checking licences and sources without it");
    let text = std::fs::read_to_string(root().join("deny.toml")).context("cannot read deny.toml")?;
    let findings = findings(&metadata()?, &allowed_licences(&text)?);
    for finding in &findings {
        say(finding);
    }
    match findings.len() {
        0 => Ok(()),
        n => bail!("{n} crates break the rules of deny.toml"),
    }
}

/// The list `allow` of the section `licenses`. It holds plain strings, which is all that is understood here.
fn allowed_licences(text: &str) -> Result<BTreeSet<String>> {
    let section = text.split("[licenses]").nth(1).context("deny.toml has no [licenses]")?;
    let list = section.split("allow = [").nth(1).and_then(|rest| rest.split(']').next());
    let list = list.context("deny.toml has no list of allowed licences")?;
    let allowed: BTreeSet<String> = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    anyhow::ensure!(!allowed.is_empty(), "deny.toml allows no licence");
    Ok(allowed)
}

fn findings(metadata: &Value, allowed: &BTreeSet<String>) -> Vec<String> {
    let packages = metadata.get("packages").and_then(Value::as_array).into_iter().flatten();
    let check = |package: &Value| {
        let text = |name: &str| package.get(name).and_then(Value::as_str);
        let (name, version) = (text("name")?, text("version")?);
        if text("source").is_some_and(|source| source != CRATES_IO) {
            return Some(format!("{name} {version} does not come from crates.io"));
        }
        match text("license") {
            Some(licence) if is_allowed(licence, allowed) => None,
            Some(licence) => Some(format!("{name} {version}: licence {licence} is not allowed")),
            None => Some(format!("{name} {version} names no licence")),
        }
    };
    packages.filter_map(check).collect()
}

/// Evaluates an SPDX expression: one side of an OR, both of an AND. What cannot be read is not allowed.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let text = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = text.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    any_of(&mut rest, allowed, 0) == Some(true) && rest.is_empty()
}

fn any_of(tokens: &mut &[&str], allowed: &BTreeSet<String>, depth: u32) -> Option<bool> {
    let mut holds = all_of(tokens, allowed, depth)?;
    while let Some(("OR", rest)) = tokens.split_first().map(|(first, rest)| (*first, rest)) {
        *tokens = rest;
        holds |= all_of(tokens, allowed, depth)?;
    }
    Some(holds)
}

fn all_of(tokens: &mut &[&str], allowed: &BTreeSet<String>, depth: u32) -> Option<bool> {
    let mut holds = licence(tokens, allowed, depth)?;
    while let Some(("AND", rest)) = tokens.split_first().map(|(first, rest)| (*first, rest)) {
        *tokens = rest;
        holds &= licence(tokens, allowed, depth)?;
    }
    Some(holds)
}

fn licence(tokens: &mut &[&str], allowed: &BTreeSet<String>, depth: u32) -> Option<bool> {
    let (first, rest) = tokens.split_first()?;
    *tokens = rest;
    match *first {
        "(" if depth < 8 => {
            let holds = any_of(tokens, allowed, depth + 1)?;
            let (close, rest) = tokens.split_first()?;
            *tokens = rest;
            (*close == ")").then_some(holds)
        }
        "(" | ")" | "OR" | "AND" | "WITH" => None,
        name => {
            // `A WITH exception` is one licence, allowed by that whole name.
            if let ["WITH", exception, rest @ ..] = *tokens {
                *tokens = rest;
                return Some(allowed.contains(&format!("{name} WITH {exception}")));
            }
            Some(allowed.contains(name))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn allowed() -> BTreeSet<String> {
        let text = "[bans]\nx = 1\n[licenses]\nallow = [\n  \"MIT\", # short\n  \"Unicode-3.0\",\n  \"Apache-2.0 WITH LLVM-exception\",\n]\n";
        allowed_licences(text).unwrap()
    }

    #[test]
    fn expressions() {
        let allowed = allowed();
        for good in [
            "MIT",
            "GPL-3.0 OR MIT",
            "MIT/Apache-2.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR Zlib",
        ] {
            assert!(is_allowed(good, &allowed), "{good}");
        }
        for bad in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR Zlib) AND Zlib",
            "Apache-2.0",
            "MIT OR",
            "(MIT",
            "MIT)",
            "MIT MIT",
            "OR MIT",
            "MIT WITH LLVM-exception",
        ] {
            assert!(!is_allowed(bad, &allowed), "{bad}");
        }
        assert!(!is_allowed(&"(".repeat(10_000), &allowed));
    }

    #[test]
    fn findings_name_the_crate() {
        let metadata = json!({ "packages": [
            { "name": "ours", "version": "1.0.0", "license": "MIT", "source": null },
            { "name": "good", "version": "1.0.0", "license": "MIT", "source": CRATES_IO },
            { "name": "viral", "version": "1.0.0", "license": "GPL-3.0", "source": CRATES_IO },
            { "name": "bare", "version": "1.0.0", "license": null, "source": CRATES_IO },
            { "name": "forked", "version": "1.0.0", "license": "MIT", "source": "git+https://example.org/x" },
        ]});
        let findings = findings(&metadata, &allowed());
        let names: Vec<_> = findings.iter().filter_map(|finding| finding.split(' ').next()).collect();
        assert_eq!(names, ["viral", "bare", "forked"]);
    }
}
