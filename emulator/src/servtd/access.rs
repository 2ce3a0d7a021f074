//! TDG.SERVTD.RD and WR: a service TD reads and writes metadata of its target.

use tdx_abi::Level;
use tdx_abi::format::ServtdAttributes;
use tdx_abi::format::ServtdBindingState;

use super::binding;
use super::tdinfo;
use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::abi::TdcallLeaf;
use crate::exit::Guest;
use crate::exit::Leave;
use crate::exit::TdExit;
use crate::exit::gpr;
use crate::guest::Outcome;
use crate::lock::Mode;
use crate::lock::SharexHp;
use crate::lock::Side;
use crate::metadata::Access;
use crate::metadata::Context;
use crate::metadata::ContextCode;
use crate::metadata::id::Id;
use crate::pamt::PageType;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::Tdr;
use crate::structures::tdcs;
use crate::structures::tdcs::servtd;
use crate::structures::tdr;

/// TDG.SERVTD.RD.
pub(crate) fn rd(guest: &Guest<'_>) -> Outcome {
    let request = Request::take(guest, None);
    guest.set_register(gpr::RDX, Id::NONE.bits());
    guest.set_register(gpr::R8, 0);
    finish(guest, &request, TdcallLeaf::TDG_SERVTD_RD)
}

/// TDG.SERVTD.WR.
pub(crate) fn wr(guest: &Guest<'_>) -> Outcome {
    let value = guest.register(gpr::R8);
    let mask = guest.register(gpr::R9);
    let request = Request::take(guest, Some(Write { value, mask }));
    guest.set_register(gpr::R8, 0);
    finish(guest, &request, TdcallLeaf::TDG_SERVTD_WR)
}

/// What is to be written, and which bits of it.
#[derive(Clone, Copy)]
struct Write {
    value: u64,
    mask: u64,
}

/// The operands of a call.
struct Request {
    target: u64,
    slot: u64,
    field: Id,
    uuid: [u64; 4],
    write: Option<Write>,
}

impl Request {
    fn take(guest: &Guest<'_>, write: Option<Write>) -> Self {
        let (target, slot) = binding::break_handle(guest.tdr, guest.register(gpr::RCX));
        Self {
            target,
            slot,
            field: Id::new(guest.register(gpr::RDX)),
            uuid: core::array::from_fn(|word| guest.register(gpr::R10 + word)),
            write,
        }
    }
}

/// How a call fails.
enum Failure {
    /// The guest gets a status.
    Status(Status),
    /// The service TD exits because of its target; the guest finds the status when it is entered again.
    CrossTd(Status),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// A target that is busy is told to the guest, one in the wrong state to the host.
fn of_target(status: Status) -> Failure {
    if status.code() == StatusCode::OPERAND_BUSY {
        Failure::Status(status)
    } else {
        Failure::CrossTd(status)
    }
}

fn finish(guest: &Guest<'_>, request: &Request, leaf: TdcallLeaf) -> Outcome {
    match access(guest, request, leaf) {
        Ok(()) => Ok(()),
        Err(Failure::Status(status)) => Err(status.into()),
        Err(Failure::CrossTd(status)) => {
            guest.set_register(gpr::RAX, status.rax());
            let exit = TdExit::cross_td(StatusCode::CROSS_TD_TRAP, status.rax(), request.target);
            Err(Leave::Async(exit).into())
        }
    }
}

fn access(guest: &Guest<'_>, request: &Request, leaf: TdcallLeaf) -> Result<(), Failure> {
    let core = guest.core;
    if request.slot >= binding::SLOTS {
        return Err(Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::RCX).into());
    }
    let _tdr_lock = core
        .lock_page_of(
            request.target,
            OperandId::TDR,
            Mode::Shared,
            PageType::Tdr,
            Level::Pt,
            Side::Guest,
        )
        .map_err(of_target)?;
    let tdr = core.tdr(request.target);
    let tdcs = core.lock_target_tdcs(tdr, leaf).map_err(of_target)?;
    check_uuid(guest, tdr, *tdcs, request)?;
    let _bindings = SharexHp::acquire(
        tdcs.lock_word(tdcs::SERVTD_BINDINGS_LOCK),
        Mode::Shared,
        Side::Guest,
    )
    .map_err(|code| Status::with_operand(code, OperandId::SERVTD_BINDINGS))?;
    check_binding(guest, *tdcs, request)?;

    let kind = tdcs.get(servtd::TYPE);
    let scope = ContextCode::Td;
    let context = Context {
        core,
        tdr: Some(tdr),
        tdcs: Some(*tdcs),
        tdvps: None,
    };
    let field = request.field.with_context_code(scope as u8);
    let read = Access::ServiceTdRead { kind };
    if request.write.is_none() && field.is_none() {
        guest.set_register(gpr::RDX, context.next_element(scope, field, read).bits());
        return Err(Status::of(StatusCode::METADATA_FIRST_FIELD_ID_IN_CONTEXT).into());
    }
    field.check_single_element()?;
    let value = match request.write {
        Some(Write { value, mask }) => {
            context.write_element(scope, field, Access::ServiceTdWrite { kind }, value, mask)?
        }
        None => {
            let value = context.read_element(scope, field, read)?;
            guest.set_register(gpr::RDX, context.next_element(scope, field, read).bits());
            value
        }
    };
    guest.set_register(gpr::R8, value);
    Ok(())
}

/// Checks that the guest means the TD that the target is now; after an import it is told the new TD_UUID.
fn check_uuid(
    guest: &Guest<'_>,
    tdr: Tdr<'_>,
    tdcs: Tdcs<'_>,
    request: &Request,
) -> Result<(), Failure> {
    let uuid: [u64; 4] = core::array::from_fn(|word| tdr.get(tdr::TD_UUID.nth(word)));
    if uuid == request.uuid {
        return Ok(());
    }
    let before_import: [u64; 4] =
        core::array::from_fn(|word| tdcs.get(tdcs::PREIMPORT_UUID.nth(word)));
    if before_import != request.uuid {
        return Err(Status::of(StatusCode::TARGET_UUID_MISMATCH).into());
    }
    for (word, value) in uuid.into_iter().enumerate() {
        guest.set_register(gpr::R10 + word, value);
    }
    Err(Status::of(StatusCode::TARGET_UUID_UPDATED).into())
}

/// Checks that the target is bound to this TD, as it is measured now.
fn check_binding(guest: &Guest<'_>, tdcs: Tdcs<'_>, request: &Request) -> Result<(), Failure> {
    if binding::state(tdcs) != ServtdBindingState::BOUND {
        let status = Status::with_detail(StatusCode::SERVTD_NOT_BOUND, request.slot as u32);
        return Err(Failure::CrossTd(status));
    }
    if !binding::is_bound_to(tdcs, guest.tdr) {
        return Err(Failure::CrossTd(Status::of(
            StatusCode::SERVTD_UUID_MISMATCH,
        )));
    }
    let attributes = ServtdAttributes::from_bits(tdcs.get(servtd::ATTRIBUTES));
    let hash = tdinfo::hash(guest.tdcs, attributes, Side::Guest)
        .map_err(|code| Status::with_operand(code, OperandId::RTMR))?;
    if tdcs.bytes(servtd::INFO_HASH.offset(), hash.len()) != hash {
        return Err(Failure::CrossTd(Status::of(
            StatusCode::SERVTD_INFO_HASH_MISMATCH,
        )));
    }
    Ok(())
}
