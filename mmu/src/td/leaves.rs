//! The leaves that the MMU uses, on entries and pages that the mirror knows.

use tdx_abi::Features;
use tdx_abi::Hkid;
use tdx_abi::HostLeaf;
use tdx_abi::Hpa;
use tdx_abi::HpaOf;
use tdx_abi::Leaf;
use tdx_abi::Level;
use tdx_abi::Mapping;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_abi::Reach;
use tdx_abi::Refused;
use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::Tdr;
use tdx_abi::Tdvpr;
use tdx_abi::Untranslated;
use tdx_abi::format::CacheWbCommand;
use tdx_abi::format::PamtPageInfo;
use tdx_abi::format::SeptPageOrNone;
use tdx_abi::format::TdParams;
use tdx_abi::level::Fixed;
use tdx_abi::level::Pd;
use tdx_abi::level::Pt;
use tdx_abi::module::Has;
use tdx_abi::tdh;

use super::Error;
use super::call::Persist;
use super::call::Plain;
use super::call::call;
use super::call::call_on;
use crate::embed::Relax;
use crate::platform::Executor;

/// Leaves on the private memory of the TD whose TDR is `tdr`.
pub(crate) struct Memory<'e, E> {
    pub(crate) embedder: &'e E,
    pub(crate) tdr: Tdr,
}

fn page<L: Fixed>(hpa: Hpa) -> Result<Page<L>, Error> {
    Page::owned(hpa).ok_or(Error::BadAddress(hpa.bits()))
}

fn mapping<L: Fixed>(gpa: PrivateGpa) -> Result<Mapping<L>, Error> {
    Mapping::new(gpa).ok_or(Error::BadAddress(gpa.bits()))
}

fn mapping_at(gpa: PrivateGpa, level: Level) -> Result<Mapping, Error> {
    Mapping::at(gpa, level).ok_or(Error::BadAddress(gpa.bits()))
}

