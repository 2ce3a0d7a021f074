//! TDH.IMPORT.STATE.IMMUTABLE, TD and VP: import state other than memory, from metadata lists.
//!
//! Decrypted metadata is taken in before its MAC can be checked. What is wrong with it is therefore kept
//! in the stream context and told only once the MAC has turned out to be right.

use super::export_state;
use super::export_state::first_of;
use super::gcm::same_mac;
use super::import_field;
use super::mbmd::MBMD_BYTES;
use super::mbmd::Mbmd;
use super::metadata_list;
use super::metadata_list::ListEnd;
use super::metadata_list::ListError;
use super::metadata_list::PAGE_WORDS;
use super::operand;
use super::operand::invalid;
use super::resume::Mismatch;
use super::resume::Place;
use super::session::failed;
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
use crate::vcpu_init;
use tdx_abi::format::MbType;
use tdx_abi::format::MbmdImmutableTdState;
use tdx_abi::format::MbmdVpState;
use tdx_abi::format::MetadataListHeader;
use tdx_abi::format::PageListInfo;

/// TDH.IMPORT.STATE.IMMUTABLE: begins an import session.
pub(crate) fn immutable(call: &mut Call<'_>) -> Outcome {
    with_extended_error(call, import_immutable)
}

/// TDH.IMPORT.STATE.TD: imports the TD-scope state as of the source's pause.
pub(crate) fn td(call: &mut Call<'_>) -> Outcome {
    with_extended_error(call, import_td)
}

/// TDH.IMPORT.STATE.VP: imports the state of a vCPU.
pub(crate) fn vp(call: &mut Call<'_>) -> Outcome {
    with_extended_error(call, import_vp)
}

