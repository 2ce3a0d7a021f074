//! Typed, `no_std` interface of the Intel TDX module and P-SEAMLDR.
//!
//! A leaf is a type with typed inputs and outputs ([`Leaf`]); whoever executes it implements
//! [`Seamcall`] or [`Tdcall`]: the real instruction, an emulator, or the embedder's own transport.
//!
//! Without features, the crate has what a host needs that builds and runs TDs. The rest of the ABI is compiled on demand:
//!
//! | Feature | What it adds |
//! |---|---|
//! | `connect` | TDX Connect: the groups `DEVIF`, `DMAR`, `IDE`, `IOMMU`, `IQ`, `MMIO`, `SPDM` and `TDI` of [`tdh`] and [`tdg`] |
//! | `migration` | live migration and service TDs: `tdh::export`, `tdh::import`, `tdh::mig`, `tdh::servtd`, `tdg::servtd` |
//! | `guest` | what a guest calls: [`tdg`], but for the groups above; ids of the fields of L2 VMs' VMCSes |
//! | `debug` | ids of metadata fields that a host reaches only in a TD under debug |
//! | `seamldr` | `seamldr`: what P-SEAMLDR does |
//! | `tables` | `field::FieldRow` and its tables, `msr`, `cpuid`: what the module does with metadata fields, MSRs and CPUID; words that only the module sees; places of fields in structures |
//! | `full` | all of the above |
//! | `handler` | `handler`: the other end of the calls, for whoever implements a module; implies `full` |
//! | `hardware` | `hardware`: the real instructions, on x86_64 |
//! | `source` | `source`: the text of this crate's files |
//!
//! What only leaves of one feature use comes with it: formats, enums and structures, and constants of statuses and of the
//! leaves' numbers. Names of all statuses and all leaves are always there.
#![no_std]

mod address;
#[doc(hidden)]
pub mod bytes;
mod call;
mod control;
#[cfg(feature = "tables")]
pub mod cpuid;
pub mod field;
pub mod format;
#[cfg(feature = "handler")]
pub mod handler;
#[cfg(all(target_arch = "x86_64", feature = "hardware"))]
pub mod hardware;
pub mod leaf;
pub mod level;
pub mod module;
#[cfg(feature = "tables")]
pub mod msr;
pub mod op_state;
pub mod operand;
mod page;
mod registers;
#[cfg(feature = "seamldr")]
pub mod seamldr;
pub mod sept;
#[cfg(feature = "source")]
pub mod source;
pub mod status;
pub mod tdg;
pub mod tdh;
mod tracking;
pub mod vmcall;

pub use address::Gpa;
pub use address::Hpa;
pub use address::Level;
pub use address::PrivateGpa;
pub use address::SharedBit;
pub use address::SharedGpa;
pub use address::Split;
pub use call::CallError;
pub use call::Caller;
pub use call::Failure;
pub use call::Guest;
pub use call::GuestLeaf;
pub use call::Host;
pub use call::HostLeaf;
pub use call::Leaf;
pub use call::Reach;
pub use call::Refused;
pub use call::Seamcall;
pub use call::Signature;
pub use call::Success;
pub use call::Tdcall;
pub use call::Trap;
pub use control::GpaOf;
pub use control::Hkid;
pub use control::HpaOf;
pub use control::Mapping;
pub use control::Tdr;
pub use control::Tdvpr;
pub use module::Features;
pub use module::Module;
pub use op_state::OpState;
pub use operand::OperandId;
pub use page::Page;
pub use registers::Registers;
pub use sept::L2SeptState;
pub use sept::SeptState;
pub use status::Retry;
pub use status::Status;
pub use status::StatusCode;
pub use tracking::Blocked;
pub use tracking::NoTracking;
pub use tracking::Tracked;
pub use tracking::TrackedIter;
pub use tracking::Untranslated;

/// Bit of RAX that sends a SEAMCALL to P-SEAMLDR instead of the TDX module.
pub const SEAMLDR_CALL: u64 = 1 << 63;
