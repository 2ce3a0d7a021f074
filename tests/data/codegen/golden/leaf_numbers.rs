impl SeamcallLeaf {
    /// Adds a page.
    pub const TDH_MEM_PAGE_ADD: Self = Self(2);
    /// Removes a page.
    pub const TDH_MEM_PAGE_REMOVE: Self = Self(29);
}
/// Every leaf with a name, by ascending number.
pub static SEAMCALL_LEAVES: &[LeafRow] = &[
    LeafRow::new(2, "TDH.MEM.PAGE.ADD", [1], [None], [None], Features::EMPTY),
    LeafRow::new(29, "TDH.MEM.PAGE.REMOVE", [1], [Some(5)], [Some(2)], Features::WIDE),
];
/// Every leaf with a name, by ascending number.
pub static TDCALL_LEAVES: &[LeafRow] = &[];
/// Every leaf with a name, by ascending number.
pub static SEAMLDR_LEAVES: &[LeafRow] = &[];
