//! What each daemon keeps, and why.

use rustix::thread::CapabilitySet;

/// Who is to be confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `vswitchd` on a host with interfaces.
    Switch,
    /// `vswitchd --virtual`: no interfaces, so nothing to be privileged for.
    Lab,
    /// The child of `vswitchd` that has `nft` change the host's table.
    Translator,
    /// `vswitch-holder`: its daemon is started with what it could have itself.
    Holder,
    /// `vswitch-controller`.
    Controller,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Switch, Self::Lab, Self::Translator, Self::Holder, Self::Controller];

    /// The capabilities that it keeps, of those it has.
    pub(crate) fn kept(self) -> Kept {
        match self {
            Self::Switch => Kept::of(SWITCH),
            Self::Lab | Self::Controller => Kept::of(CapabilitySet::empty()),
            Self::Translator => Kept::of(CapabilitySet::NET_ADMIN),
            // A program that root starts has what is permitted here, and no more.
            Self::Holder => Kept { effective: CapabilitySet::empty(), permitted: SWITCH },
        }
    }

    /// It starts other programs.
    pub(crate) fn starts_programs(self) -> bool {
        matches!(self, Self::Translator | Self::Holder)
    }

    /// It attaches programs to interfaces and goes into namespaces, or what it starts does.
    pub(crate) fn attaches(self) -> bool {
        matches!(self, Self::Switch | Self::Holder)
    }
}

/// What is left of the sets of capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) effective: CapabilitySet,
    pub(crate) permitted: CapabilitySet,
}

impl Kept {
    fn of(set: CapabilitySet) -> Self {
        Self { effective: set, permitted: set }
    }
}

/// What a host's switch needs for as long as it runs, as ports may come at any time:
/// interfaces and routes; packet and AF_XDP sockets; programs on interfaces; other network namespaces (`setns` asks for
/// SYS_ADMIN), also by `/proc/PID/ns/net` (SYS_PTRACE); locked memory and limits on it; workers on cores of their own.
///
/// `dist/systemd/vswitchd.service` has the same list.
const SWITCH: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::SYS_NICE)
    .union(CapabilitySet::SYS_PTRACE);
