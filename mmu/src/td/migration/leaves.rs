//! The migration leaves, and how each goes on after an interruption.

use core::cell::Cell;

use tdx_abi::HostLeaf;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_abi::Refused;
use tdx_abi::Tdr;
use tdx_abi::Tdvpr;
use tdx_abi::field::tdr_tdcs;
use tdx_abi::format::GpaListInfo;
use tdx_abi::format::ServtdAttributes;
use tdx_abi::format::ServtdBindingHandle;
use tdx_abi::format::ServtdType;
use tdx_abi::level::Pt;
use tdx_abi::tdh;

use super::super::Error;
use super::super::call::Persist;
use super::super::call::call;
use super::super::call::call_with;
use super::super::leaves::Memory;
use super::Stream;
use crate::embed::Embedder;
use crate::embed::Relax;
use crate::platform::Executor;

/// Goes on where a leaf was interrupted.
struct Resume;

macro_rules! resume {
    ($($leaf:ty)*) => {
        $(impl Persist<$leaf> for Resume {
            fn resume(&self, refused: Refused<$leaf>) -> $leaf {
                match refused.resume() {
                    Ok(leaf) | Err(Refused { leaf, .. }) => leaf,
                }
            }
        })*
    };
}

resume! {
    tdh::export::StateImmutable
    tdh::export::StateTd
    tdh::export::StateVp
    tdh::import::StateImmutable
    tdh::import::StateTd
    tdh::import::StateVp
}

/// Goes on where a leaf with a GPA list was interrupted, and notes where that was.
struct ResumeList<'c>(&'c Cell<u16>);

macro_rules! resume_list {
    ($($leaf:ty)*) => {
        $(impl Persist<$leaf> for ResumeList<'_> {
            fn resume(&self, refused: Refused<$leaf>) -> $leaf {
                match refused.resume() {
                    Ok(leaf) => {
                        self.0.set(leaf.gpa_list.first_entry());
                        leaf
                    }
                    Err(Refused { leaf, .. }) => leaf,
                }
            }
        })*
    };
}

resume_list! {
    tdh::export::Blockw
    tdh::export::Restore
    tdh::export::Mem
    tdh::import::Mem
}

/// What a leaf has done with a GPA list.
#[derive(Debug)]
pub(super) struct Listed {
    /// Entries that have been processed; their statuses are in the list.
    pub(super) processed: u16,
    /// Why not all of them were.
    pub(super) result: Result<(), Error>,
}

impl Listed {
    fn new(entries: u16, list: GpaListInfo, passed: u16, result: Result<(), Error>) -> Self {
        let processed = match &result {
            Ok(()) => entries,
            // RCX tells the entry where a leaf that fails has stopped.
            Err(Error::Seamcall {
                details: [rcx, _], ..
            }) => {
                let stopped = GpaListInfo::from_bits(*rcx);
                if stopped.hpa() == list.hpa() {
                    stopped.first_entry().clamp(passed, entries)
                } else {
                    passed
                }
            }
            Err(_) => passed,
        };
        Self { processed, result }
    }
}

