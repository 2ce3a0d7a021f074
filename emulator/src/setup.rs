//! A module brought up, and TDs, in as few words as a test of something else wants to spend on them.

use alloc::vec::Vec;
use core::fmt;

use tdx_abi::CallError;
use tdx_abi::Hkid;
use tdx_abi::HostLeaf;
use tdx_abi::Hpa;
use tdx_abi::HpaOf;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::Tdr;
use tdx_abi::Tdvpr;
use tdx_abi::field::FieldId;
use tdx_abi::field::global;
use tdx_abi::format::Eptp;
use tdx_abi::format::MemType;
use tdx_abi::format::TdParams;
use tdx_abi::format::TdmrInfo;
use tdx_abi::format::TdmrInfoAddresses;
use tdx_abi::format::TdmrReservedArea;
use tdx_abi::format::Xfam;
use tdx_abi::level::Pt;
use tdx_abi::tdh;

use crate::config::PlatformConfig;
use crate::config::Range;
use crate::platform::Lp;
use crate::platform::Platform;
use crate::structures::tdvps;

const PAGE: u64 = Level::Pt.size();
/// Size and alignment of TDMRs.
const TDMR_UNIT: u64 = Level::Pdpt.size();
/// Host pages for structures that the module reads: the list of TDMRs, their only one, and TD_PARAMS.
const SCRATCH_PAGES: u64 = 3;
/// x87 and SSE state, without which no TD is.
const XFAM: u64 = 0b11;
/// 2.5 GHz in units of 25 MHz.
const TSC_FREQUENCY: u16 = 100;
/// Levels of the Secure-EPT less one.
const WALK_LENGTH: u8 = 3;

/// A platform whose module takes TDs, and pages for them; where the tests of a VMM begin that are not about bring-up.
///
/// One TDMR covers the whole GiB of the CMR that has the most of them. A part at its end is reserved for the PAMT.
#[derive(Debug)]
pub struct Setup<'p> {
    platform: &'p Platform,
    /// The first page that has not been given out, and the end of those that can be.
    free: core::ops::Range<u64>,
    scratch: u64,
}

/// Control pages of a TD.
#[derive(Clone, Debug)]
pub struct SetupTd {
    /// Its root.
    pub tdr: Tdr,
    /// The roots of its vCPUs.
    pub vcpus: Vec<Tdvpr>,
}

/// Why there is no setup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetupError {
    /// No CMR has a whole GiB, or all pages have been given out.
    NoMemory,
    /// The module refused a call, because of the platform's parameters, a KeyID that is not free, or a fault in force.
    Refused {
        /// The leaf.
        leaf: &'static str,
        /// What it returned.
        error: CallError,
    },
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => f.write_str("the platform has too little memory"),
            Self::Refused { leaf, error } => write!(f, "{leaf}: {error}"),
        }
    }
}

impl core::error::Error for SetupError {}

impl<'p> Setup<'p> {
    /// Brings up the module of `platform`, which has just been loaded. Its own KeyID is the first private one.
    pub fn bring_up(platform: &'p Platform) -> Result<Self, SetupError> {
        let config = platform.config();
        let tdmr = tdmr(config).ok_or(SetupError::NoMemory)?;
        let lp = first_lp(platform)?;
        call(&lp, tdh::sys::Init { attributes: 0 })?;
        for lp in (0..platform.lps()).filter_map(|number| platform.lp(number)) {
            call(&lp, tdh::sys::LpInit {})?;
        }
        let mut info = TdmrInfo::new();
        info.set_base(tdmr.base);
        info.set_size(tdmr.size);
        let pamt = |level: Level, entry_size: FieldId| {
            let bytes = tdmr.size / level.size() * read(&lp, entry_size)?;
            Ok::<u64, SetupError>(bytes.next_multiple_of(PAGE))
        };
        let sizes = [
            pamt(Level::Pdpt, global::PAMT_1G_ENTRY_SIZE)?,
            pamt(Level::Pd, global::PAMT_2M_ENTRY_SIZE)?,
            pamt(Level::Pt, global::PAMT_4K_ENTRY_SIZE)?,
        ];
        let reserved = sizes.iter().sum::<u64>() + SCRATCH_PAGES * PAGE;
        let end = tdmr.base + tdmr.size;
        let scratch = end - SCRATCH_PAGES * PAGE;
        let first = end - reserved;
        let [of_1g, of_2m, of_4k] = sizes;
        info.set_pamt_1g_base(first);
        info.set_pamt_1g_size(of_1g);
        info.set_pamt_2m_base(first + of_1g);
        info.set_pamt_2m_size(of_2m);
        info.set_pamt_4k_base(first + of_1g + of_2m);
        info.set_pamt_4k_size(of_4k);
        let mut area = TdmrReservedArea::new();
        area.set_offset(first - tdmr.base);
        area.set_size(reserved);
        let _ = info.set_reserved_areas(0, &area);
        let mut infos = TdmrInfoAddresses::new();
        let _ = infos.set_tdmr_infos(0, scratch + PAGE);
        platform.memory().write(scratch, infos.as_bytes());
        platform.memory().write(scratch + PAGE, info.as_bytes());
        call(
            &lp,
            tdh::sys::Config {
                tdmr_infos: HpaOf::new(Hpa::new(scratch)).ok_or(SetupError::NoMemory)?,
                count: 1,
                hkid: Hkid::new(config.first_private_key_id),
            },
        )?;
        for lp in first_lps(platform) {
            call(&lp, tdh::sys::KeyConfig {})?;
        }
        let base = Hpa::new(tdmr.base);
        while call(&lp, tdh::sys::TdmrInit { tdmr: base })?.next.bits() < end {}
        Ok(Self {
            platform,
            free: tdmr.base..first,
            scratch,
        })
    }

