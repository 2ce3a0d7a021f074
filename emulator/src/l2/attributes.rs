//! TDG.MEM.PAGE.ATTR.RD and WR: the L1 VMM reads and sets what L2 VMs may do with a page.
//!
//! Source: `tdg_mem_page_attr_rd.c` and `tdg_mem_page_attr_wr.c` of the TDX module 1.5.01.

use tdx_abi::Level;
use tdx_abi::PrivateGpa;
use tdx_abi::format::EptViolationQualification;
use tdx_abi::format::ExtendedExitQualification;
use tdx_abi::format::ExtendedExitQualificationType;
use tdx_abi::format::GpaAttributeFlagsVm;
use tdx_abi::format::GpaAttributesVm;
use tdx_abi::format::GpaMappingAndFlags;
use tdx_abi::format::L2SeptEntry;
use tdx_abi::format::VmCtls;

use super::entry;
use super::entry::is_legal;
use super::entry::is_present;
use crate::abi::OperandId;
use crate::abi::SeptState;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::abi::TdcallLeaf;
use crate::core::Core;
use crate::exit::Guest;
use crate::exit::Leave;
use crate::exit::ept_violation::ept_violation_exit;
use crate::exit::ept_violation::refused_entry_exit;
use crate::exit::gpr;
use crate::exit::reason;
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

/// Where the information of an extended exit qualification holds the level at which a walk stopped, and the VM.
const LEVEL_SHIFT: u32 = 3;
const VM_SHIFT: u32 = 20;
/// The L1 VMM and the most L2 VMs.
const VMS: usize = 4;

/// Nothing allowed.
const NO_ATTRIBUTES: GpaAttributesVm = GpaAttributesVm::from_bits(0);

