//! The directory of one who has a certificate: `ca.pem`, `cert.pem`, `key.pem`, and of those
//! who judge others `revoked`. It is looked at whenever a connection begins, and read when it
//! has changed.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
    version::TLS13,
};

use crate::identity::{Identity, IdentityError};

/// The authorities that are trusted, newest first.
pub const AUTHORITIES: &str = "ca.pem";
/// The certificate.
pub const CERTIFICATE: &str = "cert.pem";
/// Its key.
pub const KEY: &str = "key.pem";
/// Serial numbers that are good no more, one a line.
pub const REVOKED: &str = "revoked";
/// Bytes of one of the files.
const MAX_LEN: u64 = 1 << 20;
/// What HTTP/2 is called in a handshake.
const ALPN: &[u8] = b"h2";

/// A directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// A file cannot be read.
    #[error("{path}: {error}; --credentials names a directory made by `vswitchctl pki issue`")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// Others can read the key.
    #[error("{0} can be read by others; make it its owner's alone: chmod 600")]
    Exposed(PathBuf),
    /// A file is not what it should be.
    #[error("{path}: {reason}; make it anew with `vswitchctl pki renew`")]
    Content {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The certificate says nothing of use.
    #[error("{path}: {error}")]
    Identity {
        /// The file.
        path: PathBuf,
        /// Why.
        error: IdentityError,
    },
}

/// A certificate with its key and whom it trusts, as files have them.
#[derive(Debug)]
pub struct Credentials {
    dir: PathBuf,
    identity: Identity,
    present: Mutex<Present>,
}

#[derive(Debug)]
struct Present {
    stamps: Stamps,
    /// What has been complained of, so that it is said once.
    complaint: String,
    material: Arc<Material>,
}

/// What files were like: inode, size, time of change.
type Stamps = [Option<(u64, u64, i64, i64)>; 4];

/// What is made of the files.
#[derive(Debug)]
pub(crate) struct Material {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
    revoked: BTreeSet<String>,
}

impl Material {
    /// A certificate was taken back.
    pub(crate) fn is_revoked(&self, serial: &str) -> bool {
        self.revoked.contains(serial)
    }
}

impl Credentials {
    /// Reads a directory.
    ///
    /// # Errors
    /// [`MaterialError`].
    pub fn open(dir: &Path) -> Result<Self, MaterialError> {
        let stamps = stamps(dir);
        let (identity, material) = read(dir)?;
        let present = Present { stamps, complaint: String::new(), material: Arc::new(material) };
        Ok(Self { dir: dir.to_owned(), identity, present: Mutex::new(present) })
    }

    /// Whose they are.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The files as they are now, or as they were when they last fitted together.
    ///
    /// # Cost
    /// Looks at four files; reads them when one has changed.
    pub(crate) fn material(&self) -> Arc<Material> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.dir);
        if stamps != present.stamps {
            match read(&self.dir) {
                Ok((identity, material)) if identity == self.identity => {
                    tracing::info!(dir = %self.dir.display(), "credentials read again");
                    present.complaint.clear();
                    present.stamps = stamps;
                    present.material = Arc::new(material);
                }
                // Files change one after the other: it is tried again with the next connection.
                Ok((identity, _)) => present.complain(format!("they are of {identity} now")),
                Err(error) => present.complain(error.to_string()),
            }
        }
        Arc::clone(&present.material)
    }
}

impl Present {
    fn complain(&mut self, reason: String) {
        if self.complaint != reason {
            tracing::warn!(reason, "changed credentials cannot be used; the last good ones are");
            self.complaint = reason;
        }
    }
}

fn stamps(dir: &Path) -> Stamps {
    [AUTHORITIES, CERTIFICATE, KEY, REVOKED].map(|name| {
        let found = fs::metadata(dir.join(name)).ok()?;
        Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
    })
}

fn read(dir: &Path) -> Result<(Identity, Material), MaterialError> {
    let content = |name: &str, reason: String| MaterialError::Content { path: dir.join(name), reason };
    let authorities = certificates(dir, AUTHORITIES)?;
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| content(AUTHORITIES, error.to_string()))?;
    }
    let roots = Arc::new(roots);
    let chain = certificates(dir, CERTIFICATE)?;
    let path = dir.join(CERTIFICATE);
    let first = chain.first().ok_or_else(|| content(CERTIFICATE, "it has no certificate".to_owned()))?;
    let identity = Identity::of(first).map_err(|error| MaterialError::Identity { path, error })?;
    let key = private_key(dir)?;
    let tls = |error: rustls::Error| content(KEY, error.to_string());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider());
    let verifier = verifier.build().map_err(|error| content(AUTHORITIES, error.to_string()))?;
    let server = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]);
    let server = server.map_err(tls)?.with_client_cert_verifier(verifier);
    let mut server = server.with_single_cert(chain.clone(), key.clone_key()).map_err(tls)?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    // A ticket would let who was turned away since come back.
    server.send_tls13_tickets = 0;
    let client = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]);
    let client = client.map_err(tls)?.with_root_certificates(roots);
    let mut client = client.with_client_auth_cert(chain, key).map_err(tls)?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    let revoked = match contents(&dir.join(REVOKED)) {
        Ok(text) => {
            text.lines().map(|line| line.trim().to_lowercase()).filter(|line| !line.is_empty()).collect()
        }
        Err(MaterialError::File { error, .. }) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
        Err(error) => return Err(error),
    };
    Ok((identity, Material { client: Arc::new(client), server: Arc::new(server), revoked }))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(dir: &Path, name: &str) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    let path = dir.join(name);
    let text = contents(&path)?;
    let certificates = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(MaterialError::Content { path, reason: "it has no certificate".to_owned() }),
        Err(error) => Err(MaterialError::Content { path, reason: error.to_string() }),
    }
}

fn private_key(dir: &Path) -> Result<PrivateKeyDer<'static>, MaterialError> {
    let path = dir.join(KEY);
    let found = fs::metadata(&path).map_err(|error| MaterialError::File { path: path.clone(), error })?;
    if found.mode() & 0o077 != 0 {
        return Err(MaterialError::Exposed(path));
    }
    let text = contents(&path)?;
    PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|_| MaterialError::Content { path, reason: "it is no private key".to_owned() })
}

fn contents(path: &Path) -> Result<String, MaterialError> {
    let failed = |error| MaterialError::File { path: path.to_owned(), error };
    let file = fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(MAX_LEN).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// The serial number of a certificate, in hexadecimal digits, and until when it is good.
pub(crate) fn serial_and_end(certificate: &CertificateDer<'_>) -> Option<(String, SystemTime)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let serial = certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some((serial, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)))
}
