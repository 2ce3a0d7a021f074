//! The destination's side of a migration session.

use tdx_abi::Hpa;
use tdx_abi::OpState;
use tdx_abi::format::MbType;
use tdx_abi::format::MbmdVpState;
use tdx_abi::format::MigEpoch;
use tdx_abi::format::StatusBits;

use super::super::Error;
use super::super::Td;
use super::super::ledger::Ledger;
use super::Arrival;
use super::Bundle;
use super::Sink;
use super::Stream;
use super::bundle::Content;
use super::bundle::Unsent;
use super::bundle::head_of;
use super::bundle::header;
use crate::Word;
use crate::embed::Embedder;

/// An import session.
///
/// Every bundle that arrives is given to [`Import::receive`]. Once the start token was among them, the TD is complete
/// but for what follows out of order: [`Import::commit`] lets it run while that arrives, [`Import::end`] ends the
/// session.
#[derive(Debug)]
#[must_use = "the TD does not run until its import is committed or ended"]
pub struct Import<'t, E: Embedder> {
    pub(super) td: &'t Td<E>,
}

/// What a bundle was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Memory.
    Memory {
        /// Pages that were imported, imported again or cancelled.
        pages: u64,
        /// Entries that were skipped.
        skipped: u64,
    },
    /// The end of a migration epoch.
    Epoch,
    /// The TD's own mutable state.
    Td,
    /// The state of this vCPU.
    Vcpu(usize),
    /// The start token: the TD may run here.
    Start,
}

impl<E: Embedder> Td<E> {
    /// Begins to import a TD with the bundle of its immutable state (TDH.IMPORT.STATE.IMMUTABLE), on forward stream 0.
    ///
    /// The TD has been made by [`Td::create_for_import`], with the levels, the GPA width and the attributes of the
    /// source's; a migration TD is bound to it and has set the keys, and as many streams have been created as the
    /// source has. What is private memory is declared by the embedder, as for a TD that is built.
    pub fn import(
        &self,
        stream: &mut Stream<'_, E>,
        bundle: &impl Arrival,
    ) -> Result<Import<'_, E>, Error> {
        let import = Import { td: self };
        let pages = load_state(stream, bundle, MbType::IMMUTABLE_TD_STATE)?;
        let _section = self.mirror.exclusive(&self.embedder);
        import.checked(self.memory().import_state_immutable(stream, pages))?;
        self.set_op_state(OpState::MemoryImport);
        Ok(import)
    }
}

/// Puts a bundle of metadata into the stream's buffers; returns its number of pages.
fn load_state<E: Embedder>(
    stream: &Stream<'_, E>,
    bundle: &impl Arrival,
    kind: MbType,
) -> Result<u16, Error> {
    let mbmd = bundle.mbmd();
    let pages = bundle.len();
    if header(&mbmd).mb_type() != kind || pages == 0 || pages > stream.capacity() {
        return Err(Error::BadBundle);
    }
    stream.set_mbmd(&mbmd);
    stream.use_pool();
    for (index, page) in stream.pool().iter().enumerate().take(pages) {
        let at = page.load(core::sync::atomic::Ordering::Relaxed);
        bundle.load(index, Hpa::new(at));
    }
    u16::try_from(pages).map_err(|_| Error::BadBundle)
}