impl<E: Executor + Relax> Memory<'_, E> {
    pub(crate) fn page_add(&self, gpa: PrivateGpa, target: Hpa, source: Hpa) -> Result<(), Error> {
        let leaf = tdh::mem::PageAdd {
            gpa: mapping(gpa)?,
            tdr: self.tdr,
            page: page(target)?,
            source,
        };
        call(self.embedder, leaf)
    }

    #[inline]
    pub(crate) fn page_aug(&self, gpa: PrivateGpa, level: Level, target: Hpa) -> Result<(), Error> {
        match level {
            Level::Pd => {
                let leaf = tdh::mem::PageAug::<Pd> {
                    gpa: mapping(gpa)?,
                    tdr: self.tdr,
                    page: page(target)?,
                };
                call(self.embedder, leaf)
            }
            _ => {
                let leaf = tdh::mem::PageAug::<Pt> {
                    gpa: mapping(gpa)?,
                    tdr: self.tdr,
                    page: page(target)?,
                };
                call(self.embedder, leaf)
            }
        }
    }

    pub(crate) fn sept_add(&self, gpa: PrivateGpa, level: Level, table: Hpa) -> Result<(), Error> {
        let gpa = mapping_at(gpa, level)?;
        call(
            self.embedder,
            tdh::mem::SeptAdd {
                gpa,
                tdr: self.tdr,
                allow_existing: false,
                page: page(table)?,
            },
        )
    }

    pub(crate) fn sept_remove(&self, entry: Untranslated) -> Result<Hpa, Error> {
        call(self.embedder, tdh::mem::SeptRemove { entry })
            .map(|output| handed_back(output.page.into_hpa()))
    }

    pub(crate) fn range_block(&self, gpa: PrivateGpa, level: Level) -> Result<(), Error> {
        let gpa = mapping_at(gpa, level)?;
        // The mirror keeps the evidence.
        call(self.embedder, tdh::mem::RangeBlock { gpa, tdr: self.tdr }).map(|_| ())
    }

    pub(crate) fn range_unblock(&self, entry: Untranslated) -> Result<(), Error> {
        call(self.embedder, tdh::mem::RangeUnblock { entry })
    }

    /// `pair` is for the module's PAMT entries of the small pages, where they need one.
    pub(crate) fn page_demote(
        &self,
        entry: Untranslated,
        table: Hpa,
        pair: Option<[Hpa; 2]>,
    ) -> Result<(), Error> {
        let none = SeptPageOrNone::from_bits(u64::MAX);
        if let Some([first, second]) = pair {
            let leaf = tdh::mem::PageDemoteDynamicPamt {
                entry,
                l2_sept_add_mode: false,
                page: page(table)?,
                l2_page_1: none,
                l2_page_2: none,
                l2_page_3: none,
                pamt_page_0: page(first)?,
                pamt_page_1: page(second)?,
                supported: DYNAMIC_PAMT,
            };
            return call(self.embedder, leaf).map(|_| ());
        }
        let leaf = tdh::mem::PageDemote {
            entry,
            l2_sept_add_mode: false,
            page: page(table)?,
            l2_page_1: none,
            l2_page_2: none,
            l2_page_3: none,
        };
        call(self.embedder, leaf).map(|_| ())
    }

    /// Returns the table's page, and the PAMT page pair that came back; of a module without Dynamic PAMT the latter
    /// means nothing.
    pub(crate) fn page_promote(&self, entry: Untranslated) -> Result<(Hpa, [Hpa; 2]), Error> {
        call(
            self.embedder,
            PromoteWithPair(tdh::mem::PagePromote { entry }),
        )
    }

    pub(crate) fn page_remove(&self, entry: Untranslated) -> Result<Hpa, Error> {
        call(self.embedder, tdh::mem::PageRemove { entry })
            .map(|output| handed_back(output.page.into_hpa()))
    }

    pub(crate) fn page_relocate(&self, entry: Untranslated<Pt>, target: Hpa) -> Result<Hpa, Error> {
        let leaf = tdh::mem::PageRelocate {
            entry,
            page: page(target)?,
        };
        call(self.embedder, leaf).map(|output| handed_back(output.old_page.into_hpa()))
    }

    pub(crate) fn track(&self, persist: impl Persist<tdh::mem::Track<()>>) -> Result<(), Error> {
        let leaf = tdh::mem::Track {
            tdr: self.tdr,
            blocked: (),
        };
        self.embedder
            .on_this_lp(|_, lp| call_on(lp, self.embedder, leaf, persist))
            .map(|_| ())
    }

    pub(crate) fn mr_extend(&self, gpa: PrivateGpa) -> Result<(), Error> {
        call(self.embedder, tdh::mr::Extend { gpa, tdr: self.tdr })
    }

    pub(crate) fn mr_finalize(&self) -> Result<(), Error> {
        call(self.embedder, tdh::mr::Finalize { tdr: self.tdr })
    }

    pub(crate) fn mng_create(&self, hkid: u16) -> Result<(), Error> {
        let tdr = page(self.tdr.hpa())?;
        call(
            self.embedder,
            tdh::mng::Create {
                tdr,
                hkid: Hkid::new(hkid),
            },
        )
        .map(|_| ())
    }

    pub(crate) fn mng_addcx(&self, tdcx: Hpa) -> Result<(), Error> {
        call(
            self.embedder,
            tdh::mng::Addcx {
                tdcx: page(tdcx)?,
                tdr: self.tdr,
            },
        )
    }

    pub(crate) fn mng_init(&self, parameters: Hpa) -> Result<(), Error> {
        let td_params =
            HpaOf::<TdParams>::new(parameters).ok_or(Error::BadAddress(parameters.bits()))?;
        call(
            self.embedder,
            tdh::mng::Init {
                tdr: self.tdr,
                td_params,
            },
        )
    }

    pub(crate) fn mng_key_config(&self, lp: &impl Seamcall) -> Result<(), Error> {
        call_on(
            lp,
            self.embedder,
            tdh::mng::KeyConfig { tdr: self.tdr },
            Plain,
        )
    }

    pub(crate) fn mng_vpflushdone(&self) -> Result<(), Error> {
        call(self.embedder, tdh::mng::Vpflushdone { tdr: self.tdr })
    }

    pub(crate) fn mng_key_freeid(&self) -> Result<(), Error> {
        call(self.embedder, tdh::mng::KeyFreeid { tdr: self.tdr })
    }

    pub(crate) fn vp_create(&self, tdvpr: Hpa) -> Result<(), Error> {
        call(
            self.embedder,
            tdh::vp::Create {
                tdvpr: page(tdvpr)?,
                tdr: self.tdr,
            },
        )
        .map(|_| ())
    }

    /// An entry that the mirror says is blocked; the caller has tracked since.
    ///
    /// What the caller has not done is an error that the module reports.
    pub(crate) fn tracked(&self, gpa: PrivateGpa, level: Level) -> Result<Untranslated, Error> {
        Ok(Untranslated::assume(self.tdr, mapping_at(gpa, level)?))
    }

    /// The same for a 4 KiB entry.
    pub(crate) fn tracked_page(&self, gpa: PrivateGpa) -> Result<Untranslated<Pt>, Error> {
        Ok(Untranslated::assume(self.tdr, mapping(gpa)?))
    }
}

/// The address of a page that the module gives back: with Dynamic PAMT a bit above it says whether the page was the
/// last in use of its range, which the host's own count says too.
const fn handed_back(page: Hpa) -> Hpa {
    PamtPageInfo::from_bits(page.bits()).hpa()
}

