//! Roles and names, and finding them in a certificate.

use std::{fmt, str::FromStr};

use tokio_rustls::rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// How an identity begins in a certificate.
const SCHEME: &str = "ferroflow://";
/// Bytes of a name, as of any id in a network.
const MAX_NAME_LEN: usize = 63;

/// Declares each role once: variant, its word.
macro_rules! roles {
    ($($(#[$doc:meta])* $role:ident $word:literal;)*) => {
        /// What somebody may do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Role {
            $($(#[$doc])* $role,)*
        }

        impl Role {
            /// All of them.
            pub const ALL: [Self; { [$(Self::$role),*].len() }] = [$(Self::$role),*];

            /// As it is written.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$role => $word,)*
                }
            }
        }
    };
}

roles! {
    /// Serves the network.
    Controller "controller";
    /// A host; it speaks for itself only.
    Chassis "chassis";
    /// May do everything with the network.
    Admin "admin";
    /// Sees and changes what is its own.
    Tenant "tenant";
    /// Sees everything and changes nothing.
    ReadOnly "read-only";
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Text is not a role or not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// No role has this word.
    #[error("`{}` is no role; write one of {}", .0.escape_debug(), words())]
    Role(String),
    /// It cannot be a name.
    #[error("`{}` is no name; use 1 to 63 of a-z A-Z 0-9 . _ - and start with a letter or digit", .0.escape_debug())]
    Name(String),
    /// The certificate is none, or is not of ours.
    #[error("the certificate names no role and name; it was not made by `vswitchctl pki`")]
    None,
    /// It says several things.
    #[error("the certificate names several roles")]
    Several,
}

fn words() -> String {
    Role::ALL.map(Role::word).join(", ")
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|role| role.word() == text);
        found.ok_or_else(|| IdentityError::Role(text.chars().take(MAX_NAME_LEN).collect()))
    }
}

/// A role and a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    role: Role,
    name: String,
}

impl Identity {
    /// Of a role and a name.
    ///
    /// # Errors
    /// [`IdentityError::Name`].
    pub fn new(role: Role, name: &str) -> Result<Self, IdentityError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let is_name = name.len() <= MAX_NAME_LEN
            && name.chars().all(is_plain)
            && name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !is_name {
            return Err(IdentityError::Name(name.chars().take(MAX_NAME_LEN + 1).collect()));
        }
        Ok(Self { role, name: name.to_owned() })
    }

    /// What it may do.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Its name among those of its role.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As it is in a certificate.
    pub fn uri(&self) -> String {
        format!("{SCHEME}{}/{}", self.role, self.name)
    }

    /// What a certificate says; that it is a good one has been checked before.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let certificate = EndEntityCert::try_from(certificate).map_err(|_| IdentityError::None)?;
        let mut ours = certificate.valid_uri_names().filter_map(|uri| uri.strip_prefix(SCHEME));
        let first = ours.next().ok_or(IdentityError::None)?;
        if ours.next().is_some() {
            return Err(IdentityError::Several);
        }
        first.parse()
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    /// `ROLE/NAME`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (role, name) = text.split_once('/').ok_or(IdentityError::None)?;
        Self::new(role.parse()?, name)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_a_role_and_a_name() {
        let identity: Identity = "chassis/h1.example".parse().unwrap();
        assert_eq!((identity.role(), identity.name()), (Role::Chassis, "h1.example"));
        assert_eq!(identity.uri(), "ferroflow://chassis/h1.example");
        for role in Role::ALL {
            assert_eq!(role.word().parse(), Ok(role));
        }
        let long = format!("admin/{}", "x".repeat(64));
        for wrong in
            ["", "admin", "root/x", "admin/", "admin/../x", "admin/a/b", "admin/-x", "tenant/ä", &long]
        {
            assert!(wrong.parse::<Identity>().is_err(), "{wrong}");
        }
    }
}
