//! A TD moves between two emulated platforms.

mod abort;
mod failures;
mod guest;
mod interplay;
mod moves;
mod pair;
mod wire;
