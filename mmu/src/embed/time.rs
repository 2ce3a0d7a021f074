use tdx_abi::Page;

/// How to wait a moment for another CPU.
pub trait Relax {
    /// Lets others run: `pause`, a yield, or a service of pending work.
    fn relax(&self) {
        core::hint::spin_loop();
    }
}

/// Grace periods: RCU or the like.
pub trait Grace {
    /// A read-side section; ends when dropped.
    type Guard<'g>
    where
        Self: 'g;

    /// Begins a read-side section. Tables reached within it stay valid until it ends.
    fn enter(&self) -> Self::Guard<'_>;

    /// Frees `table` once all read-side sections that are open now have ended.
    ///
    /// Called outside of read-side sections, so it may wait.
    fn retire(&self, table: Page);
}
