//! What a recording of 1.5.01 lacks for a newer module: the TDCX pages that a TD needs there in addition, and what a
//! host tells the destination of a migration about lists that are longer there.

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::HashMap;

use tdx_abi::Registers;
use tdx_abi::field;
use tdx_abi::format::PageListInfo;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::module::Module;
use tdx_emulator::Lp;

/// Pages that no recording uses.
const POOL: u64 = 0x1_7000_0000;
const PAGE: u64 = 4096;

/// Does behind the recording's back what a host does on the newer module.
///
/// Adds pages to a TD after its first one, so that as many calls as recorded make it complete, and takes them back before
/// its TDR is reclaimed. Imports as many pages of state as were exported.
#[derive(Debug)]
pub(super) struct Host {
    /// How many a TD gets.
    count: u64,
    next: Cell<u64>,
    /// By TDR.
    given: RefCell<HashMap<u64, Vec<u64>>>,
    /// Pages of the state that was exported last; 0 where nothing differs from the recording.
    exported: Cell<u64>,
    /// Whether lists of state are as long as recorded.
    lists_as_recorded: bool,
}

impl Host {
    pub(super) fn of(module: Module) -> Self {
        let size = |module| field::fixed(module, field::global::TDCS_BASE_SIZE);
        let recorded = size(Module::V1_5_01).unwrap_or_default();
        let more = size(module).unwrap_or(recorded).saturating_sub(recorded);
        Self {
            count: more / PAGE,
            next: Cell::new(POOL),
            given: RefCell::default(),
            exported: Cell::new(0),
            lists_as_recorded: module == Module::V1_5_01,
        }
    }

    /// R9 with which a call of the recording is made.
    pub(super) fn list(&self, call: &Registers) -> u64 {
        let imports_state = is(call, SeamcallLeaf::TDH_IMPORT_STATE_IMMUTABLE)
            || is(call, SeamcallLeaf::TDH_IMPORT_STATE_TD)
            || is(call, SeamcallLeaf::TDH_IMPORT_STATE_VP);
        match self.exported.get().checked_sub(1) {
            Some(last) if imports_state => PageListInfo::from_bits(call.r9)
                .with_last_entry(last as u16)
                .into_bits(),
            _ => call.r9,
        }
    }

    /// Before a call of the recording.
    pub(super) fn before(&self, lp: Lp<'_>, call: &Registers) {
        if is(call, SeamcallLeaf::TDH_PHYMEM_PAGE_RECLAIM)
            && let Some(pages) = self.given.borrow_mut().get_mut(&call.rcx)
        {
            pages.retain(|page| execute(lp, SeamcallLeaf::TDH_PHYMEM_PAGE_RECLAIM, *page, 0) != 0);
        }
    }

    /// After a call of the recording that returned `after`.
    pub(super) fn after(&self, lp: Lp<'_>, call: &Registers, after: &Registers) {
        let exports_state = is(call, SeamcallLeaf::TDH_EXPORT_STATE_IMMUTABLE)
            || is(call, SeamcallLeaf::TDH_EXPORT_STATE_TD)
            || is(call, SeamcallLeaf::TDH_EXPORT_STATE_VP);
        if !self.lists_as_recorded && exports_state && after.rax == 0 {
            self.exported.set(after.rdx);
        }
        let (tdr, status) = (call.rdx, after.rax);
        if self.count == 0 || status != 0 || !is(call, SeamcallLeaf::TDH_MNG_ADDCX) {
            return;
        }
        let mut given = self.given.borrow_mut();
        let pages = given.entry(tdr).or_default();
        if pages.is_empty() {
            for _ in 0..self.count {
                let page = self.next.replace(self.next.get() + PAGE);
                if execute(lp, SeamcallLeaf::TDH_MNG_ADDCX, page, tdr) == 0 {
                    pages.push(page);
                }
            }
        }
    }
}

fn is(call: &Registers, leaf: SeamcallLeaf) -> bool {
    call.rax == u64::from(leaf.number())
}

fn execute(lp: Lp<'_>, leaf: SeamcallLeaf, rcx: u64, rdx: u64) -> u64 {
    let mut registers = Registers {
        rax: leaf.number().into(),
        rcx,
        rdx,
        ..Registers::default()
    };
    lp.host_call(&mut registers);
    registers.rax
}