/// How a leaf ends for the guest.
enum Failure {
    /// Status, RCX and RDX 0.
    Status(Status),
    /// Status, RCX 0, these attributes in RDX.
    Attributes(Status, u64),
    /// TD exit.
    Exit(Leave),
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
pub(crate) fn wr(guest: &mut Guest<'_>) -> Outcome {
    let outcome = write(guest);
    if outcome.is_ok() {
        flush(guest);
    }
    finish(guest, outcome)
}

/// Drops the LP's translations of those L2 VMs for which R8 asks for it.
fn flush(guest: &mut Guest<'_>) {
    let flags = guest.register(gpr::R8);
    for vm in 1..=guest.tdcs.l2_vms() {
        if GpaAttributeFlagsVm::from_bits((flags >> (16 * vm)) as u16).invept() {
            guest.lp.tlb.flush_l2(guest.inside.tdr, vm);
        }
    }
}

fn finish(guest: &Guest<'_>, outcome: Result<(u64, u64), Failure>) -> Outcome {
    let (status, rcx, rdx) = match outcome {
        Ok((rcx, rdx)) => (Status::of(StatusCode::SUCCESS), rcx, rdx),
        Err(Failure::Status(status)) => (status, 0, 0),
        Err(Failure::Attributes(status, attributes)) => (status, 0, attributes),
        Err(Failure::Exit(exit)) => return Err(exit.into()),
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
    let reason = reason::EPT_VIOLATION.into();
    Failure::Exit(ept_violation_exit(gpa, reason, qualification, extended))
}

fn lock(found: Found<'_>) -> Result<EntryLock<'_>, Failure> {
    found
        .cell
        .lock_guest()
        .map_err(|code| Status::with_operand(code, OperandId::RCX).into())
}

fn is_allowed(core: &Core, leaf: TdcallLeaf, entry: SeptEntry) -> bool {
    leaf.sept_states(core.module())
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
    if !is_allowed(core, TdcallLeaf::TDG_MEM_PAGE_ATTR_RD, entry) {
        return Err(violation(gpa, 0, 0));
    }
    let mut attributes = 0;
    for vm in (1..=tdcs.l2_vms()).filter(|&vm| entry.is_aliased(vm)) {
        let alias = sept::walk_l2_guest(core.memory(), tdcs.l2_root(vm), gpa, found.level);
        let shown = entry::attributes(alias.entry, entry.state().any_blockedw());
        attributes = entry::put(attributes, vm, shown);
    }
    let page = gpa & !(found.level.size() - 1);
    let mapping = GpaMappingAndFlags::default()
        .with_gpa(PrivateGpa::new(page))
        .with_level(found.level)
        .with_pending(entry.state().any_pending());
    Ok((mapping.into_bits(), attributes))
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
        return Err(refused(gpa, level, found.entry, found.level));
    }
    let lock = lock(found)?;
    let entry = lock.get();
    if !entry.is_leaf() && entry.state() != SeptState::Free {
        return Err(Status::with_detail(StatusCode::PAGE_SIZE_MISMATCH, level as u32).into());
    }
    if !is_allowed(core, TdcallLeaf::TDG_MEM_PAGE_ATTR_WR, entry) {
        return Err(refused(gpa, level, entry, level));
    }
    let (attributes, aliases) = combine(guest, gpa, level, entry, attributes, flags)?;
    let attributes = commit(&lock, entry, attributes, aliases);
    let mapping = GpaMappingAndFlags::from_bits(rcx).with_pending(entry.state().any_pending());
    Ok((mapping.into_bits(), attributes))
}

/// Checks that only L2 VMs that exist are given attributes, and those whole ones.
fn check_vms(attributes: u64, flags: u64, l2_vms: usize) -> Result<(), Failure> {
    for vm in 0..VMS {
        let given = entry::of_vm(attributes, vm);
        if vm == 0 || vm > l2_vms {
            if given.into_bits() != 0 {
                return Err(invalid(OperandId::RDX));
            }
            if entry::of_vm(flags, vm).into_bits() != 0 {
                return Err(invalid(OperandId::R8));
            }
        } else if given.into_bits() != 0 && !given.valid() {
            return Err(invalid(OperandId::RDX));
        }
    }
    Ok(())
}

/// The exit with which the host learns that the L1 entry is in the way.
fn refused(gpa: u64, asked: Level, entry: SeptEntry, level: Level) -> Failure {
    Failure::Exit(refused_entry_exit(
        gpa,
        asked,
        entry,
        level,
        ExtendedExitQualificationType::ATTR_WR.into_bits().into(),
    ))
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
    for (vm, alias) in aliases
        .iter_mut()
        .enumerate()
        .take(tdcs.l2_vms() + 1)
        .skip(1)
    {
        let mask = entry::of_vm(flags, vm).with_valid(true).into_bits();
        let asked = GpaAttributesVm::from_bits(entry::of_vm(attributes, vm).into_bits() & mask);
        if !asked.valid() {
            continue;
        }
        let walk = || sept::walk_l2_guest(core.memory(), tdcs.l2_root(vm), gpa, level);
        if entry.is_aliased(vm) {
            let found = walk();
            let current = entry::attributes(found.entry, entry.state().any_blockedw());
            let new = GpaAttributesVm::from_bits(current.into_bits() & !mask | asked.into_bits());
            let legal = !is_present(new) || is_legal(new);
            illegal |= !legal;
            combined = entry::put(combined, vm, if legal { new } else { current });
            *alias = Some(found.cell);
        } else if is_present(asked) && !is_legal(asked) {
            illegal = true;
            combined = entry::put(combined, vm, NO_ATTRIBUTES);
        } else if is_present(asked) {
            combined = entry::put(combined, vm, asked);
            let found = walk();
            if found.level != level {
                return Err(missing_page(guest, gpa, vm, found));
            }
            *alias = Some(found.cell);
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
    if !VmCtls::from_bits(guest.tdcs.get(tdcs::VM_CTLS.nth(vm)))
        .ept_violation_on_l2_sept_walk_failure()
    {
        return with_l2_details(StatusCode::L2_SEPT_WALK_FAILED, vm, found.level).into();
    }
    let stopped_at = L2SeptEntry::from_bits(found.entry.0);
    let qualification = EptViolationQualification::default()
        .with_write(true)
        .with_readable(stopped_at.r())
        .with_writable(stopped_at.w())
        .with_executable(stopped_at.xs())
        .with_executable_user(stopped_at.xu());
    let info = (found.level as u32) << LEVEL_SHIFT | (vm as u32) << VM_SHIFT;
    let extended = ExtendedExitQualification::default()
        .with_type(ExtendedExitQualificationType::GPA_DETAILS)
        .with_info(info);
    violation(gpa, qualification.into_bits(), extended.into_bits())
}

/// Changes the L2 entries and the alias bits; returns the attributes that they now have.
fn commit(lock: &EntryLock<'_>, entry: SeptEntry, attributes: u64, aliases: Aliases<'_>) -> u64 {
    let mut result = attributes;
    let mut l1 = entry;
    for (vm, cell) in aliases.into_iter().enumerate() {
        let Some(cell) = cell else { continue };
        let new = entry::of_vm(attributes, vm);
        let old = cell.get();
        let l2 = if !entry.is_aliased(vm) {
            l1 = l1.with_alias(vm);
            entry::leaf_for(old, entry.address(), new, entry.state().any_pending())
        } else if is_present(new) {
            entry::with_attributes(old, new)
        } else {
            l1 = l1.without_alias(vm);
            result = entry::put(result, vm, NO_ATTRIBUTES.with_valid(true));
            SeptEntry(0)
        };
        cell.set(l2);
    }
    lock.set(l1);
    result
}
