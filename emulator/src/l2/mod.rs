//! TD partitioning: the Secure EPT of L2 VMs and the attributes of their pages.

pub(crate) mod attributes;
pub(crate) mod entry;
