//! A TD and its memory: build, faults, conversions, invalidation, large pages, teardown.

mod access;
mod build;
pub(crate) mod call;
mod candidates;
mod clean;
mod convert;
mod create;
mod epoch;
mod error;
mod fault;
mod fault_shared;
mod invalidate;
mod l2;
pub(crate) mod leaves;
mod ledger;
mod merge;
pub mod migration;
pub(crate) mod pamt;
mod prefault;
mod propagate;
mod shape;
mod teardown;
mod track;
mod trim;
mod vcpu;
mod watch;

use core::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::OpState;
use tdx_abi::SharedBit;
use tdx_abi::Tdr;

pub use self::access::Access;
pub use self::access::AccessKind;
pub use self::access::Resolution;
pub use self::build::EXTEND_BYTES;
pub use self::build::Rejected;
use self::candidates::Candidates;
pub use self::create::TdConfig;
pub use self::epoch::Entered;
use self::epoch::Epoch;
pub use self::epoch::Laggards;
pub use self::error::Error;
pub use self::invalidate::Blocked;
pub use self::invalidate::Tracked;
use self::l2::L2;
use self::l2::L2Pages;
use self::leaves::Memory;
use self::ledger::Ledger;
use self::merge::Merges;
use self::pamt::Pairs;
use self::propagate::Propagate;
pub use self::teardown::Progress;
pub use self::teardown::Teardown;
pub use self::teardown::Torn;
use crate::Word;
use crate::attributes::VisibilityMap;
use crate::embed::Embedder;
use crate::embed::Tables;
use crate::gate::Exclusive;
use crate::gate::Gate;
use crate::mirror::Mirror;
use crate::platform::Hkid;
use crate::shared::Ept;

/// A TD: its control structures, its private memory with the mirror, its shared memory.
///
/// Every method takes `&self` and may run on many threads at once. None may be called from within a
/// grace-period guard of the embedder.
pub struct Td<E: Embedder> {
    embedder: E,
    config: TdConfig,
    tdr: Hpa,
    hkid: Hkid,
    ledger: Ledger,
    mirror: Mirror<E>,
    ept: Ept,
    visibility: VisibilityMap,
    epoch: Epoch<<E as Tables>::Word>,
    op_state: <E as Tables>::Word,
    /// Counts invalidations; a fault that saw another count than the section it maps in starts over.
    sequence: <E as Tables>::Word,
    vcpus: <E as Tables>::Word,
    candidates: Candidates<<E as Tables>::Word>,
    merges: Merges<<E as Tables>::Word>,
    /// Held while tables are promoted.
    reshaping: Gate<<E as Tables>::Word>,
    stage: <E as Tables>::Word,
}

impl<E: Embedder> Td<E> {
    /// The embedder.
    pub const fn embedder(&self) -> &E {
        &self.embedder
    }

    /// Address of the TDR.
    pub const fn tdr(&self) -> Hpa {
        self.tdr
    }

    /// Number of the TD's KeyID.
    pub const fn hkid(&self) -> u16 {
        self.hkid.number()
    }

    /// The mirrored tree, for looking at.
    pub const fn mirror(&self) -> &Mirror<E> {
        &self.mirror
    }

    /// The shared EPT. Changes of its own are allowed; [`Td::fault`] and conversions go on beside them.
    pub const fn shared(&self) -> &Ept {
        &self.ept
    }

    /// Where the SHARED bit is.
    pub const fn shared_bit(&self) -> SharedBit {
        self.config.shared_bit
    }

    /// The TD's OP_STATE, as far as the host has driven it.
    pub fn op_state(&self) -> OpState {
        u32::try_from(self.op_state.load(Ordering::Acquire))
            .ok()
            .and_then(OpState::new)
            .unwrap_or(OpState::Uninitialized)
    }

    fn set_op_state(&self, state: OpState) {
        self.op_state.store(state as u64, Ordering::Release);
    }

    /// Notes that `vcpu` enters the TD; keep what this returns until TDH.VP.ENTER has returned.
    pub fn enter(&self, vcpu: usize) -> Result<Entered<'_, E::Word>, Error> {
        let slot = self
            .embedder
            .epochs()
            .get(vcpu)
            .ok_or(Error::NoSuchVcpu(vcpu))?;
        Ok(Entered::note(slot, &self.epoch))
    }

    /// Counts invalidations of private memory.
    fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::SeqCst)
    }

    fn reshape(&self) -> Exclusive<'_, E::Word> {
        self.reshaping.exclusive(&self.embedder)
    }

    const fn memory(&self) -> Memory<'_, E> {
        Memory {
            embedder: &self.embedder,
            tdr: Tdr::assume(self.tdr),
        }
    }

    const fn external(&self) -> Propagate<'_, E> {
        self.propagate(L2::Unprepared)
    }

    /// As [`Self::external`], for operations that may take tables of L2 VMs or give them back.
    const fn external_with<'t>(&'t self, l2: &'t L2Pages<'t, E>) -> Propagate<'t, E> {
        self.propagate(L2::Prepared(l2))
    }

    const fn propagate<'t>(&'t self, l2: L2<'t, E>) -> Propagate<'t, E> {
        Propagate {
            memory: self.memory(),
            source: None,
            pairs: Pairs::new(&self.embedder, &self.config),
            l2: match self.config.l2_vms {
                0 => L2::Absent,
                _ => l2,
            },
        }
    }

    /// The largest leaf that the Secure-EPT takes.
    const LARGEST_PRIVATE: Level = Level::Pd;
}

impl<E: Embedder> core::fmt::Debug for Td<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Td")
            .field("tdr", &self.tdr)
            .field("hkid", &self.hkid)
            .field("op_state", &self.op_state())
            .finish_non_exhaustive()
    }
}
