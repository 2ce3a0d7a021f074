/// Invalidation of the CPUs' translations.
pub trait Flush {
    /// Executes INVEPT for the shared EPT on every LP that may hold translations of it, and waits for it.
    ///
    /// TDH.MEM.TRACK does not replace it.
    fn invept(&self);
}
