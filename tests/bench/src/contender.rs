//! What every page-table implementation under test is asked to do.

/// A page-table implementation.
pub trait Contender {
    /// An empty table.
    fn new() -> Self;
    /// Maps one 4 KiB page.
    fn map_4k(&mut self, address: u64, frame: u64);
    /// Maps one 2 MiB page.
    fn map_2m(&mut self, address: u64, frame: u64);
    /// Where `address` is mapped to.
    fn walk(&mut self, address: u64) -> u64;
    /// Unmaps one 4 KiB page.
    fn unmap_4k(&mut self, address: u64);
    /// Maps a range in 4 KiB pages by one call; false if there is no such call.
    fn map_range(&mut self, _address: u64, _frame: u64, _bytes: u64) -> bool {
        false
    }
    /// Unmaps a range by one call; false if there is no such call.
    fn unmap_range(&mut self, _address: u64, _bytes: u64) -> bool {
        false
    }
}

/// One that can say that nothing is mapped.
pub trait Find: Contender {
    /// Where `address` is mapped to, if it is.
    fn find(&self, address: u64) -> Option<u64>;
}
