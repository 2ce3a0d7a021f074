//! TDH.MNG.INIT: gives a TD its configuration from TD_PARAMS.

use super::super::Call;
use super::super::Outcome;
use super::derived;
use crate::abi::Module;
use crate::abi::OpState;
use crate::abi::OperandId;
use crate::abi::SeamcallLeaf;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::cpuid;
use crate::cpuid::CONFIGURABLE_LEAVES;
use crate::lock::Mode;
use crate::measurement;
use crate::metadata::limit;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::Tdr;
use crate::structures::tdcs;
use crate::topology;
use tdx_abi::field;
use tdx_abi::field::global;

/// Bytes of TD_PARAMS.
const PARAMS: usize = 1024;
/// ATTRIBUTES bits that a TD may have.
const ATTRIBUTES_ALLOWED: u64 = limit(Module::V1_5_01, global::ATTRIBUTES_FIXED0);
/// CONFIG_FLAGS bits that a TD may have.
pub(crate) const CONFIG_FLAGS_ALLOWED: u64 = limit(Module::V1_5_01, global::CONFIG_FLAGS_FIXED0);
/// XFAM bits that a TD must have.
const XFAM_FIXED1: u64 = limit(Module::V1_5_01, global::XFAM_FIXED1);
/// Default of HP_LOCK_TIMEOUT.
const HP_LOCK_TIMEOUT_US: u64 = 1_000_000;
/// IA32_ARCH_CAPABILITIES bits that the host may configure: SSB_NO, RRSBA, BHI_NO and PBRSB_NO.
const ARCH_CAPABILITIES_CONFIGURABLE: u64 =
    limit(Module::V1_5_01, global::IA32_ARCH_CAPABILITIES_CONFIG_MASK);
/// IA32_ARCH_CAPABILITIES bits that a TD always sees set.
const ARCH_CAPABILITIES_FIXED1: u64 = 0xf16b;
/// IA32_ARCH_CAPABILITIES.TSX_CTRL, which a TD with TSX has.
const ARCH_CAPABILITIES_TSX_CTRL: u64 = 1 << 7;
/// Position of the virtual IA32_ARCH_CAPABILITIES among the virtual MSRs.
const VIRT_ARCH_CAPABILITIES: usize = 15;

/// TDH.MNG.INIT
pub(crate) fn init(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let (tdr, params) = (call.regs.rcx, call.regs.rdx);
    call.regs.rcx = 0;
    let tdr = core.lock_tdr(tdr, OperandId::RCX, Mode::Exclusive)?;
    let tdcs = core.lock_tdcs(*tdr, None, SeamcallLeaf::TDH_MNG_INIT)?;
    core.check_shared_hpa_aligned(params, PARAMS as u64)
        .map_err(|code| Status::with_operand(code, OperandId::RDX))?;
    let mut bytes = [0; PARAMS];
    core.memory().read(core.without_key_id(params), &mut bytes);
    let params = Params(&bytes);
    tdcs.set(tdcs::NUM_VCPUS, 0);
    tdcs.set(tdcs::NUM_ASSOC_VCPUS, 0);
    tdcs.set(tdcs::TD_EPOCH, 1);
    tdcs.set(tdcs::REFCOUNT, 0);
    tdcs.set(tdcs::REFCOUNT.nth(1), 0);
    let timeout = HP_LOCK_TIMEOUT_US * (core.config.tsc_frequency & 0xffff_ffff) / 1_000_000;
    tdcs.set(tdcs::HP_LOCK_TIMEOUT, timeout);
    configure(core, *tdr, *tdcs, &params)?;
    configure_cpuid(call, *tdcs, &params)?;
    configure_arch_capabilities(*tdcs, &params)?;
    if let Some(places) = &core.rules().topology {
        topology::begin(*tdcs, places);
    }
    if tdcs.has_attribute(tdcs::ATTRIBUTES_MIGRATABLE) && tdcs.l2_vms() > 0 {
        return Err(invalid(OperandId::RDX));
    }
    derived::set_xsave_layout(*tdcs);
    derived::set_msr_bitmaps(*tdcs);
    derived::set_vmx_msrs(*tdcs);
    measurement::begin(*tdcs);
    for word in 0..24 {
        tdcs.set(tdcs::RTMR.nth(word), 0);
    }
    tdcs.set_op_state(OpState::Initialized);
    Ok(())
}

/// TD_PARAMS as bytes.
struct Params<'a>(&'a [u8; PARAMS]);

impl Params<'_> {
    fn u64(&self, offset: usize) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.0[offset..offset + 8]);
        u64::from_le_bytes(word)
    }

    fn u32(&self, offset: usize) -> u32 {
        self.u64(offset & !7).unbounded_shr((offset as u32 & 7) * 8) as u32
    }

    fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.0[offset], self.0[offset + 1]])
    }

    fn is_zero(&self, from: usize, to: usize) -> bool {
        self.0[from..to].iter().all(|&byte| byte == 0)
    }
}

