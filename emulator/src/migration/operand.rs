//! Operands that several migration leaves have in common, and the locks that go with them.

use super::mbmd::MBMD_ALIGN;
use super::mbmd::MBMD_BYTES;
use super::stream::Stream;
use super::stream::StreamId;
use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::frame::Frame;
use crate::lock::Mode;
use crate::lock::Sharex;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::tdcs;
use tdx_abi::format::GpaListFormat;
use tdx_abi::format::GpaListInfo;
use tdx_abi::format::HpaAndSize;
use tdx_abi::format::MigrationStreamAndCommand;
use tdx_abi::format::StatusBits;

/// Bytes of a page.
const PAGE: u64 = 4096;

/// An error about an operand.
pub(crate) const fn invalid(operand: OperandId) -> Status {
    Status::with_operand(StatusCode::OPERAND_INVALID, operand)
}

/// A status with the FATAL bit: the TD can only be torn down.
pub(crate) const fn made_fatal(status: Status) -> Status {
    Status::from_rax(
        StatusBits::from_bits(status.rax())
            .with_fatal(true)
            .into_bits(),
    )
}

/// Locks the migration session of the TD as a whole.
pub(crate) fn lock_session(tdcs: Tdcs<'_>, mode: Mode) -> Result<Sharex<'_>, Status> {
    Sharex::acquire(tdcs.lock_word(tdcs::MIG_LOCK), mode).ok_or(Status::with_operand(
        StatusCode::OPERAND_BUSY,
        OperandId::MIG,
    ))
}

/// Locks the TD's Secure-EPT tree shared.
pub(crate) fn lock_tree(tdcs: Tdcs<'_>) -> Result<Sharex<'_>, Status> {
    Sharex::acquire(tdcs.lock_word(tdcs::SEPT_LOCK), Mode::Shared).ok_or(Status::with_operand(
        StatusCode::OPERAND_BUSY,
        OperandId::SEPT_TREE,
    ))
}

/// Takes R10 as the index of an existing forward stream and a command.
pub(crate) fn any_stream(r10: u64, tdcs: Tdcs<'_>) -> Result<(u16, bool), Status> {
    let operand = MigrationStreamAndCommand::from_bits(r10);
    let index = operand.index();
    // One stream is the backward one.
    let forward = u32::from(tdcs.get(tdcs::NUM_MIGS)).wrapping_sub(1);
    if !operand.is_reserved_valid() || u32::from(index) >= forward {
        return Err(invalid(OperandId::R10));
    }
    Ok((index, operand.command()))
}

/// Takes R10 as a command for forward stream 0, the only one that is legal here.
pub(crate) fn first_stream(r10: u64) -> Result<bool, Status> {
    let operand = MigrationStreamAndCommand::from_bits(r10);
    if !operand.is_reserved_valid() || operand.index() != 0 {
        return Err(invalid(OperandId::R10));
    }
    Ok(operand.command())
}

/// Takes R8 as a buffer for an MBMD in shared memory; returns its address without KeyID.
pub(crate) fn mbmd_buffer(core: &Core, r8: u64) -> Result<u64, Status> {
    let operand = HpaAndSize::from_bits(r8);
    if usize::from(operand.size()) < MBMD_BYTES {
        return Err(invalid(OperandId::R8));
    }
    core.check_shared_hpa_aligned(operand.hpa().bits(), MBMD_ALIGN)
        .map_err(|code| Status::with_operand(code, OperandId::R8))?;
    Ok(core.without_key_id(operand.hpa().bits()))
}

/// Takes `hpa` as the address of a page in shared memory.
pub(crate) fn shared_page(core: &Core, hpa: u64, operand: OperandId) -> Result<&Frame, Status> {
    core.check_shared_hpa_aligned(hpa, PAGE)
        .map_err(|code| Status::with_operand(code, operand))?;
    Ok(core.memory().frame(core.without_key_id(hpa) >> 12))
}

/// Takes RCX as the description of a GPA list.
pub(crate) fn gpa_list(core: &Core, info: GpaListInfo) -> Result<&Frame, Status> {
    if !info.is_reserved_valid()
        || info.format() != GpaListFormat::GPA_ONLY
        || info.first_entry() > info.last_entry()
    {
        return Err(invalid(OperandId::RCX));
    }
    shared_page(core, info.hpa().bits(), OperandId::RCX)
}

/// Locks forward stream 0, which this session must have used already.
pub(crate) fn lock_first_stream<'m>(core: &'m Core, tdcs: Tdcs<'m>) -> Result<Stream<'m>, Status> {
    let stream = Stream::lock(core.memory(), tdcs, StreamId::Forward(0))?;
    if !stream.is_initialized() {
        return Err(Status::of(StatusCode::MIGRATION_STREAM_STATE_INCORRECT));
    }
    Ok(stream)
}

/// Draws 256 random bits.
pub(crate) fn random_256(core: &Core) -> [u64; 4] {
    core::array::from_fn(|_| core.random())
}

/// Copies the four quadwords of a key from field to field.
pub(crate) fn copy_key(
    tdcs: Tdcs<'_>,
    from: crate::frame::Field<u64>,
    to: crate::frame::Field<u64>,
) {
    for word in 0..4 {
        tdcs.set(to.nth(word), tdcs.get(from.nth(word)));
    }
}
