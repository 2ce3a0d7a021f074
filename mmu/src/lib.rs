//! Page tables for hosts of Intel TDX guests: shared EPT and mirrored Secure-EPT.
//!
//! The CPU walks the Secure-EPT, only the TDX module writes it, and the host cannot read it. So the host
//! keeps a *mirror*: ordinary tables of the same shape, in which faults are resolved, and of which each
//! change is propagated by one SEAMCALL. Guest-physical addresses whose SHARED bit is 1 go through an
//! ordinary EPT. Both are trees of 512-entry atomic tables under one walker ([`tree`]).
//!
//! - [`Td`] is what most embedders use: build, faults, conversion, invalidation, large pages, relocation,
//!   trimming, teardown, all on `&self` from any number of threads.
//! - [`l2`] is about the L2 VMs of a partitioned TD: [`Td::fault`] and [`Td::link_l2`] give them Secure-EPT tables, and all
//!   that is done to the TD's memory is done to their aliases of it.
//! - [`td::migration`] moves a TD to another platform, or back if that fails.
//! - [`embed`] is what it asks of a kernel or VMM: table memory, an allocator, grace periods, kicks, INVEPT,
//!   scrubbing, the guest's backing; [`platform`] has the LPs, the KeyIDs and the bring-up of the module.
//! - [`mirror`] and [`shared`] are the trees by themselves, for other uses and other backends; a guest that is
//!   no TD can run on [`shared::Ept`] alone.
//!
//! # What always holds
//!
//! - Mirror and Secure-EPT are equal after every call, failed ones included; where the module answers what
//!   cannot be, the entry is poisoned, and the error says so.
//! - Nothing is allocated inside a section, no lock is taken per page, and no table is freed before its
//!   grace period has ended.
//! - Leaves are blocked together, tracked once, and only vCPUs that have been inside since before are kicked;
//!   nothing is blocked or tracked while OP_STATE needs none.
//! - After BUSY an operation is carried through; interrupted leaves are repeated or resumed.
//!
//! # From an EPT violation back into the guest
//!
//! ```
//! use tdx_abi::Gpa;
//! use tdx_mmu::Td;
//! use tdx_mmu::embed::Embedder;
//! use tdx_mmu::td::Access;
//! use tdx_mmu::td::Error;
//! use tdx_mmu::td::Resolution;
//!
//! /// Handles an EPT-violation exit by RCX, RDX and R8 of TDH.VP.ENTER; true to enter the guest again.
//! fn on_violation<E: Embedder>(td: &Td<E>, rcx: u64, rdx: u64, r8: u64) -> Result<bool, Error> {
//!     Ok(match td.fault(Access::from_exit(rcx, rdx, Gpa::new(r8)))? {
//!         Resolution::Mapped(_) | Resolution::Spurious(_) | Resolution::Split => true,
//!         Resolution::WriteAllowed | Resolution::Linked => true,
//!         Resolution::Mmio | Resolution::SizeMismatch { .. } | Resolution::Retry => true,
//!         // The guest used private memory as shared or the other way round, or memory that is not there.
//!         // Or a page of a TD that is being imported has not arrived yet.
//!         Resolution::Awaited { .. } => false,
//!         Resolution::MemoryFault { .. } | Resolution::NoMemory { .. } | Resolution::Denied { .. } => false,
//!     })
//! }
//! ```
#![no_std]
#![forbid(unsafe_code)]

pub mod attributes;
pub mod deposit;
pub mod embed;
mod gate;
pub mod l2;
pub mod mirror;
pub mod pamt;
pub mod platform;
mod range;
pub mod shared;
pub mod td;
pub mod tree;
mod word;

pub use range::GpaRange;
pub use td::Td;
pub use word::Word;
