use tdx_abi::Hpa;

/// How the entries of a tree are encoded, as far as walking needs to know.
pub trait Format {
    /// The entry that maps nothing.
    const EMPTY: u64;
    /// The entry that somebody is changing, or whose table is no longer part of the tree.
    const FROZEN: u64;

    /// Whether `entry`, found above level [`tdx_abi::Level::Pt`], leads to a table that may be entered.
    fn is_table(entry: u64) -> bool;

    /// The table that such an entry leads to.
    fn table(entry: u64) -> Hpa;

    /// The entry that leads to `table`.
    fn link(table: Hpa) -> u64;
}
