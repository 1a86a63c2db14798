//! Traffic: a small program that runs inside a workload's namespace and says in one JSON line what it
//! saw. It is called `ff-probe` here, and is a hidden command of xtask there; both call [`main`].
//!
//! The switch under test shares no code with it, and the peer of a ping is the kernel.

mod chat;
mod datagram;
mod frame;
mod group;
mod ipfix;
mod noise;
mod ping;
mod pulse;
mod talk;
mod tcp;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command;
use crate::netns::Netns;

/// Limit of sending noise.
const NOISE_LIMIT: Duration = Duration::from_secs(30);

/// How to start the probe: a program and its first words.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The program.
    pub program: PathBuf,
    /// Words before the probe's own.
    pub words: Vec<String>,
}

/// What became of a connection attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The peer accepted.
    Connected,
    /// The peer, or something between, said no.
    Refused,
    /// Nobody answered.
    Silent,
}

/// Answers of a ping.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PingResult {
    /// Requests sent.
    pub n_sent: u64,
    /// Good answers.
    pub n_received: u64,
    /// Fastest answer.
    pub rtt_min: Duration,
}

/// A stream that one side sent or received.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    /// Bytes of payload.
    pub len: u64,
    /// SHA-256 of the payload, in hexadecimal.
    pub sha256: String,
    /// From the first byte to the receiver's answer.
    pub took: Duration,
}

impl Probe {
    /// The probe's command line in a namespace.
    pub fn command(&self, netns: &Netns, words: &[String]) -> Command {
        let mut command = netns.command(&self.program);
        command.args(&self.words).args(words);
        command
    }

    /// Sends `n` echo requests with `payload_len` bytes each.
    ///
    /// # Errors
    /// When the probe cannot run; lost answers are no error.
    pub fn ping(&self, netns: &Netns, to: Ipv4Addr, n: u64, payload_len: usize) -> Result<PingResult> {
        let words = ["ping".to_owned(), to.to_string(), n.to_string(), payload_len.to_string()];
        let answer = self.ask(netns, &words, ping::limit(n) + Duration::from_secs(5))?;
        Ok(PingResult {
            n_sent: number(&answer, "sent")?,
            n_received: number(&answer, "received")?,
            rtt_min: Duration::from_nanos(number(&answer, "rtt_min_ns")?),
        })
    }

    /// Says by RARP that the MAC address of an interface is in a namespace.
    ///
    /// # Errors
    /// When the probe cannot run, or cannot send.
    pub fn rarp(&self, netns: &Netns, interface: &str) -> Result<()> {
        self.ask(netns, &["rarp".to_owned(), interface.to_owned()], Duration::from_secs(5)).map(drop)
    }

    /// Tries to connect, for at most `limit`.
    ///
    /// # Errors
    /// When the probe cannot run.
    pub fn connect(&self, netns: &Netns, to: SocketAddrV4, limit: Duration) -> Result<Outcome> {
        let words = ["tcp-connect".to_owned(), to.to_string(), limit.as_millis().to_string()];
        let answer = self.ask(netns, &words, limit + Duration::from_secs(5))?;
        match answer.get("outcome").and_then(Value::as_str) {
            Some("connected") => Ok(Outcome::Connected),
            Some("refused") => Ok(Outcome::Refused),
            Some("silent") => Ok(Outcome::Silent),
            _ => bail!("the probe answered {answer}"),
        }
    }

    /// Sends `len` bytes to a receiver that is being started, and gives both sides' accounts.
    ///
    /// # Errors
    /// When a side cannot run, connect or finish in time.
    pub fn transfer(
        &self,
        from: &Netns,
        to: (&Netns, SocketAddrV4),
        len: u64,
        limit: Duration,
    ) -> Result<(Stream, Stream)> {
        self.transfer_to((from, to.1.into()), (to.0, to.1.into()), len, limit)
    }

