//! The leaves that begin, pause, divide into epochs and end a migration session.

use super::gcm::same_mac;
use super::mbmd::MBMD_BYTES;
use super::mbmd::Mbmd;
use super::mbmd::OUT_OF_ORDER;
use super::operand;
use super::operand::invalid;
use super::operand::made_fatal;
use super::stream;
use super::stream::MAX_STREAMS;
use super::stream::Stream;
use super::stream::StreamId;
use crate::abi::OpState;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::lock::Mode;
use crate::module::Call;
use crate::module::Outcome;
use crate::pamt::PageType;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::tdcs;
use tdx_abi::format::MbType;

/// TDH.MIG.STREAM.CREATE: makes a page the context of one more stream.
pub(crate) fn stream_create(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let tdr = core.lock_tdr(call.regs.rdx, OperandId::RDX, Mode::Shared)?;
    let tdcs = core.lock_tdcs(
        *tdr,
        Some(Mode::Exclusive),
        SeamcallLeaf::TDH_MIG_STREAM_CREATE,
    )?;
    let _session = operand::lock_session(*tdcs, Mode::Exclusive)?;
    let number: u16 = tdcs.get(tdcs::NUM_MIGS);
    if number >= MAX_STREAMS {
        return Err(Status::of(StatusCode::MAX_MIGS_NUM_EXCEEDED));
    }
    let hpa = call.regs.rcx;
    let page = core.lock_page(hpa, OperandId::RCX, Mode::Exclusive, PageType::Nda)?;
    core.memory().fill(hpa >> 12, 0);
    core.claim(hpa, *tdr);
    tdr.add_children(1);
    page.take(PageType::Tdcx, tdr.hpa);
    tdcs.set(StreamId::link_number(number), hpa);
    tdcs.set(tdcs::NUM_MIGS, number + 1);
    Ok(())
}

/// TDH.EXPORT.PAUSE: no vCPU runs from here on.
pub(crate) fn export_pause(call: &mut Call<'_>) -> Outcome {
    let tdr = call
        .core
        .lock_tdr(call.regs.rcx, OperandId::RCX, Mode::Exclusive)?;
    let tdcs = call
        .core
        .lock_tdcs(*tdr, None, SeamcallLeaf::TDH_EXPORT_PAUSE)?;
    // If the session is aborted, the first entry of each vCPU flushes its TLB.
    tdcs.update(tdcs::TD_EPOCH, |epoch: u64| epoch.wrapping_add(1));
    tdcs.set_op_state(OpState::PausedExport);
    Ok(())
}

/// TDH.EXPORT.TRACK: ends a migration epoch, or the in-order phase, with an epoch token.
pub(crate) fn export_track(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let tdr = core.lock_tdr(call.regs.rcx, OperandId::RCX, Mode::Shared)?;
    let tdcs = core.lock_tdcs(*tdr, Some(Mode::Exclusive), SeamcallLeaf::TDH_EXPORT_TRACK)?;
    let _session = operand::lock_session(*tdcs, Mode::Exclusive)?;
    let in_order_done = operand::first_stream(call.regs.r10)?;
    let mbmd_at = operand::mbmd_buffer(core, call.regs.r8)?;
    let mut stream = operand::lock_first_stream(core, *tdcs)?;
    let epoch: u32 = tdcs.get(tdcs::MIG_EPOCH);
    let epoch = if !in_order_done {
        if epoch == OUT_OF_ORDER - 1 {
            return Err(Status::of(StatusCode::MIGRATION_EPOCH_OVERFLOW));
        }
        epoch.wrapping_add(1)
    } else if tdcs.op_state() != OpState::PausedExport {
        return Err(core.op_state_incorrect(*tdcs));
    } else if tdcs.get(tdcs::DIRTY_COUNT) != 0 {
        return Err(Status::of(StatusCode::EXPORTED_DIRTY_PAGES_REMAIN));
    } else {
        tdcs.set_op_state(OpState::PostExport);
        OUT_OF_ORDER
    };
    tdcs.set(tdcs::MIG_EPOCH, epoch);
    let bundles = tdcs.get(tdcs::TOTAL_MB_COUNT).wrapping_add(1);
    tdcs.set(tdcs::TOTAL_MB_COUNT, bundles);
    // The token carries MIG_VERSION, all other bundles the version in use.
    let token = Mbmd::new(
        MbType::EPOCH_TOKEN,
        tdcs.get(tdcs::MIG_VERSION),
        0,
        epoch,
        bundles,
    );
    send_token(core, &mut stream, token, mbmd_at);
    stream.context.next_mb_counter = 1;
    Ok(())
}

