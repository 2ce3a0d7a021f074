//! From a loaded TDX module to one that takes TDs.

use core::fmt;

use tdx_abi::Features;
use tdx_abi::Hpa;
use tdx_abi::HpaOf;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::StatusCode;
use tdx_abi::field::FieldId;
use tdx_abi::field::global;
use tdx_abi::format::SysConfigOptions;
use tdx_abi::format::TdmrInfo;
use tdx_abi::format::TdmrInfoAddresses;
use tdx_abi::format::TdmrReservedArea;
use tdx_abi::status::Status;
use tdx_abi::tdh;

use super::Executor;
use super::Hkid;
use super::HkidRangeError;
use super::MemoryRange;
use super::layout::LayoutError;
use super::layout::Limits;
use super::layout::PamtMemory;
use super::layout::Tdmr;
use super::layout::lay_out;
use crate::Word;
use crate::embed::Frames;
use crate::embed::Relax;
use crate::embed::Tables;
use crate::td::Error;
use crate::td::call::Plain;
use crate::td::call::call;
use crate::td::call::call_on;
use crate::td::leaves::DYNAMIC_PAMT;

/// Most CMRs that a module reports.
pub const MAX_CMRS: usize = 32;

/// TDMR_INFO structures that fit a 4 KiB page at their alignment.
const INFOS_PER_PAGE: usize = Level::Pt.size() as usize / align_of::<TdmrInfo>();
/// Pages with TDMR_INFO structures, besides the one with their addresses.
const INFO_PAGES: usize = TdmrInfoAddresses::COUNT_TDMR_INFOS / INFOS_PER_PAGE;

/// How the module keeps what it knows of each 4 KiB page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PamtMode {
    /// In memory that it gets at bring-up, for all pages.
    #[default]
    Static,
    /// In pairs of pages that it gets for the 2 MiB ranges in use: see [`crate::pamt`]. Modules have it or not.
    Dynamic,
}

/// What the module says about the platform and itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemInfo {
    /// What TDMRs and PAMTs must keep to.
    pub limits: Limits,
    /// TDX_FEATURES0.
    pub features: Features,
    /// Number of pages of a TDCS, without those for L2 VMs.
    pub tdcs_pages: u16,
    /// Number of pages of a TDVPS, TDVPR included, without those for L2 VMs.
    pub tdvps_pages: u16,
    cmrs: [MemoryRange; MAX_CMRS],
    cmr_count: usize,
}

impl SystemInfo {
    /// The convertible memory ranges, ascending.
    pub fn cmrs(&self) -> &[MemoryRange] {
        &self.cmrs[..self.cmr_count]
    }
}

/// Why a module does not come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BringUpError {
    /// A SEAMCALL failed, or the host has no page left.
    Call(Error),
    /// A field has a value that makes no sense.
    Field {
        /// Name of the field.
        name: &'static str,
        /// Its value.
        value: u64,
    },
    /// There is no layout of TDMRs and PAMTs.
    Layout(LayoutError),
    /// The private KeyIDs are impossible.
    Hkids(HkidRangeError),
    /// There is no KeyID left.
    NoHkid,
    /// More TDMRs are given than the module's structure has room for.
    TooManyTdmrs(usize),
    /// Dynamic PAMT is asked for, and the module does not have it.
    NoDynamicPamt,
}

impl fmt::Display for BringUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(error) => error.fmt(f),
            Self::Field { name, value } => write!(f, "the module says that {name} is {value:#x}"),
            Self::Layout(error) => error.fmt(f),
            Self::Hkids(error) => error.fmt(f),
            Self::NoHkid => f.write_str("no KeyID left for the module"),
            Self::TooManyTdmrs(count) => write!(f, "{count} TDMRs are too many for TDH.SYS.CONFIG"),
            Self::NoDynamicPamt => f.write_str("the module has no Dynamic PAMT"),
        }
    }
}

impl core::error::Error for BringUpError {}

