//! Leaves that an interrupt stops halfway: where they stand, and whether a later call goes on there.

use super::export_state::first_of;
use super::stream::Stream;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::frame::Field;
use crate::metadata::ContextCode;
use crate::metadata::id::Id;
use crate::module::Call;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::tdcs;

/// Why a call does not go on where another one stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// None has stopped.
    Nothing,
    /// It had other operands.
    Operands,
}

impl From<Mismatch> for Status {
    fn from(_: Mismatch) -> Self {
        Self::of(StatusCode::INVALID_RESUMPTION)
    }
}

/// Readies `stream`, with the key in `key` where it was not used yet, for a new list of pages.
///
/// Fails with INVALID_RESUMPTION where newer modules keep to a list that was interrupted.
pub(crate) fn begin_list(
    core: &Core,
    stream: &mut Stream<'_>,
    key: Field<u64>,
) -> Result<(), Status> {
    let keeps = !core.rules().lists.new_one_replaces_interrupted;
    if keeps && stream.is_initialized() && stream.context.interrupted.valid {
        return Err(Status::of(StatusCode::INVALID_RESUMPTION));
    }
    stream.ensure_initialized(key);
    stream.context.interrupted.valid = false;
    Ok(())
}

/// Notes that a memory leaf stops before the entry of `gpa_list_info`.
pub(crate) fn stop_memory(
    call: &Call<'_>,
    tdcs: Tdcs<'_>,
    stream: &mut Stream<'_>,
    gpa_list_info: u64,
    new_page_list: u64,
) {
    let context = &mut stream.context;
    let interrupted = &mut context.interrupted;
    interrupted.valid = true;
    interrupted.function = call.regs.rax;
    interrupted.gpa_list_info = gpa_list_info;
    interrupted.buffer_list = call.regs.r9;
    interrupted.mac_lists = [call.regs.r11, call.regs.r12];
    interrupted.new_page_list = new_page_list;
    context.mbmd.mig_epoch = tdcs.get(tdcs::MIG_EPOCH);
}

/// Checks that the memory leaf that stopped had these operands, and that the epoch is still the same.
pub(crate) fn resume_memory(
    call: &Call<'_>,
    tdcs: Tdcs<'_>,
    stream: &mut Stream<'_>,
    new_page_list: u64,
) -> Result<(), Status> {
    if !stream.is_initialized() {
        return Err(Status::of(StatusCode::MIGRATION_STREAM_STATE_INCORRECT));
    }
    let context = &mut stream.context;
    let interrupted = &mut context.interrupted;
    let was_valid = core::mem::replace(&mut interrupted.valid, false);
    let same = interrupted.function == call.regs.rax
        && interrupted.gpa_list_info == call.regs.rcx
        && interrupted.buffer_list == call.regs.r9
        && interrupted.mac_lists == [call.regs.r11, call.regs.r12]
        && interrupted.new_page_list == new_page_list
        && context.mbmd.mig_epoch == tdcs.get(tdcs::MIG_EPOCH);
    if was_valid && same {
        Ok(())
    } else {
        Err(Status::of(StatusCode::INVALID_RESUMPTION))
    }
}

/// Where an export or import of state stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Pages done.
    pub(crate) page: u32,
    /// The next field.
    pub(crate) field: Id,
    /// Whether the module's own metadata is through.
    pub(crate) system_done: bool,
}

impl Place {
    /// At the first field of `scope`.
    pub(crate) const fn start(scope: ContextCode) -> Self {
        Self {
            page: 0,
            field: first_of(scope),
            system_done: false,
        }
    }

    /// Where the state leaf that stopped stands; it must have had the same operands.
    pub(crate) fn resume(
        call: &Call<'_>,
        stream: &mut Stream<'_>,
        tdvpr: Option<u64>,
    ) -> Result<Self, Mismatch> {
        let interrupted = &mut stream.context.interrupted;
        if !core::mem::replace(&mut interrupted.valid, false) {
            return Err(Mismatch::Nothing);
        }
        let same = interrupted.function == call.regs.rax
            && interrupted.page_list_info == call.regs.r9
            && tdvpr.is_none_or(|tdvpr| interrupted.tdvpr == tdvpr);
        if !same {
            return Err(Mismatch::Operands);
        }
        Ok(Self {
            page: interrupted.num_processed,
            field: Id::new(interrupted.field_id),
            system_done: interrupted.sys_migrated,
        })
    }

    /// Notes that a state leaf stops here.
    pub(crate) fn stop(&self, call: &Call<'_>, stream: &mut Stream<'_>, tdvpr: Option<u64>) {
        let interrupted = &mut stream.context.interrupted;
        interrupted.valid = true;
        interrupted.function = call.regs.rax;
        interrupted.page_list_info = call.regs.r9;
        interrupted.field_id = self.field.bits();
        interrupted.num_processed = self.page;
        interrupted.sys_migrated = self.system_done;
        if let Some(tdvpr) = tdvpr {
            interrupted.tdvpr = tdvpr;
        }
    }
}
