//! TDH.MEM.SEPT.REMOVE

use tdx_abi::Level;

use super::super::Call;
use super::super::Outcome;
use super::entry::Levels;
use super::entry::Opened;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::SeptState;
use crate::abi::StatusCode;
use crate::lock::Mode;
use crate::module::check::Implicit;
use crate::sept::EntryCell;
use crate::sept::Found;
use crate::sept::SeptEntry;
use crate::structures::tdvps::NULL_PA;

/// TDH.MEM.SEPT.REMOVE
#[expect(
    clippy::needless_range_loop,
    reason = "VM numbers index several arrays"
)]
pub(crate) fn sept_remove(call: &mut Call<'_>) -> Outcome {
    const LEAF: SeamcallLeaf = SeamcallLeaf::TDH_MEM_SEPT_REMOVE;
    let core = call.core;
    let versioned = call.version > 0;
    if versioned {
        call.regs.r9 = NULL_PA;
        call.regs.r10 = NULL_PA;
        call.regs.r11 = NULL_PA;
    }
    super::check_version(call)?;
    let opened = Opened::open(call, LEAF, Levels(Level::Pd, None), Mode::Exclusive)?;
    opened.require(call, LEAF)?;
    let table = opened.entry.address();
    let freed = core.lock_implicit(table, OperandId::RCX, Mode::Exclusive, Level::Pt)?;
    opened.require_tracked(call, opened.entry, freed.entry, OperandId::RCX)?;
    let frame = core.memory().frame(table >> 12);
    if !frame
        .qwords()
        .iter()
        .all(|cell| EntryCell(cell).get().state() == SeptState::Free)
    {
        return Err(opened.refuse(call, StatusCode::EPT_PAGE_NOT_FREE));
    }
    let mut l2_tables: [Option<(Found<'_>, Implicit<'_>)>; 4] = [const { None }; 4];
    for vm in 1..=opened.tdcs.l2_vms() {
        if opened.entry.is_aliased(vm) {
            let found = opened.l2_walk(core, vm)?;
            let locked = core.lock_implicit(
                found.entry.address(),
                OperandId::RCX,
                Mode::Exclusive,
                Level::Pt,
            )?;
            l2_tables[vm] = Some((found, locked));
        }
    }
    for (vm, l2_table) in l2_tables.iter().enumerate() {
        let Some((found, locked)) = l2_table else {
            continue;
        };
        found.cell.set(SeptEntry::L2_FREE);
        opened.tdr.add_children(-1);
        let page = found.entry.address() | locked.free();
        if versioned {
            match vm {
                1 => call.regs.r9 = page,
                2 => call.regs.r10 = page,
                _ => call.regs.r11 = page,
            }
        }
    }
    core.count_unblocked(*opened.tdcs, opened.entry, opened.level);
    let Opened { lock, tdr, .. } = opened;
    lock.set_and_release(SeptEntry::FREE);
    tdr.add_children(-1);
    call.regs.rcx = table | freed.free();
    Ok(())
}
