//! TDH.IMPORT.MEM: imports, imports again or cancels the import of the listed pages.

use tdx_abi::Level;

use super::block_write;
use super::export_memory::MacLists;
use super::gcm::Mac;
use super::gcm::same_mac;
use super::gpa_list;
use super::gpa_list::Next;
use super::gpa_list::Progress;
use super::mbmd::MBMD_BYTES;
use super::mbmd::Mbmd;
use super::mbmd::OUT_OF_ORDER;
use super::operand;
use super::operand::invalid;
use super::operand::made_fatal;
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
use crate::dynamic_pamt;
use crate::frame::FRAME_BYTES;
use crate::frame::Frame;
use crate::lock::Mode;
use crate::lock::SharexHp;
use crate::lock::Side;
use crate::module::Call;
use crate::module::Outcome;
use crate::module::mem::entry::is_allowed;
use crate::pamt::PageType;
use crate::sept;
use crate::sept::EntryLock;
use crate::sept::SeptEntry;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::Tdr;
use crate::structures::tdcs;
use crate::structures::tdvps::NULL_PA;
use tdx_abi::format::Bepoch;
use tdx_abi::format::GpaListEntry;
use tdx_abi::format::GpaListInfo;
use tdx_abi::format::GpaListOperation;
use tdx_abi::format::GpaListStatus;
use tdx_abi::format::MbType;
use tdx_abi::format::PageListEntry;
use tdx_abi::format::PageListEntryV2;

/// TDH.IMPORT.MEM.
pub(crate) fn mem(call: &mut Call<'_>) -> Outcome {
    gpa_list::run(call, import)
}

/// What an entry that is not imported does to the session.
enum Failure {
    /// The entry is skipped.
    Skip,
    /// The session is aborted with this status.
    Abort(GpaListStatus, Status),
    /// The session is aborted with this status in the in-order phase; later the entry is skipped.
    AbortInOrder(GpaListStatus, Status),
    /// The call ends before the entry with this status, and goes on there when the host has mended what is missing.
    Stop(Status),
}

fn abort(entry: GpaListStatus, code: StatusCode) -> Failure {
    Failure::Abort(entry, Status::with_operand(code, OperandId::GPA_LIST_ENTRY))
}

fn abort_in_order(entry: GpaListStatus, code: StatusCode) -> Failure {
    Failure::AbortInOrder(entry, Status::with_operand(code, OperandId::GPA_LIST_ENTRY))
}

/// The pages that a call was given.
struct Lists<'m> {
    gpas: &'m Frame,
    buffers: &'m Frame,
    macs: MacLists<'m>,
    new_pages: Option<&'m Frame>,
}

/// The TD that is being imported.
#[derive(Clone, Copy)]
struct Target<'m> {
    core: &'m Core,
    tdr: Tdr<'m>,
    tdcs: Tdcs<'m>,
}

fn import(call: &mut Call<'_>, progress: &mut Progress) -> Result<Status, Status> {
    let core = call.core;
    let info = progress.info();
    let tdr = core.lock_tdr(call.regs.rdx, OperandId::RDX, Mode::Shared)?;
    let tdcs = core.lock_tdcs(*tdr, Some(Mode::Shared), SeamcallLeaf::TDH_IMPORT_MEM)?;
    let _session = operand::lock_session(*tdcs, Mode::Shared)?;
    let (index, resume) = operand::any_stream(call.regs.r10, *tdcs)?;
    let mut stream = Stream::lock(core.memory(), *tdcs, StreamId::Forward(index))?;
    let _tree = operand::lock_tree(*tdcs)?;
    let lists = Lists {
        gpas: operand::gpa_list(core, info)?,
        buffers: operand::shared_page(core, call.regs.r9, OperandId::R9)?,
        macs: MacLists::new(core, info, call.regs.r11, call.regs.r12)?,
        new_pages: (call.regs.r13 != NULL_PA)
            .then(|| operand::shared_page(core, call.regs.r13, OperandId::R13))
            .transpose()?,
    };
    let mbmd_at = operand::mbmd_buffer(core, call.regs.r8)?;
    if resume {
        resume::resume_memory(call, *tdcs, &mut stream, call.regs.r13)?;
    } else {
        let mut bytes = [0; MBMD_BYTES];
        core.memory().read(mbmd_at, &mut bytes);
        let mbmd = Mbmd::from_bytes(&bytes);
        begin(core, *tdcs, &mut stream, index, info, &mbmd)?;
    }
    let target = Target {
        core,
        tdr: *tdr,
        tdcs: *tdcs,
    };
    loop {
        let number = progress.index();
        if let Err(end) = import_entry(target, &lists, &mut stream, index, number, progress) {
            if end.code() == StatusCode::INTERRUPTED_PAMT {
                resume::stop_memory(call, *tdcs, &mut stream, progress.rcx(), call.regs.r13);
            }
            return Err(end);
        }
        let Next::Return(status) = progress.advance(|| call.interrupt_pending()) else {
            continue;
        };
        if status.code() == StatusCode::INTERRUPTED_RESUMABLE {
            resume::stop_memory(call, *tdcs, &mut stream, progress.rcx(), call.regs.r13);
        } else {
            tdcs.update(tdcs::TOTAL_MB_COUNT, |count: u64| count.wrapping_add(1));
        }
        return Ok(status);
    }
}

