//! Next hops of a router port that are asked whether they live: `IP[,tx=MS][,rx=MS][,mult=N]`,
//! or with spaces instead.

use std::str::FromStr;

use ferroflow_proto::northbound::{BfdSession, bfd_session::State};
use serde::{Deserialize, Serialize};

/// A session with a next hop; its form in files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Address of the next hop.
    pub peer: String,
    /// Milliseconds between two packets that are sent; 0: the usual time.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub min_tx: u32,
    /// Milliseconds between two packets that can be taken; 0: the usual time.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub min_rx: u32,
    /// So many intervals without a packet end it; 0: the usual number.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub detect_multiplier: u32,
}

fn is_usual(number: &u32) -> bool {
    *number == 0
}

impl FromStr for Session {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split([',', ' ']).filter(|word| !word.is_empty());
        let mut session = Self { peer: words.next().unwrap_or_default().to_owned(), ..Self::default() };
        for word in words {
            let (field, value) = word.split_once('=').unwrap_or((word, ""));
            let field = match field {
                "tx" => &mut session.min_tx,
                "rx" => &mut session.min_rx,
                "mult" => &mut session.detect_multiplier,
                _ => return Err(format!("`{word}` is no part of a session; write IP,tx=MS,rx=MS,mult=N")),
            };
            *field = value.parse().map_err(|_| format!("`{value}` is not a number"))?;
        }
        Ok(session)
    }
}

/// From the API.
pub fn read(sessions: &[BfdSession]) -> Vec<Session> {
    let session = |session: &BfdSession| Session {
        peer: session.peer.clone(),
        min_tx: session.min_tx,
        min_rx: session.min_rx,
        detect_multiplier: session.detect_multiplier,
    };
    sessions.iter().map(session).collect()
}

/// For the API.
pub fn write(sessions: &[Session]) -> Vec<BfdSession> {
    let session = |session: &Session| BfdSession {
        peer: session.peer.clone(),
        min_tx: session.min_tx,
        min_rx: session.min_rx,
        detect_multiplier: session.detect_multiplier,
        ..Default::default()
    };
    sessions.iter().map(session).collect()
}

/// How a session is.
pub fn state(session: &BfdSession) -> &'static str {
    match session.state() {
        State::Unspecified => "unknown",
        State::AdminDown => "admin-down",
        State::Down => "down",
        State::Init => "init",
        State::Up => "up",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_read_from_words() {
        let session: Session = "192.0.2.1,tx=100 rx=200,mult=3".parse().unwrap();
        let wanted = Session { peer: "192.0.2.1".to_owned(), min_tx: 100, min_rx: 200, detect_multiplier: 3 };
        assert_eq!(session, wanted);
        assert_eq!(read(&write(std::slice::from_ref(&session))), [session]);
        assert_eq!("192.0.2.1".parse::<Session>().unwrap().min_tx, 0);
        for wrong in ["192.0.2.1,ty=1", "192.0.2.1,tx", "192.0.2.1,tx=x"] {
            assert!(wrong.parse::<Session>().is_err(), "{wrong}");
        }
    }
}