/// Writes out an MBMD that is a bundle by itself, under the next IV of stream 0.
fn send_token(core: &Core, stream: &mut Stream<'_>, token: Mbmd, mbmd_at: u64) {
    let context = &mut stream.context;
    context.interrupted.valid = false;
    context.iv_counter = context.iv_counter.wrapping_add(1);
    context.start(context.iv_counter, 0, &token.covered());
    let token = Mbmd {
        mac: context.mac(),
        iv_counter: context.iv_counter,
        ..token
    };
    core.memory().write(mbmd_at, &token.to_bytes());
}

/// Reads the MBMD at `address`.
fn read_mbmd(core: &Core, address: u64) -> Mbmd {
    let mut bytes = [0; MBMD_BYTES];
    core.memory().read(address, &mut bytes);
    Mbmd::from_bytes(&bytes)
}

/// Whether the MAC of an MBMD that is a bundle by itself is right.
fn is_authentic(stream: &mut Stream<'_>, token: &Mbmd) -> bool {
    stream
        .context
        .start(token.iv_counter, token.stream, &token.covered());
    same_mac(&stream.context.mac(), &token.mac)
}

/// TDH.EXPORT.ABORT: ends the session; once the start token is out, only with the destination's abort token.
pub(crate) fn export_abort(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let tdr = core.lock_tdr(call.regs.rcx, OperandId::RCX, Mode::Shared)?;
    let tdcs = core.lock_tdcs(*tdr, Some(Mode::Exclusive), SeamcallLeaf::TDH_EXPORT_ABORT)?;
    let _session = operand::lock_session(*tdcs, Mode::Exclusive)?;
    if call.regs.r10 != 0 {
        return Err(invalid(OperandId::R10));
    }
    if tdcs.op_state() == OpState::PostExport {
        check_abort_token(core, *tdcs, operand::mbmd_buffer(core, call.regs.r8)?)?;
    } else if call.regs.r8 != 0 {
        return Err(invalid(OperandId::R8));
    }
    stream::forget_all(*tdcs);
    tdcs.set_op_state(OpState::Runnable);
    Ok(())
}

fn check_abort_token(core: &Core, tdcs: Tdcs<'_>, mbmd_at: u64) -> Result<(), Status> {
    let token = read_mbmd(core, mbmd_at);
    if !token.is(MbType::ABORT_TOKEN, tdcs.get(tdcs::MIG_WORKING_VERSION))
        || token.specific != 0
        || token.stream != 0
    {
        return Err(Status::of(StatusCode::INVALID_MBMD));
    }
    let mut stream = Stream::lock(core.memory(), tdcs, StreamId::Backward)?;
    stream.ensure_initialized(tdcs::MIG_DEC_WORKING_KEY);
    stream.context.interrupted.valid = false;
    if is_authentic(&mut stream, &token) {
        Ok(())
    } else {
        Err(Status::of(StatusCode::INCORRECT_MBMD_MAC))
    }
}