    /// A page of 4 KiB that the module can take and nobody has; `None` once all have been given out.
    pub fn page(&mut self) -> Option<Hpa> {
        self.take(Level::Pt)
    }

    /// A page of 2 MiB likewise. Those of 4 KiB that it skips to its alignment are lost.
    pub fn large_page(&mut self) -> Option<Hpa> {
        self.take(Level::Pd)
    }

    fn take(&mut self, level: Level) -> Option<Hpa> {
        let page = self.free.start.next_multiple_of(level.size());
        let next = page + level.size();
        (next <= self.free.end).then(|| {
            self.free.start = next;
            Hpa::new(page)
        })
    }

    /// A TD with private KeyID `key_id` and this many vCPUs, initialised: pages may be added and it awaits TDH.MR.FINALIZE.
    ///
    /// It has 48 bits of guest-physical address, x87 and SSE state, and no attributes, unless `change` wants otherwise.
    /// Its vCPUs are associated with no LP.
    pub fn td(
        &mut self,
        key_id: u16,
        vcpus: u16,
        change: impl FnOnce(&mut TdParams),
    ) -> Result<SetupTd, SetupError> {
        let platform = self.platform;
        let lp = first_lp(platform)?;
        let mut params = TdParams::new();
        params.set_xfam(Xfam::from_bits(XFAM));
        params.set_max_vcpus(vcpus);
        params.set_eptp_controls(
            Eptp::new()
                .with_mem_type(MemType::WB)
                .with_walk_length(WALK_LENGTH),
        );
        params.set_tsc_frequency(TSC_FREQUENCY);
        change(&mut params);
        let l2_vms = u64::from(params.num_l2_vms());

        let page = self.owned()?;
        let tdr = Tdr::assume(page.hpa());
        let _ = call(
            &lp,
            tdh::mng::Create {
                tdr: page,
                hkid: Hkid::new(key_id),
            },
        )?;
        for lp in first_lps(platform) {
            call(&lp, tdh::mng::KeyConfig { tdr })?;
        }
        for _ in 0..read(&lp, global::TDCS_BASE_SIZE)? / PAGE + l2_vms {
            let tdcx = self.owned()?;
            call(&lp, tdh::mng::Addcx { tdcx, tdr })?;
        }
        let parameters = self.scratch + 2 * PAGE;
        platform.memory().write(parameters, params.as_bytes());
        let td_params = HpaOf::new(Hpa::new(parameters)).ok_or(SetupError::NoMemory)?;
        call(&lp, tdh::mng::Init { tdr, td_params })?;

        let pages =
            read(&lp, global::TDVPS_BASE_SIZE)? / PAGE + u64::from(tdvps::PAGES_PER_L2_VM) * l2_vms;
        let mut roots = Vec::new();
        for _ in 0..vcpus {
            let page = self.owned()?;
            let tdvpr = Tdvpr::assume(page.hpa());
            let _ = call(&lp, tdh::vp::Create { tdvpr: page, tdr })?;
            for _ in 1..pages {
                let tdcx = self.owned()?;
                call(&lp, tdh::vp::Addcx { tdcx, tdvpr })?;
            }
            call(
                &lp,
                tdh::vp::Init {
                    tdvpr,
                    initial_rcx: 0,
                },
            )?;
            call(&lp, tdh::vp::Flush { tdvpr })?;
            roots.push(tdvpr);
        }
        Ok(SetupTd { tdr, vcpus: roots })
    }

    fn owned(&mut self) -> Result<Page<Pt>, SetupError> {
        let page = self.page().and_then(Page::owned);
        page.ok_or(SetupError::NoMemory)
    }
}

/// The whole GiB of the CMR that has the most of them, and nothing of the SEAM range.
fn tdmr(config: &PlatformConfig) -> Option<Range> {
    let whole = config.cmrs.iter().map(|cmr| {
        let base = cmr.base.next_multiple_of(TDMR_UNIT);
        let end = (cmr.base + cmr.size) & !(TDMR_UNIT - 1);
        Range {
            base,
            size: end.saturating_sub(base),
        }
    });
    whole
        .filter(|tdmr| tdmr.size != 0 && !tdmr.overlaps(config.seamrr))
        .max_by_key(|tdmr| tdmr.size)
}

fn first_lp(platform: &Platform) -> Result<Lp<'_>, SetupError> {
    platform.lp(0).ok_or(SetupError::NoMemory)
}

/// The first LP of each package.
fn first_lps(platform: &Platform) -> impl Iterator<Item = Lp<'_>> {
    let of_package = platform.config().lps_per_package.max(1) as usize;
    let numbers = (0..platform.lps()).step_by(of_package);
    numbers.filter_map(|number| platform.lp(number))
}

fn read(lp: &Lp<'_>, field: FieldId) -> Result<u64, SetupError> {
    Ok(call(lp, tdh::sys::Rd { field })?.value)
}

fn call<L: HostLeaf>(lp: &Lp<'_>, leaf: L) -> Result<L::Output, SetupError> {
    match leaf.call(lp) {
        Ok(success) => Ok(success.output),
        Err(refused) => Err(SetupError::Refused {
            leaf: L::NAME,
            error: refused.error,
        }),
    }
}
