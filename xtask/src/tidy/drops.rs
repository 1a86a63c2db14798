//! `docs/drops.md`, made from the one list of drop reasons in `flowtable/src/drop.rs`.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Finding;

const SOURCE: &str = "flowtable/src/drop.rs";
const DOC: &str = "docs/drops.md";

const HEAD: &str = "<!-- Made by `cargo xtask tidy --fix` from flowtable/src/drop.rs: change it there. -->

# Why packets are dropped

Every packet that the switch drops is counted under one of these names. `vswitchctl drops` lists the counts of a
host by port and reason; when a rule did it, with the object of the logical network that the rule was made for.
`vswitchctl trace` tells beforehand what would become of a packet. There is no reason \"unknown\", and for every port
received = forwarded + dropped.

| name | meaning |
|---|---|
";

/// Checks that the document is current, or with `fix` makes it so.
pub(super) fn check(root: &Path, fix: bool) -> Result<Vec<Finding>> {
    let source =
        std::fs::read_to_string(root.join(SOURCE)).with_context(|| format!("cannot read {SOURCE}"))?;
    let text = document(&reasons(&source)?);
    let path = root.join(DOC);
    if std::fs::read_to_string(&path).is_ok_and(|present| present == text) {
        return Ok(Vec::new());
    }
    if fix {
        std::fs::create_dir_all(path.parent().unwrap_or(root))?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {DOC}"))?;
        return Ok(Vec::new());
    }
    Ok(vec![Finding::new(Path::new(DOC), 0, "is not what the code says: run `cargo xtask tidy --fix`")])
}

fn document(reasons: &[(String, String)]) -> String {
    let row = |(name, why): &(String, String)| format!("| `{name}` | {} |\n", why.replace('|', "\\|"));
    HEAD.to_owned() + &reasons.iter().map(row).collect::<String>()
}

/// Name and sentence of each `Variant = "name", "sentence";` of the list.
fn reasons(source: &str) -> Result<Vec<(String, String)>> {
    let list = source.split("\ndrop_reasons! {").nth(1).and_then(|rest| rest.split("\n}").next());
    let list = list.with_context(|| format!("no list of drop reasons in {SOURCE}"))?;
    let code = super::lexer::split(list).code;
    let mut reasons = Vec::new();
    let mut from = 0;
    // The code has its literals blanked: a `;` in it ends an entry.
    while let Some(len) = code[from..].find(';') {
        let quotes: Vec<usize> = code[from..from + len].match_indices('"').map(|(at, _)| from + at).collect();
        ensure!(
            quotes.len() == 4,
            "an entry of {SOURCE} is not `Variant = \"name\", \"sentence\";`: {}",
            &list[from..from + len]
        );
        let text = |i: usize| list[quotes[i] + 1..quotes[i + 1]].to_owned();
        reasons.push((text(0), text(2)));
        from += len + 1;
    }
    ensure!(!reasons.is_empty(), "no drop reason in {SOURCE}");
    Ok(reasons)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_are_written() {
        let source = "macro_rules! drop_reasons {}\n\ndrop_reasons! {\n    // Wires.\n    A = \"a-b\", \"One; two.\";\n    B =\n        \"b\",\n        \"Or | so.\";\n}\nfn x() { \"\"; }\n";
        let reasons = reasons(source).unwrap();
        assert_eq!(
            reasons,
            [("a-b".to_owned(), "One; two.".to_owned()), ("b".to_owned(), "Or | so.".to_owned())]
        );
        assert!(document(&reasons).ends_with("| `a-b` | One; two. |\n| `b` | Or \\| so. |\n"));
        assert!(super::reasons("drop_reasons! {}").is_err());
        assert!(super::reasons("\ndrop_reasons! {\n A = \"a\";\n}").is_err());
    }
}