/// Checks the MBMD of a new bundle and counts the bundle, so that it cannot be replayed.
fn begin(
    core: &Core,
    tdcs: Tdcs<'_>,
    stream: &mut Stream<'_>,
    index: u16,
    info: GpaListInfo,
    mbmd: &Mbmd,
) -> Result<(), Status> {
    if info.first_entry() != 0 {
        return Err(invalid(OperandId::RCX));
    }
    resume::begin_list(core, stream, tdcs::MIG_DEC_WORKING_KEY)?;
    let context = &mut stream.context;
    let in_turn = if tdcs.op_state().import_in_order() {
        mbmd.mb_counter == context.expected_mb_counter
    } else {
        mbmd.mig_epoch == OUT_OF_ORDER
    };
    let expected = mbmd.is(MbType::MEM, tdcs.get(tdcs::MIG_WORKING_VERSION))
        && mbmd.stream == index
        && mbmd.mig_epoch == tdcs.get(tdcs::MIG_EPOCH)
        && mbmd.specific == u64::from(info.last_entry()) + 1;
    if !expected || !in_turn {
        return Err(Status::of(StatusCode::INVALID_MBMD));
    }
    context.iv_counter = mbmd.iv_counter;
    context.start(context.iv_counter, index, &mbmd.covered());
    if !same_mac(&context.mac(), &mbmd.mac) {
        return Err(Status::of(StatusCode::INCORRECT_MBMD_MAC));
    }
    context.expected_mb_counter = context.expected_mb_counter.wrapping_add(1);
    Ok(())
}

/// Imports entry `number`, and writes to the lists what became of it.
fn import_entry(
    target: Target<'_>,
    lists: &Lists<'_>,
    stream: &mut Stream<'_>,
    index: u16,
    number: usize,
    progress: &mut Progress,
) -> Result<(), Status> {
    let entry = GpaListEntry::from_bits(lists.gpas.load(number * 8));
    let page = Page {
        entry,
        buffer: PageListEntry::from_bits(lists.buffers.load(number * 8)),
        new_page: lists
            .new_pages
            .map(|list| PageListEntry::from_bits(list.load(number * 8))),
        mac: lists.macs.read(number),
        stream: index,
    };
    let takes_iv_first = target.core.rules().lists.import_takes_iv_first;
    if takes_iv_first || gpa_list::is_nop(entry) {
        page.take_iv(stream);
    }
    let failure = match page.import(target, stream) {
        Err(failure) => failure,
        Ok(removed) => {
            if let (Some(list), Some(removed)) = (lists.new_pages, removed) {
                list.store(number * 8, removed);
            }
            return Ok(());
        }
    };
    let in_order = target.tdcs.op_state().import_in_order();
    let (entry_status, fatal) = match failure {
        Failure::Stop(status) => return Err(Status::with_detail(status.code(), number as u32)),
        Failure::Skip => (GpaListStatus::SKIPPED, None),
        Failure::Abort(entry, status) => (entry, Some(abort_session(target.tdcs, status))),
        Failure::AbortInOrder(entry, status) => (
            entry,
            in_order.then(|| {
                target.tdcs.set_op_state(OpState::FailedImport);
                made_fatal(status)
            }),
        ),
    };
    lists.gpas.store(
        number * 8,
        gpa_list::failed(entry, entry_status).into_bits(),
    );
    if let (Some(list), Some(new_page)) = (lists.new_pages, page.new_page) {
        list.store(number * 8, new_page.with_invalid(true).into_bits());
    }
    progress.refused(entry_status);
    fatal.map_or(Ok(()), Err)
}