    /// As [`Probe::transfer`], to a receiver that the sender knows by an address of its own.
    ///
    /// # Errors
    /// When a side cannot run, connect or finish in time.
    pub fn transfer_to(
        &self,
        (from, to): (&Netns, SocketAddr),
        at: (&Netns, SocketAddr),
        len: u64,
        limit: Duration,
    ) -> Result<(Stream, Stream)> {
        let receive = ["tcp-receive".to_owned(), at.1.to_string(), limit.as_millis().to_string()];
        let send = ["tcp-send".to_owned(), to.to_string(), len.to_string(), limit.as_millis().to_string()];
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| self.ask(at.0, &receive, limit + Duration::from_secs(2)));
            let sent = self.ask(from, &send, limit + Duration::from_secs(2));
            let received = receiver.join().map_err(|_| anyhow::anyhow!("the receiver's thread panicked"))?;
            match (sent, received) {
                (Ok(sent), Ok(received)) => Ok((stream(&sent)?, stream(&received)?)),
                (Err(sender), Err(receiver)) => bail!("sender: {sender:#}; receiver: {receiver:#}"),
                (Err(sender), Ok(_)) => Err(sender.context("sender")),
                (Ok(_), Err(receiver)) => Err(receiver.context("receiver")),
            }
        })
    }

    /// Connects `n` times to servers that say their name and the address they see; how often which answered.
    ///
    /// # Errors
    /// When one does not answer.
    pub fn ask_servers(&self, from: &Netns, to: SocketAddrV4, n: u64) -> Result<BTreeMap<String, u64>> {
        let words = ["tcp-ask".to_owned(), to.to_string(), n.to_string()];
        answers(&self.ask(from, &words, Duration::from_secs(30))?)
    }

    /// Asks the same server again and again on one connection; the same account.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn stay_at_server(
        &self,
        from: &Netns,
        to: SocketAddrV4,
        duration: Duration,
    ) -> Result<BTreeMap<String, u64>> {
        let words = ["tcp-stay".to_owned(), to.to_string(), duration.as_millis().to_string()];
        answers(&self.ask(from, &words, duration + Duration::from_secs(20))?)
    }

    /// Talks over one connection to a peer that is being started: `n` bytes, one each `interval`, each to
    /// come back within `patience`. Gives how many did.
    ///
    /// # Errors
    /// When a side cannot run or they cannot connect.
    pub fn chat(
        &self,
        from: &Netns,
        to: (&Netns, SocketAddrV4),
        n: u64,
        (interval, patience): (Duration, Duration),
    ) -> Result<u64> {
        let at = to.1.to_string();
        let millis = |duration: Duration| duration.as_millis().to_string();
        let limit = interval * u32::try_from(n)? + patience * 3;
        let echo = ["tcp-echo".to_owned(), at.clone(), millis(limit)];
        let chat = ["tcp-chat".to_owned(), at, n.to_string(), millis(interval), millis(patience)];
        std::thread::scope(|scope| {
            let peer = scope.spawn(|| self.ask(to.0, &echo, limit * 2));
            let answered = self.ask(from, &chat, limit * 2).and_then(|answer| number(&answer, "answered"));
            // A peer that was cut off waits for its limit; what it says is of no interest.
            drop(peer);
            answered
        })
    }

    /// Asks an echo of datagrams ([`Probe`]'s `udp-echo`) and gives the number of right answers.
    ///
    /// # Errors
    /// When the probe cannot run; lost answers are no error.
    pub fn udp_ask(&self, netns: &Netns, to: SocketAddr, n: u64, payload_len: usize) -> Result<u64> {
        let words = ["udp-ask".to_owned(), to.to_string(), n.to_string(), payload_len.to_string()];
        number(&self.ask(netns, &words, datagram::limit(n) + Duration::from_secs(5))?, "received")
    }

    /// Sends `n` datagrams to a group from an address of the namespace; who has answered how many
    /// ([`Probe`]'s `group-echo`).
    ///
    /// # Errors
    /// When the probe cannot run; lost answers are no error.
    pub fn ask_group(
        &self,
        (netns, own): (&Netns, IpAddr),
        group: SocketAddr,
        n: u64,
    ) -> Result<BTreeMap<String, u64>> {
        let words = ["group-ask".to_owned(), group.to_string(), own.to_string(), n.to_string()];
        answers(&self.ask(
            netns,
            &words,
            Duration::from_secs(10) + Duration::from_millis(200) * u32::try_from(n)?,
        )?)
    }

    /// Sends `n` malformed IPv4 packets; gives how many the kernel let out.
    ///
    /// # Errors
    /// When the probe cannot run.
    pub fn ip_noise(&self, netns: &Netns, to: Ipv4Addr, n: u64, seed: u64) -> Result<u64> {
        let words = ["ip-noise".to_owned(), to.to_string(), n.to_string(), seed.to_string()];
        number(&self.ask(netns, &words, NOISE_LIMIT)?, "sent")
    }

    /// Sends `n` UDP datagrams of noise from an address of the namespace; gives how many the kernel let out.
    ///
    /// # Errors
    /// When the probe cannot run.
    pub fn udp_noise(&self, from: (&Netns, Ipv4Addr), to: SocketAddrV4, n: u64, seed: u64) -> Result<u64> {
        let words =
            ["udp-noise".to_owned(), from.1.to_string(), to.to_string(), n.to_string(), seed.to_string()];
        number(&self.ask(from.0, &words, NOISE_LIMIT)?, "sent")
    }

    fn ask(&self, netns: &Netns, words: &[String], limit: Duration) -> Result<Value> {
        let text = command::output(&mut self.command(netns, words), limit)?;
        serde_json::from_str(&text).with_context(|| format!("the probe printed {text:?}"))
    }
}

