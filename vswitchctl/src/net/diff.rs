//! `diff`: what `apply` would change of the logical network, field by field.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use clap::Args;
use ferroflow_proto::northbound::Resource;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    error::CtlError,
    name::Noun,
    net::{apply::Wish, by_noun, change::Change, object::Object},
    output::printable,
    session::Session,
};

/// Tell what `apply` would change, field by field, and change nothing; exit code 1 when
/// something differs.
#[derive(Debug, Args)]
pub struct Diff {
    #[command(flatten)]
    wish: Wish,
}

/// An object that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Difference {
    name: String,
    change: Change,
    fields: Vec<Field>,
}

/// A field that differs; nothing where it has its default.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Field {
    field: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Value>,
}

impl Diff {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut nb = session.controller().await?;
        let (mut differences, mut effect) = (Vec::new(), None);
        if let Some(changing) = self.wish.make(&mut nb, true).await? {
            let put = changing.after.iter().map(|after| (changing.before.get(&after.name), Some(after)));
            let gone = changing.pruned.iter().map(|before| (Some(before), None));
            differences.extend(put.chain(gone).filter_map(|(before, after)| difference(before, after)));
            effect = changing.effect;
        }
        session.print(&differences, |out| {
            differences.iter().try_for_each(|one| one.write(out))?;
            effect.map_or(Ok(()), |effect| effect.write(out))
        })?;
        match differences.len() {
            0 => Ok(()),
            n => Err(CtlError::Differs { n, what: "objects" }),
        }
    }
}

fn difference(before: Option<&Resource>, after: Option<&Resource>) -> Option<Difference> {
    let name = after.or(before)?.name.clone();
    let change = after.map_or(Change::Deleted, |after| Change::between(before, after));
    let [before, after] = [before, after].map(|side| side.map(fields_of).unwrap_or_default());
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let fields = names.into_iter().filter(|name| before.get(*name) != after.get(*name)).map(|name| Field {
        field: name.clone(),
        before: before.get(name).cloned(),
        after: after.get(name).cloned(),
    });
    (change != Change::Unchanged).then(|| Difference { name, change, fields: fields.collect() })
}

/// What users set, as files have it; what is empty is left out.
fn fields_of(resource: &Resource) -> Map<String, Value> {
    let Some(noun) = Noun::of(&resource.name) else { return Map::new() };
    let value = by_noun!(noun, S => {
        <S as Object>::read(resource).ok().and_then(|(spec, _)| serde_json::to_value(spec).ok())
    }, else => None);
    let Some(Value::Object(mut fields)) = value else { return Map::new() };
    fields.retain(|_, value| !is_empty(value));
    fields
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

impl Difference {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let sign = match self.change {
            Change::Created => '+',
            Change::Deleted => '-',
            Change::Updated | Change::Unchanged | Change::Absent => '~',
        };
        writeln!(out, "{sign} {}", printable(&self.name))?;
        for Field { field, before, after } in &self.fields {
            let sides = [('-', before), ('+', after)];
            for (sign, value) in sides.into_iter().filter_map(|(sign, value)| Some((sign, value.as_ref()?))) {
                writeln!(out, "    {sign} {field}: {}", printable(&value.to_string()))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ferroflow_proto::northbound::{LogicalSwitchPort, resource::Spec};

    use super::*;

    fn port(address: &str, up: bool) -> Resource {
        let addresses = vec![address.to_owned()];
        let spec = LogicalSwitchPort { addresses, up, ..Default::default() };
        let spec = Some(Spec::LogicalSwitchPort(spec));
        Resource { name: "switches/a/ports/b".into(), spec, ..Default::default() }
    }

    #[test]
    fn only_fields_that_users_set_differ() {
        assert_eq!(difference(Some(&port("unknown", false)), Some(&port("unknown", true))), None);
        let changed = difference(Some(&port("unknown", true)), Some(&port("0a:00:00:00:00:01", true)));
        let mut text = Vec::new();
        changed.unwrap().write(&mut text).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "~ switches/a/ports/b\n    - addresses: [\"unknown\"]\n    + addresses: [\"0a:00:00:00:00:01\"]\n"
        );
        let created = difference(None, Some(&port("unknown", false))).unwrap();
        assert_eq!(created.change, Change::Created);
        let fields: Vec<_> = created.fields.iter().map(|field| field.field.as_str()).collect();
        assert!(fields.contains(&"addresses") && !fields.contains(&"labels"), "{fields:?}");
        let gone = difference(Some(&port("unknown", false)), None).unwrap();
        assert_eq!(gone.change, Change::Deleted);
        assert!(gone.fields.iter().all(|field| field.after.is_none() && field.before.is_some()));
    }
}
