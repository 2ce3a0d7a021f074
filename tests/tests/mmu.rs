//! The MMU against the emulated TDX module: every change of the mirror is a SEAMCALL that the module
//! checks, and the Secure-EPT is read from emulated physical memory and not through the MMU.
#![expect(
    unreachable_pub,
    reason = "the modules of a test binary share what they export"
)]

mod mmu {
    mod compare;
    mod costs;
    mod host;
    mod injection;
    mod life;
    mod threads;
}
