//! Real handshakes over loopback: who gets in, and what of rotation others notice.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use credentials::{Address, Authority, Credentials, Dial, Identity, Proof, accept};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_stream::StreamExt as _;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn identity(text: &str) -> Identity {
    text.parse().unwrap()
}

/// An authority with certificates for these.
fn authority(dir: &Path, whom: &[&str]) -> Authority {
    let authority = Authority::init(dir).unwrap();
    for who in whom {
        authority.issue(&identity(who), DAY).unwrap();
    }
    authority
}

fn open(dir: PathBuf) -> Arc<Credentials> {
    Arc::new(Credentials::open(&dir).unwrap())
}

/// A listener that tells who comes, and its address.
async fn listen(credentials: Arc<Credentials>) -> (Address, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    let mut incoming = accept::tcp(listener, Some(credentials));
    let (told, who) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Some(Ok(mut connection)) = incoming.next().await {
            let peer = tonic::transport::server::Connected::connect_info(&connection);
            assert!(matches!(peer.proof, Proof::Certificate { .. }));
            told.send(peer.to_string()).await.unwrap();
            // The preface of HTTP/2, and settings for an answer.
            let mut preface = [0; 24];
            let _ = connection.read_exact(&mut preface).await;
            let _ = connection.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
            tokio::spawn(async move {
                let mut rest = Vec::new();
                let _ = connection.read_to_end(&mut rest).await;
            });
        }
    });
    (address, who)
}

/// Who the listener says this is, or that he did not get in.
async fn who(
    address: &Address,
    credentials: &Arc<Credentials>,
    told: &mut mpsc::Receiver<String>,
) -> Option<String> {
    let dial = Dial::new(std::slice::from_ref(address), Some(Arc::clone(credentials)), false).unwrap();
    let channel = dial.connect(|endpoint| endpoint.connect_timeout(Duration::from_secs(5))).await.ok();
    let heard = tokio::time::timeout(Duration::from_millis(500), told.recv()).await.ok().flatten();
    drop(channel);
    heard
}

#[tokio::test]
async fn who_has_a_certificate_of_the_authority_is_known_by_it() {
    let dir = TempDir::new().unwrap();
    authority(dir.path(), &["controller/c1", "chassis/h1", "tenant/acme"]);
    let (address, mut told) = listen(open(dir.path().join("controller-c1"))).await;
    for name in ["chassis/h1", "tenant/acme"] {
        let credentials = open(dir.path().join(name.replace('/', "-")));
        assert_eq!(who(&address, &credentials, &mut told).await.as_deref(), Some(name));
    }
}

#[tokio::test]
async fn others_do_not_get_in_and_are_not_taken_for_a_controller() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    authority(dir.path(), &["controller/c1", "chassis/h1", "chassis/h2"]);
    authority(other.path(), &["controller/c1", "admin/root"]);
    let (address, mut told) = listen(open(dir.path().join("controller-c1"))).await;
    let stranger = open(other.path().join("admin-root"));
    assert_eq!(who(&address, &stranger, &mut told).await, None, "another authority's");
    // Without a certificate, and without TLS.
    let Address::Tcp { authority: plain, .. } = &address else { unreachable!() };
    let mut stream = TcpStream::connect(plain).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut answer)).await.unwrap();
    assert!(told.try_recv().is_err());
    // A stolen certificate of a host plays controller to another host.
    let (thief, mut told) = listen(open(dir.path().join("chassis-h1"))).await;
    let dial = Dial::new(&[thief], Some(open(dir.path().join("chassis-h2"))), false).unwrap();
    assert!(dial.connect(|endpoint| endpoint).await.is_err());
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn a_certificate_that_was_taken_back_is_turned_away_without_a_restart() {
    let dir = TempDir::new().unwrap();
    let authority = authority(dir.path(), &["controller/c1", "chassis/h1"]);
    let (address, mut told) = listen(open(dir.path().join("controller-c1"))).await;
    let stolen = open(dir.path().join("chassis-h1"));
    assert!(who(&address, &stolen, &mut told).await.is_some());
    authority.revoke(&identity("chassis/h1")).unwrap();
    assert_eq!(who(&address, &stolen, &mut told).await, None);
    // The same host with a new one.
    authority.renew(&identity("chassis/h1"), DAY).unwrap();
    assert_eq!(who(&address, &stolen, &mut told).await.as_deref(), Some("chassis/h1"));
}

#[tokio::test]
async fn an_authority_is_replaced_without_a_moment_in_which_somebody_is_turned_away() {
    let dir = TempDir::new().unwrap();
    let whom = ["controller/c1", "chassis/h1", "chassis/h2"];
    let authority = authority(dir.path(), &whom);
    let (address, mut told) = listen(open(dir.path().join("controller-c1"))).await;
    let hosts = [open(dir.path().join("chassis-h1")), open(dir.path().join("chassis-h2"))];
    async fn all_get_in(
        address: &Address,
        hosts: &[Arc<Credentials>; 2],
        told: &mut mpsc::Receiver<String>,
        when: &str,
    ) {
        for host in hosts {
            let expected = host.identity().to_string();
            assert_eq!(who(address, host, told).await, Some(expected), "{when}");
        }
    }
    all_get_in(&address, &hosts, &mut told, "before").await;
    authority.add_authority().unwrap();
    all_get_in(&address, &hosts, &mut told, "both are trusted").await;
    assert!(authority.add_authority().is_err(), "one at a time");
    for (who, when) in
        [("chassis/h1", "one host"), ("controller/c1", "the controller"), ("chassis/h2", "the other")]
    {
        assert!(authority.retire_authorities().is_err(), "{who} has a certificate of the old one");
        authority.renew(&identity(who), DAY).unwrap();
        all_get_in(&address, &hosts, &mut told, when).await;
    }
    authority.retire_authorities().unwrap();
    all_get_in(&address, &hosts, &mut told, "after").await;
}

#[test]
fn keys_are_their_owners_alone_and_exposed_ones_are_refused() {
    let dir = TempDir::new().unwrap();
    authority(dir.path(), &["chassis/h1"]);
    let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("ca.key"), mode("chassis-h1/key.pem"), mode("chassis-h1")), (0o600, 0o600, 0o700));
    let key = dir.path().join("chassis-h1/key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let error = Credentials::open(&dir.path().join("chassis-h1")).unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn files_that_make_no_sense_are_refused_in_words() {
    let dir = TempDir::new().unwrap();
    authority(dir.path(), &["chassis/h1", "chassis/h2"]);
    let h1 = dir.path().join("chassis-h1");
    fs::copy(dir.path().join("chassis-h2/cert.pem"), h1.join("cert.pem")).unwrap();
    assert!(Credentials::open(&h1).is_err(), "another's certificate");
    for hurt in ["cert.pem", "ca.pem"] {
        fs::write(h1.join(hurt), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let error = Credentials::open(&h1).unwrap_err();
        assert!(error.to_string().contains(hurt), "{error}");
    }
    let error = Credentials::open(&dir.path().join("none")).unwrap_err();
    assert!(error.to_string().contains("pki issue"), "{error}");
    let error = Authority::init(dir.path()).unwrap_err();
    assert!(error.to_string().contains("already"), "{error}");
}
