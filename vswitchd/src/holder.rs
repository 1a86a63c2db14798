//! The process that has started this daemon and will start the next one (`vswitch-holder`): what
//! outlives the daemon is with it, and it says when another daemon takes over.
//!
//! A daemon that is told to stand still has its host locked: nothing that is saved changes, while
//! packets go on. Its successor reads the state directory meanwhile, so that it begins with the
//! very rules that the first one ends with.

use std::{io, mem, os::fd::BorrowedFd, path::Path, process, sync::Arc, thread, time::Duration};

use dataplane::{Beginning, Keeper, Kept};
use vswitch_holder::{Client, ClientError, Held, Order, Role};

use crate::host::{Host, SharedHost};

/// A daemon's way to its holder.
#[derive(Debug, Clone)]
pub struct Holder(Arc<Client>);

impl Holder {
    /// Goes to the holder at a path.
    ///
    /// # Errors
    /// It has not started this daemon, or is of another version.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let client = Arc::new(Client::connect(path)?);
        // The way is open until the process ends: whatever ends it, it has said why before the holder notices,
        // and kills a successor that is none any more.
        mem::forget(Arc::clone(&client));
        Ok(Self(client))
    }

    /// Another daemon forwards until this one can.
    pub fn is_successor(&self) -> bool {
        self.0.role() == Role::Successor
    }

    /// How the dataplane begins.
    pub fn beginning(&self) -> Beginning {
        let keeper: Arc<dyn Keeper> = Arc::new(self.clone());
        Beginning { keeper: Some(keeper), is_successor: self.is_successor(), holds_back: true }
    }

    /// Waits until it is told that the daemon before has stopped forwarding. For a successor that could
    /// forward; its dataplane may have begun before.
    ///
    /// # Errors
    /// There will be no upgrade.
    pub fn wait_for_turn(&self) -> anyhow::Result<()> {
        self.0.prepared()?;
        loop {
            match self.0.wait() {
                Some(Order::Go) => return Ok(()),
                Some(_) => {}
                None => anyhow::bail!("vswitch-holder has ended; the daemon before goes on"),
            }
        }
    }

    /// Says that this daemon forwards, and for how long nobody had, if that is known.
    ///
    /// # Errors
    /// The holder is gone.
    pub fn begun(&self, stood: Option<Duration>) -> io::Result<()> {
        self.0.begun(stood)
    }

    /// Has what no port has taken over closed.
    ///
    /// # Errors
    /// The holder is gone.
    pub fn forget_rest(&self) -> io::Result<()> {
        for name in self.0.forget_rest()? {
            tracing::info!(name, "held for the daemon before and not needed any more");
        }
        Ok(())
    }

    /// Does what the holder wants, on a thread of its own, until the process ends.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn follow(self, host: SharedHost) -> io::Result<()> {
        let follow = move || {
            while let Some(order) = self.0.wait() {
                if order == Order::Freeze {
                    host.with_blocking(|host| self.stand_still(host));
                }
            }
            tracing::warn!("vswitch-holder has ended; this daemon goes on, and nothing outlives it");
        };
        thread::Builder::new().name("holder".to_owned()).spawn(follow).map(drop)
    }

    /// Changes nothing until another daemon forwards, with which this one ends, or until there
    /// will be none.
    fn stand_still(&self, host: &mut Host) {
        tracing::info!("standing still for a successor");
        host.save_noted_ports();
        let mut has_released = false;
        // Should the holder be gone, waiting for its order says so.
        let _ = self.0.frozen();
        loop {
            match self.0.wait() {
                Some(Order::HandOver) => {
                    host.dataplane().pause();
                    has_released = true;
                    let _ = self.0.released();
                }
                Some(Order::Leave) => {
                    tracing::info!("another daemon forwards");
                    process::exit(0);
                }
                Some(Order::Thaw) => break,
                None if has_released => {
                    // The successor may forward or not; two at a time would be worse than none.
                    tracing::error!("vswitch-holder has ended in the middle of an upgrade");
                    process::exit(1);
                }
                None => break,
                Some(Order::Freeze | Order::Go) => {}
            }
        }
        tracing::warn!("there is no successor; going on");
        host.dataplane().go_on();
    }
}

fn kept(held: Held) -> Kept {
    Kept { note: held.note, files: held.files }
}

impl Keeper for Holder {
    fn take(&self, name: &str) -> Option<Kept> {
        self.0.take(name).map(kept)
    }

    fn take_all(&self, prefix: &str) -> Vec<(String, Kept)> {
        self.0.take_all(prefix).into_iter().map(|(name, held)| (name, kept(held))).collect()
    }

    fn has(&self, name: &str) -> bool {
        self.0.has(name)
    }

    fn keep(&self, name: &str, note: &str, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.0.keep(name, note, files)
    }

    fn forget(&self, name: &str) {
        // A holder that is gone holds nothing.
        let _ = self.0.forget(name);
    }
}
