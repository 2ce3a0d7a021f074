use tdx_abi::Page;

/// How to wait a moment for another CPU, and for how long.
pub trait Relax {
    /// Lets others run: `pause`, a yield, or a service of pending work.
    fn pause(&self) {
        core::hint::spin_loop();
    }

    /// A number that tells apart CPUs that run at the same time, such as that of the current CPU.
    ///
    /// Only a hint: the thread may move on, and numbers may repeat. CPUs with different numbers modulo 8
    /// begin and end shared sections without writing the same cache line.
    fn stripe(&self) -> usize {
        0
    }

    /// How often a SEAMCALL that is busy is repeated before the operation gives up.
    ///
    /// A busy entry has host priority from then on: the guest's TDG.MEM.PAGE.ACCEPT of it fails until
    /// a host call has had it. So an operation that gave up has to be repeated, not forgotten.
    fn patience(&self) -> u32 {
        u32::MAX
    }
}

/// Grace periods: RCU or the like.
pub trait Grace {
    /// A read-side section; ends when dropped.
    type Guard<'g>
    where
        Self: 'g;

    /// Begins a read-side section. Tables reached within it stay valid until it ends.
    ///
    /// This crate never opens a second one on a thread that has one, so a reader-writer lock will do.
    fn enter(&self) -> Self::Guard<'_>;

    /// Frees `table` once all read-side sections that are open now have ended.
    ///
    /// Called outside of read-side sections, so it may wait.
    fn retire(&self, table: Page);
}
