//! An executable Intel TDX module (release 1.5.01; 1.5.34 and 2.0.18 as far as [told below](#modules)) and the platform around it.
//!
//! A [`Platform`] has memory, a module that has just been loaded, and LPs; [`Setup`] brings it up for tests that begin later.
//! An [`Lp`] takes SEAMCALLs (it implements
//! [`tdx_abi::Seamcall`]); what a vCPU executes once TDH.VP.ENTER has entered its TD is a [`GuestProgram`]. All
//! calls take `&self`: LPs may be used from as many threads as there are LPs, and meet in the module's own locks, which never
//! wait but return `OPERAND_BUSY`.
//!
//! The unit test of a VMM's function, with a fault that takes luck to see on a host (`emulator/examples/vmm_test.rs` has more,
//! with a guest that runs):
//!
//! ```
//! use tdx_abi::CallError;
//! use tdx_abi::HostLeaf;
//! use tdx_abi::Seamcall;
//! use tdx_abi::Tdr;
//! use tdx_abi::leaf::SeamcallLeaf;
//! use tdx_abi::operand::OperandId;
//! use tdx_abi::status::Retry;
//! use tdx_abi::status::Status;
//! use tdx_abi::status::StatusCode;
//! use tdx_abi::tdh;
//! use tdx_emulator::Calls;
//! use tdx_emulator::Effect;
//! use tdx_emulator::Fault;
//! use tdx_emulator::Platform;
//! use tdx_emulator::PlatformConfig;
//! use tdx_emulator::Setup;
//! use tdx_emulator::When;
//!
//! /// The VMM's function: begins a new TLB epoch, however busy the TD is.
//! fn track(lp: &impl Seamcall, tdr: Tdr) -> Result<(), CallError> {
//!     loop {
//!         match (tdh::mem::Track { tdr, blocked: () }).call(lp) {
//!             Ok(_) => return Ok(()),
//!             Err(refused) if refused.retry() == Some(Retry::Busy) => {}
//!             Err(refused) => return Err(refused.error),
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let platform = Platform::new(PlatformConfig::default());
//! let lp = platform.lp(0).expect("the default platform has four LPs");
//! let td = Setup::bring_up(&platform)?.td(33, 1, |_| {})?;
//! let finalized = (tdh::mr::Finalize { tdr: td.tdr }).call(&lp);
//! assert!(finalized.is_ok());
//!
//! let busy = platform.inject(Fault {
//!     calls: Calls::Host(SeamcallLeaf::TDH_MEM_TRACK),
//!     when: When::Calls { after: 0, times: 2 },
//!     effect: Effect::Status(Status::with_operand(StatusCode::OPERAND_BUSY, OperandId::TD_EPOCH)),
//! });
//! assert_eq!(track(&lp, td.tdr), Ok(()));
//! assert_eq!((busy.calls(), busy.hits()), (3, 2));
//! # Ok(())
//! # }
//! ```
//!
//! # What is emulated, and how that is checked
//!
//! - Every SEAMCALL and TDCALL leaf of 1.5.01 that the recordings in the repository's `tests/data/vectors` contain: status,
//!   operand id, every output register, lock words, memory. Recorded from Intel's own module code and replayed call by
//!   call (`tdx replay`; `tests/tests/replay.rs`).
//! - Control structures, Secure-EPT entries and their states lie in emulated memory in the module's own layout. The PAMT
//!   does not: it is kept beside memory, 16 bytes for an entry that was touched; the PAMT areas that the host gives stay unused.
//! - An LP walks Secure-EPT and shared EPT in that memory and caches translations until the module (a new TD epoch, another
//!   vCPU, TDH.VP.FLUSH) or the host ([`Platform::flush_shared`]) flushes them (`emulator/tests/guest.rs`).
//! - Memory lines have KeyIDs: [`HostMemory`] gives no plaintext of a TD's lines, what the host writes there is a machine
//!   check for the TD, and a page that the host writes before its cache lines were flushed is overwritten by them
//!   (`emulator/tests/guest.rs`). Nothing is encrypted; [`Platform::memory`] shows plaintext.
//! - L2 VMs: TDG.VP.ENTER, exits to L1 and to the host, their Secure-EPT and TLBs (`emulator/tests/l2.rs`); XMM registers in
//!   TDG.VP.VMCALL and the defence against single-stepping (`emulator/tests/entry.rs`).
//! - Where no recording goes, the source of the module has been read side by side: `emulator/README.md` lists the files.
//! - Concurrency: the lock primitives under loom (`emulator/tests/lock_model.rs`), threads of hosts and guests on the same
//!   pages (`emulator/tests/stress.rs`).
//! - MRTD and other digests are SHA-384, migration bundles AES-256-GCM.
//!
//! # Modules
//!
//! [`PlatformConfig::module`] chooses the module. The release decides which leaves and versions of them are dispatched, in which
//! OP_STATEs and Secure-EPT states they work, the metadata tables and values, the layout of the control structures (2.0.18: three
//! TDCX pages more), which locks PROMOTE takes, and what statuses tell.
//!
//! | module | checked against |
//! |---|---|
//! | 1.5.01 | the recordings, as above; the facts of its source (next row) |
//! | 1.5.34, 2.0.18 | facts from the published source (`tests/tests/modules.rs`): leaf numbers and versions that are dispatched or not; OP_STATEs in which leaves work; which metadata fields of the platform and of a TD can be read. Single rules, each with the module's file that states it: of Dynamic PAMT (`emulator/tests/dynamic_pamt.rs`), of lists of pages in version 1 (`tests/tests/migration.rs`), of #VE (`emulator/tests/entry.rs`), of locked controls and service TDs (`emulator/tests/newer.rs`). All recordings of 1.5.01, replayed on both: a call differs only by one of fifteen rules, each with the file that states it (`tests/tests/replay_newer.rs`). Neither was recorded itself: what no such fact or rule tells is answered as 1.5.01 does |
//!
//! TDX_FEATURES0 reports what is emulated: the features of 1.5.01, and in the newer modules DYNAMIC_PAMT, LIST_ERROR_COUNT and
//! ENUM_TOPOLOGY (its host's side: version 1 of TDH.VP.INIT). A platform here never has TDX Connect, and its leaves answer as
//! the module does there.
//!
//! Newer modules have more, which is not emulated:
//!
//! - TDH.MEM.SCAN.* is refused with OPERAND_INVALID of RAX.
//! - Export that does not block is reported as absent, and so is migration of TDs with L2 VMs.
//! - The guest's side of ENUM_TOPOLOGY (CPUID 0xb and 0x1f), VIRT_CPUID2 and REDUCE_VE: a guest that sets them in TD_CTLS is refused
//!   with METADATA_FIELD_VALUE_NOT_VALID. FEATURE_PARAVIRT_CTLS is kept and has no effect, as without REDUCE_VE.
//! - Event filters (RCX bit 0 and R8 of TDH.MNG.INIT), virtual MAXPA, LASS, ICSSD and PMT_PROF, sealing, TDID and VMID in reports,
//!   the requestor in R8 of TDG.MR.REPORT, fatal diagnostics (R8 of version 1 of TDH.SYS.INIT is ignored) and update
//!   compatibility. TDH.SYS.SHUTDOWN takes handoff version 0 in every module.
//! - The lock of the Secure-EPT is the one of 1.5.01, without host priority; so no leaf returns INTERRUPTED_BUSY.
//! - Leaves that export and import state let a new call replace an interrupted one, and TDH.IMPORT.STATE.IMMUTABLE takes any
//!   migration key. TDH.SERVTD.BIND does not compare TEE_TCB_SVN and knows a bound service TD by
//!   its TD_UUID where 1.5.01 does, and TDG.SYS.RDALL fills a page in 2.0.18, too.
//! - CPUID tables, the decoding of Secure-EPT states and what VP.RD and VP.WR do to single TD VMCS fields but CR3 are those of
//!   1.5.01.
//! - TDG.MR.KEY.GET answers as on a CPU without SEAMGETKEY.
//! - TDG.SERVTD.RD and WR do not ask whether the service TD is itself migratable or has a service TD (2.0.18 does), TDG.VP.WR writes the
//!   CPUID controls of a vCPU whatever TD_CTLS.LOCK says, and a guest's lock of a Secure-EPT entry looks at host priority after the
//!   lock bit, as in 1.5.01.
//!
//! # What is not
//!
//! - Guest code is a Rust closure, not x86 instructions. A kernel that lets its own CPU run the guest uses
//!   [`Lp::host_call`], [`Lp::inside`], [`Lp::guest_call`] and [`Lp::guest_exit`] instead.
//! - CPUID and MSR values are those of one made-up CPU. TDH.SYS.SHUTDOWN hands nothing over and TDH.SYS.UPDATE finds nothing, so that
//!   no TD outlives its module.
//! - The module never shuts itself down by a failed internal check, except where a recording shows it.
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
mod dynamic_pamt;
mod exit;
mod fault;
mod frame;
mod ghost;
mod global;
mod guest;
mod guest_cpu;
mod host_memory;
mod inside;
mod keys;
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
mod rules;
mod sept;
mod servtd;
mod setup;
mod structures;
mod sync;
mod tlb;
mod topology;
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
pub use host_memory::HostMemory;
pub use inside::InjectedEvent;
pub use inside::InsideTd;
pub use keys::LineFault;
pub use lock::LockWord;
pub use memory::PhysicalMemory;
pub use memory::SparseMemory;
pub use pamt::PageType;
pub use platform::HostCall;
pub use platform::Lp;
pub use platform::Platform;
pub use platform::TdLock;
pub use setup::Setup;
pub use setup::SetupError;
pub use setup::SetupTd;
pub use tdx_abi::module::Module;
