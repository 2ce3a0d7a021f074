//! TDG.MEM.PAGE.ATTR.RD and WR: the L1 VMM reads and sets what L2 VMs may do with a page.
//!
//! Source: `tdg_mem_page_attr_rd.c` and `tdg_mem_page_attr_wr.c` of the TDX module 1.5.01.

use tdx_abi::Level;

use super::entry::L2Entry;
use super::entry::VmAttributes;
use crate::abi::Module;
use crate::abi::OperandId;
use crate::abi::SeptState;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::abi::TdcallLeaf;
use crate::exit::Guest;
use crate::exit::Leave;
use crate::exit::TdExit;
use crate::exit::gpr;
use crate::guest::Outcome;
use crate::module::check::with_l2_details;
use crate::module::mem::entry::Mapping;
use crate::sept;
use crate::sept::EntryCell;
use crate::sept::EntryLock;
use crate::sept::Found;
use crate::sept::SeptEntry;
use crate::structures::Structure;
use crate::structures::tdcs;

/// Basic exit reason of an EPT violation.
const EPT_VIOLATION: u64 = 48;
/// Exit qualification: the access was a write.
const DATA_WRITE: u64 = 1 << 1;
/// Extended exit qualification: the info field tells where a walk stopped.
const GPA_DETAILS: u64 = 2;
/// Extended exit qualification: as above, for TDG.MEM.PAGE.ATTR.WR on the L1 entry.
const ATTRIBUTE_WRITE: u64 = 5;
/// VM_CTLS: exit rather than fail where a Secure-EPT page of an L2 VM is missing.
const EXIT_ON_MISSING_L2_PAGE: u64 = 1;
/// The page is pending, in RCX of the outputs.
const PENDING: u64 = 1 << 62;
/// Flags of a VM other than the mask of its attributes: invalidate its translations.
const VMS: u16 = 4;

