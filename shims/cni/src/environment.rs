//! What the runtime says by variables of the environment.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::error::{CniError, ErrorCode};

/// Longest value that is taken.
const MAX_LEN: usize = 4096;

/// What is asked of the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Attach an interface.
    Add,
    /// Take it away.
    Del,
    /// Say whether it is as it was made.
    Check,
    /// Take away what is not named.
    Gc,
    /// Say whether ADD can succeed.
    Status,
    /// Say which versions are spoken.
    Version,
}

impl Verb {
    fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "GC" => Self::Gc,
            "STATUS" => Self::Status,
            "VERSION" => Self::Version,
            _ => return None,
        })
    }
}

/// The `CNI_…` variables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    values: BTreeMap<String, String>,
}

impl Environment {
    /// Picks them out of all variables.
    ///
    /// # Errors
    /// One is not text, or too long.
    pub fn read(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, CniError> {
        let mut values = BTreeMap::new();
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with("CNI_")) else { continue };
            let value = value.to_str().filter(|value| value.len() <= MAX_LEN).ok_or_else(|| {
                CniError::new(
                    ErrorCode::InvalidEnvironment,
                    format!("{name} cannot be used"),
                    format!("it is not UTF-8, or longer than {MAX_LEN} bytes"),
                )
            })?;
            values.insert(name.to_owned(), value.to_owned());
        }
        Ok(Self { values })
    }

    /// What is to be done.
    ///
    /// # Errors
    /// It is missing or not known.
    pub fn verb(&self) -> Result<Verb, CniError> {
        let name = self.required("CNI_COMMAND")?;
        Verb::by_name(name).ok_or_else(|| {
            CniError::new(
                ErrorCode::InvalidEnvironment,
                format!("CNI_COMMAND `{}`", name.escape_debug()),
                "it is ADD, DEL, CHECK, GC, STATUS or VERSION",
            )
        })
    }

    /// A variable that has to be there.
    ///
    /// # Errors
    /// It is not.
    pub fn required(&self, name: &str) -> Result<&str, CniError> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty()).ok_or_else(|| {
            CniError::new(
                ErrorCode::InvalidEnvironment,
                format!("{name} is not set"),
                "a runtime of the Container Network Interface sets it; this program is not started by hand",
            )
        })
    }

    /// All of them, for another plugin.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// One of the `CNI_ARGS` (`KEY=VALUE;…`). What is not known is left alone: runtimes put
    /// things there for others.
    pub fn argument(&self, key: &str) -> Option<&str> {
        let arguments = self.values.get("CNI_ARGS")?;
        arguments.split(';').find_map(|pair| pair.split_once('=').filter(|(k, _)| *k == key).map(|(_, v)| v))
    }

    /// Where a plugin of this name is.
    pub fn find_plugin(&self, name: &str) -> Option<PathBuf> {
        let dirs = self.values.get("CNI_PATH")?;
        dirs.split(':')
            .filter(|dir| !dir.is_empty())
            .map(|dir| Path::new(dir).join(name))
            .find(|path| path.is_file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::read(pairs.iter().map(|(k, v)| (OsString::from(k), OsString::from(v)))).unwrap()
    }

    #[test]
    fn arguments_are_pairs_and_unknown_ones_do_no_harm() {
        let env = environment(&[("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web;;x;MAC=02:00:00:00:00:01")]);
        assert_eq!(env.argument("K8S_POD_NAME"), Some("web"));
        assert_eq!(env.argument("MAC"), Some("02:00:00:00:00:01"));
        assert_eq!(env.argument("x"), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = environment(&[("PATH", "/bin")]).verb().unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (4, "CNI_COMMAND is not set"));
        let error = environment(&[("CNI_COMMAND", "add")]).verb().unwrap_err();
        assert_eq!(error.code, 4);
        assert!(Environment::read([("CNI_ARGS".into(), "x".repeat(MAX_LEN + 1).into())]).is_err());
    }
}
