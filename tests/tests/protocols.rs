//! Protocols that people use, by programs that people use, through a gateway that tracks and translates:
//! neither address, one, the other, both; IPv4 and IPv6. Nothing else than the conversation named may begin,
//! so data connections pass only because they belong to it.

#![forbid(unsafe_code)]

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::command::complaint;
use ferroflow_tests::daemon::{Daemon, has_command};
use ferroflow_tests::gateway::{Family, Gateway, Opening, Translation, on_gateway, rules};
use ferroflow_tests::random::Random;
use ferroflow_tests::{privilege, stop};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
const FETCH_LIMIT: Duration = Duration::from_secs(20);
/// How long a server may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(10);
const LARGE: usize = 3 << 20;
const SMALL: usize = 100_000;
const HTTP: u16 = 8080;

/// Makes the file that servers have to offer.
fn offer(gateway: &Gateway, len: usize) -> Result<Vec<u8>> {
    let body = Random::new(len as u64).bytes(len);
    let dir = gateway.dir.join("files");
    fs::create_dir_all(&dir)?;
    // Servers give up root.
    for path in [&gateway.dir, &dir] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    fs::write(dir.join("body"), &body)?;
    Ok(body)
}

/// The server's own network reaches it.
fn wait_for_server(gateway: &Gateway, daemon: &mut Daemon, url: &str) -> Result<()> {
    stop::wait_for(url, START_LIMIT, || {
        daemon.check()?;
        let mut command = gateway.server.command("curl");
        let finished = ferroflow_tests::command::run(
            command.args(["-sS", "-m", "5", "-o", "/dev/null", url]),
            FETCH_LIMIT,
        )?;
        Ok(if finished.status.success() { Ok(()) } else { Err(complaint(&finished)) })
    })
}

/// The client fetches the file; what curl said is the answer.
fn fetch(gateway: &Gateway, url: &str, options: &[&str], body: &[u8]) -> Result<String> {
    let file = gateway.dir.join("fetched");
    let _ = fs::remove_file(&file);
    let path = file.display().to_string();
    let words = [&["-sS", "-v", "-m", "15", "-o", &path], options, &[url]].concat();
    let finished = gateway.of_client("curl", &words, FETCH_LIMIT)?;
    ensure!(finished.status.success(), "curl {}: {}", words.join(" "), complaint(&finished));
    ensure!(fs::read(&file)? == body, "curl {}: something else arrived", words.join(" "));
    Ok(finished.stderr)
}