const fn invalid(operand: OperandId) -> Status {
    Status::with_operand(StatusCode::OPERAND_INVALID, operand)
}

fn configure(core: &Core, tdr: Tdr<'_>, tdcs: Tdcs<'_>, params: &Params<'_>) -> Outcome {
    let attributes = params.u64(0);
    if !are_attributes_legal(attributes) {
        return Err(invalid(OperandId::ATTRIBUTES));
    }
    tdcs.set(tdcs::ATTRIBUTES, attributes);
    if attributes & tdcs::ATTRIBUTES_SEPT_VE_DISABLE != 0 {
        tdcs.update(tdcs::TD_CTLS, |ctls: u64| {
            ctls | tdcs::TD_CTLS_PENDING_VE_DISABLE
        });
    } else {
        tdcs.update(tdcs::TD_CTLS, |ctls: u64| {
            ctls & !tdcs::TD_CTLS_PENDING_VE_DISABLE
        });
    }
    let xfam = params.u64(8);
    if !is_xfam_legal(xfam) {
        return Err(invalid(OperandId::XFAM));
    }
    tdcs.set(tdcs::XFAM, xfam);
    let max_vcpus = params.u16(16);
    let most = core.rules().max_vcpus;
    if max_vcpus == 0 || most.is_some_and(|most| u32::from(max_vcpus) > most) {
        return Err(invalid(OperandId::MAX_VCPUS));
    }
    tdcs.set(tdcs::MAX_VCPUS, u32::from(max_vcpus));
    let l2_vms = params.0[18];
    if u16::from(l2_vms) > field::MAX_L2_VMS {
        return Err(invalid(OperandId::NUM_L2_VMS));
    }
    if !tdr.has_tdcs(l2_vms.into()) {
        return Err(Status::of(StatusCode::TDCS_NOT_ALLOCATED));
    }
    tdcs.set(tdcs::NUM_L2_VMS, u16::from(l2_vms));
    if !params.is_zero(20, 24) {
        return Err(invalid(OperandId::RDX));
    }
    let flags = params.u64(32);
    if flags & !CONFIG_FLAGS_ALLOWED != 0 {
        return Err(invalid(OperandId::EXEC_CONTROLS));
    }
    let wide = flags & tdcs::CONFIG_GPAW != 0;
    let eptp = params.u64(24);
    if !is_eptp_legal(core, eptp, wide) {
        return Err(invalid(OperandId::EPTP_CONTROLS));
    }
    tdcs.set(tdcs::EPTP, eptp | tdcs.page_hpa(tdcs::SEPT_ROOT_PAGE));
    tdcs.set(tdcs::CONFIG_FLAGS, flags);
    tdcs.set(tdcs::GPAW, wide);
    let frequency = params.u16(40);
    if !(4..=400).contains(&frequency) {
        return Err(invalid(OperandId::TSC_FREQUENCY));
    }
    tdcs.set(tdcs::TSC_FREQUENCY, frequency);
    set_virtual_tsc(core, tdcs, 0);
    if !params.is_zero(42, 80) {
        return Err(invalid(OperandId::RDX));
    }
    tdcs.set_bytes(tdcs::MRCONFIGID.offset(), &params.0[80..224]);
    if params.0[19] & !1 != 0 || !params.is_zero(232, 256) {
        return Err(invalid(OperandId::RDX));
    }
    Ok(())
}

/// Whether ATTRIBUTES has only bits that exist and combinations that make sense.
pub(crate) const fn are_attributes_legal(attributes: u64) -> bool {
    let migratable = attributes & tdcs::ATTRIBUTES_MIGRATABLE != 0;
    let not_migrated = tdcs::ATTRIBUTES_DEBUG | tdcs::ATTRIBUTES_PERFMON;
    attributes & !ATTRIBUTES_ALLOWED == 0 && (!migratable || attributes & not_migrated == 0)
}

/// Whether an imported virtual IA32_ARCH_CAPABILITIES differs from the platform's only where it may, given whether the TD has TSX.
pub(crate) const fn are_arch_capabilities_legal(value: u64, tsx: bool) -> bool {
    let free = ARCH_CAPABILITIES_CONFIGURABLE | ARCH_CAPABILITIES_TSX_CTRL;
    let controls_tsx = value & ARCH_CAPABILITIES_TSX_CTRL != 0;
    value & !free == ARCH_CAPABILITIES_FIXED1 && (controls_tsx || !tsx)
}

