//! Variables that have other values on each chassis.

use std::collections::{BTreeMap, BTreeSet};

use ferroflow_proto::northbound as pb;
use ovn_northd_lite::{model::TemplateVariable, template};

use super::{check_count, each};
use crate::resource::{FieldError, Kind, Name, Shown, limits};

pub(super) fn parse(variable: &pb::TemplateVariable) -> Result<TemplateVariable, FieldError> {
    let n_values = variable.values.iter().map(|of_chassis| of_chassis.values.len().max(1)).sum();
    check_count("values", n_values, limits::MAX_TEMPLATE_VALUES)?;
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (i, of_chassis) in variable.values.iter().enumerate() {
        let field = format!("values[{i}].chassis");
        let chassis = Name::parse(&of_chassis.chassis).ok().filter(|name| name.kind() == Kind::Chassis);
        let Some(chassis) = chassis else {
            let shown = Shown(&of_chassis.chassis);
            let reason = format!("{shown} does not name a chassis; write {}", Kind::Chassis);
            return Err(FieldError::new(field, reason));
        };
        let found =
            each(&format!("values[{i}].values"), &of_chassis.values, limits::MAX_TEMPLATE_VALUES, value)?;
        if found.is_empty() {
            let reason = "a chassis without a value need not be named; leave it out, or write a value";
            return Err(FieldError::new(format!("values[{i}].values"), reason));
        }
        if values.insert(chassis.id().to_owned(), found.into_iter().collect()).is_some() {
            let reason = format!("{chassis} is there twice; give it all its values in one place");
            return Err(FieldError::new(field, reason));
        }
    }
    Ok(values)
}

fn value(text: &str) -> Result<String, String> {
    if text.len() <= limits::MAX_TEMPLATE_VALUE_LEN && template::is_value(text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{} is not a value; write one like 10.0.0.5, 10.0.0.0/24, 80, 10.0.0.5:8080, or the name of a port in \
         quotes",
        Shown(text)
    ))
}
