//! The MMU against the emulated TDX module: every change of the mirror is a SEAMCALL that the module
//! checks, and the Secure-EPT is read from emulated physical memory and not through the MMU.
#![expect(
    clippy::std_instead_of_alloc,
    clippy::std_instead_of_core,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test binary: it has std, a panic is how it fails, and its modules share what they export"
)]

mod mmu {
    mod compare;
    mod costs;
    mod faults;
    mod host;
    mod injection;
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    mod instruction;
    mod l2;
    mod large;
    mod life;
    mod lifecycle;
    mod migration;
    mod overlaps;
    mod threads;
}