impl<E: Embedder> Import<'_, E> {
    /// Takes the next bundle of `stream`.
    ///
    /// Memory of several streams may be received by as many threads at once. A bundle that the module refuses ends the
    /// import, but for memory out of order; then the TD can only be torn down, after [`Import::abort`]. An error without
    /// the status's fatal bit, and of a leaf that has not begun, leaves everything as it was: receive the bundle again.
    ///
    /// Pages that the source has cancelled go back to the backing; one that cannot be written back to
    /// [`quarantine`](crate::embed::Clean::quarantine).
    pub fn receive(
        &self,
        stream: &mut Stream<'_, E>,
        bundle: &impl Arrival,
    ) -> Result<Received, Error> {
        match header(&bundle.mbmd()).mb_type() {
            MbType::MEM => self.receive_memory(stream, bundle),
            MbType::EPOCH_TOKEN => self.receive_token(stream, bundle),
            MbType::MUTABLE_TD_STATE => self.receive_td(stream, bundle),
            MbType::MUTABLE_VCPU_STATE => self.receive_vcpu(stream, bundle),
            _ => Err(Error::BadBundle),
        }
    }

    fn receive_token(
        &self,
        stream: &Stream<'_, E>,
        bundle: &impl Arrival,
    ) -> Result<Received, Error> {
        let mbmd = bundle.mbmd();
        stream.set_mbmd(&mbmd);
        let _section = self.td.mirror.exclusive(&self.td.embedder);
        self.checked(self.td.memory().import_track(stream))?;
        if header(&mbmd).mig_epoch() != MigEpoch::OUT_OF_ORDER {
            return Ok(Received::Epoch);
        }
        self.td.set_op_state(OpState::PostImport);
        Ok(Received::Start)
    }

    fn receive_td(&self, stream: &Stream<'_, E>, bundle: &impl Arrival) -> Result<Received, Error> {
        let pages = load_state(stream, bundle, MbType::MUTABLE_TD_STATE)?;
        let _section = self.td.mirror.exclusive(&self.td.embedder);
        self.checked(self.td.memory().import_state_td(stream, pages))?;
        self.td.set_op_state(OpState::StateImport);
        Ok(Received::Td)
    }

    /// Makes the vCPU and imports its state; associates it with this LP.
    fn receive_vcpu(
        &self,
        stream: &Stream<'_, E>,
        bundle: &impl Arrival,
    ) -> Result<Received, Error> {
        let td = self.td;
        let pages = load_state(stream, bundle, MbType::MUTABLE_VCPU_STATE)?;
        let vcpu = usize::from(MbmdVpState::from_bytes(head_of(&bundle.mbmd())).vp_index());
        if vcpu >= td.embedder.epochs().len() {
            return Err(Error::NoSuchVcpu(vcpu));
        }
        let tdvpr = td.give_vcpu_pages(vcpu)?;
        self.checked(td.memory().import_state_vp(tdvpr, stream, pages))?;
        Ok(Received::Vcpu(vcpu))
    }

    /// Lets the TD run while pages still arrive (TDH.IMPORT.COMMIT); after the start token.
    ///
    /// A private fault on memory that has not arrived ends in [`Resolution::Awaited`](crate::td::Resolution::Awaited).
    pub fn commit(&self) -> Result<(), Error> {
        let _section = self.td.mirror.exclusive(&self.td.embedder);
        self.checked(self.td.memory().import_commit())?;
        self.td.set_op_state(OpState::LiveImport);
        Ok(())
    }

    /// Ends the session (TDH.IMPORT.END), after the start token; what has not arrived is gone.
    pub fn end(self) -> Result<(), (Self, Error)> {
        let _section = self.td.mirror.exclusive(&self.td.embedder);
        match self.checked(self.td.memory().import_end()) {
            Ok(()) => {
                self.td.set_op_state(OpState::Runnable);
                Ok(())
            }
            Err(error) => Err((self, error)),
        }
    }

    /// Gives the TD up, which can only be torn down from now on, and sends the token with which the source may run it
    /// again (TDH.IMPORT.ABORT). Not legal once the import was committed. May be repeated.
    pub fn abort(&self, stream: &mut Stream<'_, E>, sink: &mut impl Sink<E>) -> Result<(), Error> {
        {
            let _section = self.td.mirror.exclusive(&self.td.embedder);
            self.td.memory().import_abort(stream)?;
            self.td.set_op_state(OpState::FailedImport);
        }
        sink.send(&Bundle::new(stream, 0, Content::Nothing))
            .map_err(|Unsent| Error::BundleLost)
    }

    /// Follows OP_STATE, which a leaf that fails may have changed.
    pub(super) fn checked<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        let td = self.td;
        if let Err(Error::Seamcall { status, .. }) = &result {
            if StatusBits::from_bits(status.rax()).fatal() {
                td.set_op_state(OpState::FailedImport);
            } else if td.op_state() == OpState::LiveImport
                && td.memory().read_op_state() == Ok(OpState::Runnable as u64)
            {
                td.set_op_state(OpState::Runnable);
            }
        }
        result
    }
}

impl<E: Embedder> Td<E> {
    /// Gives the module what it still lacks of the pages of `vcpu`; returns its TDVPR.
    fn give_vcpu_pages(&self, vcpu: usize) -> Result<Hpa, Error> {
        let number = Ledger::vcpu_page(vcpu, 0);
        let tdvpr = match self.ledger.page(&self.embedder, number) {
            Some(tdvpr) => tdvpr,
            None => self.create_vcpu(vcpu)?,
        };
        self.add_vcpu_pages(vcpu, tdvpr)?;
        while self.vcpus() <= vcpu {
            self.vcpus.add(1);
        }
        Ok(tdvpr)
    }
}
