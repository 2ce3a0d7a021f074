//! TDH.SERVTD.PREBIND and BIND: tie a service TD to a target TD.

use tdx_abi::Registers;
use tdx_abi::format::ServtdAttributes;
use tdx_abi::format::ServtdBindingHandle;
use tdx_abi::format::ServtdBindingState;
use tdx_abi::format::ServtdType;

use super::tdinfo;
use super::tdinfo::MEASUREMENT_BYTES;
use super::tdinfo::Measurement;
use crate::abi::OpState;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::lock::Mode;
use crate::lock::SharexHp;
use crate::lock::Side;
use crate::module::Call;
use crate::module::Outcome;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::Tdr;
use crate::structures::tdcs;
use crate::structures::tdcs::servtd;
use crate::structures::tdr;

/// Binding slots of a TD.
pub(crate) const SLOTS: u64 = 1;
/// Alignment of the TDINFO hash that PREBIND takes.
const HASH_ALIGN: u64 = 64;

/// The state of the TD's slot.
pub(crate) fn state(tdcs: Tdcs<'_>) -> ServtdBindingState {
    ServtdBindingState::from_bits(tdcs.get(servtd::STATE))
}

/// R8, R9 and R10 of both leaves, checked.
struct Binding {
    kind: u16,
    attributes: ServtdAttributes,
}

impl Binding {
    fn take(regs: &Registers) -> Result<Self, Status> {
        let invalid = |operand| Status::with_operand(StatusCode::OPERAND_INVALID, operand);
        if regs.r8 >= SLOTS {
            return Err(invalid(OperandId::R8));
        }
        if regs.r9 != u64::from(ServtdType::MIGTD.into_bits()) {
            return Err(invalid(OperandId::R9));
        }
        if !are_attributes_valid(ServtdAttributes::from_bits(regs.r10)) {
            return Err(invalid(OperandId::R10));
        }
        Ok(Self {
            kind: ServtdType::MIGTD.into_bits(),
            attributes: ServtdAttributes::from_bits(regs.r10),
        })
    }

    /// Checks that the slot was bound with the same type and attributes.
    fn check(&self, tdcs: Tdcs<'_>) -> Result<(), Status> {
        if tdcs.get(servtd::TYPE) != self.kind {
            return Err(Status::of(StatusCode::SERVTD_TYPE_MISMATCH));
        }
        if tdcs.get(servtd::ATTRIBUTES) != self.attributes.into_bits() {
            return Err(Status::of(StatusCode::SERVTD_ATTR_MISMATCH));
        }
        Ok(())
    }

    fn record(&self, tdcs: Tdcs<'_>, hash: &Measurement) {
        tdcs.set(servtd::TYPE, self.kind);
        tdcs.set(servtd::ATTRIBUTES, self.attributes.into_bits());
        tdcs.set_bytes(servtd::INFO_HASH.offset(), hash);
    }
}

/// Whether a binding slot of a migrated TD, as metadata, goes with the slot that the TD has here.
pub(crate) fn is_importable(tdcs: Tdcs<'_>, slot: &[u64]) -> bool {
    let (Some(&head), Some(&attributes)) = (slot.first(), slot.get(1)) else {
        return false;
    };
    let kind = (head >> 16) as u16;
    match ServtdBindingState::from_bits(head as u8) {
        ServtdBindingState::NOT_BOUND => true,
        ServtdBindingState::PRE_BOUND | ServtdBindingState::BOUND => {
            kind == ServtdType::MIGTD.into_bits()
                && are_attributes_valid(ServtdAttributes::from_bits(attributes))
                && (state(tdcs) == ServtdBindingState::NOT_BOUND
                    || tdcs.get(servtd::TYPE) == kind && tdcs.get(servtd::ATTRIBUTES) == attributes)
        }
        _ => false,
    }
}

/// Whether a binding may have these attributes.
const fn are_attributes_valid(attributes: ServtdAttributes) -> bool {
    attributes.is_reserved_valid()
        && !attributes.solicited_binding()
        && !attributes.platform_binding()
        && !attributes.migratable_binding()
}

