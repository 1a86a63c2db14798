//! Rules: what to match and what to do. Their text form is in [`crate::text`], their
//! tables in [`crate::table`], their meaning in [`crate::pipeline`].

mod action;
pub(crate) mod action_set;
mod controller;
mod ct;
mod learn;
mod life;
mod matching;
mod membership;
mod rule;
mod sample;
mod spread;

pub use action::Action;
pub use controller::{PuntReason, ToController, WHOLE_PACKET};
pub use ct::{Ct, CtZone};
pub use learn::{Learn, LearnSource, LearnSpec, Learned};
pub(crate) use learn::{each_learn, has_fin_timeout};
pub use life::{RuleFlags, RuleLife};
pub use matching::{Match, MatchWord};
pub use membership::{Membership, Values};
pub use rule::{Origin, Rule, RuleStats};
pub use sample::{Sample, SampleDirection};
pub use spread::{Bundle, BundleAlgorithm, HashFields, Multipath, MultipathAlgorithm};
