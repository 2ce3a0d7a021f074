//! TDH.EXPORT.MEM: exports, exports again or cancels the export of the listed pages.

use super::block_write;
use super::gcm::Mac;
use super::gpa_list;
use super::gpa_list::Next;
use super::gpa_list::Progress;
use super::gpa_list::Refusal;
use super::mbmd::Mbmd;
use super::operand;
use super::operand::invalid;
use super::resume;
use super::stream::Stream;
use super::stream::StreamId;
use crate::abi::OpState;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::SeptState;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::frame::FRAME_BYTES;
use crate::frame::Frame;
use crate::lock::Mode;
use crate::module::Call;
use crate::module::Outcome;
use crate::module::mem::entry::is_allowed;
use crate::sept::EntryLock;
use crate::sept::SeptEntry;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::tdcs;
use tdx_abi::format::GpaListEntry;
use tdx_abi::format::GpaListInfo;
use tdx_abi::format::GpaListOperation;
use tdx_abi::format::GpaListStatus;
use tdx_abi::format::MbType;
use tdx_abi::format::PageListEntry;

/// An export takes no list of pages to put its own into.
const NO_NEW_PAGES: u64 = 0;
/// Entries of a MAC list page.
const MACS_PER_PAGE: u16 = 256;

/// The two pages with a MAC for each entry of a GPA list; only those that the list reaches are checked.
pub(crate) struct MacLists<'m>([Option<&'m Frame>; 2]);

impl<'m> MacLists<'m> {
    /// Takes R11 and R12 as the pages for the entries that `info` names.
    pub(crate) fn new(
        core: &'m Core,
        info: GpaListInfo,
        r11: u64,
        r12: u64,
    ) -> Result<Self, Status> {
        let first = (info.first_entry() < MACS_PER_PAGE)
            .then(|| operand::shared_page(core, r11, OperandId::R11))
            .transpose()?;
        let second = (info.last_entry() >= MACS_PER_PAGE)
            .then(|| operand::shared_page(core, r12, OperandId::R12))
            .transpose()?;
        Ok(Self([first, second]))
    }

    fn pages(&self) -> u32 {
        self.0.iter().flatten().count() as u32
    }

    /// Reads the MAC of entry `index`.
    pub(crate) fn read(&self, index: usize) -> Mac {
        let mut mac = Mac::default();
        if let Some(page) = self.0[index >> 8 & 1] {
            page.read((index & 0xff) * 16, &mut mac);
        }
        mac
    }

    fn write(&self, index: usize, mac: &Mac) {
        if let Some(page) = self.0[index >> 8 & 1] {
            page.write((index & 0xff) * 16, mac);
        }
    }
}

/// TDH.EXPORT.MEM.
pub(crate) fn mem(call: &mut Call<'_>) -> Outcome {
    gpa_list::run(call, export)
}

