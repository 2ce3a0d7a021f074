//! TDINFO: what a TD is measured as, and its hash.

use crate::abi::StatusCode;
use crate::lock::Mode;
use crate::lock::SharexHp;
use crate::lock::Side;
use crate::measurement::sha384;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::tdcs;

/// A SHA-384 measurement.
pub(crate) type Measurement = [u8; MEASUREMENT_BYTES];

/// Its size.
pub(crate) const MEASUREMENT_BYTES: usize = 48;
/// Bytes of TDINFO_STRUCT, 64 reserved ones at the end included.
const TDINFO_BYTES: usize = 512;
/// Measurements in TDINFO: MRTD, MRCONFIGID, MROWNER, MROWNERCONFIG, four RTMRs, SERVTD_HASH.
const MEASUREMENTS: usize = 9;

/// The hash of a TD's TDINFO in which what `ignored` names is 0.
///
/// Bit 0 is ATTRIBUTES, 1 XFAM, then one bit for each measurement in the order of TDINFO. Locks the RTMRs
/// shared; the error is that of the lock.
pub(crate) fn hash(tdcs: Tdcs<'_>, ignored: u16, side: Side) -> Result<Measurement, StatusCode> {
    let _rtmrs = SharexHp::acquire(tdcs.lock_word(tdcs::RTMR_LOCK), Mode::Shared, side)?;
    Ok(locked_hash(tdcs, ignored))
}

/// TDINFO_STRUCT in full, as the guest reports it, with its hash. The error is that of the RTMRs' lock.
pub(crate) fn reported(tdcs: Tdcs<'_>) -> Result<([u8; TDINFO_BYTES], Measurement), StatusCode> {
    let rtmrs = tdcs.lock_word(tdcs::RTMR_LOCK);
    let _rtmrs = SharexHp::acquire(rtmrs, Mode::Shared, Side::Guest)?;
    Ok((tdinfo(tdcs, 0), locked_hash(tdcs, 0)))
}

fn locked_hash(tdcs: Tdcs<'_>, ignored: u16) -> Measurement {
    if ignored == 0 && tdcs.get(tdcs::LAST_TEEINFO_HASH_VALID) {
        let mut last = [0; MEASUREMENT_BYTES];
        last.copy_from_slice(&tdcs.bytes(tdcs::LAST_TEEINFO_HASH.offset(), MEASUREMENT_BYTES));
        return last;
    }
    let hash = sha384(&tdinfo(tdcs, ignored));
    if ignored == 0 {
        tdcs.set_bytes(tdcs::LAST_TEEINFO_HASH.offset(), &hash);
        tdcs.set(tdcs::LAST_TEEINFO_HASH_VALID, true);
    }
    hash
}

/// TDINFO_STRUCT with 0 for what `ignored` names. The RTMRs are locked.
fn tdinfo(tdcs: Tdcs<'_>, ignored: u16) -> [u8; TDINFO_BYTES] {
    let mut info = [0; TDINFO_BYTES];
    let is_shown = |bit: usize| ignored >> bit & 1 == 0;
    if is_shown(0) {
        info[..8].copy_from_slice(&tdcs.get::<u64>(tdcs::ATTRIBUTES).to_le_bytes());
    }
    if is_shown(1) {
        info[8..16].copy_from_slice(&tdcs.get::<u64>(tdcs::XFAM).to_le_bytes());
    }
    for number in 0..MEASUREMENTS {
        if is_shown(number + 2) {
            let from = measurement_offset(number);
            let to = 16 + number * MEASUREMENT_BYTES;
            info[to..to + MEASUREMENT_BYTES].copy_from_slice(&tdcs.bytes(from, MEASUREMENT_BYTES));
        }
    }
    info
}

/// Where TDCS keeps measurement `number` of TDINFO.
const fn measurement_offset(number: usize) -> usize {
    match number {
        0 => tdcs::MRTD.offset(),
        1 => tdcs::MRCONFIGID.offset(),
        2 => tdcs::MROWNER.offset(),
        3 => tdcs::MROWNERCONFIG.offset(),
        8 => tdcs::SERVTD_HASH.offset(),
        rtmr => tdcs::RTMR.offset() + (rtmr - 4) * MEASUREMENT_BYTES,
    }
}