/// How an import call ends.
enum End {
    Status(Status),
    /// The metadata itself was at fault; RCX and RDX say which.
    Metadata(Status, [u64; 2]),
    /// RCX and RDX keep their values.
    Interrupted,
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// RCX and RDX hold extended error information, 0 if there is none.
fn with_extended_error(
    call: &mut Call<'_>,
    import: impl FnOnce(&mut Call<'_>) -> Result<(), End>,
) -> Outcome {
    let (information, outcome) = match import(call) {
        Ok(()) => ([0; 2], Ok(())),
        Err(End::Status(status)) => ([0; 2], Err(status)),
        Err(End::Metadata(status, information)) => (information, Err(status)),
        Err(End::Interrupted) => return Err(Status::of(StatusCode::INTERRUPTED_RESUMABLE)),
    };
    [call.regs.rcx, call.regs.rdx] = information;
    outcome
}

fn import_immutable(call: &mut Call<'_>) -> Result<(), End> {
    let core = call.core;
    let tdr = core.lock_tdr(call.regs.rcx, OperandId::RCX, Mode::Exclusive)?;
    let tdcs = core.lock_tdcs(*tdr, None, SeamcallLeaf::TDH_IMPORT_STATE_IMMUTABLE)?;
    if tdcs.get(tdcs::NUM_MIGS) < MIN_STREAMS {
        return Err(Status::of(StatusCode::MIN_MIGS_NOT_CREATED).into());
    }
    let resume = operand::first_stream(call.regs.r10)?;
    let mut stream = Stream::lock(core.memory(), *tdcs, StreamId::Forward(0))?;
    let mut place = if resume {
        if !stream.is_initialized() {
            return Err(Status::of(StatusCode::MIGRATION_STREAM_STATE_INCORRECT).into());
        }
        take_up(call, *tdcs, &mut stream, None)?
    } else {
        begin_session(core, *tdcs, &mut stream, call.regs.r8)?;
        Place::start(ContextCode::System)
    };
    let system_pages = system_pages(&stream.context.mbmd);
    let info = PageListInfo::from_bits(call.regs.r9);
    let list = page_list(core, *tdcs, info, 1 + system_pages)?;
    let context = Context {
        core,
        tdr: Some(*tdr),
        tdcs: Some(*tdcs),
        tdvps: None,
    };
    loop {
        let words = place.decrypt(core, *tdcs, list, &mut stream)?;
        let number = u64::from(place.page);
        if place.system_done {
            let last = number == u64::from(info.last_entry());
            place.take(
                &context,
                ContextCode::Td,
                Access::ImportImmutable,
                last,
                &words,
                &mut stream,
            );
        } else {
            let last = number == system_pages.wrapping_sub(1);
            place.take(
                &context,
                ContextCode::System,
                Access::ImportImmutable,
                last,
                &words,
                &mut stream,
            );
            if last {
                place.system_done = true;
                place.field = first_of(ContextCode::Td);
            }
        }
        if place.is_complete(call, info, &mut stream, None)? {
            break;
        }
    }
    check_bundle(*tdcs, &stream)?;
    if !import_field::complete_immutable(*tdcs) {
        return Err(failed(*tdcs, invalid(OperandId::RDX)).into());
    }
    tdcs.set(tdcs::TOTAL_MB_COUNT, 1);
    tdcs.set_op_state(OpState::MemoryImport);
    Ok(())
}

/// The MBMD of the immutable state in full.
fn immutable_mbmd(mbmd: &Mbmd) -> MbmdImmutableTdState {
    MbmdImmutableTdState::from_bytes(mbmd.to_bytes())
}

/// Pages of the module's own metadata, as the MBMD of the immutable state says.
fn system_pages(mbmd: &Mbmd) -> u64 {
    immutable_mbmd(mbmd).num_sys_md_pages().into()
}

/// Turns over the migration keys, sets the TD up for an import session and checks the first MBMD.
fn begin_session(
    core: &Core,
    tdcs: Tdcs<'_>,
    stream: &mut Stream<'_>,
    r8: u64,
) -> Result<(), Status> {
    export_state::take_up_keys(core, tdcs)?;
    stream::forget_all(tdcs);
    tdcs.set(tdcs::MIG_EPOCH, 0);
    tdcs.set(tdcs::TOTAL_MB_COUNT, 0);
    stream.initialize(tdcs::MIG_DEC_WORKING_KEY);
    let mbmd = read_mbmd(core, tdcs, r8)?;
    let specific = immutable_mbmd(&mbmd);
    let expected = mbmd.is(
        MbType::IMMUTABLE_TD_STATE,
        tdcs.get(tdcs::MIG_WORKING_VERSION),
    ) && mbmd.stream == 0
        && mbmd.mb_counter == 0
        && mbmd.mig_epoch == 0
        && specific.is_reserved_valid()
        && specific.num_sys_md_pages() != 0;
    stream.context.mbmd = mbmd;
    if !expected {
        return Err(failed(tdcs, Status::of(StatusCode::INVALID_MBMD)));
    }
    if specific.num_f_migs() > tdcs.get(tdcs::NUM_MIGS).wrapping_sub(1) {
        return Err(failed(
            tdcs,
            Status::of(StatusCode::NUM_MIGS_HIGHER_THAN_CREATED),
        ));
    }
    begin_bundle(stream, &mbmd);
    stream.context.expected_mb_counter = 1;
    Ok(())
}

fn import_td(call: &mut Call<'_>) -> Result<(), End> {
    let core = call.core;
    let tdr = core.lock_tdr(call.regs.rcx, OperandId::RCX, Mode::Exclusive)?;
    let tdcs = core.lock_tdcs(*tdr, None, SeamcallLeaf::TDH_IMPORT_STATE_TD)?;
    let resume = operand::first_stream(call.regs.r10)?;
    let mut stream = operand::lock_first_stream(core, *tdcs)?;
    let place = if resume {
        take_up(call, *tdcs, &mut stream, None)?
    } else {
        stream.context.interrupted.valid = false;
        let mbmd = read_mbmd(core, *tdcs, call.regs.r8)?;
        check_mbmd(
            *tdcs,
            &mut stream,
            mbmd,
            MbType::MUTABLE_TD_STATE,
            0,
            mbmd.specific == 0,
        )?;
        Place::start(ContextCode::Td)
    };
    let context = Context {
        core,
        tdr: Some(*tdr),
        tdcs: Some(*tdcs),
        tdvps: None,
    };
    import_mutable(call, &context, *tdcs, &mut stream, place, None, || {})?;
    tdcs.update(tdcs::TOTAL_MB_COUNT, |count: u64| count.wrapping_add(1));
    tdcs.set_op_state(OpState::StateImport);
    Ok(())
}

fn import_vp(call: &mut Call<'_>) -> Result<(), End> {
    let core = call.core;
    let tdvpr = call.regs.rcx;
    let vcpu = vp::lock(core, tdvpr)?;
    let tdcs = core.lock_tdcs(
        vcpu.tdr,
        Some(Mode::Shared),
        SeamcallLeaf::TDH_IMPORT_STATE_VP,
    )?;
    let tdvps = vcpu.tdvps(core, *tdcs)?;
    let (index, resume) = operand::any_stream(call.regs.r10, *tdcs)?;
    let mut stream = Stream::lock(core.memory(), *tdcs, StreamId::Forward(index))?;
    let state_incorrect = core.vcpu_state_incorrect(tdvps);
    let place = if resume {
        let place = take_up(call, *tdcs, &mut stream, Some(tdvpr))?;
        if !matches!(
            tdvps.get(tdvps::STATE),
            tdvps::state::IMPORT | tdvps::state::DISABLED
        ) {
            return Err(failed(*tdcs, state_incorrect).into());
        }
        vp::associate_with(tdvps, *tdcs, call.lp.id).map_err(|status| failed(*tdcs, status))?;
        place
    } else {
        stream.ensure_initialized(tdcs::MIG_DEC_WORKING_KEY);
        stream.context.interrupted.valid = false;
        if tdvps.get(tdvps::STATE) != tdvps::state::UNINITIALIZED {
            return Err(failed(*tdcs, state_incorrect).into());
        }
        let mbmd = read_mbmd(core, *tdcs, call.regs.r8)?;
        let specific = MbmdVpState::from_bytes(mbmd.to_bytes()).is_reserved_valid();
        check_mbmd(
            *tdcs,
            &mut stream,
            mbmd,
            MbType::MUTABLE_VCPU_STATE,
            index,
            specific,
        )?;
        vcpu_init::initialize_imported(core, vcpu.tdr, *tdcs, tdvps, call.lp.id);
        Place::start(ContextCode::Vcpu)
    };
    let context = Context {
        core,
        tdr: Some(vcpu.tdr),
        tdcs: Some(*tdcs),
        tdvps: Some(tdvps),
    };
    let set_state = |state| {
        if tdvps.get(tdvps::STATE) != tdvps::state::DISABLED {
            tdvps.set(tdvps::STATE, state);
        }
    };
    import_mutable(
        call,
        &context,
        *tdcs,
        &mut stream,
        place,
        Some(tdvpr),
        || {
            set_state(tdvps::state::IMPORT);
        },
    )?;
    let imported: u32 = tdcs.update(tdcs::NUM_MIGRATED_VCPUS, |count: u32| count.wrapping_add(1));
    if imported >= tdcs.get(tdcs::NUM_VCPUS) {
        return Err(failed(*tdcs, Status::of(StatusCode::ALL_VCPUS_IMPORTED)).into());
    }
    set_state(tdvps::state::READY);
    tdcs.update(tdcs::TOTAL_MB_COUNT, |count: u64| count.wrapping_add(1));
    Ok(())
}

/// Checks the MBMD of mutable state and begins the bundle.
fn check_mbmd(
    tdcs: Tdcs<'_>,
    stream: &mut Stream<'_>,
    mbmd: Mbmd,
    kind: MbType,
    index: u16,
    specific: bool,
) -> Result<(), Status> {
    stream.context.mbmd = mbmd;
    let expected = mbmd.is(kind, tdcs.get(tdcs::MIG_WORKING_VERSION))
        && mbmd.stream == index
        && mbmd.mb_counter == stream.context.expected_mb_counter
        && mbmd.mig_epoch == tdcs.get(tdcs::MIG_EPOCH)
        && specific;
    if !expected {
        return Err(failed(tdcs, Status::of(StatusCode::INVALID_MBMD)));
    }
    begin_bundle(stream, &mbmd);
    stream.context.expected_mb_counter = stream.context.expected_mb_counter.wrapping_add(1);
    Ok(())
}

/// Begins to authenticate a bundle, with no error seen yet.
fn begin_bundle(stream: &mut Stream<'_>, mbmd: &Mbmd) {
    let context = &mut stream.context;
    context.start(mbmd.iv_counter, mbmd.stream, &mbmd.covered());
    context.interrupted.status = 0;
    context.interrupted.extended_error = [0; 2];
}

/// Reads the MBMD that R8 tells; a bad buffer ends the import.
fn read_mbmd(core: &Core, tdcs: Tdcs<'_>, r8: u64) -> Result<Mbmd, Status> {
    let address = operand::mbmd_buffer(core, r8).map_err(|status| failed(tdcs, status))?;
    let mut bytes = [0; MBMD_BYTES];
    core.memory().read(address, &mut bytes);
    Ok(Mbmd::from_bytes(&bytes))
}

/// Takes R9 as a list of at least `pages` metadata pages; anything else ends the import.
fn page_list<'m>(
    core: &'m Core,
    tdcs: Tdcs<'_>,
    info: PageListInfo,
    pages: u64,
) -> Result<&'m Frame, Status> {
    if u64::from(info.last_entry()) + 1 < pages || !info.is_reserved_valid() {
        return Err(failed(tdcs, invalid(OperandId::R9)));
    }
    export_state::page_list(core, info).map_err(|status| failed(tdcs, status))
}