fn export(call: &mut Call<'_>, progress: &mut Progress) -> Result<Status, Status> {
    let core = call.core;
    let info = progress.info();
    let tdr = core.lock_tdr(call.regs.rdx, OperandId::RDX, Mode::Shared)?;
    let tdcs = core.lock_tdcs(*tdr, Some(Mode::Shared), SeamcallLeaf::TDH_EXPORT_MEM)?;
    let _session = operand::lock_session(*tdcs, Mode::Shared)?;
    let (index, resume) = operand::any_stream(call.regs.r10, *tdcs)?;
    let mut stream = Stream::lock(core.memory(), *tdcs, StreamId::Forward(index))?;
    let _tree = operand::lock_tree(*tdcs)?;
    let list = operand::gpa_list(core, info)?;
    let buffers = operand::shared_page(core, call.regs.r9, OperandId::R9)?;
    let macs = MacLists::new(core, info, call.regs.r11, call.regs.r12)?;
    let mbmd_at = operand::mbmd_buffer(core, call.regs.r8)?;
    if resume {
        resume::resume_memory(call, *tdcs, &mut stream, NO_NEW_PAGES)?;
    } else {
        begin(core, *tdcs, &mut stream, index, info, macs.pages(), mbmd_at)?;
    }
    loop {
        let number = progress.index();
        let mut exported = prepare(core, *tdcs, list, buffers, number)?;
        if let Some(status) = exported.refused {
            progress.refused(status);
        }
        let context = &mut stream.context;
        context.iv_counter = context.iv_counter.wrapping_add(1);
        context.start(
            context.iv_counter,
            index,
            &exported.entry.into_bits().to_le_bytes(),
        );
        if !exported.buffer.invalid() {
            let to = operand::shared_page(
                core,
                exported.buffer.hpa().bits(),
                OperandId::MIG_BUFF_LIST_ENTRY,
            )?;
            let mut page = [0; FRAME_BYTES];
            core.memory().frame(exported.page >> 12).read(0, &mut page);
            context.encrypt(&mut page);
            to.write(0, &page);
            context.interrupted.num_processed += 1;
        }
        macs.write(number, &context.mac());
        buffers.store(number * 8, exported.buffer.into_bits());
        list.store(number * 8, exported.entry.into_bits());
        drop(exported.lock.take());
        let Next::Return(status) = progress.advance(|| call.interrupt_pending()) else {
            continue;
        };
        if status.code() == StatusCode::INTERRUPTED_RESUMABLE {
            resume::stop_memory(call, *tdcs, &mut stream, progress.rcx(), NO_NEW_PAGES);
        } else {
            tdcs.update(tdcs::TOTAL_MB_COUNT, |count: u64| count.wrapping_add(1));
            let context = &mut stream.context;
            context.next_mb_counter = context.next_mb_counter.wrapping_add(1);
            call.regs.rdx = context.interrupted.num_processed.into();
        }
        return Ok(status);
    }
}

/// Begins a bundle: sets up the stream if need be and writes the MBMD.
fn begin(
    core: &Core,
    tdcs: Tdcs<'_>,
    stream: &mut Stream<'_>,
    index: u16,
    info: GpaListInfo,
    mac_pages: u32,
    mbmd_at: u64,
) -> Result<(), Status> {
    if info.first_entry() != 0 {
        return Err(invalid(OperandId::RCX));
    }
    resume::begin_list(core, stream, tdcs::MIG_ENC_WORKING_KEY)?;
    let context = &mut stream.context;
    context.interrupted.num_processed = 1 + mac_pages;
    context.iv_counter = context.iv_counter.wrapping_add(1);
    let mut mbmd = Mbmd::new(
        MbType::MEM,
        tdcs.get(tdcs::MIG_WORKING_VERSION),
        context.next_mb_counter,
        tdcs.get(tdcs::MIG_EPOCH),
        u64::from(info.last_entry()) + 1,
    );
    context.start(context.iv_counter, index, &mbmd.covered());
    mbmd.mac = context.mac();
    mbmd.stream = index;
    mbmd.iv_counter = context.iv_counter;
    core.memory().write(mbmd_at, &mbmd.to_bytes());
    Ok(())
}

/// An entry after its SEPT entry has changed, ready to be authenticated.
struct Exported<'m> {
    entry: GpaListEntry,
    buffer: PageListEntry,
    page: u64,
    refused: Option<GpaListStatus>,
    lock: Option<EntryLock<'m>>,
}

/// Decides on an entry of the list and changes the SEPT entry accordingly.
fn prepare<'m>(
    core: &'m Core,
    tdcs: Tdcs<'m>,
    list: &Frame,
    buffers: &Frame,
    number: usize,
) -> Result<Exported<'m>, Status> {
    let entry = GpaListEntry::from_bits(list.load(number * 8));
    let buffer = PageListEntry::from_bits(buffers.load(number * 8));
    let refused = |entry, status| Exported {
        entry: gpa_list::failed(entry, status),
        buffer: buffer.with_invalid(true),
        page: 0,
        refused: Some(status),
        lock: None,
    };
    match change(core, tdcs, entry, buffer) {
        Ok(exported) => Ok(exported),
        Err(Refusal::Entry(status)) => Ok(refused(entry, status)),
        Err(Refusal::Changed(entry, status)) => Ok(refused(entry, status)),
        Err(Refusal::Invalid) if !core.rules().lists.export_stops_at_invalid => {
            Ok(refused(entry, GpaListStatus::GPA_LIST_ENTRY_INVALID))
        }
        Err(Refusal::Invalid) => {
            list.store(
                number * 8,
                gpa_list::failed(entry, GpaListStatus::GPA_LIST_ENTRY_INVALID).into_bits(),
            );
            Err(gpa_list::invalid_entry())
        }
    }
}

