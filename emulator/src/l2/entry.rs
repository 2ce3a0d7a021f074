//! Entries of the Secure EPT of an L2 VM, and the page attributes that an L1 VMM sees of them.
//!
//! An L2 entry has no lock of its own: the entry lock of the L1 entry that it aliases guards it.
//! Layout and rules: module 1.5.01, `ia32e_sept_t` of `x86_defs.h` and `sept_manager.{h,c}`.

use crate::words::words;

/// Memory type write-back, as bits 5:3 of an EPT leaf hold it.
const WRITE_BACK: u64 = 6;
/// R, W, Xs and Xu: every permission of a non-leaf entry.
const ALL_PERMISSIONS: u64 = 0x407;

words! {
    /// An entry of an L2 VM's Secure EPT.
    L2Entry {
        r, with_r: 0 .. 0;
        w, with_w: 1 .. 1;
        xs, with_xs: 2 .. 2;
        saved_r, with_saved_r: 3 .. 3;
        saved_xs, with_saved_xs: 4 .. 4;
        saved_xu, with_saved_xu: 5 .. 5;
        memory_type, with_memory_type: 5 .. 3;
        ignore_pat, with_ignore_pat: 6 .. 6;
        leaf, with_leaf: 7 .. 7;
        xu, with_xu: 10 .. 10;
        page, with_page: 51 .. 12;
        blocked, with_blocked: 55 .. 55;
        verify_guest_paging, with_verify_guest_paging: 57 .. 57;
        paging_write, with_paging_write: 58 .. 58;
        saved_w, with_saved_w: 59 .. 59;
        shadow_stack, with_shadow_stack: 60 .. 60;
        suppress_ve, with_suppress_ve: 63 .. 63;
    } reserved 0;

    /// The attributes that one VM has on a page: 16 of the 64 bits of TDG.MEM.PAGE.ATTR's operands.
    VmAttributes {
        r, with_r: 0 .. 0;
        w, with_w: 1 .. 1;
        xs, with_xs: 2 .. 2;
        xu, with_xu: 3 .. 3;
        verify_guest_paging, with_verify_guest_paging: 4 .. 4;
        paging_write, with_paging_write: 5 .. 5;
        shadow_stack, with_shadow_stack: 6 .. 6;
        suppress_ve, with_suppress_ve: 7 .. 7;
        valid, with_valid: 15 .. 15;
    } reserved 0x7f00;
}

/// The states of an L2 entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L2State {
    /// No alias.
    Free,
    /// A table.
    NonLeafMapped,
    /// A table whose range is blocked.
    NonLeafBlocked,
    /// A page.
    Mapped,
    /// A page that is blocked, or pending in L1.
    Blocked,
}

impl VmAttributes {
    /// The attributes of `vm` among the four of `all`.
    pub const fn of(all: u64, vm: u16) -> Self {
        Self::from_bits((all >> (16 * vm)) & 0xffff)
    }

    /// `all` with the attributes of `vm` replaced by these.
    pub const fn put_into(self, all: u64, vm: u16) -> u64 {
        (all & !(0xffff << (16 * vm))) | (self.into_bits() << (16 * vm))
    }

    /// Whether any access is allowed: then the page has an alias in the VM.
    pub const fn is_present(self) -> bool {
        self.into_bits() & 0xf != 0
    }

    /// Whether the combination may stand in an entry: no writing without reading, no #VE suppression.
    pub const fn is_legal(self) -> bool {
        let unreadable = self.r() == 0 && (self.w() == 1 || self.paging_write() == 1);
        let invalid = self.valid() == 0 && self.into_bits() != 0;
        !invalid && self.reserved_is_zero() && !unreadable && self.suppress_ve() == 0
    }
}

impl L2Entry {
    /// An entry without an alias.
    pub const FREE: Self = Self::from_bits(0);

    /// An entry that refers to the table in `page`.
    pub const fn table(page: u64) -> Self {
        Self::from_bits(ALL_PERMISSIONS).with_page(page)
    }