/// Imports all lists of mutable state and checks the bundle; `pause` runs where an interrupt stops that.
fn import_mutable(
    call: &mut Call<'_>,
    context: &Context<'_>,
    tdcs: Tdcs<'_>,
    stream: &mut Stream<'_>,
    mut place: Place,
    tdvpr: Option<u64>,
    pause: impl FnOnce(),
) -> Result<(), End> {
    let scope = if context.tdvps.is_some() {
        ContextCode::Vcpu
    } else {
        ContextCode::Td
    };
    let core = call.core;
    let info = PageListInfo::from_bits(call.regs.r9);
    let pages = if scope == ContextCode::Vcpu {
        core.rules().import_vcpu_pages
    } else {
        1
    };
    let list = page_list(core, tdcs, info, pages)?;
    loop {
        let words = place.decrypt(core, tdcs, list, stream)?;
        let last = place.page == info.last_entry().into();
        place.take(context, scope, Access::ImportMutable, last, &words, stream);
        match place.is_complete(call, info, stream, tdvpr) {
            Ok(false) => {}
            Ok(true) => return check_bundle(tdcs, stream),
            Err(interrupted) => {
                pause();
                return Err(interrupted);
            }
        }
    }
}

/// Compares the bundle's MAC, and tells the first error in its metadata if that is right.
fn check_bundle(tdcs: Tdcs<'_>, stream: &Stream<'_>) -> Result<(), End> {
    let context = &stream.context;
    if !same_mac(&context.mac(), &context.mbmd.mac) {
        return Err(failed(tdcs, Status::of(StatusCode::INCORRECT_MBMD_MAC)).into());
    }
    let status = Status::from_rax(context.interrupted.status);
    if status != Status::of(StatusCode::SUCCESS) {
        return Err(End::Metadata(
            failed(tdcs, status),
            context.interrupted.extended_error,
        ));
    }
    Ok(())
}

