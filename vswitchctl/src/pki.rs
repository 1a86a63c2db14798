//! `pki`: the authority of a network, a directory on this machine, and the certificates that
//! it has made. No daemon has a part in it.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use credentials::{
    Authority, Identity, Role,
    authority::{AuthorityError, Issued},
};
use serde::Serialize;

use crate::{
    error::CtlError,
    output::{Tabular, yes},
    session::Session,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An authority, and certificates of it.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make an authority: whoever has its directory can make any certificate
    Init(Init),
    /// Make a certificate with its key, in a directory to be copied to where it is used
    Issue(Issue),
    /// Make certificates anew, before they end or for a new authority
    Renew(Renew),
    /// Take a certificate back; copy the `revoked` of controllers' directories to them
    Revoke(Revoke),
    /// List the certificates that were made here
    List(List),
}

/// An authority to be.
#[derive(Debug, Args)]
pub struct Init {
    /// Its directory
    dir: PathBuf,
}

/// A certificate to be.
#[derive(Debug, Args)]
pub struct Issue {
    /// Directory of the authority
    dir: PathBuf,
    /// What its owner may do: controller, chassis, admin, tenant or read-only
    #[arg(value_parser = role)]
    role: Role,
    /// Its owner's name; of a host its --chassis
    name: String,
    #[command(flatten)]
    life: Life,
}

/// How long certificates are good.
#[derive(Debug, Args)]
pub struct Life {
    /// For how long it is good
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

/// Certificates to be anew.
#[derive(Debug, Args)]
pub struct Renew {
    /// Directory of the authority
    dir: PathBuf,
    /// Whose, as ROLE/NAME; without one, all that were not taken back
    whose: Vec<String>,
    /// First step of replacing the authority: all trust a new one beside it, which signs from now on.
    /// Copy all directories, then renew all certificates
    #[arg(long, conflicts_with_all = ["whose", "retire_ca"])]
    new_ca: bool,
    /// Last step: nobody trusts the old authority any more. Copy all directories
    #[arg(long, conflicts_with = "whose")]
    retire_ca: bool,
    #[command(flatten)]
    life: Life,
}

/// A certificate to be taken back.
#[derive(Debug, Args)]
pub struct Revoke {
    /// Directory of the authority
    dir: PathBuf,
    /// Whose, as ROLE/NAME
    whose: String,
}

/// Which certificates.
#[derive(Debug, Args)]
pub struct List {
    /// Directory of the authority
    dir: PathBuf,
}

/// A certificate as it is printed.
#[derive(Debug, Serialize)]
struct CertificateView {
    identity: String,
    not_after: String,
    serial: String,
    revoked: bool,
    dir: String,
}

impl From<Issued> for CertificateView {
    fn from(issued: Issued) -> Self {
        Self {
            identity: issued.identity.to_string(),
            not_after: issued.not_after_text(),
            serial: issued.serial.clone(),
            revoked: issued.revoked,
            dir: issued.dir.display().to_string(),
        }
    }
}

impl Tabular for CertificateView {
    const HEADINGS: &'static [&'static str] = &["IDENTITY", "NOT-AFTER", "REVOKED", "DIR"];

    fn cells(&self) -> Vec<String> {
        vec![self.identity.clone(), self.not_after.clone(), yes(self.revoked), self.dir.clone()]
    }
}

fn role(text: &str) -> Result<Role, String> {
    text.parse().map_err(|error: credentials::identity::IdentityError| error.to_string())
}

fn identity(text: &str) -> Result<Identity, CtlError> {
    text.parse().map_err(|error: credentials::identity::IdentityError| {
        CtlError::Usage(format!("{error}; write ROLE/NAME"))
    })
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// What kept it from being done.
    pub fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let views: Vec<_> = self.work()?.into_iter().map(CertificateView::from).collect();
        session.print_rows(&views)
    }

    fn work(self) -> Result<Vec<Issued>, CtlError> {
        match self {
            Self::Init(Init { dir }) => {
                Authority::init(&dir)?;
                Ok(Vec::new())
            }
            Self::Issue(Issue { dir, role, name, life }) => {
                let identity = Identity::new(role, &name).map_err(AuthorityError::from)?;
                Ok(vec![Authority::open(&dir)?.issue(&identity, life.duration())?])
            }
            Self::Renew(renew) => renew.work(),
            Self::Revoke(Revoke { dir, whose }) => {
                Ok(vec![Authority::open(&dir)?.revoke(&identity(&whose)?)?])
            }
            Self::List(List { dir }) => Ok(Authority::open(&dir)?.list()?),
        }
    }
}

impl Renew {
    fn work(self) -> Result<Vec<Issued>, CtlError> {
        let authority = Authority::open(&self.dir)?;
        if self.new_ca || self.retire_ca {
            if self.new_ca {
                authority.add_authority()?;
            } else {
                authority.retire_authorities()?;
            }
            return Ok(authority.list()?);
        }
        let whose = if self.whose.is_empty() {
            let good = authority.list()?.into_iter().filter(|issued| !issued.revoked);
            good.map(|issued| issued.identity).collect()
        } else {
            self.whose.iter().map(|text| identity(text)).collect::<Result<Vec<_>, _>>()?
        };
        let life = self.life.duration();
        whose.iter().map(|identity| Ok(authority.renew(identity, life)?)).collect()
    }
}

impl Life {
    fn duration(&self) -> Duration {
        DAY * self.days
    }
}
