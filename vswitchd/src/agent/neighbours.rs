//! Neighbours of routers that this host has heard of, and groups that its workloads want to
//! hear, for the controller to tell the other hosts: all of them at first, then what is new, some at a time.

use std::{sync::Arc, time::Duration};

use ferroflow_proto::chassis::{Neighbour, Neighbours, SyncRequest, sync_request::Message};
use tokio::sync::{mpsc, watch};

use super::queue;
use crate::host::Heard;

/// Pause between two messages: what is new in the meantime goes together.
const PAUSE: Duration = Duration::from_millis(200);

/// What a controller has been told of them.
#[derive(Debug, Default)]
pub(super) struct Telling {
    told: Option<Arc<Heard>>,
}

impl Telling {
    /// What it is to be told now, if anything.
    pub(super) fn news(&mut self, now: Arc<Heard>) -> Option<Neighbours> {
        let before = self.told.replace(Arc::clone(&now));
        let full = before.is_none();
        let news = Neighbours { full, ..difference(&before.unwrap_or_default(), &now) };
        (news != Neighbours::default()).then_some(news)
    }
}

/// Tells of them as long as the stream takes it.
pub(super) async fn send(sender: mpsc::Sender<SyncRequest>, mut heard: watch::Receiver<Arc<Heard>>) {
    let mut telling = Telling::default();
    heard.mark_changed();
    while heard.changed().await.is_ok() {
        let now = Arc::clone(&heard.borrow_and_update());
        let Some(news) = telling.news(now) else { continue };
        if queue(&sender, Message::Neighbours(news)).await.is_err() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn difference(before: &Heard, now: &Heard) -> Neighbours {
    let missing_in = |other: &Heard, all: &Heard| -> Vec<Neighbour> {
        let missing = all.iter().filter(|(key, value)| other.get(key) != Some(value));
        let neighbour = |((_, _, ip), (port, mac)): (&(_, _, std::net::IpAddr), &(String, _))| Neighbour {
            port: port.clone(),
            ip: ip.to_string(),
            mac: flowtable::types::MacAddr::to_string(mac),
        };
        missing.map(neighbour).collect()
    };
    let gone = before.iter().filter(|(key, _)| !now.contains_key(key));
    let gone: Heard = gone.map(|(key, value)| (*key, value.clone())).collect();
    Neighbours { full: false, heard: missing_in(before, now), gone: missing_in(&Heard::new(), &gone) }
}

#[cfg(test)]
mod tests {
    use flowtable::types::MacAddr;
    use ovn_northd_lite::key::{DatapathKey, PortKey};

    use super::*;

    fn heard(list: &[(u8, u8)]) -> Heard {
        let (datapath, port) = (DatapathKey::new(7).unwrap(), PortKey::new(1).unwrap());
        let one = |(ip, mac): &(u8, u8)| {
            (
                (datapath, port, [10, 0, 0, *ip].into()),
                ("r-out".to_owned(), MacAddr::new([2, 0, 0, 0, 0, *mac])),
            )
        };
        list.iter().map(one).collect()
    }

    #[tokio::test]
    async fn the_first_message_has_all_and_the_next_ones_what_differs() {
        let (sender, mut sent) = mpsc::channel(8);
        let known = watch::Sender::new(Arc::new(heard(&[(1, 1), (2, 2)])));
        let task = tokio::spawn(send(sender, known.subscribe()));
        let mut next = async || match sent.recv().await.unwrap().message.unwrap() {
            Message::Neighbours(said) => {
                let ips = |list: Vec<Neighbour>| list.into_iter().map(|one| one.ip).collect::<Vec<_>>();
                (said.full, ips(said.heard), ips(said.gone))
            }
            other => panic!("{other:?}"),
        };
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(next().await, (true, texts(&["10.0.0.1", "10.0.0.2"]), texts(&[])));
        known.send_replace(Arc::new(heard(&[(2, 9), (3, 3)])));
        assert_eq!(next().await, (false, texts(&["10.0.0.2", "10.0.0.3"]), texts(&["10.0.0.1"])));
        drop(known);
        task.await.unwrap();
    }
}
