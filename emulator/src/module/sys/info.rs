//! TDH.SYS.INFO

use tdx_abi::format::CmrInfo;
use tdx_abi::format::CmrInfoTable;
use tdx_abi::format::CpuidConfig;
use tdx_abi::format::CpuidLeafSubleaf;
use tdx_abi::format::CpuidValues;
use tdx_abi::format::TdSysInfo;

use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::cpuid;
use crate::metadata::Access;
use crate::metadata::Context;
use crate::metadata::ContextCode;
use crate::metadata::fields::global;
use crate::metadata::id::Id;
use crate::module::Call;
use crate::module::Outcome;

const INFO_BYTES: usize = size_of::<TdSysInfo>();
const TABLE_BYTES: usize = size_of::<CmrInfoTable>();
/// Entries of the table of CMRs.
const CMRS: u64 = (TABLE_BYTES / size_of::<CmrInfo>()) as u64;

/// TDH.SYS.INFO: what TDH.SYS.RD tells, in the form of older modules.
pub(crate) fn info(call: &mut Call<'_>) -> Outcome {
    let regs = &mut *call.regs;
    let (info_hpa, info_bytes) = (regs.rcx, regs.rdx);
    let (table_hpa, entries) = (regs.r8, regs.r9);
    regs.rdx = 0;
    regs.r9 = 0;
    if !call.lp.initialized {
        return Err(Status::of(StatusCode::SYS_LP_INIT_NOT_DONE));
    }
    let core = call.core;
    let check = |hpa, bytes: usize, operand| {
        core.check_shared_hpa_aligned(hpa, bytes as u64)
            .map_err(|code| Status::with_operand(code, operand))
    };
    let invalid = |operand| Status::with_operand(StatusCode::OPERAND_INVALID, operand);
    check(info_hpa, INFO_BYTES, OperandId::RCX)?;
    if info_bytes < INFO_BYTES as u64 {
        return Err(invalid(OperandId::RDX));
    }
    core.memory().write(info_hpa, &[0; INFO_BYTES]);
    check(table_hpa, TABLE_BYTES, OperandId::R8)?;
    if entries < CMRS {
        return Err(invalid(OperandId::R9));
    }
    core.memory().write(info_hpa, sys_info(call)?.as_bytes());
    let mut table = CmrInfoTable::from_bytes([0; TABLE_BYTES]);
    for (number, range) in core.config.cmrs.iter().enumerate() {
        let mut cmr = CmrInfo::from_bytes([0; size_of::<CmrInfo>()]);
        cmr.set_base(range.base);
        cmr.set_size(range.size);
        table.set_cmrs(number, &cmr);
    }
    core.memory().write(table_hpa, table.as_bytes());
    call.regs.rdx = INFO_BYTES as u64;
    call.regs.r9 = CMRS;
    Ok(())
}

fn sys_info(call: &Call<'_>) -> Result<TdSysInfo, Status> {
    let metadata = Context {
        core: call.core,
        tdr: None,
        tdcs: None,
        tdvps: None,
    };
    let access = Access::HostRead { debug: false };
    let read = |id: Id| metadata.read_element(ContextCode::System, id, access);
    let mut info = TdSysInfo::from_bytes([0; INFO_BYTES]);
    info.set_vendor_id(read(global::VENDOR_ID)? as u32);
    info.set_build_date(read(global::BUILD_DATE)? as u32);
    info.set_build_num(read(global::BUILD_NUM)? as u16);
    info.set_minor_version(read(global::MINOR_VERSION)? as u16);
    info.set_major_version(read(global::MAJOR_VERSION)? as u16);
    info.set_sys_rd(1);
    info.set_max_tdmrs(read(global::MAX_TDMRS)? as u16);
    info.set_max_reserved_per_tdmr(read(global::MAX_RESERVED_PER_TDMR)? as u16);
    info.set_pamt_entry_size(read(global::PAMT_4K_ENTRY_SIZE)? as u16);
    info.set_tdcs_base_size(read(global::TDCS_BASE_SIZE)? as u16);
    info.set_tdvps_base_size(read(global::TDVPS_BASE_SIZE)? as u16);
    info.set_attributes_fixed0(read(global::ATTRIBUTES_FIXED0)?);
    info.set_attributes_fixed1(read(global::ATTRIBUTES_FIXED1)?);
    info.set_xfam_fixed0(read(global::XFAM_FIXED0)?);
    info.set_xfam_fixed1(read(global::XFAM_FIXED1)?);
    info.set_num_cpuid_config(cpuid::CONFIGURABLE_LEAVES as u32);
    let native = cpuid::platform_values(&call.core.config);
    for (lookup, native) in cpuid::LOOKUP.iter().zip(native) {
        let Some((number, configurable)) = lookup
            .config
            .and_then(|number| Some((number, cpuid::configurable(number)?)))
        else {
            continue;
        };
        let [eax, ebx, ecx, edx]: cpuid::Values = core::array::from_fn(|word| {
            configurable.direct[word] | configurable.allow[word] & native[word]
        });
        let mut values = CpuidValues::from_bytes([0; size_of::<CpuidValues>()]);
        values.set_eax(eax);
        values.set_ebx(ebx);
        values.set_ecx(ecx);
        values.set_edx(edx);
        let mut config = CpuidConfig::from_bytes([0; size_of::<CpuidConfig>()]);
        let leaf = u64::from(lookup.leaf) | u64::from(lookup.subleaf_or_ones()) << 32;
        config.set_leaf(CpuidLeafSubleaf::from_bits(leaf));
        config.set_values(&values);
        info.set_cpuid_config(number, &config);
    }
    Ok(info)
}
