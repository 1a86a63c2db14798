//! The lab, by the programs that users have and without any privilege: frames in, frames out, and whatever
//! a switch says of itself in between.

#![forbid(unsafe_code)]

mod bridges;
mod connections;
mod fixture;
mod frames;
mod kept;
mod network;
mod refusals;
mod rules;
mod told;
mod tutorial;
