//! TDH.SYS.CONFIG: takes TDMRs and PAMT areas.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use tdx_abi::field::global;
use tdx_abi::format::SysConfigOptions;

use super::Call;
use super::Outcome;
use super::lock_global;
use crate::abi::Module;
use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::config::Range;
use crate::core::Core;
use crate::dynamic_pamt::MAX_KEY_ID_SHIFT;
use crate::global::KeyState;
use crate::global::MAX_RESERVED_AREAS;
use crate::global::MAX_TDMRS;
use crate::global::SysState;
use crate::global::TdmrConfig;
use crate::lock::Mode;
use crate::metadata::features0;
use crate::metadata::limit;
use crate::pamt::ReservedArea;

const GIB: u64 = 1 << 30;
const PAGE: u64 = 4096;
/// Pages that a byte of the bitmap stands for, which Dynamic PAMT has in place of 4 KiB entries.
const BITS_PER_BYTE: u64 = 8;
/// Bytes of a PAMT entry.
const PAMT_ENTRY: u64 = limit(Module::V1_5_01, global::PAMT_4K_ENTRY_SIZE);
/// Alignment of the array of TDMR_INFO addresses and of each TDMR_INFO.
const INFO_ALIGNMENT: u64 = 512;

/// PAMT areas in the order in which they are checked where it matters: 4 KiB, 2 MiB, 1 GiB.
const SIZES: [u8; 3] = [0, 1, 2];

/// TDMR_INFO: base and size, then base and size of the PAMT areas for 1 GiB, 2 MiB and 4 KiB, then reserved areas.
struct TdmrInfo {
    tdmr: Range,
    /// PAMT areas by page size: 4 KiB, 2 MiB, 1 GiB.
    pamt: [Range; 3],
    reserved: [ReservedArea; MAX_RESERVED_AREAS],
}

/// TDH.SYS.CONFIG
pub(crate) fn config(call: &mut Call<'_>) -> Outcome {
    let core = call.core;
    let global = &core.global;
    let (array, count, options) = (call.regs.rcx, call.regs.rdx, call.regs.r8);
    let _lock = lock_global(call, Mode::Exclusive)?;
    let all_lps = core.lps.len() as u32;
    if global.sys_state() != SysState::InitDone
        || global.initialized_lps.load(Ordering::Acquire) < all_lps
    {
        return Err(Status::of(StatusCode::SYS_CONFIG_NOT_PENDING));
    }
    core.check_shared_hpa_aligned(array, INFO_ALIGNMENT)
        .map_err(|code| Status::with_operand(code, OperandId::RCX))?;
    if count > MAX_TDMRS as u64 || count < 1 {
        return Err(Status::with_operand(
            StatusCode::OPERAND_INVALID,
            OperandId::RDX,
        ));
    }
    let Options {
        key_id,
        dynamic_pamt,
    } = Options::decode(call, options)?;
    let keep_key_id = || {
        global.kot[usize::from(key_id)].set_state(KeyState::Reserved);
        global.key_id.store(key_id, Ordering::Release);
    };
    if core.rules().config_reserves_key_early {
        keep_key_id();
    }

    let mut infos: Vec<TdmrInfo> = Vec::new();
    for number in 0..count {
        let address = core
            .memory()
            .read_u64(core.without_key_id(array) + number * 8);
        core.check_shared_hpa_aligned(address, INFO_ALIGNMENT)
            .map_err(|code| Status::with_operand(code, OperandId::RCX))?;
        infos.push(TdmrInfo::read(core, core.without_key_id(address)));
        check(core, &infos, dynamic_pamt)?;
    }
    let tdmrs: Vec<TdmrConfig> = infos
        .iter()
        .map(|info| TdmrConfig {
            base: info.tdmr.base,
            size: info.tdmr.size,
            reserved: info
                .reserved
                .iter()
                .copied()
                .take_while(|area| area.size != 0)
                .collect(),
        })
        .collect();
    keep_key_id();
    global.set_tdmrs(&tdmrs, dynamic_pamt);
    global.package_bitmap.store(0, Ordering::Release);
    global.set_sys_state(SysState::ConfigDone);
    Ok(())
}

/// R8: the module's KeyID, and in newer modules how the PAMT of 4 KiB pages is kept.
struct Options {
    key_id: u16,
    dynamic_pamt: bool,
}