fn change<'m>(
    core: &'m Core,
    tdcs: Tdcs<'m>,
    entry: GpaListEntry,
    buffer: PageListEntry,
) -> Result<Exported<'m>, Refusal> {
    let gpa = entry.gpa().bits();
    if !gpa_list::is_valid(entry)
        || (!gpa_list::is_nop(entry) && !core.is_valid_gpa(gpa, tdcs.get(tdcs::GPAW), true))
    {
        return Err(Refusal::Invalid);
    }
    if gpa_list::is_nop(entry) {
        return Err(GpaListStatus::SKIPPED.into());
    }
    let lock = block_write::lock_entry(core, tdcs, gpa)?;
    let septe = lock.get();
    let state = septe.state();
    if !is_allowed(core, SeamcallLeaf::TDH_EXPORT_MEM, septe) {
        return Err(GpaListStatus::SEPT_ENTRY_STATE_INCORRECT.into());
    }
    let operation = operation_for(tdcs, entry, state)?;
    let pending = state.any_pending();
    let entry = entry
        .with_operation(operation)
        .with_pending(pending)
        .with_l2_map(0);
    let (septe, buffer) = if operation == GpaListOperation::CANCEL {
        tdcs.update(tdcs::MIG_COUNT, |count: u64| count.wrapping_sub(1));
        if state.any_exported_and_dirty() {
            tdcs.update(tdcs::DIRTY_COUNT, |count: u64| count.wrapping_sub(1));
        }
        (block_write::restored(septe), buffer.with_invalid(true))
    } else {
        if !pending && buffer.invalid() {
            let status = GpaListStatus::MIG_BUFFER_NOT_AVAILABLE;
            return Err(Refusal::Changed(entry, status));
        }
        if !state.any_exported() {
            tdcs.update(tdcs::MIG_COUNT, |count: u64| count.wrapping_add(1));
        } else if state.any_exported_and_dirty() {
            tdcs.update(tdcs::DIRTY_COUNT, |count: u64| count.wrapping_sub(1));
        }
        exported(septe, buffer, pending)
    };
    lock.set(septe);
    Ok(Exported {
        entry,
        buffer,
        page: septe.address(),
        refused: None,
        lock: Some(lock),
    })
}

fn exported(septe: SeptEntry, buffer: PageListEntry, pending: bool) -> (SeptEntry, PageListEntry) {
    if pending {
        (
            septe.with_state(SeptState::PendingExportedBlockedw),
            buffer.with_invalid(true),
        )
    } else {
        (septe.with_state(SeptState::ExportedBlockedw), buffer)
    }
}

/// What the export of a page in this state is: the first, another one, or its cancellation.
fn operation_for(
    tdcs: Tdcs<'_>,
    entry: GpaListEntry,
    state: SeptState,
) -> Result<GpaListOperation, GpaListStatus> {
    let op_state = tdcs.op_state();
    let cancel = entry.operation() == GpaListOperation::CANCEL;
    let incorrect = Err(GpaListStatus::SEPT_ENTRY_STATE_INCORRECT);
    if !op_state.export_in_order() {
        return match (cancel, state.paused_export_allowed()) {
            (true, _) => Err(GpaListStatus::OP_STATE_INCORRECT),
            (false, true) => Ok(GpaListOperation::MIGRATE),
            (false, false) => incorrect,
        };
    }
    if cancel {
        return if state.export_cancel_allowed() {
            Ok(GpaListOperation::CANCEL)
        } else {
            incorrect
        };
    }
    let operation = if state.first_time_export_allowed() {
        GpaListOperation::MIGRATE
    } else if state.any_exported_and_dirty() {
        GpaListOperation::REMIGRATE
    } else {
        return incorrect;
    };
    if op_state == OpState::LiveExport {
        if !state.live_export_allowed() {
            return incorrect;
        }
        if state.tlb_tracking_required() && !tdcs.is_tlb_tracked(tdcs.get(tdcs::BW_EPOCH)) {
            return Err(GpaListStatus::TLB_TRACKING_NOT_DONE);
        }
    }
    Ok(operation)
}
