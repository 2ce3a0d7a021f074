//! Partitioned TDs: what the L1 VMM aliases into L2 VMs, and the Secure-EPT tables that the host gives these.

pub mod compare;
mod guest;
mod injection;
mod life;
mod poison;
mod shape;
mod threads;