/// Aborts the import session: a TD that runs already goes on without it, any other is lost.
pub(crate) fn abort_session(tdcs: Tdcs<'_>, status: Status) -> Status {
    if tdcs.op_state() == OpState::LiveImport {
        tdcs.set_op_state(OpState::Runnable);
        status
    } else {
        tdcs.set_op_state(OpState::FailedImport);
        made_fatal(status)
    }
}

/// An entry of the lists.
struct Page {
    entry: GpaListEntry,
    buffer: PageListEntry,
    new_page: Option<PageListEntry>,
    mac: Mac,
    /// Index of the migration stream.
    stream: u16,
}

impl Page {
    /// Takes the stream's next IV, and begins the MAC with the entry.
    fn take_iv(&self, stream: &mut Stream<'_>) {
        let context = &mut stream.context;
        context.iv_counter = context.iv_counter.wrapping_add(1);
        let entry = self.entry.into_bits().to_le_bytes();
        context.start(context.iv_counter, self.stream, &entry);
    }

    /// [`Self::take_iv`] of a module that does so once the entry has passed its checks.
    fn take_iv_now(&self, core: &Core, stream: &mut Stream<'_>) {
        if !core.rules().lists.import_takes_iv_first {
            self.take_iv(stream);
        }
    }

    /// Carries out the entry; gives what becomes of the entry for a new page, if it changes.
    fn import(&self, target: Target<'_>, stream: &mut Stream<'_>) -> Result<Option<u64>, Failure> {
        let Target { core, tdcs, .. } = target;
        if gpa_list::is_nop(self.entry) {
            self.authenticate(stream)?;
            return Err(if gpa_list::is_valid(self.entry) {
                Failure::Skip
            } else {
                abort(
                    GpaListStatus::GPA_LIST_ENTRY_INVALID,
                    StatusCode::OPERAND_INVALID,
                )
            });
        }
        let gpa = self.entry.gpa().bits();
        if !gpa_list::is_valid(self.entry) || !core.is_valid_gpa(gpa, tdcs.get(tdcs::GPAW), true) {
            return Err(abort(
                GpaListStatus::GPA_LIST_ENTRY_INVALID,
                StatusCode::OPERAND_INVALID,
            ));
        }
        let lock = block_write::lock_entry(core, tdcs, gpa).map_err(|status| {
            let code = match status {
                GpaListStatus::SEPT_WALK_FAILED => StatusCode::EPT_WALK_FAILED,
                _ => StatusCode::OPERAND_BUSY,
            };
            abort_in_order(status, code)
        })?;
        let septe = lock.get();
        if !is_allowed(core, SeamcallLeaf::TDH_IMPORT_MEM, septe) {
            return Err(abort_in_order(
                GpaListStatus::SEPT_ENTRY_STATE_INCORRECT,
                StatusCode::EPT_ENTRY_STATE_INCORRECT,
            ));
        }
        let operation = self.entry.operation();
        if operation != GpaListOperation::MIGRATE && !tdcs.op_state().import_in_order() {
            let status = core.op_state_incorrect(tdcs);
            return Err(Failure::Abort(GpaListStatus::OP_STATE_INCORRECT, status));
        }
        let source = self.check_buffer(core)?;
        match operation {
            GpaListOperation::MIGRATE => self.migrate(target, stream, lock, source).map(|()| None),
            GpaListOperation::REMIGRATE => {
                self.remigrate(target, stream, lock, source).map(|()| None)
            }
            _ => self.cancel(target, stream, lock),
        }
    }

    /// Compares the MAC of everything so far with the one that the source sent.
    fn authenticate(&self, stream: &Stream<'_>) -> Result<(), Failure> {
        if same_mac(&stream.context.mac(), &self.mac) {
            Ok(())
        } else {
            Err(abort(
                GpaListStatus::INVALID_PAGE_MAC,
                StatusCode::INVALID_PAGE_MAC,
            ))
        }
    }

    const fn is_pending(&self) -> bool {
        self.entry.pending()
    }

