//! Migration streams of a TD: their links in the TDCS and their contexts in MIGSC pages.

use super::context::CONTEXT_WORDS;
use super::context::StreamContext;
use crate::abi::OperandId;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::frame::Field;
use crate::frame::Frame;
use crate::memory::PhysicalMemory;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::tdcs;
use tdx_abi::format::MigscLink;

/// The most streams that a TD may have, the backward one included.
pub(crate) const MAX_STREAMS: u16 = 512;
/// The fewest streams that a migration needs: one backward, one forward.
pub(crate) const MIN_STREAMS: u16 = 2;

/// Names one stream of a TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamId {
    /// The stream from destination to source, which carries the abort token.
    Backward,
    /// A stream from source to destination.
    Forward(u16),
}

impl StreamId {
    /// The link of stream number `number` as STREAM.CREATE counts: 0 is the backward one.
    pub(crate) const fn link_number(number: u16) -> Field<u64> {
        Field::at((tdcs::MIGSC_LINKS_PAGE << 12) as u32).nth(number as usize)
    }

    const fn link(self) -> Field<u64> {
        match self {
            Self::Backward => Self::link_number(0),
            Self::Forward(index) => Self::link_number(index + 1),
        }
    }
}

/// A stream whose context the caller has to itself; dropping writes the context back and unlocks the link.
pub(crate) struct Stream<'m> {
    tdcs: Tdcs<'m>,
    link: Field<u64>,
    page: &'m Frame,
    /// The context, as the MIGSC page holds it once this is dropped.
    pub(crate) context: StreamContext,
}

impl<'m> Stream<'m> {
    /// Locks the link of stream `id`, which exists; `OPERAND_BUSY` if another leaf has it.
    pub(crate) fn lock(
        memory: &'m dyn PhysicalMemory,
        tdcs: Tdcs<'m>,
        id: StreamId,
    ) -> Result<Self, Status> {
        let link = id.link();
        let old = tdcs.update(link, |link: u64| {
            MigscLink::from_bits(link).with_lock(true).into_bits()
        });
        let old = MigscLink::from_bits(old);
        if old.lock() {
            return Err(Status::with_operand(
                StatusCode::OPERAND_BUSY,
                OperandId::MIGSC,
            ));
        }
        let page = memory.frame(old.hpa().bits() >> 12);
        let words: [u64; CONTEXT_WORDS] = core::array::from_fn(|word| page.load(word * 8));
        Ok(Self {
            tdcs,
            link,
            page,
            context: StreamContext::load(&words),
        })
    }

    /// Whether the context has been set up in this migration session.
    pub(crate) fn is_initialized(&self) -> bool {
        MigscLink::from_bits(self.tdcs.get(self.link)).initialized()
    }

    /// Sets up the context with the key at `key` of the TDCS, and says so in the link.
    pub(crate) fn initialize(&mut self, key: Field<u64>) {
        let mut bytes = [0; 32];
        for (word, piece) in bytes.chunks_exact_mut(8).enumerate() {
            piece.copy_from_slice(&self.tdcs.get(key.nth(word)).to_le_bytes());
        }
        self.context.initialize(&bytes);
        self.tdcs.update(self.link, |link: u64| {
            MigscLink::from_bits(link)
                .with_initialized(true)
                .into_bits()
        });
    }

    /// Sets up the context unless it is already.
    pub(crate) fn ensure_initialized(&mut self, key: Field<u64>) {
        if !self.is_initialized() {
            self.initialize(key);
        }
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        for (word, value) in self.context.store().into_iter().enumerate() {
            self.page.store(word * 8, value);
        }
        self.tdcs.update(self.link, |link: u64| {
            MigscLink::from_bits(link).with_lock(false).into_bits()
        });
    }
}

/// Marks all streams of the TD as not set up, which ends what they carried.
pub(crate) fn forget_all(tdcs: Tdcs<'_>) {
    for number in 0..tdcs.get(tdcs::NUM_MIGS) {
        tdcs.update(StreamId::link_number(number), |link: u64| {
            MigscLink::from_bits(link)
                .with_initialized(false)
                .into_bits()
        });
    }
}
