//! TDH.EXPORT.STATE.IMMUTABLE, TD and VP: export state other than memory, as metadata lists.

use super::mbmd;
use super::mbmd::Mbmd;
use super::metadata_list;
use super::metadata_list::PAGE_WORDS;
use super::operand;
use super::operand::invalid;
use super::resume::Place;
use super::stream;
use super::stream::MIN_STREAMS;
use super::stream::Stream;
use super::stream::StreamId;
use crate::abi::OpState;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::frame::FRAME_BYTES;
use crate::frame::Frame;
use crate::lock::Mode;
use crate::metadata::Access;
use crate::metadata::Context;
use crate::metadata::ContextCode;
use crate::metadata::id::Id;
use crate::module::Call;
use crate::module::Outcome;
use crate::module::vp;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::tdcs;
use crate::structures::tdvps;
use tdx_abi::format::MbType;
use tdx_abi::format::MbmdImmutableTdState;
use tdx_abi::format::PageListInfo;

/// Pages of the module's own metadata at the head of the immutable state.
const SYSTEM_PAGES: u8 = 1;
/// The most export sessions that a TD may have.
const MAX_EXPORTS: u32 = 0x7fff_ffff;

/// TDH.EXPORT.STATE.IMMUTABLE: begins an export session.
pub(crate) fn immutable(call: &mut Call<'_>) -> Outcome {
    call.regs.rdx = 0;
    let core = call.core;
    let tdr = core.lock_tdr(call.regs.rcx, OperandId::RCX, Mode::Shared)?;
    let tdcs = core.lock_tdcs(
        *tdr,
        Some(Mode::Exclusive),
        SeamcallLeaf::TDH_EXPORT_STATE_IMMUTABLE,
    )?;
    let _session = operand::lock_session(*tdcs, Mode::Exclusive)?;
    if !tdcs.has_attribute(tdcs::ATTRIBUTES_MIGRATABLE) {
        return Err(Status::of(StatusCode::TD_NOT_MIGRATABLE));
    }
    if tdcs.get(tdcs::MIG_COUNT) != 0 {
        return Err(Status::of(StatusCode::PREVIOUS_EXPORT_CLEANUP_INCOMPLETE));
    }
    if tdcs.get(tdcs::NUM_MIGS) < MIN_STREAMS {
        return Err(Status::of(StatusCode::MIN_MIGS_NOT_CREATED));
    }
    let mbmd_at = operand::mbmd_buffer(core, call.regs.r8)?;
    let resume = operand::first_stream(call.regs.r10)?;
    let mut stream = Stream::lock(core.memory(), *tdcs, StreamId::Forward(0))?;
    let info = PageListInfo::from_bits(call.regs.r9);
    let mut place = if resume {
        if !stream.is_initialized() {
            return Err(Status::of(StatusCode::MIGRATION_STREAM_STATE_INCORRECT));
        }
        Place::resume(call, &mut stream, None)?
    } else {
        check_page_list(core, info, core.rules().export_pages.immutable)?;
        begin_session(core, *tdcs, &mut stream)?;
        Place::start(ContextCode::System)
    };
    let list = page_list(core, info)?;
    let context = Context {
        core,
        tdr: Some(*tdr),
        tdcs: Some(*tdcs),
        tdvps: None,
    };
    loop {
        let scope = if place.system_done {
            ContextCode::Td
        } else {
            ContextCode::System
        };
        let more = place.export(
            &context,
            scope,
            Access::ExportImmutable,
            core,
            list,
            &mut stream,
        )?;
        if !more && place.system_done {
            break;
        }
        if place.page > info.last_entry().into() {
            return Err(invalid(OperandId::R9));
        }
        if !more {
            place.system_done = true;
            place.field = first_of(ContextCode::Td);
        }
        if call.interrupt_pending() {
            place.stop(call, &mut stream, None);
            call.regs.rdx = place.page.into();
            return Err(Status::of(StatusCode::INTERRUPTED_RESUMABLE));
        }
    }
    finish(core, &mut stream, mbmd_at);
    stream.context.next_mb_counter = 1;
    tdcs.set(tdcs::TOTAL_MB_COUNT, 1);
    tdcs.set_op_state(OpState::LiveExport);
    call.regs.rdx = place.page.into();
    Ok(())
}