/// Whether XFAM has what every TD has, nothing that the platform has not, and only combinations that make sense.
pub(crate) fn is_xfam_legal(xfam: u64) -> bool {
    let all = |bits: u64| xfam & bits == bits;
    let any = |bits: u64| xfam & bits != 0;
    const AVX: u64 = 1 << 2;
    const AVX_512: u64 = 7 << 5;
    const CET: u64 = 3 << 11;
    const AMX: u64 = 3 << 17;
    xfam & !cpuid::XFAM_SUPPORTED == 0
        && all(XFAM_FIXED1)
        && [AVX_512, CET, AMX]
            .into_iter()
            .all(|bits| all(bits) || !any(bits))
        && (!any(AVX_512) || all(AVX))
}

/// Whether the controls of the Secure-EPT's EPTP are legal: write-back, 4 or 5 levels, everything else 0.
pub(crate) fn is_eptp_legal(core: &Core, eptp: u64, wide: bool) -> bool {
    const WRITE_BACK: u64 = 6;
    const FOUR_LEVELS: u64 = 3;
    const FIVE_LEVELS: u64 = 4;
    let levels = eptp >> 3 & 7;
    eptp & !0x3f == 0
        && eptp & 7 == WRITE_BACK
        && (levels == FOUR_LEVELS || (levels == FIVE_LEVELS && core.config.max_pa >= 49))
        && (!wide || levels == FIVE_LEVELS || core.config.shared_bit.is_some())
}

/// Makes the TD's TSC, of the frequency in TSC_FREQUENCY, go on from `value`.
pub(crate) fn set_virtual_tsc(core: &Core, tdcs: Tdcs<'_>, value: u64) {
    let virtual_hz = u128::from(tdcs.get(tdcs::TSC_FREQUENCY)) * 25_000_000;
    let multiplier = (virtual_hz << 48) / u128::from(core.config.tsc_frequency.max(1));
    let now = (u128::from(core.tsc()) * multiplier) >> 48;
    tdcs.set(tdcs::TSC_MULTIPLIER, multiplier as u64);
    tdcs.set(tdcs::TSC_OFFSET, value.wrapping_sub(now as u64));
}

/// What the TD's CPUID values depend on.
pub(crate) fn td_config(tdcs: Tdcs<'_>) -> cpuid::TdConfig {
    cpuid::TdConfig {
        pks: tdcs.has_attribute(tdcs::ATTRIBUTES_PKS),
        perfmon: tdcs.has_attribute(tdcs::ATTRIBUTES_PERFMON),
        migratable: tdcs.has_attribute(tdcs::ATTRIBUTES_MIGRATABLE),
        xfam: tdcs.get(tdcs::XFAM),
        tsc_frequency: tdcs.get(tdcs::TSC_FREQUENCY),
    }
}

fn configure_cpuid(call: &mut Call<'_>, tdcs: Tdcs<'_>, params: &Params<'_>) -> Outcome {
    let configured: [cpuid::Values; CONFIGURABLE_LEAVES] = core::array::from_fn(|leaf| {
        core::array::from_fn(|word| params.u32(256 + leaf * 16 + word * 4))
    });
    let td = td_config(tdcs);
    let mut flags = [false; 10];
    let platform = cpuid::platform_values(&call.core.config);
    let values = cpuid::td_values(&platform, &configured, td, &mut flags).map_err(|refused| {
        if let Some(leaf) = refused.leaf {
            call.regs.rcx = leaf;
        }
        invalid(OperandId::CPUID_CONFIG)
    })?;
    for (number, flag) in flags.into_iter().enumerate() {
        tdcs.set(tdcs::CPUID_FLAGS.nth(number), flag);
    }
    for (number, value) in values.iter().enumerate() {
        for (word, bits) in value.iter().enumerate() {
            tdcs.set(tdcs::CPUID_VALUES.nth(number * 4 + word), *bits);
        }
        tdcs.set(
            tdcs::CPUID_VALID.nth(number),
            !cpuid::LOOKUP[number].faulting,
        );
    }
    let end_of_values = 256 + CONFIGURABLE_LEAVES * 16;
    if !params.is_zero(end_of_values, PARAMS) {
        return Err(invalid(OperandId::RDX));
    }
    Ok(())
}

fn configure_arch_capabilities(tdcs: Tdcs<'_>, params: &Params<'_>) -> Outcome {
    let configured = params.u64(224);
    let enabled = params.0[19] & 1 != 0;
    if (!enabled && configured != 0) || configured & !ARCH_CAPABILITIES_CONFIGURABLE != 0 {
        return Err(invalid(OperandId::IA32_ARCH_CAPABILITIES_CONFIG));
    }
    let tsx = if tdcs.flag(tdcs::flags::TSX) {
        ARCH_CAPABILITIES_TSX_CTRL
    } else {
        0
    };
    let value = ARCH_CAPABILITIES_FIXED1 | configured | tsx;
    tdcs.set(tdcs::VIRT_MSRS.nth(VIRT_ARCH_CAPABILITIES), value);
    Ok(())
}
