//! The directory of an authority. It makes certificates with their keys, each in a directory
//! of its own that is copied to where it is used.
//!
//! ```text
//! DIR/ca.pem            authorities that are trusted; the first one signs
//! DIR/ca.key            its key: whoever has it is the network's master
//! DIR/revoked           serial numbers that are good no more
//! DIR/chassis-h1/       ca.pem cert.pem key.pem [revoked]
//! ```
//! An authority is replaced in three steps, between which its directories are copied: all
//! trust the new one as well; all have certificates of the new one; none trusts the old one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject as _};

use crate::{
    CONTROLLER_NAME,
    identity::{Identity, IdentityError, Role},
    material::{AUTHORITIES, CERTIFICATE, KEY, REVOKED, serial_and_end},
};

/// Key of the authority.
const AUTHORITY_KEY: &str = "ca.key";
/// Life of an authority.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clocks of hosts may be so much behind.
const LEEWAY: Duration = Duration::from_secs(3600);

/// Something with certificates did not work.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// There is one.
    #[error("{0} has an authority already; issue certificates with `vswitchctl pki issue`")]
    Exists(PathBuf),
    /// There is none.
    #[error("{0} has no authority; make one with `vswitchctl pki init`")]
    Missing(PathBuf),
    /// There is one for this identity.
    #[error("{0} has a certificate already; make it anew with `vswitchctl pki renew`")]
    Issued(Identity),
    /// There is none for this identity.
    #[error("{0} has no certificate here; make one with `vswitchctl pki issue`")]
    Unissued(Identity),
    /// An old authority is still there, or none.
    #[error("{0}")]
    Rotation(&'static str),
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {reason}; restore it from a backup")]
    Content {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A name is none.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The library's words.
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// A certificate that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Whose it is.
    pub identity: Identity,
    /// Its directory.
    pub dir: PathBuf,
    /// Its serial number.
    pub serial: String,
    /// Until when it is good.
    pub not_after: SystemTime,
    /// It was taken back.
    pub revoked: bool,
}

impl Issued {
    /// Until when it is good, for people.
    pub fn not_after_text(&self) -> String {
        OffsetDateTime::from(self.not_after).format(&Rfc3339).unwrap_or_default()
    }
}

/// An authority.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
}

impl Authority {
    /// Makes one.
    ///
    /// # Errors
    /// [`AuthorityError::Exists`], or the file system's.
    pub fn init(dir: &Path) -> Result<Self, AuthorityError> {
        let authority = Self { dir: dir.to_owned() };
        if authority.path(AUTHORITY_KEY).exists() || authority.path(AUTHORITIES).exists() {
            return Err(AuthorityError::Exists(dir.to_owned()));
        }
        make_dir(dir)?;
        authority.make_signer("")?;
        Ok(authority)
    }