impl Options {
    fn decode(call: &mut Call<'_>, options: u64) -> Result<Self, Status> {
        let core = call.core;
        let invalid = |operand| Status::with_operand(StatusCode::OPERAND_INVALID, operand);
        let (key_id, dynamic_pamt) = if core.rules().config_has_options {
            let options = SysConfigOptions::from_bits(options);
            let reserved = options.into_bits() & SysConfigOptions::RESERVED;
            (u64::from(options.hkid()) | reserved, options.dynamic_pamt())
        } else {
            (options, false)
        };
        let key_id = u16::try_from(key_id)
            .ok()
            .filter(|&key_id| core.is_private_key_id(key_id))
            .ok_or(invalid(OperandId::R8))?;
        if call.version > 0 {
            check_enabled_features(call)?;
        }
        if dynamic_pamt && core.config.key_id_shift() > MAX_KEY_ID_SHIFT {
            return Err(invalid(OperandId::R8));
        }
        Ok(Self {
            key_id,
            dynamic_pamt,
        })
    }
}

/// Version 1: R9 may enable features that TDX_FEATURES0 has; R10 is reserved.
///
/// None of those that the emulator has is switched on by this.
fn check_enabled_features(call: &Call<'_>) -> Outcome {
    let invalid = |operand| Status::with_operand(StatusCode::OPERAND_INVALID, operand);
    call.check_version()?;
    if call.regs.r9 & !features0(call.core.module()) != 0 {
        return Err(invalid(OperandId::R9));
    }
    if call.regs.r10 != 0 {
        return Err(invalid(OperandId::R10));
    }
    Ok(())
}

impl TdmrInfo {
    fn read(core: &Core, address: u64) -> Self {
        let word = |number: usize| core.memory().read_u64(address + number as u64 * 8);
        let range = |number| Range {
            base: word(number),
            size: word(number + 1),
        };
        Self {
            tdmr: range(0),
            pamt: [range(6), range(4), range(2)],
            reserved: core::array::from_fn(|area| ReservedArea {
                offset: word(8 + 2 * area),
                size: word(9 + 2 * area),
            }),
        }
    }

    /// The parts of the TDMR that are not reserved; empty parts are left out. Reserved areas have been checked.
    fn available(&self) -> Vec<Range> {
        let mut parts = Vec::new();
        let mut start = self.tdmr.base;
        let end = self.tdmr.base + self.tdmr.size;
        for area in self.reserved.iter().take_while(|area| area.size != 0) {
            let reserved = self.tdmr.base + area.offset;
            if reserved > start {
                parts.push(Range {
                    base: start,
                    size: reserved - start,
                });
            }
            start = reserved + area.size;
        }
        if end > start {
            parts.push(Range {
                base: start,
                size: end - start,
            });
        }
        parts
    }
}

/// A status whose low half tells up to three numbers.
const fn with_info(code: StatusCode, first: usize, second: u8, third: usize) -> Status {
    Status::with_detail(
        code,
        first as u32 | (second as u32) << 8 | (third as u32) << 16,
    )
}

/// Checks the last TDMR_INFO, also against those before it.
fn check(core: &Core, infos: &[TdmrInfo], dynamic_pamt: bool) -> Outcome {
    let [before @ .., info] = infos else {
        return Ok(());
    };
    let number = before.len();
    check_placement(core, before, info)?;
    check_reserved(info, number)?;
    check_pamt(core, before, info, dynamic_pamt)?;
    for part in info.available() {
        if !is_in_cmrs(core, part) {
            return Err(with_info(StatusCode::TDMR_OUTSIDE_CMRS, number, 0, 0));
        }
    }
    Ok(())
}

fn is_plain_address(core: &Core, address: u64) -> bool {
    core.is_below_max_pa(address) && core.key_id(address) == 0
}

fn check_placement(core: &Core, before: &[TdmrInfo], info: &TdmrInfo) -> Outcome {
    let number = before.len();
    let Range { base, size } = info.tdmr;
    let invalid = Err(with_info(StatusCode::INVALID_TDMR, number, 0, 0));
    let Some(end) = base.checked_add(size) else {
        return invalid;
    };
    if let Some(previous) = before.last()
        && (base < previous.tdmr.base || base < previous.tdmr.base + previous.tdmr.size)
    {
        return Err(with_info(StatusCode::NON_ORDERED_TDMR, number, 0, 0));
    }
    if base % GIB != 0
        || size % GIB != 0
        || size == 0
        || !is_plain_address(core, base)
        || !is_plain_address(core, end - 1)
    {
        return invalid;
    }
    Ok(())
}

