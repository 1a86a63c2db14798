//! Guests of every behaviour: such that keep to the rules, and such that do not.

mod chains;
mod guest;
mod ports;