    /// Where the entry stands; `None` for bits that the module never writes.
    pub const fn state(self) -> Option<L2State> {
        match (self.leaf(), self.ignore_pat(), self.blocked(), self.r()) {
            (0, 0, 0, 0) => Some(L2State::Free),
            (0, 0, 0, 1) => Some(L2State::NonLeafMapped),
            (0, 0, 1, 0) => Some(L2State::NonLeafBlocked),
            (1, 1, 0, _) => Some(L2State::Mapped),
            (1, 1, 1, _) => Some(L2State::Blocked),
            _ => None,
        }
    }

    /// RCX as a leaf that fails on this entry returns it: without what the host may not know.
    ///
    /// On a debug TD every attribute is shown. On others a mapped page shows all permissions, a blocked
    /// one the bits that hold its memory type.
    pub const fn shown_to_host(self, debug: bool) -> u64 {
        const LEAF: u64 = 0x800f_ffff_ffff_f0f8;
        const ATTRIBUTES: u64 = 0x9600_0000_0000_0407;
        if self.is_free() {
            Self::FREE.with_suppress_ve(1).into_bits()
        } else if self.leaf() == 0 {
            self.into_bits() & (ALL_PERMISSIONS | 0x80)
        } else if debug {
            self.into_bits() & (LEAF | ATTRIBUTES)
        } else if self.is_blocked_leaf() {
            self.into_bits() & LEAF
        } else {
            (self.into_bits() & LEAF) | ALL_PERMISSIONS
        }
    }

    /// The four bits by which Intel's table tells the states apart.
    pub const fn encoding(self) -> u64 {
        self.blocked() | self.ignore_pat() << 1 | self.leaf() << 2 | self.r() << 3
    }

    /// Whether there is no alias.
    pub const fn is_free(self) -> bool {
        matches!(self.state(), Some(L2State::Free))
    }

    /// Whether the entry is a page that is blocked.
    pub const fn is_blocked_leaf(self) -> bool {
        matches!(self.state(), Some(L2State::Blocked))
    }

    /// The leaf entry for `page` with these attributes, blocked or not.
    ///
    /// Bits of the present entry that neither says are kept.
    #[must_use]
    pub const fn leaf_for(self, page: u64, attributes: VmAttributes, blocked: bool) -> Self {
        let entry = self
            .with_permissions(attributes)
            .with_page(page)
            .with_memory_type(WRITE_BACK)
            .with_saved_w(0)
            .with_ignore_pat(1)
            .with_leaf(1);
        if blocked {
            entry.with_permissions_saved().with_blocked(1)
        } else {
            entry.with_blocked(0)
        }
    }

    /// The entry with other attributes; a blocked one keeps them for later.
    #[must_use]
    pub const fn with_attributes(self, attributes: VmAttributes) -> Self {
        let entry = self.with_permissions(attributes);
        if entry.is_blocked_leaf() {
            entry.with_permissions_saved()
        } else {
            entry
        }
    }

    /// The attributes as the L1 VMM may see them.
    ///
    /// `write_blocked`: the L1 entry is blocked for writing, which shows in L2 only in W.
    pub const fn attributes(self, write_blocked: bool) -> VmAttributes {
        if self.is_free() {
            return VmAttributes::from_bits(0).with_suppress_ve(self.suppress_ve());
        }
        let valid = VmAttributes::from_bits(0).with_valid(1);
        if self.leaf() == 0 {
            return valid.with_r(1).with_w(1).with_xs(1).with_xu(1);
        }
        let shown = valid
            .with_verify_guest_paging(self.verify_guest_paging())
            .with_paging_write(self.paging_write())
            .with_shadow_stack(self.shadow_stack())
            .with_suppress_ve(self.suppress_ve());
        if !self.is_blocked_leaf() {
            return shown
                .with_r(self.r())
                .with_w(self.w())
                .with_xs(self.xs())
                .with_xu(self.xu());
        }
        let shown = shown.with_w(self.saved_w());
        if write_blocked {
            shown.with_r(self.r()).with_xs(self.xs()).with_xu(self.xu())
        } else {
            shown
                .with_r(self.saved_r())
                .with_xs(self.saved_xs())
                .with_xu(self.saved_xu())
        }
    }

