//! Both switches in turn on one core, and what comes of it.
//!
//! [`ours`] our side, in a process of its own · [`pairs`] the turns · [`outcome`] ratios and
//! goals · [`report`] the table and the files · [`chart`] the picture.

pub mod chart;
pub mod ours;
pub mod outcome;
pub mod pairs;
pub mod report;