fn lock_bindings(tdcs: Tdcs<'_>) -> Result<SharexHp<'_>, Status> {
    SharexHp::acquire(
        tdcs.lock_word(tdcs::SERVTD_BINDINGS_LOCK),
        Mode::Exclusive,
        Side::Host,
    )
    .map_err(|code| Status::with_operand(code, OperandId::SERVTD_BINDINGS))
}

fn count_binding(tdcs: Tdcs<'_>) {
    tdcs.update(tdcs::SERVTD_NUM, |count: u16| count.wrapping_add(1));
}

/// TDH.SERVTD.PREBIND: fixes the TDINFO hash of the service TD that may be bound later.
pub(crate) fn prebind(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let tdr = core.lock_tdr(call.regs.rcx, OperandId::RCX, Mode::Shared)?;
    let tdcs = core.lock_tdcs(*tdr, Some(Mode::Shared), SeamcallLeaf::TDH_SERVTD_PREBIND)?;
    let hash_at = call.regs.rdx;
    core.check_shared_hpa_aligned(hash_at, HASH_ALIGN)
        .map_err(|code| Status::with_operand(code, OperandId::RDX))?;
    let binding = Binding::take(call.regs)?;
    let _bindings = lock_bindings(*tdcs)?;
    match state(*tdcs) {
        ServtdBindingState::BOUND => return Err(Status::of(StatusCode::SERVTD_BOUND)),
        ServtdBindingState::NOT_BOUND => count_binding(*tdcs),
        _ => {}
    }
    let mut hash = [0; MEASUREMENT_BYTES];
    core.memory().read(core.without_key_id(hash_at), &mut hash);
    binding.record(*tdcs, &hash);
    tdcs.set(servtd::STATE, ServtdBindingState::PRE_BOUND.into_bits());
    Ok(())
}

/// TDH.SERVTD.BIND: binds a service TD, and gives the handle and TD_UUID with which it reaches its target.
pub(crate) fn bind(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let (target, service) = (call.regs.rcx, call.regs.rdx);
    let inputs = *call.regs;
    call.regs.rcx = 0;
    call.regs.r10 = 0;
    call.regs.r11 = 0;
    call.regs.r12 = 0;
    call.regs.r13 = 0;
    if service == target {
        return Err(Status::with_operand(
            StatusCode::OPERAND_INVALID,
            OperandId::RDX,
        ));
    }
    let leaf = SeamcallLeaf::TDH_SERVTD_BIND;
    let tdr = core.lock_tdr(target, OperandId::RCX, Mode::Shared)?;
    let tdcs = core.lock_tdcs(*tdr, Some(Mode::Shared), leaf)?;
    let service_tdr = core.lock_tdr(service, OperandId::RDX, Mode::Shared)?;
    let service_tdcs = core.lock_service_tdcs(*service_tdr)?;
    let binding = Binding::take(&inputs)?;
    let _bindings = lock_bindings(*tdcs)?;
    if core.rules().service_td_is_plain {
        check_plain(*service_tdcs)?;
    }
    let hash = tdinfo::hash(*service_tdcs, binding.attributes, Side::Host)
        .map_err(|_| Status::with_operand(StatusCode::OPERAND_BUSY, OperandId::RTMR))?;
    bind_slot(core, *tdcs, *service_tdr, &binding, &hash)?;
    tdcs.set(servtd::STATE, ServtdBindingState::BOUND.into_bits());
    call.regs.rcx = handle(*service_tdr, target);
    call.regs.r10 = tdr.get(tdr::TD_UUID.nth(0));
    call.regs.r11 = tdr.get(tdr::TD_UUID.nth(1));
    call.regs.r12 = tdr.get(tdr::TD_UUID.nth(2));
    call.regs.r13 = tdr.get(tdr::TD_UUID.nth(3));
    Ok(())
}

fn bind_slot(
    core: &Core,
    tdcs: Tdcs<'_>,
    service: Tdr<'_>,
    binding: &Binding,
    hash: &Measurement,
) -> Result<(), Status> {
    let hash_matches = tdcs.bytes(servtd::INFO_HASH.offset(), hash.len()) == hash;
    let hash_mismatch = Err(Status::of(StatusCode::SERVTD_INFO_HASH_MISMATCH));
    match state(tdcs) {
        ServtdBindingState::NOT_BOUND => {
            if !matches!(
                tdcs.op_state(),
                OpState::Uninitialized | OpState::Initialized
            ) {
                return Err(core.op_state_incorrect(tdcs));
            }
            binding.record(tdcs, hash);
            count_binding(tdcs);
        }
        ServtdBindingState::PRE_BOUND => {
            binding.check(tdcs)?;
            if !hash_matches {
                return hash_mismatch;
            }
        }
        _ => {
            binding.check(tdcs)?;
            if binding.attributes.instance_binding() {
                if !is_bound_to(tdcs, service) {
                    return Err(Status::of(StatusCode::SERVTD_UUID_MISMATCH));
                }
                tdcs.set_bytes(servtd::INFO_HASH.offset(), hash);
            } else if !hash_matches {
                return hash_mismatch;
            }
        }
    }
    for word in 0..4 {
        tdcs.set(servtd::UUID.nth(word), service.get(tdr::TD_UUID.nth(word)));
    }
    Ok(())
}

/// Checks that a service TD has no service TD itself, and is not migratable.
fn check_plain(service: Tdcs<'_>) -> Result<(), Status> {
    if service.get(tdcs::SERVTD_NUM) != 0 {
        return Err(Status::of(StatusCode::SERVTD_NESTING_NOT_ALLOWED));
    }
    if service.has_attribute(tdcs::ATTRIBUTES_MIGRATABLE) {
        return Err(Status::of(StatusCode::SERVTD_CANNOT_BE_MIGRATABLE));
    }
    Ok(())
}

/// Whether the slot names the TD of `service`.
pub(crate) fn is_bound_to(tdcs: Tdcs<'_>, service: Tdr<'_>) -> bool {
    (0..4).all(|word| tdcs.get(servtd::UUID.nth(word)) == service.get(tdr::TD_UUID.nth(word)))
}

/// The handle of a binding of slot 0: the target's TDR address, blinded by the service TD's TD_UUID.
fn handle(service: Tdr<'_>, target: u64) -> u64 {
    target.wrapping_add(service.get(tdr::TD_UUID.nth(0)))
}

/// The target's TDR address and slot that a handle stands for.
pub(crate) fn break_handle(service: Tdr<'_>, handle: u64) -> (u64, u64) {
    let plain = handle.wrapping_sub(service.get(tdr::TD_UUID.nth(0)));
    let plain = ServtdBindingHandle::from_bits(plain);
    (plain.tdr().bits(), plain.slot().into())
}