fn check_reserved(info: &TdmrInfo, number: usize) -> Outcome {
    let mut previous: Option<ReservedArea> = None;
    for (index, area) in info.reserved.iter().enumerate() {
        let fail = |code| Err(with_info(code, number, index as u8, 0));
        let unordered = StatusCode::NON_ORDERED_RESERVED_IN_TDMR;
        let invalid = StatusCode::INVALID_RESERVED_IN_TDMR;
        if area.size == 0 {
            if info
                .reserved
                .get(index + 1)
                .is_some_and(|next| next.size != 0)
            {
                return fail(unordered);
            }
            previous = Some(*area);
            continue;
        }
        if area.offset.checked_add(area.size).is_none() {
            return fail(invalid);
        }
        if let Some(previous) = previous
            && (area.offset < previous.offset
                || area.offset < previous.offset.wrapping_add(previous.size))
        {
            return fail(unordered);
        }
        if area.offset % PAGE != 0 || area.size % PAGE != 0 {
            return fail(invalid);
        }
        let end = info
            .tdmr
            .base
            .checked_add(area.offset)
            .and_then(|start| start.checked_add(area.size));
        if end.is_none_or(|end| end > info.tdmr.base + info.tdmr.size) {
            return fail(invalid);
        }
        previous = Some(*area);
    }
    Ok(())
}

fn check_pamt(core: &Core, before: &[TdmrInfo], info: &TdmrInfo, dynamic_pamt: bool) -> Outcome {
    let number = before.len();
    for size in SIZES.into_iter().rev() {
        let area = info.pamt[usize::from(size)];
        let entries = info.tdmr.size >> (12 + 9 * u32::from(size));
        let legal = area.base.checked_add(area.size).is_some_and(|end| {
            area.base.is_multiple_of(PAGE)
                && area.size.is_multiple_of(PAGE)
                && is_plain_address(core, area.base)
                && is_plain_address(core, end.wrapping_sub(1))
        });
        let needed = if dynamic_pamt && size == 0 {
            entries / BITS_PER_BYTE
        } else {
            entries * PAMT_ENTRY
        };
        if !legal || area.size < needed {
            return Err(with_info(StatusCode::INVALID_PAMT, number, size, 0));
        }
    }
    for (other, earlier) in before.iter().enumerate() {
        for size in SIZES {
            let area = info.pamt[usize::from(size)];
            if earlier.pamt.iter().any(|pamt| area.overlaps(*pamt)) {
                return Err(with_info(StatusCode::PAMT_OVERLAP, number, size, other));
            }
        }
    }
    for (size, other) in [(0, 1), (0, 2), (1, 2)] {
        if info.pamt[usize::from(size)].overlaps(info.pamt[other]) {
            return Err(with_info(StatusCode::PAMT_OVERLAP, number, size, number));
        }
    }
    for (other, tdmr) in before.iter().chain([info]).enumerate() {
        check_pamt_in_available(info, number, tdmr, other)?;
        if other < number {
            check_pamt_in_available(tdmr, other, info, number)?;
        }
    }
    for size in SIZES.into_iter().rev() {
        if !is_in_cmrs(core, info.pamt[usize::from(size)]) {
            return Err(with_info(StatusCode::PAMT_OUTSIDE_CMRS, number, size, 0));
        }
    }
    Ok(())
}

/// Checks that no PAMT area of one TDMR lies in a part of another that is not reserved.
fn check_pamt_in_available(
    pamt_of: &TdmrInfo,
    number: usize,
    tdmr: &TdmrInfo,
    other: usize,
) -> Outcome {
    let available = tdmr.available();
    for size in SIZES {
        let area = pamt_of.pamt[usize::from(size)];
        if available.iter().any(|part| area.overlaps(*part)) {
            return Err(with_info(StatusCode::PAMT_OVERLAP, number, size, other));
        }
    }
    Ok(())
}

/// Whether a range lies in one convertible memory range, adjacent ones counting as one.
fn is_in_cmrs(core: &Core, range: Range) -> bool {
    let mut merged = Range { base: 0, size: 0 };
    core.config
        .cmrs
        .iter()
        .filter(|cmr| cmr.size != 0)
        .any(|cmr| {
            merged = if cmr.base == merged.base + merged.size {
                Range {
                    base: merged.base,
                    size: merged.size + cmr.size,
                }
            } else {
                *cmr
            };
            range.base >= merged.base && range.base + range.size <= merged.base + merged.size
        })
}