/// Runs the probe with the words after its name and prints its answer.
///
/// # Errors
/// When the words are wrong, or the socket calls fail in a way that is no result.
pub fn main(words: &[String]) -> Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let answer = match words.as_slice() {
        ["ping", to, n, payload_len] => ping::ping(to.parse()?, n.parse()?, payload_len.parse()?)?,
        ["tcp-connect", to, limit] => tcp::connect(to.parse()?, millis(limit)?)?,
        ["tcp-listen", at] => tcp::listen(at.parse()?)?,
        ["tcp-receive", at, limit] => tcp::receive(at.parse()?, millis(limit)?)?,
        ["tcp-send", to, len, limit] => tcp::send(to.parse()?, len.parse()?, millis(limit)?)?,
        ["tcp-greet", at, name] => talk::greet(at.parse()?, name)?,
        ["tcp-ask", to, n] => talk::ask(to.parse()?, n.parse()?)?,
        ["tcp-stay", to, duration] => talk::stay(to.parse()?, millis(duration)?)?,
        ["tcp-echo", at, limit] => chat::echo(at.parse()?, millis(limit)?)?,
        ["tcp-chat", to, n, interval, patience] => {
            chat::chat(to.parse()?, n.parse()?, millis(interval)?, millis(patience)?)?
        }
        ["udp-echo", at] => datagram::echo(at.parse()?)?,
        ["udp-ask", to, n, payload_len] => datagram::ask(to.parse()?, n.parse()?, payload_len.parse()?)?,
        ["udp-pulse", at, interval, duration] => {
            pulse::send(at.parse()?, Duration::from_micros(interval.parse()?), millis(duration)?)?
        }
        ["udp-listen", at, from] => pulse::receive(at.parse()?, from.parse()?)?,
        ["udp-count", at, duration] => pulse::count(at.parse()?, millis(duration)?)?,
        ["udp-flood", to, interval, duration] => {
            pulse::flood(to.parse()?, Duration::from_micros(interval.parse()?), millis(duration)?)?
        }
        ["group-echo", group, own] => group::echo(group.parse()?, own.parse()?)?,
        ["group-ask", group, own, n] => group::ask(group.parse()?, own.parse()?, n.parse()?)?,
        ["ipfix-listen", at] => ipfix::listen(at.parse()?)?,
        ["rarp", interface] => frame::rarp(interface)?,
        ["ip-noise", to, n, seed] => noise::ip(to.parse()?, n.parse()?, seed.parse()?)?,
        ["udp-noise", from, to, n, seed] => {
            noise::udp(from.parse()?, to.parse()?, n.parse()?, seed.parse()?)?
        }
        _ => bail!(
            "ping ADDRESS N PAYLOAD | tcp-connect ADDRESS:PORT MS | tcp-listen ADDRESS:PORT | \
             tcp-receive ADDRESS:PORT MS | tcp-send ADDRESS:PORT BYTES MS | tcp-echo ADDRESS:PORT MS | \
             tcp-chat ADDRESS:PORT N MS MS | tcp-greet ADDRESS:PORT NAME | \
             tcp-ask ADDRESS:PORT N | tcp-stay ADDRESS:PORT MS | \
             udp-pulse ADDRESS:PORT US MS | udp-listen ADDRESS:PORT ADDRESS:PORT | \
             udp-count ADDRESS:PORT MS | udp-flood ADDRESS:PORT US MS | \
             udp-echo ADDRESS:PORT | udp-ask ADDRESS:PORT N PAYLOAD | \
             group-echo GROUP:PORT ADDRESS | group-ask GROUP:PORT ADDRESS N | rarp INTERFACE | ipfix-listen ADDRESS:PORT | ip-noise ADDRESS N SEED | \
             udp-noise FROM ADDRESS:PORT N SEED"
        ),
    };
    crate::print_line(&answer.to_string())
}

fn millis(text: &str) -> Result<Duration> {
    Ok(Duration::from_millis(text.parse()?))
}

fn number(answer: &Value, name: &str) -> Result<u64> {
    answer.get(name).and_then(Value::as_u64).with_context(|| format!("no {name} in {answer}"))
}

fn answers(answer: &Value) -> Result<BTreeMap<String, u64>> {
    let found = answer.get("answers").and_then(Value::as_object).with_context(|| format!("{answer}"))?;
    Ok(found.iter().map(|(name, n)| (name.clone(), n.as_u64().unwrap_or(0))).collect())
}

fn stream(answer: &Value) -> Result<Stream> {
    let sha256 = answer.get("sha256").and_then(Value::as_str).with_context(|| format!("{answer}"))?;
    Ok(Stream {
        len: number(answer, "bytes")?,
        sha256: sha256.to_owned(),
        took: Duration::from_nanos(number(answer, "took_ns")?),
    })
}