/// TDH.IMPORT.TRACK: takes an epoch token; the start token ends the in-order phase.
pub(crate) fn import_track(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let tdr = core.lock_tdr(call.regs.rcx, OperandId::RCX, Mode::Exclusive)?;
    let tdcs = core.lock_tdcs(*tdr, None, SeamcallLeaf::TDH_IMPORT_TRACK)?;
    if call.regs.r10 != 0 {
        return Err(invalid(OperandId::R10));
    }
    let mbmd_at = operand::mbmd_buffer(core, call.regs.r8)?;
    let mut stream = operand::lock_first_stream(core, *tdcs)?;
    stream.context.interrupted.valid = false;
    let token = read_mbmd(core, mbmd_at);
    let bundles = tdcs.get(tdcs::TOTAL_MB_COUNT).wrapping_add(1);
    let expected = token.is(MbType::EPOCH_TOKEN, tdcs.get(tdcs::MIG_WORKING_VERSION))
        && token.stream == 0
        && token.mb_counter == 0
        && token.mig_epoch > tdcs.get(tdcs::MIG_EPOCH)
        && token.specific == bundles;
    if !expected {
        return Err(failed(*tdcs, Status::of(StatusCode::INVALID_MBMD)));
    }
    if !is_authentic(&mut stream, &token) {
        return Err(failed(*tdcs, Status::of(StatusCode::INCORRECT_MBMD_MAC)));
    }
    if token.mig_epoch == OUT_OF_ORDER {
        if tdcs.get(tdcs::NUM_MIGRATED_VCPUS) != tdcs.get(tdcs::NUM_VCPUS) {
            return Err(failed(
                *tdcs,
                Status::of(StatusCode::SOME_VCPUS_NOT_MIGRATED),
            ));
        }
        tdcs.set_op_state(OpState::PostImport);
    }
    stream.context.expected_mb_counter = 1;
    tdcs.set(tdcs::TOTAL_MB_COUNT, bundles);
    tdcs.set(tdcs::MIG_EPOCH, token.mig_epoch);
    Ok(())
}

/// Ends the import for good, and says so in the status.
pub(crate) fn failed(tdcs: Tdcs<'_>, status: Status) -> Status {
    tdcs.set_op_state(OpState::FailedImport);
    made_fatal(status)
}

/// TDH.IMPORT.COMMIT: the TD may run while pages still arrive.
pub(crate) fn import_commit(call: &mut Call<'_>) -> Outcome {
    let tdr = call
        .core
        .lock_tdr(call.regs.rcx, OperandId::RCX, Mode::Exclusive)?;
    let tdcs = call
        .core
        .lock_tdcs(*tdr, None, SeamcallLeaf::TDH_IMPORT_COMMIT)?;
    tdcs.update(tdcs::IMPORT_COUNT, |count: u32| count.wrapping_add(1));
    tdcs.set_op_state(OpState::LiveImport);
    Ok(())
}

/// TDH.IMPORT.END: no more pages arrive.
pub(crate) fn import_end(call: &mut Call<'_>) -> Outcome {
    let tdr = call
        .core
        .lock_tdr(call.regs.rcx, OperandId::RCX, Mode::Exclusive)?;
    let tdcs = call
        .core
        .lock_tdcs(*tdr, None, SeamcallLeaf::TDH_IMPORT_END)?;
    if tdcs.op_state() != OpState::LiveImport {
        tdcs.update(tdcs::IMPORT_COUNT, |count: u32| count.wrapping_add(1));
    }
    tdcs.set_op_state(OpState::Runnable);
    Ok(())
}

/// TDH.IMPORT.ABORT: gives up the imported TD and makes the token that lets the source run its own again.
pub(crate) fn import_abort(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let tdr = core.lock_tdr(call.regs.rcx, OperandId::RCX, Mode::Exclusive)?;
    let tdcs = core.lock_tdcs(*tdr, None, SeamcallLeaf::TDH_IMPORT_ABORT)?;
    if call.regs.r10 != 0 {
        return Err(invalid(OperandId::R10));
    }
    let mbmd_at = operand::mbmd_buffer(core, call.regs.r8)?;
    let mut stream = Stream::lock(core.memory(), *tdcs, StreamId::Backward)?;
    tdcs.set_op_state(OpState::FailedImport);
    stream.ensure_initialized(tdcs::MIG_ENC_WORKING_KEY);
    let number = stream.context.next_mb_counter;
    let token = Mbmd::new(
        MbType::ABORT_TOKEN,
        tdcs.get(tdcs::MIG_WORKING_VERSION),
        number,
        0,
        0,
    );
    send_token(core, &mut stream, token, mbmd_at);
    stream.context.next_mb_counter = number.wrapping_add(1);
    Err(made_fatal(Status::of(StatusCode::SUCCESS)))
}