/// Every translation, IPv4 and IPv6; `conversation` is told what the client calls the server.
fn through_all(
    gateway: &Gateway,
    openings: &[Opening],
    conversation: impl Fn(Family, Translation, IpAddr) -> Result<()>,
) -> Result<()> {
    for translation in Translation::ALL {
        gateway.set_rules(&rules(translation, openings))?;
        for family in Family::ALL {
            let result = conversation(family, translation, translation.server(family));
            result.with_context(|| format!("{family:?}, {translation:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn http_through_every_translation() -> Result<()> {
    on_gateway("http_through_every_translation", PROBE, |gateway| {
        let body = offer(gateway, LARGE)?;
        let files = gateway.dir.join("files").display().to_string();
        let at = format!("[::]:{HTTP}");
        let mut server =
            gateway.start_daemon(&gateway.server, "busybox", &["httpd", "-f", "-p", &at, "-h", &files])?;
        wait_for_server(gateway, &mut server, &format!("http://127.0.0.1:{HTTP}/body"))?;
        through_all(gateway, &[Opening::port("tcp", HTTP, None)], |_, _, server| {
            fetch(gateway, &format!("http://{}:{HTTP}/body", Family::url(server)), &[], &body).map(drop)
        })
    })
}

#[test]
fn ftp_active_and_passive_through_every_translation() -> Result<()> {
    on_gateway("ftp_active_and_passive_through_every_translation", PROBE, |gateway| {
        let body = offer(gateway, SMALL)?;
        let mut server = start_ftp(gateway)?;
        wait_for_server(gateway, &mut server, "ftp://127.0.0.1/body")?;
        through_all(gateway, &[Opening::port("tcp", 21, Some("ftp"))], |family, _, server| {
            let url = format!("ftp://{}/body", Family::url(server));
            // What curl is told, and the command by which one sees that it did.
            let mut ways: Vec<(&[&str], &str)> = vec![(&[], "> EPSV"), (&["-P", "-"], "> EPRT")];
            if family == Family::V4 {
                ways.push((&["--disable-epsv", "--no-ftp-skip-pasv-ip"], "> PASV"));
                ways.push((&["-P", "-", "--disable-eprt"], "> PORT"));
            }
            for (options, command) in ways {
                let said = fetch(gateway, &url, options, &body).context(command)?;
                ensure!(said.contains(command), "no {command} in\n{said}");
            }
            Ok(())
        })?;
        // Without the helper, nothing that the control connection announces may begin.
        gateway.set_rules(&rules(Translation::ALL[0], &[Opening::port("tcp", 21, None)]))?;
        let url = format!("ftp://{}/body", Family::V4.server());
        let blocked = gateway.of_client("curl", &["-sS", "-m", "2", "-o", "/dev/null", &url], FETCH_LIMIT)?;
        ensure!(!blocked.status.success(), "data without a helper");
        Ok(())
    })
}

/// vsftpd for anybody, on both kinds of addresses.
fn start_ftp(gateway: &Gateway) -> Result<Daemon> {
    let files = gateway.dir.join("files");
    let empty = gateway.dir.join("empty");
    fs::create_dir_all(&empty)?;
    let config = gateway.dir.join("vsftpd.conf");
    // Its sandboxes know nothing of namespaces made by others.
    let text = format!(
        "listen=NO\nlisten_ipv6=YES\nbackground=NO\nanonymous_enable=YES\nno_anon_password=YES\nlocal_enable=NO\n\
         ftp_username=ftp\nnopriv_user=nobody\nanon_root={}\nsecure_chroot_dir={}\nisolate_network=NO\nisolate=NO\n\
         seccomp_sandbox=NO\nxferlog_enable=NO\nconnect_from_port_20=YES\n",
        files.display(),
        empty.display()
    );
    fs::write(&config, text)?;
    gateway.start_daemon(&gateway.server, "vsftpd", &[&config.display().to_string()])
}

#[test]
fn tftp_through_every_translation() -> Result<()> {
    on_gateway("tftp_through_every_translation", PROBE, |gateway| {
        let body = offer(gateway, SMALL)?;
        let files = gateway.dir.join("files").display().to_string();
        let mut servers = Vec::new();
        for (kind, at, url) in
            [("-4", "0.0.0.0:69", "tftp://127.0.0.1/body"), ("-6", "[::]:69", "tftp://[::1]/body")]
        {
            let words = ["-L", kind, "-a", at, "-u", "nobody", "-s", &files];
            let mut server = gateway.start_daemon(&gateway.server, "in.tftpd", &words)?;
            wait_for_server(gateway, &mut server, url)?;
            servers.push(server);
        }
        through_all(gateway, &[Opening::port("udp", 69, Some("tftp"))], |_, _, server| {
            // The last option: smaller blocks mean more of them.
            let url = format!("tftp://{}/body", Family::url(server));
            fetch(gateway, &url, &["--tftp-blksize", "1400"], &body).map(drop)
        })
    })
}

/// Whatever is missing is said at once and by name.
#[test]
fn programs_are_there() -> Result<()> {
    if !privilege::may_run("programs_are_there")? {
        return Ok(());
    }
    for program in ["curl", "busybox", "vsftpd", "in.tftpd", "traceroute"] {
        ensure!(has_command(program), "no {program}; `cargo xtask test` installs it");
    }
    Ok(())
}
