//! Labels: free key-value pairs, bounded.

use std::collections::HashMap;

use super::{
    FieldError, Shown,
    limits::{MAX_LABEL_KEY_LEN, MAX_LABEL_VALUE_LEN, MAX_LABELS},
};

/// Checks the number and sizes of labels.
///
/// # Errors
/// [`FieldError`] names the label.
pub fn check_labels(labels: &HashMap<String, String>) -> Result<(), FieldError> {
    if labels.len() > MAX_LABELS {
        let reason = format!("{} labels are too many; keep to {MAX_LABELS}", labels.len());
        return Err(FieldError::new("labels", reason));
    }
    for (key, value) in labels {
        let field = || format!("labels[{}]", Shown(key));
        if key.is_empty() || key.len() > MAX_LABEL_KEY_LEN || key.chars().any(char::is_control) {
            let reason = format!("a key has 1 to {MAX_LABEL_KEY_LEN} bytes and no control characters");
            return Err(FieldError::new(field(), reason));
        }
        if value.len() > MAX_LABEL_VALUE_LEN {
            let reason = format!("the value has {} bytes; keep to {MAX_LABEL_VALUE_LEN}", value.len());
            return Err(FieldError::new(field(), reason));
        }
    }
    Ok(())
}