impl From<Error> for BringUpError {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

impl From<HkidRangeError> for BringUpError {
    fn from(error: HkidRangeError) -> Self {
        Self::Hkids(error)
    }
}

impl From<LayoutError> for BringUpError {
    fn from(error: LayoutError) -> Self {
        Self::Layout(error)
    }
}

/// Brings a freshly loaded module up: all of the steps below, one after the other.
///
/// `memory` are the ranges from which the host will serve TDs, ascending and disjoint; `hkid` becomes the
/// module's own KeyID. Returns what the module said and the TDMRs, which are written to the front of `tdmrs`.
///
/// With [`PamtMode::Dynamic`] the embedder has a word for each 2 MiB range from then on
/// ([`Tables::pamt_count`]), and has none otherwise.
///
/// TDX must be enabled in VMX operation on every LP. On error the module is in the state that the last
/// successful step left; PAMTs are freed unless the module knows them already.
pub fn bring_up<'t, E>(
    embedder: &E,
    memory: &[MemoryRange],
    pamt_memory: &mut dyn PamtMemory,
    pamt_mode: PamtMode,
    hkid: &Hkid,
    tdmrs: &'t mut [Tdmr],
) -> Result<(SystemInfo, &'t [Tdmr]), BringUpError>
where
    E: Executor + Relax + Tables + Frames,
{
    initialize(embedder)?;
    let mut info = read_info(embedder)?;
    if pamt_mode == PamtMode::Dynamic {
        info.limits.pamt_page_bitmap_entry_bits =
            Some(read_page_bitmap_bits(embedder, info.features)?);
    }
    let tdmrs = lay_out(memory, info.cmrs(), &info.limits, pamt_memory, tdmrs)?;
    if let Err(error) = configure(embedder, tdmrs, pamt_mode, hkid) {
        for tdmr in tdmrs {
            pamt_memory.free(tdmr.pamts());
        }
        return Err(error);
    }
    configure_key(embedder)?;
    for tdmr in &*tdmrs {
        initialize_tdmr(embedder, tdmr)?;
    }
    Ok((info, tdmrs))
}

/// TDH.SYS.INIT once, then TDH.SYS.LP.INIT on every LP.
pub fn initialize<E: Executor + Relax>(embedder: &E) -> Result<(), BringUpError> {
    call(embedder, tdh::sys::Init { attributes: 0 })?;
    Ok(embedder.on_each_lp(|_, lp| call_on(lp, embedder, tdh::sys::LpInit {}, Plain))?)
}

/// Reads what bring-up needs to know, by TDH.SYS.RD on an LP that is initialised.
pub fn read_info<E: Executor + Relax>(embedder: &E) -> Result<SystemInfo, BringUpError> {
    embedder.on_this_lp(|_, lp| {
        let field = |id: FieldId| {
            let answer = call_on(lp, embedder, tdh::sys::Rd { field: id }, Plain)?;
            Ok::<u64, BringUpError>(answer.value)
        };
        let small = |name, id| {
            let value = field(id)?;
            u16::try_from(value).map_err(|_| BringUpError::Field { name, value })
        };
        let pages = |name, id| {
            let bytes = small(name, id)?;
            match u64::from(bytes).is_multiple_of(Level::Pt.size()) && bytes > 0 {
                true => Ok(bytes >> Level::Pt.shift()),
                false => Err(BringUpError::Field {
                    name,
                    value: bytes.into(),
                }),
            }
        };
        let features = Features::from_bits(field(global::TDX_FEATURES0)?);
        let limits = Limits {
            max_tdmrs: small("MAX_TDMRS", global::MAX_TDMRS)?,
            max_reserved_per_tdmr: small("MAX_RESERVED_PER_TDMR", global::MAX_RESERVED_PER_TDMR)?,
            pamt_4k_entry_size: small("PAMT_4K_ENTRY_SIZE", global::PAMT_4K_ENTRY_SIZE)?,
            pamt_2m_entry_size: small("PAMT_2M_ENTRY_SIZE", global::PAMT_2M_ENTRY_SIZE)?,
            pamt_1g_entry_size: small("PAMT_1G_ENTRY_SIZE", global::PAMT_1G_ENTRY_SIZE)?,
            pamt_page_bitmap_entry_bits: None,
        };
        let mut info = SystemInfo {
            limits,
            features,
            tdcs_pages: pages("TDCS_BASE_SIZE", global::TDCS_BASE_SIZE)?,
            tdvps_pages: pages("TDVPS_BASE_SIZE", global::TDVPS_BASE_SIZE)?,
            cmrs: [MemoryRange::default(); MAX_CMRS],
            cmr_count: 0,
        };
        let count = field(global::NUM_CMRS)?;
        let cmrs = usize::try_from(count)
            .ok()
            .and_then(|count| info.cmrs.get_mut(..count));
        for (index, cmr) in (0..).zip(cmrs.ok_or(BringUpError::Field {
            name: "NUM_CMRS",
            value: count,
        })?) {
            let base = field(global::CMR_BASE.offset_by(index))?;
            let size = field(global::CMR_SIZE.offset_by(index))?;
            let range = MemoryRange::with_size(Hpa::new(base), size);
            *cmr = range.ok_or(BringUpError::Field {
                name: "CMR_SIZE",
                value: size,
            })?;
            info.cmr_count += usize::from(!cmr.is_empty());
        }
        Ok(info)
    })
}

/// Reads how many bits for each 4 KiB page the module wants with Dynamic PAMT, if it has that.
pub fn read_page_bitmap_bits<E: Executor + Relax>(
    embedder: &E,
    features: Features,
) -> Result<u8, BringUpError> {
    if !features.contains(Features::DYNAMIC_PAMT) {
        return Err(BringUpError::NoDynamicPamt);
    }
    let field = global::PAMT_PAGE_BITMAP_ENTRY_BITS;
    let value = call(embedder, tdh::sys::Rd { field })?.value;
    let bits = u8::try_from(value).ok().filter(|bits| *bits > 0);
    bits.ok_or(BringUpError::Field {
        name: "PAMT_PAGE_BITMAP_ENTRY_BITS",
        value,
    })
}

/// TDH.SYS.CONFIG: tells the module its TDMRs, how it is to keep the PAMT of 4 KiB pages, and its own KeyID.
///
/// The structures are built in host pages, which are free again afterwards.
pub fn configure<E>(
    embedder: &E,
    tdmrs: &[Tdmr],
    pamt_mode: PamtMode,
    hkid: &Hkid,
) -> Result<(), BringUpError>
where
    E: Executor + Relax + Tables + Frames,
{
    if tdmrs.len() > TdmrInfoAddresses::COUNT_TDMR_INFOS {
        return Err(BringUpError::TooManyTdmrs(tdmrs.len()));
    }
    let mut pages = HostPages::<E, { INFO_PAGES + 1 }>::new(embedder);
    let addresses_page = pages.add()?;
    let mut addresses = TdmrInfoAddresses::new();
    let mut info_page = Hpa::default();
    for (index, tdmr) in tdmrs.iter().enumerate() {
        let place = index % INFOS_PER_PAGE;
        if place == 0 {
            info_page = pages.add()?;
        }
        let offset = place * align_of::<TdmrInfo>();
        write(embedder, info_page, offset, tdmr_info(tdmr).as_bytes());
        let address = info_page.checked_add(offset as u64).unwrap_or(info_page);
        let _ = addresses.set_tdmr_infos(index, address.bits());
    }
    write(embedder, addresses_page, 0, addresses.as_bytes());
    let tdmr_infos = HpaOf::<TdmrInfoAddresses>::new(addresses_page)
        .ok_or(Error::BadAddress(addresses_page.bits()))?;
    let count = tdmrs.len() as u64;
    match pamt_mode {
        PamtMode::Static => {
            let leaf = tdh::sys::Config {
                tdmr_infos,
                count,
                hkid: tdx_abi::Hkid::new(hkid.number()),
            };
            Ok(call(embedder, leaf)?)
        }
        PamtMode::Dynamic => {
            let options = SysConfigOptions::new()
                .with_hkid(hkid.number())
                .with_dynamic_pamt(true);
            let leaf = tdh::sys::ConfigDynamicPamt {
                tdmr_infos,
                count,
                options,
                supported: DYNAMIC_PAMT,
            };
            Ok(call(embedder, leaf)?)
        }
    }
}

/// TDH.SYS.KEY.CONFIG on one LP of every package.
///
/// Before it, no cache line of the PAMTs may be dirty with another KeyID: the embedder flushes its caches.
pub fn configure_key<E: Executor + Relax>(embedder: &E) -> Result<(), BringUpError> {
    Ok(embedder.on_each_package(|_, lp| call_on(lp, embedder, tdh::sys::KeyConfig {}, Plain))?)
}

/// TDH.SYS.TDMR.INIT until the module has initialised all of the TDMR's PAMT.
///
/// TDMRs may be initialised on several LPs at once. Each call takes some microseconds for a few MiB of memory.
pub fn initialize_tdmr<E: Executor + Relax>(embedder: &E, tdmr: &Tdmr) -> Result<(), BringUpError> {
    loop {
        match call(
            embedder,
            tdh::sys::TdmrInit {
                tdmr: tdmr.range().start(),
            },
        ) {
            Ok(answer) if answer.next < tdmr.range().end() => {}
            Ok(_) => return Ok(()),
            Err(error)
                if error.status().map(Status::code)
                    == Some(StatusCode::TDMR_ALREADY_INITIALIZED) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The structure that describes `tdmr` to the module.
fn tdmr_info(tdmr: &Tdmr) -> TdmrInfo {
    let mut info = TdmrInfo::new();
    let range = tdmr.range();
    info.set_base(range.start().bits());
    info.set_size(range.size());
    for level in [Level::Pdpt, Level::Pd, Level::Pt] {
        let pamt = tdmr.pamt(level).unwrap_or_default();
        let (base, size) = (pamt.start().bits(), pamt.size());
        match level {
            Level::Pdpt => {
                info.set_pamt_1g_base(base);
                info.set_pamt_1g_size(size);
            }
            Level::Pd => {
                info.set_pamt_2m_base(base);
                info.set_pamt_2m_size(size);
            }
            _ => {
                info.set_pamt_4k_base(base);
                info.set_pamt_4k_size(size);
            }
        }
    }
    for (index, area) in tdmr.reserved().iter().enumerate() {
        let mut entry = TdmrReservedArea::new();
        entry.set_offset(area.start().bits() - range.start().bits());
        entry.set_size(area.size());
        let _ = info.set_reserved_areas(index, &entry);
    }
    info
}

/// Writes `bytes`, a multiple of 8, at `offset` of a host page.
fn write<T: Tables>(tables: &T, page: Hpa, offset: usize, bytes: &[u8]) {
    let words = tables.entries(page).iter().skip(offset / 8);
    for (word, chunk) in words.zip(bytes.as_chunks::<8>().0) {
        word.store(
            u64::from_le_bytes(*chunk),
            core::sync::atomic::Ordering::Relaxed,
        );
    }
}

/// Host pages that are free again when this is dropped.
struct HostPages<'e, E: Frames, const N: usize> {
    embedder: &'e E,
    pages: [Option<Page>; N],
    count: usize,
}

impl<'e, E: Frames + Tables, const N: usize> HostPages<'e, E, N> {
    fn new(embedder: &'e E) -> Self {
        Self {
            embedder,
            pages: [const { None }; N],
            count: 0,
        }
    }

    /// One more page, all zero.
    fn add(&mut self) -> Result<Hpa, BringUpError> {
        let page = self
            .embedder
            .allocate_table()
            .ok_or(BringUpError::Call(Error::OutOfPages))?;
        let hpa = page.hpa();
        for word in self.embedder.entries(hpa) {
            word.store(0, core::sync::atomic::Ordering::Relaxed);
        }
        match self.pages.get_mut(self.count) {
            Some(slot) => {
                *slot = Some(page);
                self.count += 1;
                Ok(hpa)
            }
            None => {
                self.embedder.free_table(page);
                Err(BringUpError::Call(Error::OutOfPages))
            }
        }
    }
}

impl<E: Frames, const N: usize> Drop for HostPages<'_, E, N> {
    fn drop(&mut self) {
        for page in self.pages.iter_mut().filter_map(Option::take) {
            self.embedder.free_table(page);
        }
    }
}