    /// The one of a directory.
    ///
    /// # Errors
    /// [`AuthorityError::Missing`].
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let authority = Self { dir: dir.to_owned() };
        if authority.path(AUTHORITY_KEY).exists() && authority.path(AUTHORITIES).exists() {
            Ok(authority)
        } else {
            Err(AuthorityError::Missing(dir.to_owned()))
        }
    }

    /// Makes a certificate with a key of its own.
    ///
    /// # Errors
    /// [`AuthorityError::Issued`], or the file system's.
    pub fn issue(&self, identity: &Identity, life: Duration) -> Result<Issued, AuthorityError> {
        if self.dir_of(identity).exists() {
            return Err(AuthorityError::Issued(identity.clone()));
        }
        self.make(identity, life)
    }

    /// Makes a certificate anew, with a new key; the old one stays good until its end.
    ///
    /// # Errors
    /// [`AuthorityError::Unissued`], or the file system's.
    pub fn renew(&self, identity: &Identity, life: Duration) -> Result<Issued, AuthorityError> {
        if !self.dir_of(identity).exists() {
            return Err(AuthorityError::Unissued(identity.clone()));
        }
        self.make(identity, life)
    }

    /// The certificates that were made and are here, by identity.
    ///
    /// # Errors
    /// The file system's.
    pub fn list(&self) -> Result<Vec<Issued>, AuthorityError> {
        let entries = fs::read_dir(&self.dir).map_err(|error| file(&self.dir, error))?;
        let revoked = self.revoked()?;
        let mut issued = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| file(&self.dir, error))?;
            let path = entry.path().join(CERTIFICATE);
            if !path.exists() {
                continue;
            }
            issued.push(self.read(&entry.path(), &revoked)?);
        }
        issued.sort_by(|a, b| a.identity.cmp(&b.identity));
        Ok(issued)
    }

    /// Takes a certificate back: controllers that know of it turn it away.
    ///
    /// # Errors
    /// [`AuthorityError::Unissued`], or the file system's.
    pub fn revoke(&self, identity: &Identity) -> Result<Issued, AuthorityError> {
        let dir = self.dir_of(identity);
        if !dir.exists() {
            return Err(AuthorityError::Unissued(identity.clone()));
        }
        let mut revoked = self.revoked()?;
        let issued = self.read(&dir, &revoked)?;
        if !revoked.contains(&issued.serial) {
            revoked.push(issued.serial.clone());
        }
        write(&self.path(REVOKED), &lines(&revoked), 0o644)?;
        self.share()?;
        Ok(Issued { revoked: true, ..issued })
    }

    /// First step of a new authority: it is trusted beside the present one, and signs from now on.
    ///
    /// # Errors
    /// [`AuthorityError::Rotation`] when the last time has not been ended.
    pub fn add_authority(&self) -> Result<(), AuthorityError> {
        let present = self.authorities()?;
        if CertificateDer::pem_slice_iter(present.as_bytes()).count() > 1 {
            let reason =
                "an old authority is trusted still; end that with `vswitchctl pki renew --retire-ca` first";
            return Err(AuthorityError::Rotation(reason));
        }
        self.make_signer(&present)?;
        self.share()
    }

    /// Last step: only the newest authority is trusted.
    ///
    /// # Errors
    /// [`AuthorityError::Rotation`] while a certificate of the old one is in use here.
    pub fn retire_authorities(&self) -> Result<(), AuthorityError> {
        let present = self.authorities()?;
        let mut blocks = pem_blocks(&present);
        blocks.truncate(1);
        let newest = blocks.concat();
        let signer = CertificateDer::from_pem_slice(newest.as_bytes())
            .map_err(|error| self.content(AUTHORITIES, error.to_string()))?;
        for issued in self.list()?.iter().filter(|issued| !issued.revoked) {
            let path = issued.dir.join(CERTIFICATE);
            if !is_signed_by(&certificate(&path)?, &signer) {
                let reason = "some certificates are of the old authority still; renew all of them with \
                              `vswitchctl pki renew`, and copy them to where they are used, first";
                return Err(AuthorityError::Rotation(reason));
            }
        }
        write(&self.path(AUTHORITIES), &newest, 0o644)?;
        self.share()
    }

    fn make(&self, identity: &Identity, life: Duration) -> Result<Issued, AuthorityError> {
        let signer_pem = self.authorities()?;
        let signer_key = read_text(&self.path(AUTHORITY_KEY))?;
        let signer_key = KeyPair::from_pem(&signer_key)?;
        let first = pem_blocks(&signer_pem).into_iter().next().unwrap_or_default();
        let signer = Issuer::from_ca_cert_pem(&first, signer_key)?;
        let key = KeyPair::generate()?;
        let mut params = params(&identity.to_string(), life);
        params.subject_alt_names.push(SanType::URI(identity.uri().try_into()?));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        if identity.role() == Role::Controller {
            params.subject_alt_names.push(SanType::DnsName(CONTROLLER_NAME.try_into()?));
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let made = params.signed_by(&key, &signer)?;
        let dir = self.dir_of(identity);
        make_dir(&dir)?;
        write(&dir.join(AUTHORITIES), &signer_pem, 0o644)?;
        // Who reads in between finds files that do not fit, and tries again.
        write(&dir.join(KEY), &key.serialize_pem(), 0o600)?;
        write(&dir.join(CERTIFICATE), &made.pem(), 0o644)?;
        let revoked = self.revoked()?;
        if identity.role() == Role::Controller {
            write(&dir.join(REVOKED), &lines(&revoked), 0o644)?;
        }
        self.read(&dir, &revoked)
    }

    /// Makes a key and a certificate that signs others, in front of those that are trusted.
    fn make_signer(&self, present: &str) -> Result<(), AuthorityError> {
        let key = KeyPair::generate()?;
        let number = pem_blocks(present).len();
        let stamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut params = params(&format!("Ferroflow authority {stamp}.{number}"), AUTHORITY_LIFE);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let made = params.self_signed(&key)?;
        write(&self.path(AUTHORITY_KEY), &key.serialize_pem(), 0o600)?;
        write(&self.path(AUTHORITIES), &format!("{}{present}", made.pem()), 0o644)
    }

    /// Gives all directories the authorities, and those of controllers what was taken back.
    fn share(&self) -> Result<(), AuthorityError> {
        let (authorities, revoked) = (self.authorities()?, lines(&self.revoked()?));
        for issued in self.list()? {
            write(&issued.dir.join(AUTHORITIES), &authorities, 0o644)?;
            if issued.identity.role() == Role::Controller {
                write(&issued.dir.join(REVOKED), &revoked, 0o644)?;
            }
        }
        Ok(())
    }

    fn read(&self, dir: &Path, revoked: &[String]) -> Result<Issued, AuthorityError> {
        let path = dir.join(CERTIFICATE);
        let der = certificate(&path)?;
        let content =
            || AuthorityError::Content { path: path.clone(), reason: "it is no certificate".to_owned() };
        let (serial, not_after) = serial_and_end(&der).ok_or_else(content)?;
        let revoked = revoked.contains(&serial);
        Ok(Issued { identity: Identity::of(&der)?, dir: dir.to_owned(), serial, not_after, revoked })
    }

    fn revoked(&self) -> Result<Vec<String>, AuthorityError> {
        match fs::read_to_string(self.path(REVOKED)) {
            Ok(text) => Ok(text.lines().map(ToOwned::to_owned).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(file(&self.path(REVOKED), error)),
        }
    }

    fn authorities(&self) -> Result<String, AuthorityError> {
        read_text(&self.path(AUTHORITIES))
    }

    fn dir_of(&self, identity: &Identity) -> PathBuf {
        self.dir.join(format!("{}-{}", identity.role(), identity.name()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn content(&self, name: &str, reason: String) -> AuthorityError {
        AuthorityError::Content { path: self.path(name), reason }
    }
}

fn params(common_name: &str, life: Duration) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.not_before = (now - LEEWAY).into();
    params.not_after = (now + life).into();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn is_signed_by(certificate: &CertificateDer<'_>, signer: &CertificateDer<'_>) -> bool {
    let parsed = x509_parser::parse_x509_certificate(certificate).ok();
    let signer = x509_parser::parse_x509_certificate(signer).ok();
    parsed.zip(signer).is_some_and(|((_, one), (_, by))| one.issuer() == by.subject())
}

/// The certificates of a file, each as it is written.
fn pem_blocks(text: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let blocks = text.split_inclusive(END).filter(|block| block.contains(END));
    blocks.map(|block| format!("{}\n", block.trim())).collect()
}

fn certificate(path: &Path) -> Result<CertificateDer<'static>, AuthorityError> {
    let text = read_text(path)?;
    CertificateDer::from_pem_slice(text.as_bytes())
        .map_err(|error| AuthorityError::Content { path: path.to_owned(), reason: error.to_string() })
}

fn lines(words: &[String]) -> String {
    words.iter().map(|word| format!("{word}\n")).collect()
}

fn read_text(path: &Path) -> Result<String, AuthorityError> {
    fs::read_to_string(path).map_err(|error| file(path, error))
}

fn make_dir(dir: &Path) -> Result<(), AuthorityError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| file(dir, error))
}

/// Writes a file that is whole whenever it is read, and has its mode from the first moment.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), AuthorityError> {
    let beside = path.with_extension("new");
    let written = (|| {
        // Another one's file with other rights is not written to.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut fresh = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        fresh.write_all(text.as_bytes())?;
        fresh.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(path.parent().unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all())
    })();
    written.map_err(|error| file(path, error))
}

fn file(path: &Path, error: io::Error) -> AuthorityError {
    AuthorityError::File { path: path.to_owned(), error }
}
