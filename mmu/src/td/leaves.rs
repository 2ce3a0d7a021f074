//! The leaves that the MMU uses.

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::PrivateGpa;
use tdx_abi::Registers;
use tdx_abi::Seamcall;

use super::Error;
use super::call::LeafId;
use super::call::Persist;
use super::call::Plain;
use super::call::call;
use super::call::call_on;
use crate::embed::Relax;
use crate::platform::Executor;

const fn mapping(gpa: PrivateGpa, level: Level) -> u64 {
    gpa.bits() | level as u64
}

/// Leaves on the private memory of the TD whose TDR is `tdr`.
pub(crate) struct Memory<'e, E> {
    pub(crate) embedder: &'e E,
    pub(crate) tdr: Hpa,
}

impl<E: Executor + Relax> Memory<'_, E> {
    fn at(
        &self,
        leaf: LeafId,
        gpa: PrivateGpa,
        level: Level,
        r8: u64,
        r9: u64,
    ) -> Result<Registers, Error> {
        let inputs = Registers {
            rcx: mapping(gpa, level),
            rdx: self.tdr.bits(),
            r8,
            r9,
            ..Registers::default()
        };
        call(self.embedder, leaf, inputs)
    }

    pub(crate) fn page_add(&self, gpa: PrivateGpa, page: Hpa, source: Hpa) -> Result<(), Error> {
        self.at(
            LeafId("TDH.MEM.PAGE.ADD", 2),
            gpa,
            Level::Pt,
            page.bits(),
            source.bits(),
        )
        .map(drop)
    }

    pub(crate) fn page_aug(&self, gpa: PrivateGpa, level: Level, page: Hpa) -> Result<(), Error> {
        self.at(LeafId("TDH.MEM.PAGE.AUG", 6), gpa, level, page.bits(), 0)
            .map(drop)
    }

    pub(crate) fn sept_add(&self, gpa: PrivateGpa, level: Level, page: Hpa) -> Result<(), Error> {
        self.at(LeafId("TDH.MEM.SEPT.ADD", 3), gpa, level, page.bits(), 0)
            .map(drop)
    }

    pub(crate) fn sept_remove(&self, gpa: PrivateGpa, level: Level) -> Result<u64, Error> {
        self.at(LeafId("TDH.MEM.SEPT.REMOVE", 30), gpa, level, 0, 0)
            .map(|answer| answer.rcx)
    }

    pub(crate) fn range_block(&self, gpa: PrivateGpa, level: Level) -> Result<(), Error> {
        self.at(LeafId("TDH.MEM.RANGE.BLOCK", 7), gpa, level, 0, 0)
            .map(drop)
    }

    pub(crate) fn range_unblock(&self, gpa: PrivateGpa, level: Level) -> Result<(), Error> {
        self.at(LeafId("TDH.MEM.RANGE.UNBLOCK", 39), gpa, level, 0, 0)
            .map(drop)
    }

    pub(crate) fn page_demote(
        &self,
        gpa: PrivateGpa,
        level: Level,
        table: Hpa,
    ) -> Result<(), Error> {
        self.at(
            LeafId("TDH.MEM.PAGE.DEMOTE", 15),
            gpa,
            level,
            table.bits(),
            0,
        )
        .map(drop)
    }

    pub(crate) fn page_promote(&self, gpa: PrivateGpa, level: Level) -> Result<u64, Error> {
        self.at(LeafId("TDH.MEM.PAGE.PROMOTE", 23), gpa, level, 0, 0)
            .map(|answer| answer.rcx)
    }

    pub(crate) fn page_remove(&self, gpa: PrivateGpa, level: Level) -> Result<u64, Error> {
        self.at(LeafId("TDH.MEM.PAGE.REMOVE", 29), gpa, level, 0, 0)
            .map(|answer| answer.rcx)
    }

    pub(crate) fn page_relocate(&self, gpa: PrivateGpa, target: Hpa) -> Result<u64, Error> {
        self.at(
            LeafId("TDH.MEM.PAGE.RELOCATE", 5),
            gpa,
            Level::Pt,
            target.bits(),
            0,
        )
        .map(|answer| answer.rcx)
    }

    pub(crate) fn track(&self, persist: impl Persist) -> Result<(), Error> {
        let inputs = Registers {
            rcx: self.tdr.bits(),
            ..Registers::default()
        };
        self.embedder
            .on_this_lp(|_, lp| {
                call_on(
                    lp,
                    self.embedder,
                    LeafId("TDH.MEM.TRACK", 38),
                    inputs,
                    persist,
                )
            })
            .map(drop)
    }

    pub(crate) fn mr_extend(&self, gpa: PrivateGpa) -> Result<(), Error> {
        let inputs = Registers {
            rcx: gpa.bits(),
            rdx: self.tdr.bits(),
            ..Registers::default()
        };
        call(self.embedder, LeafId("TDH.MR.EXTEND", 16), inputs).map(drop)
    }

    /// A leaf whose only operand is the TDR.
    fn on_td(&self, leaf: LeafId) -> Result<(), Error> {
        let inputs = Registers {
            rcx: self.tdr.bits(),
            ..Registers::default()
        };
        call(self.embedder, leaf, inputs).map(drop)
    }

    pub(crate) fn mr_finalize(&self) -> Result<(), Error> {
        self.on_td(LeafId("TDH.MR.FINALIZE", 17))
    }

    pub(crate) fn mng_create(&self, hkid: u16) -> Result<(), Error> {
        let inputs = Registers {
            rcx: self.tdr.bits(),
            rdx: hkid.into(),
            ..Registers::default()
        };
        call(self.embedder, LeafId("TDH.MNG.CREATE", 9), inputs).map(drop)
    }

    pub(crate) fn mng_addcx(&self, page: Hpa) -> Result<(), Error> {
        let inputs = Registers {
            rcx: page.bits(),
            rdx: self.tdr.bits(),
            ..Registers::default()
        };
        call(self.embedder, LeafId("TDH.MNG.ADDCX", 1), inputs).map(drop)
    }

    pub(crate) fn mng_init(&self, parameters: Hpa) -> Result<(), Error> {
        let inputs = Registers {
            rcx: self.tdr.bits(),
            rdx: parameters.bits(),
            ..Registers::default()
        };
        call(self.embedder, LeafId("TDH.MNG.INIT", 21), inputs).map(drop)
    }

    pub(crate) fn mng_key_config(&self, lp: &impl Seamcall) -> Result<(), Error> {
        let inputs = Registers {
            rcx: self.tdr.bits(),
            ..Registers::default()
        };
        call_on(
            lp,
            self.embedder,
            LeafId("TDH.MNG.KEY.CONFIG", 8),
            inputs,
            Plain,
        )
        .map(drop)
    }

    pub(crate) fn mng_vpflushdone(&self) -> Result<(), Error> {
        self.on_td(LeafId("TDH.MNG.VPFLUSHDONE", 19))
    }

    pub(crate) fn mng_key_freeid(&self) -> Result<(), Error> {
        self.on_td(LeafId("TDH.MNG.KEY.FREEID", 20))
    }

    pub(crate) fn vp_create(&self, tdvpr: Hpa) -> Result<(), Error> {
        let inputs = Registers {
            rcx: tdvpr.bits(),
            rdx: self.tdr.bits(),
            ..Registers::default()
        };
        call(self.embedder, LeafId("TDH.VP.CREATE", 10), inputs).map(drop)
    }
}