    /// The entry blocked, its permissions put aside; W is kept aside already if L1 is blocked for writing.
    #[must_use]
    pub const fn blocked_entry(self, write_blocked: bool) -> Self {
        if self.leaf() == 0 {
            return self
                .with_no_permissions()
                .with_ignore_pat(0)
                .with_blocked(1);
        }
        let kept_w = if write_blocked {
            self.saved_w()
        } else {
            self.w()
        };
        self.with_permissions_saved()
            .with_saved_w(kept_w)
            .with_ignore_pat(1)
            .with_blocked(1)
    }

    /// The entry unblocked; the same if it was not blocked.
    #[must_use]
    pub const fn unblocked(self) -> Self {
        match self.state() {
            Some(L2State::NonLeafBlocked) => Self::from_bits(self.into_bits() | ALL_PERMISSIONS)
                .with_blocked(0)
                .with_memory_type(0)
                .with_saved_w(0),
            Some(L2State::Blocked) => self
                .with_r(self.saved_r())
                .with_w(self.saved_w())
                .with_xs(self.saved_xs())
                .with_xu(self.saved_xu())
                .with_memory_type(WRITE_BACK)
                .with_saved_w(0)
                .with_blocked(0),
            _ => self,
        }
    }

    const fn with_permissions(self, attributes: VmAttributes) -> Self {
        self.with_r(attributes.r())
            .with_w(attributes.w())
            .with_xs(attributes.xs())
            .with_xu(attributes.xu())
            .with_verify_guest_paging(attributes.verify_guest_paging())
            .with_paging_write(attributes.paging_write())
            .with_shadow_stack(attributes.shadow_stack())
            .with_suppress_ve(attributes.suppress_ve())
    }

    const fn with_permissions_saved(self) -> Self {
        self.with_saved_r(self.r())
            .with_saved_w(self.w())
            .with_saved_xs(self.xs())
            .with_saved_xu(self.xu())
            .with_no_permissions()
    }

    const fn with_no_permissions(self) -> Self {
        self.with_r(0).with_w(0).with_xs(0).with_xu(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RW: VmAttributes = VmAttributes::from_bits(0x8003);

    #[test]
    fn blocking_and_unblocking_a_leaf_restores_it() {
        let leaf = L2Entry::FREE.leaf_for(0x100, RW.with_xu(1).with_shadow_stack(1), false);
        assert_eq!(leaf.state(), Some(L2State::Mapped));
        let blocked = leaf.blocked_entry(false);
        assert_eq!(blocked.state(), Some(L2State::Blocked));
        assert_eq!(
            (blocked.r(), blocked.w(), blocked.xs(), blocked.xu()),
            (0, 0, 0, 0)
        );
        assert_eq!(blocked.attributes(false), leaf.attributes(false));
        assert_eq!(blocked.unblocked(), leaf);
    }

    #[test]
    fn blocking_a_pending_alias_again_loses_its_permissions_as_in_the_module() {
        let pending = L2Entry::FREE.leaf_for(0x100, RW, true);
        assert_eq!(pending.unblocked().attributes(false), RW);
        assert_eq!(
            pending.blocked_entry(false).unblocked().attributes(false),
            VmAttributes::from_bits(0x8000)
        );
    }

    #[test]
    fn tables_block_and_unblock() {
        let table = L2Entry::table(0x55);
        assert_eq!(table.state(), Some(L2State::NonLeafMapped));
        let blocked = table.blocked_entry(false);
        assert_eq!(blocked.state(), Some(L2State::NonLeafBlocked));
        assert_eq!(blocked.unblocked(), table);
        assert_eq!(blocked.attributes(false).into_bits(), 0x800f);
    }

    #[test]
    fn attributes_of_four_vms_share_a_word() {
        let all = RW.put_into(RW.put_into(0, 1), 2);
        assert_eq!(all, 0x8003_8003_0000);
        assert_eq!(VmAttributes::of(all, 2), RW);
        assert!(!VmAttributes::from_bits(0x8002).is_legal());
        assert!(!VmAttributes::from_bits(0x0001).is_legal());
        assert!(VmAttributes::from_bits(0x8004).is_legal());
    }
}