/// How a leaf ends for the guest.
enum Failure {
    /// Status, RCX and RDX 0.
    Status(Status),
    /// Status, RCX 0, these attributes in RDX.
    Attributes(Status, u64),
    /// TD exit.
    Exit(TdExit),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// TDG.MEM.PAGE.ATTR.RD.
pub(crate) fn rd(guest: &Guest<'_>) -> Outcome {
    let outcome = read(guest);
    finish(guest, outcome)
}

/// TDG.MEM.PAGE.ATTR.WR.
pub(crate) fn wr(guest: &Guest<'_>) -> Outcome {
    let outcome = write(guest);
    finish(guest, outcome)
}

fn finish(guest: &Guest<'_>, outcome: Result<(u64, u64), Failure>) -> Outcome {
    let (status, rcx, rdx) = match outcome {
        Ok((rcx, rdx)) => (Status::of(StatusCode::SUCCESS), rcx, rdx),
        Err(Failure::Status(status)) => (status, 0, 0),
        Err(Failure::Attributes(status, attributes)) => (status, 0, attributes),
        Err(Failure::Exit(exit)) => return Err(Leave::Async(exit).into()),
    };
    guest.set_register(gpr::RCX, rcx);
    guest.set_register(gpr::RDX, rdx);
    if status == Status::of(StatusCode::SUCCESS) {
        Ok(())
    } else {
        Err(status.into())
    }
}

fn invalid(operand: OperandId) -> Failure {
    Status::with_operand(StatusCode::OPERAND_INVALID, operand).into()
}

/// An EPT violation of the guest at the page of `gpa`.
fn violation(gpa: u64, qualification: u64, extended: u64) -> Failure {
    Failure::Exit(TdExit {
        extended,
        gpa: gpa & !0xfff,
        ..TdExit::of(StatusCode::SUCCESS, EPT_VIOLATION, qualification)
    })
}

fn lock(found: Found<'_>) -> Result<EntryLock<'_>, Failure> {
    found
        .cell
        .lock_guest()
        .map_err(|code| Status::with_operand(code, OperandId::RCX).into())
}

fn is_allowed(leaf: TdcallLeaf, entry: SeptEntry) -> bool {
    leaf.sept_states(Module::V1_5_01)
        .is_some_and(|states| states.contains(entry.state()))
}

fn read(guest: &Guest<'_>) -> Result<(u64, u64), Failure> {
    let core = guest.core;
    let tdcs = guest.tdcs;
    let gpa = guest.register(gpr::RCX);
    if !core.is_valid_gpa(gpa, tdcs.get(tdcs::GPAW), true) {
        return Err(invalid(OperandId::RCX));
    }
    let found = sept::walk(core.memory(), tdcs.root(), gpa, Level::Pt);
    let lock = lock(found)?;
    let entry = lock.get();
    if !is_allowed(TdcallLeaf::TDG_MEM_PAGE_ATTR_RD, entry) {
        return Err(violation(gpa, 0, 0));
    }
    let mut attributes = 0;
    for vm in (1..=tdcs.l2_vms()).filter(|&vm| entry.is_aliased(vm)) {
        let alias = sept::walk_l2_guest(core.memory(), tdcs.l2_root(vm), gpa, found.level);
        let shown = L2Entry::from_bits(alias.entry.0).attributes(entry.state().any_blockedw());
        attributes = shown.put_into(attributes, vm as u16);
    }
    let page = gpa & !(found.level.size() - 1);
    Ok((page | found.level as u64 | pending(entry), attributes))
}

const fn pending(entry: SeptEntry) -> u64 {
    if entry.state().any_pending() {
        PENDING
    } else {
        0
    }
}

fn write(guest: &Guest<'_>) -> Result<(u64, u64), Failure> {
    let core = guest.core;
    let tdcs = guest.tdcs;
    let (rcx, attributes, flags) = (
        guest.register(gpr::RCX),
        guest.register(gpr::RDX),
        guest.register(gpr::R8),
    );
    check_vms(attributes, flags, tdcs.l2_vms())?;
    let Some(Mapping { gpa, level }) = Mapping::decode(rcx, Level::Pt, Level::Pdpt) else {
        return Err(invalid(OperandId::RCX));
    };
    if !core.is_valid_gpa(gpa, tdcs.get(tdcs::GPAW), true) {
        return Err(invalid(OperandId::RCX));
    }
    let found = sept::walk(core.memory(), tdcs.root(), gpa, level);
    if found.level != level {
        return Err(l1_violation(gpa, level, found.entry, found.level));
    }
    let lock = lock(found)?;
    let entry = lock.get();
    if !entry.is_leaf() && entry.state() != SeptState::Free {
        return Err(Status::with_detail(StatusCode::PAGE_SIZE_MISMATCH, level as u32).into());
    }
    if !is_allowed(TdcallLeaf::TDG_MEM_PAGE_ATTR_WR, entry) {
        return Err(l1_violation(gpa, level, entry, level));
    }
    let (attributes, aliases) = combine(guest, gpa, level, entry, attributes, flags)?;
    let attributes = commit(&lock, entry, attributes, aliases);
    Ok((rcx | pending(entry), attributes))
}

/// Checks that only L2 VMs that exist are given attributes, and those whole ones.
fn check_vms(attributes: u64, flags: u64, l2_vms: usize) -> Result<(), Failure> {
    for vm in 0..VMS {
        let given = VmAttributes::of(attributes, vm);
        if vm == 0 || usize::from(vm) > l2_vms {
            if given.into_bits() != 0 {
                return Err(invalid(OperandId::RDX));
            }
            if VmAttributes::of(flags, vm).into_bits() != 0 {
                return Err(invalid(OperandId::R8));
            }
        } else if given.into_bits() != 0 && given.valid() == 0 {
            return Err(invalid(OperandId::RDX));
        }
    }
    Ok(())
}

/// An EPT violation at the L1 entry.
fn l1_violation(gpa: u64, asked: Level, entry: SeptEntry, level: Level) -> Failure {
    let info = asked as u64
        | (level as u64) << 3
        | (entry.state().public_state() as u64) << 6
        | u64::from(entry.is_leaf()) << 14;
    violation(
        gpa,
        DATA_WRITE | entry.permissions() << 3,
        ATTRIBUTE_WRITE | info << 32,
    )
}

/// The entries of L2 VMs 1 to 3 that are to change.
type Aliases<'m> = [Option<EntryCell<'m>>; 4];

/// Combines what is asked for with what the L2 VMs have, and finds the entries to change.
///
/// An illegal combination is told only after all VMs have been looked at, with what they have in RDX.
fn combine<'m>(
    guest: &Guest<'m>,
    gpa: u64,
    level: Level,
    entry: SeptEntry,
    attributes: u64,
    flags: u64,
) -> Result<(u64, Aliases<'m>), Failure> {
    let core = guest.core;
    let tdcs = guest.tdcs;
    let mut combined = attributes;
    let mut aliases: Aliases<'m> = [None; 4];
    let mut illegal = false;
    for vm in 1..=tdcs.l2_vms() {
        let number = vm as u16;
        let mask = VmAttributes::of(flags, number).with_valid(1).into_bits();
        let asked =
            VmAttributes::from_bits(VmAttributes::of(attributes, number).into_bits() & mask);
        if asked.valid() == 0 {
            continue;
        }
        let walk = || sept::walk_l2_guest(core.memory(), tdcs.l2_root(vm), gpa, level);
        if entry.is_aliased(vm) {
            let found = walk();
            let current =
                L2Entry::from_bits(found.entry.0).attributes(entry.state().any_blockedw());
            let new = VmAttributes::from_bits(current.into_bits() & !mask | asked.into_bits());
            let legal = !new.is_present() || new.is_legal();
            illegal |= !legal;
            combined = if legal { new } else { current }.put_into(combined, number);
            aliases[vm] = Some(found.cell);
        } else if asked.is_present() && !asked.is_legal() {
            illegal = true;
            combined = VmAttributes::from_bits(0).put_into(combined, number);
        } else if asked.is_present() {
            combined = asked.put_into(combined, number);
            let found = walk();
            if found.level != level {
                return Err(missing_page(guest, gpa, vm, found));
            }
            aliases[vm] = Some(found.cell);
        }
    }
    if illegal {
        return Err(Failure::Attributes(
            Status::of(StatusCode::PAGE_ATTR_INVALID),
            combined,
        ));
    }
    Ok((combined, aliases))
}

