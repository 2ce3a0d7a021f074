impl SeamcallLeaf {
    /// Adds a page.
    pub const TDH_MEM_PAGE_ADD: Self = Self(2);
    /// Removes a page.
    pub const TDH_MEM_PAGE_REMOVE: Self = Self(29);
}
/// Every leaf with a name, by ascending number.
pub static SEAMCALL_LEAVES: &[LeafRow] = &[
    LeafRow::new(2, "TDH.MEM.PAGE.ADD", [0x1], [None], [None], Features::EMPTY),
    LeafRow::new(
        29,
        "TDH.MEM.PAGE.REMOVE",
        [0x1],
        [Some(0x5)],
        [Some(0x2)],
        Features::WIDE,
    ),
];
impl TdcallLeaf {}
/// Every leaf with a name, by ascending number.
pub static TDCALL_LEAVES: &[LeafRow] = &[];
impl SeamldrLeaf {}
/// Every leaf with a name, by ascending number.
pub static SEAMLDR_LEAVES: &[LeafRow] = &[];
