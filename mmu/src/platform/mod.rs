//! What a host needs before its first TD and beside the page tables.
//!
//! - [`bring_up`]: from a loaded module to one that takes TDs.
//! - [`layout`]: TDMRs, their reserved areas and PAMTs, from CMRs and the host's memory map.
//! - [`Executor`]: how work reaches this LP, each LP, or one LP of each package.
//! - [`HkidPool`]: private KeyIDs.
//! - [`MapGpa`]: the guest's request to convert a range, served in bounded steps.

pub mod bring_up;
mod executor;
mod hkid;
pub mod layout;
mod map_gpa;
mod range;

pub use executor::Executor;
pub use executor::LpId;
pub use hkid::Hkid;
pub use hkid::HkidPool;
pub use hkid::HkidRangeError;
pub use map_gpa::MapGpa;
pub use map_gpa::MapGpaReply;
pub use range::MemoryRange;