    /// The page with the encrypted content, if the entry has one.
    fn check_buffer<'m>(&self, core: &'m Core) -> Result<Option<&'m Frame>, Failure> {
        if self.entry.operation() == GpaListOperation::CANCEL || self.is_pending() {
            return Ok(None);
        }
        self.usable_buffer()?;
        operand::shared_page(
            core,
            self.buffer.hpa().bits(),
            OperandId::MIG_BUFF_LIST_ENTRY,
        )
        .map(Some)
        .map_err(|status| Failure::Abort(GpaListStatus::MIG_BUFFER_NOT_AVAILABLE, status))
    }

    fn usable_buffer(&self) -> Result<(), Failure> {
        if self.buffer.invalid() {
            let status = invalid(OperandId::MIG_BUFF_LIST_ENTRY);
            return Err(Failure::Abort(
                GpaListStatus::MIG_BUFFER_NOT_AVAILABLE,
                status,
            ));
        }
        Ok(())
    }

    /// The physical page that becomes the TD's: the one given for it, or the buffer itself.
    fn destination(&self, core: &Core) -> Result<u64, Failure> {
        match self.new_page {
            Some(page) if !page.invalid() => {
                core.check_hpa(page.into_bits(), FRAME_BYTES as u64)
                    .map_err(|code| {
                        let status = Status::with_operand(code, OperandId::NEW_PAGE_LIST_ENTRY);
                        Failure::Abort(GpaListStatus::NEW_PAGE_NOT_AVAILABLE, status)
                    })?;
                Ok(page.into_bits())
            }
            _ => {
                self.usable_buffer()?;
                Ok(core.without_key_id(self.buffer.into_bits()))
            }
        }
    }

    /// Decrypts `source`, if there is one, and compares the MAC; gives the plaintext.
    fn decrypt(
        &self,
        stream: &mut Stream<'_>,
        source: Option<&Frame>,
    ) -> Option<[u8; FRAME_BYTES]> {
        source.map(|source| {
            let mut page = [0; FRAME_BYTES];
            source.read(0, &mut page);
            stream.context.decrypt(&mut page);
            page
        })
    }

    /// The first import of a page.
    fn migrate(
        &self,
        target: Target<'_>,
        stream: &mut Stream<'_>,
        lock: EntryLock<'_>,
        source: Option<&Frame>,
    ) -> Result<(), Failure> {
        let Target { core, tdr, tdcs } = target;
        let septe = lock.get();
        if !septe.state().first_time_import_allowed() {
            return Err(abort_in_order(
                GpaListStatus::SEPT_ENTRY_STATE_INCORRECT,
                StatusCode::EPT_ENTRY_STATE_INCORRECT,
            ));
        }
        let epoch: u32 = tdcs.get(tdcs::MIG_EPOCH);
        if septe.removed_in().is_some_and(|removed| removed >= epoch) {
            return Err(abort(
                GpaListStatus::DISALLOWED_IMPORT_OVER_REMOVED,
                StatusCode::DISALLOWED_IMPORT_OVER_REMOVED,
            ));
        }
        let hpa = self.destination(core)?;
        let pamt = core
            .lock_page(
                hpa,
                OperandId::NEW_PAGE_LIST_ENTRY,
                Mode::Exclusive,
                PageType::Nda,
            )
            .map_err(|status| match status.code() {
                StatusCode::MISSING_PAMT_PAGE_PAIR => {
                    Failure::Stop(Status::of(StatusCode::INTERRUPTED_PAMT))
                }
                _ => Failure::AbortInOrder(GpaListStatus::NEW_PAGE_NOT_AVAILABLE, status),
            })?;
        self.take_iv_now(core, stream);
        if let Some(content) = self.decrypt(stream, source) {
            core.memory().frame(hpa >> 12).write(0, &content);
            core.claim(hpa, tdr);
        }
        self.authenticate(stream)?;
        core.count_memory(tdcs, Level::Pt, true);
        tdr.add_children(1);
        pamt.take(PageType::Regular, tdr.hpa);
        let imported = Bepoch::from_bits(pamt.entry.bepoch())
            .with_mig_flag(true)
            .with_export_count(tdcs.get(tdcs::EXPORT_COUNT))
            .with_mig_epoch(epoch);
        pamt.entry.set_bepoch(imported.into_bits());
        lock.set_and_release(self.mapping(hpa));
        Ok(())
    }

    /// The import of a page that has been imported before.
    fn remigrate(
        &self,
        target: Target<'_>,
        stream: &mut Stream<'_>,
        lock: EntryLock<'_>,
        source: Option<&Frame>,
    ) -> Result<(), Failure> {
        let Target { core, tdr, tdcs } = target;
        let septe = lock.get();
        if !septe.state().re_import_allowed() {
            return Err(abort(
                GpaListStatus::SEPT_ENTRY_STATE_INCORRECT,
                StatusCode::EPT_ENTRY_STATE_INCORRECT,
            ));
        }
        let hpa = septe.address();
        let pamt = core
            .implicit(hpa, Level::Pt)
            .map_err(|status| Failure::Abort(GpaListStatus::SEPT_ENTRY_STATE_INCORRECT, status))?;
        let imported = imported_before(pamt.bepoch(), tdcs)?;
        self.take_iv_now(core, stream);
        if self.is_pending() && septe.state() != SeptState::Pending {
            return Err(abort(
                GpaListStatus::SEPT_ENTRY_STATE_INCORRECT,
                StatusCode::IMPORT_MISMATCH,
            ));
        }
        if let Some(content) = self.decrypt(stream, source) {
            core.memory().frame(hpa >> 12).write(0, &content);
            core.claim(hpa, tdr);
        }
        self.authenticate(stream)?;
        pamt.set_bepoch(
            imported
                .with_mig_epoch(tdcs.get(tdcs::MIG_EPOCH))
                .into_bits(),
        );
        lock.set_and_release(self.mapping(hpa));
        Ok(())
    }

    /// The source has removed the page after it was imported.
    fn cancel(
        &self,
        target: Target<'_>,
        stream: &mut Stream<'_>,
        lock: EntryLock<'_>,
    ) -> Result<Option<u64>, Failure> {
        let Target { core, tdr, tdcs } = target;
        let septe = lock.get();
        if !septe.state().import_cancel_allowed() {
            return Err(abort(
                GpaListStatus::SEPT_ENTRY_STATE_INCORRECT,
                StatusCode::EPT_ENTRY_STATE_INCORRECT,
            ));
        }
        self.take_iv_now(core, stream);
        self.authenticate(stream)?;
        let pamt = core
            .implicit(septe.address(), Level::Pt)
            .map_err(|status| Failure::Abort(GpaListStatus::SEPT_ENTRY_STATE_INCORRECT, status))?;
        let _lock = SharexHp::acquire(pamt.lock(), Mode::Exclusive, Side::Host)
            .map_err(|code| abort(GpaListStatus::TD_PAGE_BUSY_HOST_PRIORITY, code))?;
        let _ = imported_before(pamt.bepoch(), tdcs)?;
        lock.set_and_release(SeptEntry::removed(tdcs.get(tdcs::MIG_EPOCH)));
        core.count_memory(tdcs, Level::Pt, false);
        tdr.add_children(-1);
        pamt.set_page_type(PageType::Nda);
        let hint = dynamic_pamt::uncount(core.pamt_node(septe.address()));
        let is_wanted = core.rules().lists.cancel_returns_page
            && self.new_page.is_some_and(|page| page.invalid());
        Ok(is_wanted.then(|| {
            let removed = PageListEntryV2::from_bits(septe.address()).with_removed(true);
            removed.into_bits() | hint
        }))
    }

    const fn mapping(&self, hpa: u64) -> SeptEntry {
        if self.is_pending() {
            SeptEntry::leaf(SeptState::Pending, 0, hpa)
        } else {
            SeptEntry::leaf(SeptState::Mapped, sept::RWX, hpa)
        }
    }
}

/// Checks that a page was last imported in an earlier migration epoch.
fn imported_before(bepoch: u64, tdcs: Tdcs<'_>) -> Result<Bepoch, Failure> {
    let imported = Bepoch::from_bits(bepoch);
    if imported.mig_epoch() >= tdcs.get(tdcs::MIG_EPOCH) {
        return Err(abort(
            GpaListStatus::MIGRATED_IN_CURRENT_EPOCH,
            StatusCode::MIGRATED_IN_CURRENT_EPOCH,
        ));
    }
    Ok(imported)
}