/// Takes up an interrupted call; one with other operands ends the import.
fn take_up(
    call: &Call<'_>,
    tdcs: Tdcs<'_>,
    stream: &mut Stream<'_>,
    tdvpr: Option<u64>,
) -> Result<Place, Status> {
    Place::resume(call, stream, tdvpr).map_err(|mismatch| match mismatch {
        Mismatch::Nothing => mismatch.into(),
        Mismatch::Operands => failed(tdcs, mismatch.into()),
    })
}

impl Place {
    /// Decrypts the next list page.
    fn decrypt(
        &self,
        core: &Core,
        tdcs: Tdcs<'_>,
        list: &Frame,
        stream: &mut Stream<'_>,
    ) -> Result<[u64; PAGE_WORDS], Status> {
        let hpa = list.load(self.page as usize * 8);
        let page = operand::shared_page(core, hpa, OperandId::PAGE)
            .map_err(|_| failed(tdcs, invalid(OperandId::PAGE)))?;
        let mut bytes = [0; FRAME_BYTES];
        page.read(0, &mut bytes);
        stream.context.decrypt(&mut bytes);
        let mut words = [0; PAGE_WORDS];
        for (word, piece) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(core::array::from_fn(|index| piece[index]));
        }
        Ok(words)
    }

    /// Takes in a decrypted list; only the first error of all lists is kept.
    fn take(
        &mut self,
        context: &Context<'_>,
        scope: ContextCode,
        access: Access,
        last: bool,
        words: &[u64; PAGE_WORDS],
        stream: &mut Stream<'_>,
    ) {
        let mut words = *words;
        let header = MetadataListHeader::from_bits(words[0]);
        if usize::from(header.list_buff_size()) > FRAME_BYTES {
            remember(stream, invalid(OperandId::PAGE), 0);
            words[0] = header.with_list_buff_size(FRAME_BYTES as u16).into_bits();
        }
        let taken = match context.cursor(scope, self.field) {
            Some(mut cursor) => metadata_list::take(
                &mut cursor,
                scope,
                access,
                ListEnd {
                    last,
                    anywhere: context.core.rules().lists_end_anywhere,
                },
                &words,
                |row, id, values, mask| {
                    import_field::write(context, scope, id, row, access, values, mask)
                },
            )
            .map(|()| cursor.id()),
            None => Err(ListError {
                status: Status::of(StatusCode::METADATA_FIELD_ID_INCORRECT),
                field: 0,
            }),
        };
        self.field = taken.unwrap_or_else(|error| {
            remember(stream, error.status, error.field);
            Id::NONE
        });
    }

    /// Goes to the next page; whether that was the last one. An interrupt between pages is an error.
    fn is_complete(
        &mut self,
        call: &Call<'_>,
        info: PageListInfo,
        stream: &mut Stream<'_>,
        tdvpr: Option<u64>,
    ) -> Result<bool, End> {
        self.page += 1;
        if self.page > info.last_entry().into() {
            return Ok(true);
        }
        if !call.interrupt_pending() {
            return Ok(false);
        }
        self.stop(call, stream, tdvpr);
        Err(End::Interrupted)
    }
}

fn remember(stream: &mut Stream<'_>, status: Status, field: u64) {
    let interrupted = &mut stream.context.interrupted;
    if interrupted.status == 0 {
        interrupted.status = status.rax();
        interrupted.extended_error = [field, 0];
    }
}
