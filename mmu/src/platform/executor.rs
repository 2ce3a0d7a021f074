use tdx_abi::Seamcall;

/// A logical processor, by a number that the embedder chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LpId(pub u32);

/// How the embedder runs work on logical processors.
///
/// Work runs with migration to another LP disabled, because each SEAMCALL speaks for the LP it is
/// issued on. Methods return when the work is done. Work for several LPs may run at the same time.
pub trait Executor: Sync {
    /// Issues SEAMCALLs on the LP where the work runs.
    type Lp: Seamcall;

    /// Runs `work` on the LP that calls.
    fn on_this_lp<T>(&self, work: impl FnOnce(LpId, &Self::Lp) -> T) -> T;

    /// Runs `work` on `lp`; `None` if it is offline.
    fn on_lp<T: Send>(&self, lp: LpId, work: impl FnOnce(&Self::Lp) -> T + Send) -> Option<T>;

    /// Runs `work` on every online LP, and returns the first error, if any.
    fn on_each_lp<E: Send>(
        &self,
        work: impl Fn(LpId, &Self::Lp) -> Result<(), E> + Sync,
    ) -> Result<(), E>;

    /// Runs `work` on one online LP of every package, and returns the first error, if any.
    fn on_each_package<E: Send>(
        &self,
        work: impl Fn(LpId, &Self::Lp) -> Result<(), E> + Sync,
    ) -> Result<(), E>;

    /// Waits a moment before a call that was busy is repeated.
    fn relax(&self) {
        core::hint::spin_loop();
    }
}
