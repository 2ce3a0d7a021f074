//! The leaves that the MMU uses, on entries and pages that the mirror knows.

use tdx_abi::Features;
use tdx_abi::Hkid;
use tdx_abi::Hpa;
use tdx_abi::HpaOf;
use tdx_abi::Level;
use tdx_abi::Mapping;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_abi::Refused;
use tdx_abi::Seamcall;
use tdx_abi::Tdr;
use tdx_abi::Tdvpr;
use tdx_abi::Untranslated;
use tdx_abi::field::tdr_tdcs;
use tdx_abi::format::CacheWbCommand;
use tdx_abi::format::PamtPageInfo;
use tdx_abi::format::SeptPageOrNone;
use tdx_abi::format::TdParams;
use tdx_abi::format::VmCtls;
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
use super::call::call_with;
use crate::embed::Relax;
use crate::l2::MAX_L2_VMS;
use crate::platform::Executor;

/// Pages for L2 VMs 1 to 3 as operands.
pub(crate) type L2Operands = [SeptPageOrNone; MAX_L2_VMS];

/// No page.
pub(crate) const NO_PAGE: SeptPageOrNone = SeptPageOrNone::from_bits(u64::MAX);

/// No page for any L2 VM.
pub(crate) const NO_PAGES: L2Operands = [NO_PAGE; MAX_L2_VMS];