pub(crate) fn vp_addcx<E: Executor + Relax>(
    embedder: &E,
    tdvpr: Hpa,
    page: Hpa,
) -> Result<(), Error> {
    let inputs = Registers {
        rcx: page.bits(),
        rdx: tdvpr.bits(),
        ..Registers::default()
    };
    call(embedder, LeafId("TDH.VP.ADDCX", 4), inputs).map(drop)
}

pub(crate) fn vp_init<E: Executor + Relax>(
    embedder: &E,
    tdvpr: Hpa,
    rcx: u64,
) -> Result<(), Error> {
    let inputs = Registers {
        rcx: tdvpr.bits(),
        rdx: rcx,
        ..Registers::default()
    };
    call(embedder, LeafId("TDH.VP.INIT", 22), inputs).map(drop)
}

pub(crate) fn vp_flush<E: Relax>(
    lp: &impl Seamcall,
    embedder: &E,
    tdvpr: Hpa,
) -> Result<(), Error> {
    let inputs = Registers {
        rcx: tdvpr.bits(),
        ..Registers::default()
    };
    call_on(lp, embedder, LeafId("TDH.VP.FLUSH", 18), inputs, Plain).map(drop)
}

struct ResumeWriteBack;

impl Persist for ResumeWriteBack {
    fn resume(&self, answer: Registers) -> Registers {
        Registers { rcx: 1, ..answer }
    }
}

pub(crate) fn phymem_cache_wb<E: Relax>(lp: &impl Seamcall, embedder: &E) -> Result<(), Error> {
    call_on(
        lp,
        embedder,
        LeafId("TDH.PHYMEM.CACHE.WB", 40),
        Registers::default(),
        ResumeWriteBack,
    )
    .map(drop)
}

pub(crate) fn phymem_page_wbinvd<E: Executor + Relax>(
    embedder: &E,
    page_and_hkid: u64,
) -> Result<(), Error> {
    let inputs = Registers {
        rcx: page_and_hkid,
        ..Registers::default()
    };
    call(embedder, LeafId("TDH.PHYMEM.PAGE.WBINVD", 41), inputs).map(drop)
}

pub(crate) fn phymem_page_reclaim<E: Executor + Relax>(
    embedder: &E,
    page: Hpa,
) -> Result<(), Error> {
    let inputs = Registers {
        rcx: page.bits(),
        ..Registers::default()
    };
    call(embedder, LeafId("TDH.PHYMEM.PAGE.RECLAIM", 28), inputs).map(drop)
}