/// Turns over the migration keys and sets the TD up for an export session.
fn begin_session(core: &Core, tdcs: Tdcs<'_>, stream: &mut Stream<'_>) -> Result<(), Status> {
    take_up_keys(core, tdcs)?;
    tdcs.set(tdcs::MIG_EPOCH, 0);
    tdcs.set(tdcs::TOTAL_MB_COUNT, 0);
    tdcs.set(tdcs::DIRTY_COUNT, 0);
    stream::forget_all(tdcs);
    stream.initialize(tdcs::MIG_ENC_WORKING_KEY);
    let mut mbmd = MbmdImmutableTdState::new();
    mbmd.set_num_f_migs(tdcs.get(tdcs::NUM_MIGS).wrapping_sub(1));
    mbmd.set_num_sys_md_pages(SYSTEM_PAGES);
    let specific = mbmd::specific_of(mbmd.as_bytes());
    begin_bundle(tdcs, stream, 0, MbType::IMMUTABLE_TD_STATE, specific);
    let exports: u32 = tdcs.get(tdcs::EXPORT_COUNT);
    if exports >= MAX_EXPORTS {
        return Err(Status::of(StatusCode::MAX_EXPORTS_EXCEEDED));
    }
    tdcs.set(tdcs::EXPORT_COUNT, exports + 1);
    Ok(())
}

/// Makes the keys that the migration TD has set those of this session, and draws the next one to export with.
pub(crate) fn take_up_keys(core: &Core, tdcs: Tdcs<'_>) -> Result<(), Status> {
    if !tdcs.get(tdcs::MIG_DEC_KEY_SET) {
        return Err(Status::of(StatusCode::MIGRATION_DECRYPTION_KEY_NOT_SET));
    }
    operand::copy_key(tdcs, tdcs::MIG_ENC_KEY, tdcs::MIG_ENC_WORKING_KEY);
    for (word, value) in operand::random_256(core).into_iter().enumerate() {
        tdcs.set(tdcs::MIG_ENC_KEY.nth(word), value);
    }
    operand::copy_key(tdcs, tdcs::MIG_DEC_KEY, tdcs::MIG_DEC_WORKING_KEY);
    tdcs.set(tdcs::MIG_DEC_KEY_SET, false);
    tdcs.set(tdcs::MIG_WORKING_VERSION, tdcs.get(tdcs::MIG_VERSION));
    Ok(())
}

/// TDH.EXPORT.STATE.TD: exports the TD-scope state that may have changed since the build.
pub(crate) fn td(call: &mut Call<'_>) -> Outcome {
    call.regs.rdx = 0;
    let core = call.core;
    let tdr = core.lock_tdr(call.regs.rcx, OperandId::RCX, Mode::Shared)?;
    let tdcs = core.lock_tdcs(
        *tdr,
        Some(Mode::Exclusive),
        SeamcallLeaf::TDH_EXPORT_STATE_TD,
    )?;
    let resume = operand::first_stream(call.regs.r10)?;
    let mut stream = operand::lock_first_stream(core, *tdcs)?;
    let info = PageListInfo::from_bits(call.regs.r9);
    let place = if resume {
        Place::resume(call, &mut stream, None)?
    } else {
        check_page_list_size(info, core.rules().export_pages.td)?;
        begin_bundle(*tdcs, &mut stream, 0, MbType::MUTABLE_TD_STATE, 0);
        Place::start(ContextCode::Td)
    };
    let context = Context {
        core,
        tdr: Some(*tdr),
        tdcs: Some(*tdcs),
        tdvps: None,
    };
    export_mutable(call, &context, *tdcs, &mut stream, place, None, || {})
}

/// TDH.EXPORT.STATE.VP: exports the state of a vCPU.
pub(crate) fn vp(call: &mut Call<'_>) -> Outcome {
    call.regs.rdx = 0;
    let core = call.core;
    let tdvpr = call.regs.rcx;
    let vcpu = vp::lock(core, tdvpr)?;
    let tdcs = core.lock_tdcs(
        vcpu.tdr,
        Some(Mode::Shared),
        SeamcallLeaf::TDH_EXPORT_STATE_VP,
    )?;
    let tdvps = vcpu.tdvps(core, *tdcs)?;
    vp::associate(core, tdvps, *tdcs, call.lp.id, false)?;
    if tdvps.get(tdvps::EXPORT_COUNT) == tdcs.get(tdcs::EXPORT_COUNT) {
        return Err(Status::of(StatusCode::VCPU_ALREADY_EXPORTED));
    }
    let (index, resume) = operand::any_stream(call.regs.r10, *tdcs)?;
    let mut stream = Stream::lock(core.memory(), *tdcs, StreamId::Forward(index))?;
    let info = PageListInfo::from_bits(call.regs.r9);
    let place = if resume {
        if !stream.is_initialized() {
            return Err(Status::of(StatusCode::MIGRATION_STREAM_STATE_INCORRECT));
        }
        Place::resume(call, &mut stream, Some(tdvpr))?
    } else {
        check_page_list_size(info, core.rules().export_pages.vcpu)?;
        stream.ensure_initialized(tdcs::MIG_ENC_WORKING_KEY);
        let number = tdvps.get(tdvps::VCPU_INDEX) & 0xffff;
        begin_bundle(
            *tdcs,
            &mut stream,
            index,
            MbType::MUTABLE_VCPU_STATE,
            number.into(),
        );
        Place::start(ContextCode::Vcpu)
    };
    let context = Context {
        core,
        tdr: Some(vcpu.tdr),
        tdcs: Some(*tdcs),
        tdvps: Some(tdvps),
    };
    export_mutable(
        call,
        &context,
        *tdcs,
        &mut stream,
        place,
        Some(tdvpr),
        || {
            tdvps.set(tdvps::EXPORT_COUNT, tdcs.get(tdcs::EXPORT_COUNT));
        },
    )
}