impl<E: Executor + Relax> Memory<'_, E> {
    pub(crate) fn export_unblockw(&self, gpa: PrivateGpa) -> Result<(), Error> {
        let gpa = tdx_abi::Mapping::<Pt>::new(gpa).ok_or(Error::BadAddress(gpa.bits()))?;
        call(self.embedder, tdh::export::Unblockw { gpa, tdr: self.tdr })
    }

    pub(super) fn mig_stream_create(&self, page: Hpa) -> Result<(), Error> {
        let migsc = Page::<Pt>::owned(page).ok_or(Error::BadAddress(page.bits()))?;
        call(
            self.embedder,
            tdh::mig::StreamCreate {
                migsc,
                tdr: self.tdr,
            },
        )
    }

    /// Handle of the binding and UUID of the target.
    pub(super) fn servtd_bind(
        &self,
        service: Tdr,
        servtd_type: ServtdType,
        attributes: ServtdAttributes,
    ) -> Result<(ServtdBindingHandle, [u64; 4]), Error> {
        let leaf = tdh::servtd::Bind {
            target_tdr: self.tdr,
            servtd_tdr: service,
            slot: 0,
            servtd_type,
            attributes,
        };
        call(self.embedder, leaf).map(|bound| {
            let uuid = [
                bound.target_uuid_0,
                bound.target_uuid_1,
                bound.target_uuid_2,
                bound.target_uuid_3,
            ];
            (bound.handle, uuid)
        })
    }

    /// OP_STATE as the module has it.
    pub(super) fn read_op_state(&self) -> Result<u64, Error> {
        let leaf = tdh::mng::Rd {
            tdr: self.tdr,
            field: tdr_tdcs::OP_STATE,
        };
        call(self.embedder, leaf).map(|read| read.value)
    }

    pub(super) fn export_blockw<T: Embedder>(
        &self,
        stream: &Stream<'_, T>,
        entries: u16,
    ) -> Listed {
        let gpa_list = stream.gpa_list(entries);
        let leaf = tdh::export::Blockw {
            gpa_list,
            tdr: self.tdr,
        };
        self.listed(entries, gpa_list, leaf)
    }

    pub(super) fn export_restore<T: Embedder>(
        &self,
        stream: &Stream<'_, T>,
        entries: u16,
    ) -> Listed {
        let gpa_list = stream.gpa_list(entries);
        let leaf = tdh::export::Restore {
            gpa_list,
            tdr: self.tdr,
        };
        self.listed(entries, gpa_list, leaf)
    }

    pub(super) fn export_mem<T: Embedder>(&self, stream: &Stream<'_, T>, entries: u16) -> Listed {
        let gpa_list = stream.gpa_list(entries);
        let [macs_0, macs_1] = stream.mac_lists();
        let leaf = tdh::export::Mem {
            gpa_list,
            tdr: self.tdr,
            mbmd: stream.mbmd_operand(),
            buffers: stream.buffer_list(),
            stream: stream.operand(),
            macs_0,
            macs_1,
        };
        self.listed(entries, gpa_list, leaf)
    }

    /// Imports pages in place: each buffer becomes the TD's page.
    pub(super) fn import_mem<T: Embedder>(&self, stream: &Stream<'_, T>, entries: u16) -> Listed {
        /// R13 that says so.
        const IN_PLACE: Hpa = Hpa::new(u64::MAX);
        let gpa_list = stream.gpa_list(entries);
        let [macs_0, macs_1] = stream.mac_lists();
        let leaf = tdh::import::Mem {
            gpa_list,
            tdr: self.tdr,
            mbmd: stream.mbmd_operand(),
            buffers: stream.buffer_list(),
            stream: stream.operand(),
            macs_0,
            macs_1,
            new_pages: IN_PLACE,
        };
        self.listed(entries, gpa_list, leaf)
    }

    fn listed<L: HostLeaf>(&self, entries: u16, list: GpaListInfo, leaf: L) -> Listed
    where
        for<'c> ResumeList<'c>: Persist<L>,
    {
        let passed = Cell::new(0);
        let result = call_with(self.embedder, leaf, ResumeList(&passed)).map(drop);
        Listed::new(entries, list, passed.get(), result)
    }

    /// Returns the pages written.
    pub(super) fn export_state_immutable<T: Embedder>(
        &self,
        stream: &Stream<'_, T>,
    ) -> Result<u64, Error> {
        let leaf = tdh::export::StateImmutable {
            tdr: self.tdr,
            mbmd: stream.mbmd_operand(),
            pages: stream.page_list(stream.capacity() as u16),
            stream: stream.operand(),
        };
        call_with(self.embedder, leaf, Resume).map(|output| output.page_count)
    }

    /// Returns the pages written.
    pub(super) fn export_state_td<T: Embedder>(
        &self,
        stream: &Stream<'_, T>,
    ) -> Result<u64, Error> {
        let leaf = tdh::export::StateTd {
            tdr: self.tdr,
            mbmd: stream.mbmd_operand(),
            pages: stream.page_list(stream.capacity() as u16),
            stream: stream.operand(),
        };
        call_with(self.embedder, leaf, Resume).map(|output| output.page_count)
    }

    /// Returns the pages written.
    pub(super) fn export_state_vp<T: Embedder>(
        &self,
        tdvpr: Hpa,
        stream: &Stream<'_, T>,
    ) -> Result<u64, Error> {
        let leaf = tdh::export::StateVp {
            tdvpr: Tdvpr::assume(tdvpr),
            mbmd: stream.mbmd_operand(),
            pages: stream.page_list(stream.capacity() as u16),
            stream: stream.operand(),
        };
        call_with(self.embedder, leaf, Resume).map(|output| output.page_count)
    }

    pub(super) fn export_pause(
        &self,
        persist: impl Persist<tdh::export::Pause>,
    ) -> Result<(), Error> {
        let leaf = tdh::export::Pause { tdr: self.tdr };
        call_with(self.embedder, leaf, persist)
    }

    /// Makes an epoch token, or the start token.
    pub(super) fn export_track<T: Embedder>(
        &self,
        stream: &Stream<'_, T>,
        start: bool,
    ) -> Result<(), Error> {
        let leaf = tdh::export::Track {
            tdr: self.tdr,
            mbmd: stream.mbmd_operand(),
            stream: stream.operand().with_command(start),
        };
        call(self.embedder, leaf)
    }

    /// Ends the session; `token` holds the destination's abort token where one is needed.
    pub(super) fn export_abort<T: Embedder>(
        &self,
        token: Option<&Stream<'_, T>>,
    ) -> Result<(), Error> {
        let leaf = tdh::export::Abort {
            tdr: self.tdr,
            mbmd: token.map_or(tdx_abi::format::HpaAndSize::new(), Stream::mbmd_operand),
            stream: 0,
        };
        call(self.embedder, leaf)
    }

    pub(super) fn import_state_immutable<T: Embedder>(
        &self,
        stream: &Stream<'_, T>,
        pages: u16,
    ) -> Result<(), Error> {
        let leaf = tdh::import::StateImmutable {
            tdr: self.tdr,
            mbmd: stream.mbmd_operand(),
            pages: stream.page_list(pages),
            stream: stream.operand(),
        };
        call_with(self.embedder, leaf, Resume).map(drop)
    }

    pub(super) fn import_state_td<T: Embedder>(
        &self,
        stream: &Stream<'_, T>,
        pages: u16,
    ) -> Result<(), Error> {
        let leaf = tdh::import::StateTd {
            tdr: self.tdr,
            mbmd: stream.mbmd_operand(),
            pages: stream.page_list(pages),
            stream: stream.operand(),
        };
        call_with(self.embedder, leaf, Resume).map(drop)
    }

    pub(super) fn import_state_vp<T: Embedder>(
        &self,
        tdvpr: Hpa,
        stream: &Stream<'_, T>,
        pages: u16,
    ) -> Result<(), Error> {
        let leaf = tdh::import::StateVp {
            tdvpr: Tdvpr::assume(tdvpr),
            mbmd: stream.mbmd_operand(),
            pages: stream.page_list(pages),
            stream: stream.operand(),
        };
        call_with(self.embedder, leaf, Resume).map(drop)
    }

    pub(super) fn import_track<T: Embedder>(&self, stream: &Stream<'_, T>) -> Result<(), Error> {
        let leaf = tdh::import::Track {
            tdr: self.tdr,
            mbmd: stream.mbmd_operand(),
            stream: stream.operand(),
        };
        call(self.embedder, leaf)
    }

    pub(super) fn import_commit(&self) -> Result<(), Error> {
        call(self.embedder, tdh::import::Commit { tdr: self.tdr })
    }

    pub(super) fn import_end(&self) -> Result<(), Error> {
        call(self.embedder, tdh::import::End { tdr: self.tdr })
    }

    /// Makes the abort token.
    pub(super) fn import_abort<T: Embedder>(&self, stream: &Stream<'_, T>) -> Result<(), Error> {
        let leaf = tdh::import::Abort {
            tdr: self.tdr,
            mbmd: stream.mbmd_operand(),
            stream: 0,
        };
        call(self.embedder, leaf)
    }
}

/// The level of every page that migrates.
pub(super) const LEVEL: Level = Level::Pt;