/// TDH.MEM.PAGE.PROMOTE with what a module with Dynamic PAMT returns in R12 and R13: the pair of the range.
struct PromoteWithPair(tdh::mem::PagePromote<Level>);

impl Leaf for PromoteWithPair {
    const NAME: &'static str = tdh::mem::PagePromote::<Level>::NAME;
    const RAX: u64 = tdh::mem::PagePromote::<Level>::RAX;
    const FEATURES: Features = tdh::mem::PagePromote::<Level>::FEATURES;
    const REACH: Reach = Reach::R13;
    type Output = (Hpa, [Hpa; 2]);

    fn encode(&self) -> Registers {
        self.0.encode()
    }

    fn output(self, registers: &Registers) -> Self::Output {
        let pair = [registers.r12, registers.r13].map(Hpa::new);
        let table = self.0.output(registers).page.into_hpa();
        (handed_back(table), pair.map(handed_back))
    }
}

impl HostLeaf for PromoteWithPair {}

const DYNAMIC_PAMT_BIT: u32 = Features::DYNAMIC_PAMT.into_bits().trailing_zeros();

/// For calls that are only made where [`crate::embed::Tables::pamt_count`] says that the module has the feature.
const DYNAMIC_PAMT: Has<DYNAMIC_PAMT_BIT> = match Features::DYNAMIC_PAMT.has() {
    Ok(evidence) => evidence,
    Err(_) => panic!("a set has its own member"),
};

fn range_2m(range: Hpa) -> PamtPageInfo {
    PamtPageInfo::new().with_hpa(range).with_level(Level::Pd)
}

pub(crate) fn pamt_add(
    embedder: &(impl Executor + Relax),
    range: Hpa,
    [first, second]: [Hpa; 2],
) -> Result<(), Error> {
    let leaf = tdh::phymem::PamtAdd {
        range: range_2m(range),
        pamt_page_0: page(first)?,
        pamt_page_1: page(second)?,
        supported: DYNAMIC_PAMT,
    };
    call(embedder, leaf)
}

pub(crate) fn pamt_remove(
    embedder: &(impl Executor + Relax),
    range: Hpa,
) -> Result<[Hpa; 2], Error> {
    let leaf = tdh::phymem::PamtRemove {
        range: range_2m(range),
        supported: DYNAMIC_PAMT,
    };
    let output = call(embedder, leaf)?;
    Ok([output.pamt_page_0.into_hpa(), output.pamt_page_1.into_hpa()].map(handed_back))
}

pub(crate) fn vp_addcx(
    embedder: &(impl Executor + Relax),
    tdvpr: Hpa,
    tdcx: Hpa,
) -> Result<(), Error> {
    call(
        embedder,
        tdh::vp::Addcx {
            tdcx: page(tdcx)?,
            tdvpr: Tdvpr::assume(tdvpr),
        },
    )
}

pub(crate) fn vp_init(
    embedder: &(impl Executor + Relax),
    tdvpr: Hpa,
    initial_rcx: u64,
) -> Result<(), Error> {
    call(
        embedder,
        tdh::vp::Init {
            tdvpr: Tdvpr::assume(tdvpr),
            initial_rcx,
        },
    )
}

pub(crate) fn vp_flush(lp: &impl Seamcall, embedder: &impl Relax, tdvpr: Hpa) -> Result<(), Error> {
    call_on(
        lp,
        embedder,
        tdh::vp::Flush {
            tdvpr: Tdvpr::assume(tdvpr),
        },
        Plain,
    )
}

struct ResumeWriteBack;

impl Persist<tdh::phymem::CacheWb> for ResumeWriteBack {
    fn resume(&self, refused: Refused<tdh::phymem::CacheWb>) -> tdh::phymem::CacheWb {
        match refused.resume() {
            Ok(leaf) | Err(Refused { leaf, .. }) => leaf,
        }
    }
}

pub(crate) fn phymem_cache_wb(lp: &impl Seamcall, embedder: &impl Relax) -> Result<(), Error> {
    call_on(
        lp,
        embedder,
        tdh::phymem::CacheWb {
            command: CacheWbCommand::START,
        },
        ResumeWriteBack,
    )
}

pub(crate) fn phymem_page_wbinvd(
    embedder: &(impl Executor + Relax),
    page: Hpa,
) -> Result<(), Error> {
    call(embedder, tdh::phymem::PageWbinvd { page })
}

pub(crate) fn phymem_page_reclaim(
    embedder: &(impl Executor + Relax),
    page: Hpa,
) -> Result<(), Error> {
    call(embedder, tdh::phymem::PageReclaim { page }).map(|_| ())
}
