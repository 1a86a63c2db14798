//! Rules: what to match and what to do. Their text form is in [`crate::text`], their
//! tables in [`crate::table`], their meaning in [`crate::pipeline`].

mod action;
mod ct;
mod matching;
mod rule;

pub use action::Action;
pub use ct::{Ct, CtZone};
pub use matching::{Match, MatchWord};
pub use rule::{Origin, Rule, RuleStats};