/// Exports lists until nothing is left, then writes the MBMD after `done`.
fn export_mutable(
    call: &mut Call<'_>,
    context: &Context<'_>,
    tdcs: Tdcs<'_>,
    stream: &mut Stream<'_>,
    mut place: Place,
    tdvpr: Option<u64>,
    done: impl FnOnce(),
) -> Outcome {
    let scope = if context.tdvps.is_some() {
        ContextCode::Vcpu
    } else {
        ContextCode::Td
    };
    let core = call.core;
    let info = PageListInfo::from_bits(call.regs.r9);
    let list = page_list(core, info)?;
    while place.export(context, scope, Access::ExportMutable, core, list, stream)? {
        if place.page > info.last_entry().into() {
            return Err(invalid(OperandId::R9));
        }
        if call.interrupt_pending() {
            place.stop(call, stream, tdvpr);
            call.regs.rdx = place.page.into();
            return Err(Status::of(StatusCode::INTERRUPTED_RESUMABLE));
        }
    }
    let mbmd_at = operand::mbmd_buffer(core, call.regs.r8)?;
    done();
    finish(core, stream, mbmd_at);
    tdcs.update(tdcs::TOTAL_MB_COUNT, |count: u64| count.wrapping_add(1));
    stream.context.next_mb_counter = stream.context.next_mb_counter.wrapping_add(1);
    call.regs.rdx = place.page.into();
    Ok(())
}

/// Begins a bundle whose MBMD is written once all of it is authenticated.
fn begin_bundle(tdcs: Tdcs<'_>, stream: &mut Stream<'_>, index: u16, kind: MbType, specific: u64) {
    let context = &mut stream.context;
    context.interrupted.valid = false;
    context.iv_counter = context.iv_counter.wrapping_add(1);
    context.mbmd = Mbmd::new(
        kind,
        tdcs.get(tdcs::MIG_WORKING_VERSION),
        context.next_mb_counter,
        tdcs.get(tdcs::MIG_EPOCH),
        specific,
    );
    context.start(context.iv_counter, index, &context.mbmd.covered());
    context.mbmd.stream = index;
    context.mbmd.iv_counter = context.iv_counter;
}

/// Completes the bundle with its MAC and writes the MBMD.
fn finish(core: &Core, stream: &mut Stream<'_>, mbmd_at: u64) {
    let context = &mut stream.context;
    context.mbmd.mac = context.mac();
    core.memory().write(mbmd_at, &context.mbmd.to_bytes());
    context.interrupted.valid = false;
}

fn check_page_list_size(info: PageListInfo, pages: u64) -> Result<(), Status> {
    if u64::from(info.last_entry()) < pages - 1 || !info.is_reserved_valid() {
        return Err(invalid(OperandId::R9));
    }
    Ok(())
}

fn check_page_list(core: &Core, info: PageListInfo, pages: u64) -> Result<(), Status> {
    check_page_list_size(info, pages)?;
    page_list(core, info).map(|_| ())
}

/// Takes R9 as a list of metadata pages.
pub(crate) fn page_list(core: &Core, info: PageListInfo) -> Result<&Frame, Status> {
    operand::shared_page(core, info.hpa().bits(), OperandId::R9)
}

/// The identifier that stands for the first field of `scope`.
pub(crate) const fn first_of(scope: ContextCode) -> Id {
    Id::NONE.with_context_code(scope as u8)
}

impl Place {
    /// Exports the next list page; returns whether fields of `scope` remain.
    fn export(
        &mut self,
        context: &Context<'_>,
        scope: ContextCode,
        access: Access,
        core: &Core,
        list: &Frame,
        stream: &mut Stream<'_>,
    ) -> Result<bool, Status> {
        let hpa = list.load(self.page as usize * 8);
        let page = operand::shared_page(core, hpa, OperandId::MIG_BUFF_LIST_ENTRY)?;
        let mut words = [0; PAGE_WORDS];
        let mut more = false;
        if let Some(mut cursor) = context.cursor(scope, self.field) {
            more = metadata_list::dump(context, scope, &mut cursor, access, &mut words);
            self.field = cursor.id();
        }
        let mut bytes = to_bytes(&words);
        stream.context.encrypt(&mut bytes);
        page.write(0, &bytes);
        self.page += 1;
        Ok(more)
    }
}

fn to_bytes(words: &[u64; PAGE_WORDS]) -> [u8; FRAME_BYTES] {
    let mut bytes = [0; FRAME_BYTES];
    for (piece, word) in bytes.chunks_exact_mut(8).zip(words) {
        piece.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}
