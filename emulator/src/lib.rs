//! An executable Intel TDX module and the platform around it.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod abi;
mod config;
mod core;
mod counters;
mod cpu;
mod cpuid;
mod exit;
mod fault;
mod frame;
mod ghost;
mod global;
mod guest;
mod guest_cpu;
mod inside;
mod l2;
mod lock;
mod lp;
mod measurement;
mod memory;
mod metadata;
mod migration;
mod module;
mod pamt;
mod platform;
mod sept;
mod servtd;
mod structures;
mod tlb;
mod translate;
mod vcpu_init;

pub use config::PlatformConfig;
pub use config::Range;
pub use counters::Counters;
pub use exit::ExitInfo;
pub use exit::GuestCall;
pub use exit::GuestExit;
pub use fault::Calls;
pub use fault::Effect;
pub use fault::Fault;
pub use fault::Injection;
pub use fault::When;
pub use frame::FRAME_BYTES;
pub use frame::Frame;
pub use ghost::Ghost;
pub use ghost::Hold;
pub use ghost::Lock;
pub use guest_cpu::Access;
pub use guest_cpu::Exited;
pub use guest_cpu::GuestCpu;
pub use guest_cpu::GuestFault;
pub use guest_cpu::GuestProgram;
pub use inside::InjectedEvent;
pub use inside::InsideTd;
pub use lock::LockWord;
pub use memory::PhysicalMemory;
pub use memory::SparseMemory;
pub use pamt::PageType;
pub use platform::HostCall;
pub use platform::Lp;
pub use platform::Platform;
pub use platform::TdLock;
