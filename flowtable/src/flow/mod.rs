//! Rules: what to match and what to do. Their text form is in [`crate::text`], their
//! tables in [`crate::table`], their meaning in [`crate::pipeline`].

mod action;
pub(crate) mod action_set;
mod controller;
mod ct;
mod life;
mod matching;
mod membership;
mod rule;
mod spread;

pub use action::Action;
pub use controller::{PuntReason, ToController, WHOLE_PACKET};
pub use ct::{Ct, CtZone};
pub use life::{RuleFlags, RuleLife};
pub use matching::{Match, MatchWord};
pub use membership::{Membership, Values};
pub use rule::{Origin, Rule, RuleStats};
pub use spread::{Bundle, BundleAlgorithm, HashFields, Multipath, MultipathAlgorithm};
