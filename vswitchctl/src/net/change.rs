//! What a command changed: said for each object, with the revision and, when asked
//! for, the receipt.

use std::io::{self, Write};

use ferroflow_proto::northbound::Resource;
use serde::Serialize;

use crate::{
    client::Northbound,
    error::CtlError,
    name::Noun,
    net::{by_noun, effect::EffectView, object::Object, receipt::ReceiptView},
    output::printable,
    session::Session,
};

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It is new.
    Created,
    /// It is different.
    Updated,
    /// It was so before.
    Unchanged,
    /// It is gone.
    Deleted,
    /// It was not there.
    Absent,
}

impl Change {
    /// All of them, in the order in which they are counted.
    const ALL: [Self; 5] = [Self::Created, Self::Updated, Self::Deleted, Self::Unchanged, Self::Absent];

    /// In a sentence.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
            Self::Absent => "absent",
        }
    }

    /// What made `after` of `before`, by what users can set.
    pub fn between(before: Option<&Resource>, after: &Resource) -> Self {
        match before {
            None => Self::Created,
            Some(before) if inputs(before) == inputs(after) => Self::Unchanged,
            Some(_) => Self::Updated,
        }
    }
}

/// The resource without what only the controller sets, and with defaults left out. What
/// this version does not know is taken as it stands.
pub fn inputs(resource: &Resource) -> Resource {
    let as_it_stands = || Resource { create_revision: 0, update_revision: 0, ..resource.clone() };
    let Some(noun) = Noun::of(&resource.name) else { return as_it_stands() };
    by_noun!(noun, S => match <S as Object>::read(resource) {
        Ok((spec, _)) => spec.write(resource.name.clone()),
        Err(_) => as_it_stands(),
    }, else => as_it_stands())
}

/// One object and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Full name of the object.
    pub name: String,
    /// What became of it.
    pub change: Change,
}

/// What a command changed.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Revision of the change; that of the store when nothing had to change.
    pub revision: u64,
    /// Nothing was changed; this is what would be.
    pub dry_run: bool,
    /// The objects, in the order of the command or file.
    pub changes: Vec<Changed>,
    /// How far the hosts have applied it, when waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<ReceiptView>,
    /// What it would do, of a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<EffectView>,
}

impl Outcome {
    /// A change of one object.
    pub fn of(name: impl Into<String>, change: Change, revision: u64) -> Self {
        let changes = vec![Changed { name: name.into(), change }];
        Self { revision, dry_run: false, changes, receipt: None, effect: None }
    }

    /// Waits for the hosts if asked to, and prints everything.
    ///
    /// # Errors
    /// [`CtlError::Pending`] when the hosts have not all applied it in time.
    pub async fn finish(mut self, session: &mut Session<'_>, nb: &mut Northbound) -> Result<(), CtlError> {
        if let (Some(wait), false) = (session.global.wait(), self.dry_run) {
            let receipt = nb.receipt(self.revision, Some(wait)).await?;
            self.receipt = Some(ReceiptView::from(receipt));
        }
        session.print(&self, |out| self.write(out))?;
        match &self.receipt {
            Some(receipt) => receipt.check(),
            None => Ok(()),
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for Changed { name, change } in &self.changes {
            let would = if self.dry_run { " (dry run)" } else { "" };
            writeln!(out, "{} {}{would}", printable(name), change.word())?;
        }
        if self.changes.len() != 1 {
            writeln!(out, "{}", self.summary())?;
        }
        if let Some(effect) = &self.effect {
            effect.write(out)?;
        }
        match &self.receipt {
            Some(receipt) => receipt.write(out),
            None if self.dry_run => Ok(()),
            None => writeln!(out, "revision {}", self.revision),
        }
    }

    /// `2 created, 3 unchanged`.
    fn summary(&self) -> String {
        let count = |change| self.changes.iter().filter(|changed| changed.change == change).count();
        let counts = Change::ALL.into_iter().map(|change| (count(change), change.word()));
        let told: Vec<String> =
            counts.filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
        if told.is_empty() { "nothing to do".into() } else { told.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use ferroflow_proto::northbound::{LogicalSwitchPort, resource::Spec};

    use super::*;

    fn port(up: bool, enabled: Option<bool>, address: &str) -> Resource {
        let addresses = vec![address.to_owned()];
        let spec = LogicalSwitchPort { up, enabled, addresses, tunnel_key: up.into(), ..Default::default() };
        Resource {
            name: "switches/a/ports/b".into(),
            update_revision: up.into(),
            spec: Some(Spec::LogicalSwitchPort(spec)),
            ..Default::default()
        }
    }

    #[test]
    fn only_what_users_set_is_a_change() {
        let before = port(false, None, "unknown");
        assert_eq!(Change::between(None, &before), Change::Created);
        assert_eq!(Change::between(Some(&before), &port(true, Some(true), "unknown")), Change::Unchanged);
        assert_eq!(Change::between(Some(&before), &port(false, Some(false), "unknown")), Change::Updated);
        assert_eq!(Change::between(Some(&before), &port(false, None, "")), Change::Updated);
    }

    #[test]
    fn an_outcome_in_words() {
        let mut outcome = Outcome::of("switches/web", Change::Created, 7);
        let text = |outcome: &Outcome| {
            let mut text = Vec::new();
            outcome.write(&mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        assert_eq!(text(&outcome), "switches/web created\nrevision 7\n");
        outcome.changes.push(Changed { name: "switches/db".into(), change: Change::Unchanged });
        outcome.dry_run = true;
        assert_eq!(
            text(&outcome),
            "switches/web created (dry run)\nswitches/db unchanged (dry run)\n1 created, 1 unchanged\n"
        );
        outcome.changes.clear();
        assert_eq!(text(&outcome), "nothing to do\n");
    }
}