/// What a promotion returns, and with Dynamic PAMT the pair of pages that came back.
pub(crate) type Promoted<T> = (T, Option<[Hpa; 2]>);

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

    /// Adds a table to the Secure-EPTs of L2 VMs, beside the one that the entry has in the TD's own. Returns what the
    /// module says of the pages.
    pub(crate) fn sept_add_l2(
        &self,
        gpa: PrivateGpa,
        level: Level,
        [l2_page_1, l2_page_2, l2_page_3]: L2Operands,
    ) -> Result<L2Operands, Error> {
        let leaf = tdh::mem::SeptAddV1 {
            gpa: mapping_at(gpa, level)?,
            tdr: self.tdr,
            allow_existing: false,
            page: NO_PAGE,
            l2_page_1,
            l2_page_2,
            l2_page_3,
        };
        call_with(self.embedder, leaf, ResumeSeptAdd)
            .map(|output| [output.l2_page_1, output.l2_page_2, output.l2_page_3])
    }

    pub(crate) fn sept_remove(&self, entry: Untranslated) -> Result<Hpa, Error> {
        call(self.embedder, tdh::mem::SeptRemove { entry }).map(|output| output.page.into_hpa())
    }

    /// As [`Self::sept_remove`], and returns the pages of L2 VMs.
    pub(crate) fn sept_remove_l2(&self, entry: Untranslated) -> Result<(Hpa, L2Operands), Error> {
        let output = call(self.embedder, tdh::mem::SeptRemoveV1 { entry })?;
        let l2 = [output.l2_page_1, output.l2_page_2, output.l2_page_3];
        Ok((output.page.into_hpa(), l2))
    }

    pub(crate) fn range_block(&self, gpa: PrivateGpa, level: Level) -> Result<(), Error> {
        let gpa = mapping_at(gpa, level)?;
        // The mirror keeps the evidence.
        call(self.embedder, tdh::mem::RangeBlock { gpa, tdr: self.tdr }).map(|_| ())
    }

    pub(crate) fn range_unblock(&self, entry: Untranslated) -> Result<(), Error> {
        call(self.embedder, tdh::mem::RangeUnblock { entry })
    }

    /// `pair` is for the module's PAMT entries of the small pages, where they need one; `l2` are pages for the tables of
    /// L2 VMs, used for those that have an alias of the page. Returns what the module says of `l2`.
    pub(crate) fn page_demote(
        &self,
        entry: Untranslated,
        table: Hpa,
        pair: Option<[Hpa; 2]>,
        l2: L2Operands,
    ) -> Result<L2Operands, Error> {
        let l2_sept_add_mode = l2 != NO_PAGES;
        let [l2_page_1, l2_page_2, l2_page_3] = l2;
        if let Some([first, second]) = pair {
            let leaf = tdh::mem::PageDemoteDynamicPamt {
                entry,
                l2_sept_add_mode,
                page: page(table)?,
                l2_page_1,
                l2_page_2,
                l2_page_3,
                pamt_page_0: page(first)?,
                pamt_page_1: page(second)?,
                supported: DYNAMIC_PAMT,
            };
            return call(self.embedder, leaf)
                .map(|output| [output.l2_page_1, output.l2_page_2, output.l2_page_3]);
        }
        let leaf = tdh::mem::PageDemote {
            entry,
            l2_sept_add_mode,
            page: page(table)?,
            l2_page_1,
            l2_page_2,
            l2_page_3,
        };
        call(self.embedder, leaf)
            .map(|output| [output.l2_page_1, output.l2_page_2, output.l2_page_3])
    }

    /// Returns the table's page.
    pub(crate) fn page_promote(
        &self,
        entry: Untranslated<Pd>,
        dynamic_pamt: bool,
    ) -> Result<Promoted<Hpa>, Error> {
        if dynamic_pamt {
            let leaf = tdh::mem::PagePromoteDynamicPamt {
                entry,
                supported: DYNAMIC_PAMT,
            };
            let output = call(self.embedder, leaf)?;
            let pair = [output.pamt_page_0.into_hpa(), output.pamt_page_1.into_hpa()];
            return Ok((output.page.into_hpa(), Some(pair)));
        }
        let output = call(self.embedder, tdh::mem::PagePromote { entry })?;
        Ok((output.page.into_hpa(), None))
    }

    /// As [`Self::page_promote`], and returns the pages of L2 VMs.
    pub(crate) fn page_promote_l2(
        &self,
        entry: Untranslated<Pd>,
        dynamic_pamt: bool,
    ) -> Result<Promoted<(Hpa, L2Operands)>, Error> {
        if dynamic_pamt {
            let leaf = tdh::mem::PagePromoteV1DynamicPamt {
                entry,
                supported: DYNAMIC_PAMT,
            };
            let output = call(self.embedder, leaf)?;
            let l2 = [output.l2_page_1, output.l2_page_2, output.l2_page_3];
            let pair = [output.pamt_page_0.into_hpa(), output.pamt_page_1.into_hpa()];
            return Ok(((output.page.into_hpa(), l2), Some(pair)));
        }
        let output = call(self.embedder, tdh::mem::PagePromoteV1 { entry })?;
        let l2 = [output.l2_page_1, output.l2_page_2, output.l2_page_3];
        Ok(((output.page.into_hpa(), l2), None))
    }

    pub(crate) fn page_remove(&self, entry: Untranslated) -> Result<Hpa, Error> {
        call(self.embedder, tdh::mem::PageRemove { entry }).map(|output| output.page.into_hpa())
    }

    pub(crate) fn page_relocate(&self, entry: Untranslated<Pt>, target: Hpa) -> Result<Hpa, Error> {
        let leaf = tdh::mem::PageRelocate {
            entry,
            page: page(target)?,
        };
        call(self.embedder, leaf).map(|output| output.old_page.into_hpa())
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

    /// Asks for a TD exit where TDG.MEM.PAGE.ATTR.WR finds no table of L2 VM `vm`, instead of telling the L1 VMM.
    pub(crate) fn mng_wr_vm_ctls(&self, vm: u8) -> Result<(), Error> {
        let exit = VmCtls::new().with_ept_violation_on_l2_sept_walk_failure(true);
        let leaf = tdh::mng::Wr {
            tdr: self.tdr,
            field: tdr_tdcs::VM_CTLS.offset_by(vm.into()),
            value: exit.into_bits(),
            mask: exit.into_bits(),
        };
        call(self.embedder, leaf).map(|_| ())
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

    /// The same for an entry whose level is known when compiling.
    pub(crate) fn tracked_at<L: Fixed>(&self, gpa: PrivateGpa) -> Result<Untranslated<L>, Error> {
        Ok(Untranslated::assume(self.tdr, mapping(gpa)?))
    }
}

const DYNAMIC_PAMT_BIT: u32 = Features::DYNAMIC_PAMT.into_bits().trailing_zeros();

/// For calls that are only made where [`crate::embed::Tables::pamt_count`] or TDX_FEATURES0 says that the module has the
/// feature.
pub(crate) const DYNAMIC_PAMT: Has<DYNAMIC_PAMT_BIT> = match Features::DYNAMIC_PAMT.has() {
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
    Ok([output.pamt_page_0.into_hpa(), output.pamt_page_1.into_hpa()])
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

/// Goes on with the pages that the interrupted call has not used.
struct ResumeSeptAdd;

/// TDH.MEM.SEPT.ADD, version 1.
type SeptAdd = tdh::mem::SeptAddV1<Level>;

impl Persist<SeptAdd> for ResumeSeptAdd {
    fn resume(&self, refused: Refused<SeptAdd>) -> SeptAdd {
        match refused.resume() {
            Ok(leaf) | Err(Refused { leaf, .. }) => leaf,
        }
    }
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