/// A Secure-EPT page of an L2 VM is missing: an exit or a status, as the L1 VMM has chosen.
fn missing_page(guest: &Guest<'_>, gpa: u64, vm: usize, found: Found<'_>) -> Failure {
    if guest.tdcs.get(tdcs::VM_CTLS.nth(vm)) & EXIT_ON_MISSING_L2_PAGE == 0 {
        return with_l2_details(StatusCode::L2_SEPT_WALK_FAILED, vm, found.level).into();
    }
    let stopped_at = L2Entry::from_bits(found.entry.0);
    let permissions = found.entry.permissions() | stopped_at.xu() << 3;
    let info = (found.level as u64) << 3 | (vm as u64) << 20;
    violation(gpa, DATA_WRITE | permissions << 3, GPA_DETAILS | info << 32)
}

/// Changes the L2 entries and the alias bits; returns the attributes that they now have.
fn commit(lock: &EntryLock<'_>, entry: SeptEntry, attributes: u64, aliases: Aliases<'_>) -> u64 {
    let mut result = attributes;
    let mut l1 = entry;
    for (vm, cell) in aliases.into_iter().enumerate() {
        let Some(cell) = cell else { continue };
        let number = vm as u16;
        let new = VmAttributes::of(attributes, number);
        let old = L2Entry::from_bits(cell.get().0);
        let l2 = if !entry.is_aliased(vm) {
            l1 = l1.with_alias(vm);
            old.leaf_for(entry.address() >> 12, new, entry.state().any_pending())
        } else if new.is_present() {
            old.with_attributes(new)
        } else {
            l1 = l1.without_alias(vm);
            result = VmAttributes::from_bits(0)
                .with_valid(1)
                .put_into(result, number);
            L2Entry::FREE
        };
        cell.set(SeptEntry(l2.into_bits()));
    }
    lock.set(l1);
    result
}
