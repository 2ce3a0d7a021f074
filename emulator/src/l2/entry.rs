//! What an L1 VMM asks for a page in an L2 VM, and the leaf entry that grants it.
//!
//! An L2 entry has no lock of its own: the entry lock of the L1 entry that it aliases guards it.
//! Rules: module 1.5.01, `sept_manager.{h,c}`.

use tdx_abi::Hpa;
use tdx_abi::format::GpaAttributes;
use tdx_abi::format::GpaAttributesVm;
use tdx_abi::format::L2SeptEntry;

use crate::abi::L2SeptState;
use crate::sept::SeptEntry;

/// Memory type write-back, as the three bits of an EPT leaf hold it.
const WRITE_BACK: u8 = 6;

/// The attributes of `vm` among the four of `all`.
pub(crate) const fn of_vm(all: u64, vm: usize) -> GpaAttributesVm {
    let all = GpaAttributes::from_bits(all);
    match vm {
        0 => all.vm0(),
        1 => all.vm1(),
        2 => all.vm2(),
        _ => all.vm3(),
    }
}

/// `all` with the attributes of `vm` replaced.
pub(crate) const fn put(all: u64, vm: usize, attributes: GpaAttributesVm) -> u64 {
    let all = GpaAttributes::from_bits(all);
    let all = match vm {
        0 => all.with_vm0(attributes),
        1 => all.with_vm1(attributes),
        2 => all.with_vm2(attributes),
        _ => all.with_vm3(attributes),
    };
    all.into_bits()
}

/// Whether any access is allowed: then the page has an alias in the VM.
pub(crate) const fn is_present(attributes: GpaAttributesVm) -> bool {
    attributes.r() || attributes.w() || attributes.xs() || attributes.xu()
}

/// Whether the combination may stand in an entry: no writing without reading, no #VE suppression.
pub(crate) const fn is_legal(attributes: GpaAttributesVm) -> bool {
    let unreadable = !attributes.r() && (attributes.w() || attributes.pwa());
    let invalid = !attributes.valid() && attributes.into_bits() != 0;
    !invalid && attributes.is_reserved_valid() && !unreadable && !attributes.sve()
}

/// The attributes that an L2 entry grants, as the L1 VMM may see them.
///
/// `write_blocked`: the L1 entry is blocked for writing, which shows in L2 only in W.
pub(crate) const fn attributes(entry: SeptEntry, write_blocked: bool) -> GpaAttributesVm {
    GpaAttributesVm::from_bits(entry.l2_attributes(write_blocked))
}

/// The leaf entry for the page at `hpa` with these attributes, blocked or not.
///
/// Bits of the present entry that neither says are kept.
pub(crate) const fn leaf_for(
    entry: SeptEntry,
    hpa: u64,
    attributes: GpaAttributesVm,
    blocked: bool,
) -> SeptEntry {
    let entry = with_permissions(L2SeptEntry::from_bits(entry.0), attributes)
        .with_hpa(Hpa::new(hpa))
        .with_saved_w(false)
        .with_ipat(true)
        .with_leaf(true)
        .with_blocked(blocked)
        .with_mt0_saved_r(WRITE_BACK & 1 != 0)
        .with_mt1_saved_xs(WRITE_BACK & 2 != 0)
        .with_mt2_saved_xu(WRITE_BACK & 4 != 0);
    let entry = if blocked {
        with_permissions_saved(entry)
    } else {
        entry
    };
    SeptEntry(entry.into_bits())
}

/// The leaf entry with other attributes; a blocked one keeps them for later.
pub(crate) const fn with_attributes(entry: SeptEntry, attributes: GpaAttributesVm) -> SeptEntry {
    let blocked = matches!(entry.l2_state(), L2SeptState::L2Blocked);
    let entry = with_permissions(L2SeptEntry::from_bits(entry.0), attributes);
    let entry = if blocked {
        with_permissions_saved(entry)
    } else {
        entry
    };
    SeptEntry(entry.into_bits())
}

const fn with_permissions(entry: L2SeptEntry, attributes: GpaAttributesVm) -> L2SeptEntry {
    entry
        .with_r(attributes.r())
        .with_w(attributes.w())
        .with_xs(attributes.xs())
        .with_xu(attributes.xu())
        .with_vgp(attributes.vgp())
        .with_pwa(attributes.pwa())
        .with_sss(attributes.sss())
        .with_sve(attributes.sve())
}

const fn with_permissions_saved(entry: L2SeptEntry) -> L2SeptEntry {
    entry
        .with_mt0_saved_r(entry.r())
        .with_saved_w(entry.w())
        .with_mt1_saved_xs(entry.xs())
        .with_mt2_saved_xu(entry.xu())
        .with_r(false)
        .with_w(false)
        .with_xs(false)
        .with_xu(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: SeptEntry = SeptEntry(0);
    const RW: GpaAttributesVm = GpaAttributesVm::from_bits(0x8003);

    #[test]
    fn blocking_and_unblocking_a_leaf_restores_it() {
        let leaf = leaf_for(FREE, 0x10_0000, RW.with_xu(true).with_sss(true), false);
        let blocked = leaf.l2_blocked(false);
        assert_eq!(blocked.l2_state(), L2SeptState::L2Blocked);
        assert_eq!(attributes(blocked, false), attributes(leaf, false));
        assert_eq!(blocked.l2_unblocked(), leaf);
    }

    #[test]
    fn blocking_a_pending_alias_again_loses_its_permissions_as_in_the_module() {
        let pending = leaf_for(FREE, 0x10_0000, RW, true);
        assert_eq!(attributes(pending.l2_unblocked(), false), RW);
        let again = pending.l2_blocked(false);
        assert_eq!(attributes(again.l2_unblocked(), false).into_bits(), 0x8000);
    }

    #[test]
    fn a_blocked_leaf_takes_new_attributes_for_later() {
        let blocked = leaf_for(FREE, 0x10_0000, RW, true);
        let changed = with_attributes(blocked, RW.with_w(false).with_xs(true));
        assert_eq!(changed.l2_state(), L2SeptState::L2Blocked);
        assert_eq!(
            attributes(changed.l2_unblocked(), false).into_bits(),
            0x8005
        );
    }

    #[test]
    fn attributes_of_four_vms_share_a_word() {
        let all = put(put(0, 1, RW), 2, RW);
        assert_eq!(all, 0x8003_8003_0000);
        assert_eq!(of_vm(all, 2), RW);
        assert!(!is_legal(GpaAttributesVm::from_bits(0x8002)));
        assert!(!is_legal(GpaAttributesVm::from_bits(0x0001)));
        assert!(is_legal(GpaAttributesVm::from_bits(0x8004)));
    }
}
