//! Migration bundles, as they leave one platform and arrive at another.

use core::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::format::GpaListEntry;
use tdx_abi::format::MbmdHeader;
use tdx_abi::format::PageListEntry;

use super::Stream;
use super::stream::MBMD_WORDS;
use crate::Word;
use crate::embed::Embedder;

/// A bundle that has been exported and lies in the buffers of its stream.
///
/// It travels as its MBMD, for memory the entries of the GPA list each with its MAC, and the pages. Everything is
/// encrypted and authenticated under the keys of the migration TDs.
#[derive(Debug)]
pub struct Bundle<'s, 'e, E: Embedder> {
    stream: &'s Stream<'e, E>,
    slots: u16,
    content: Content,
}

/// What a bundle has beside its MBMD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Nothing,
    /// Pages of metadata.
    State,
    /// Entries of the GPA list, some with a page.
    Memory,
}

impl<'s, 'e, E: Embedder> Bundle<'s, 'e, E> {
    pub(super) const fn new(stream: &'s Stream<'e, E>, slots: u16, content: Content) -> Self {
        Self {
            stream,
            slots,
            content,
        }
    }

    /// The MBMD: 48 bytes as little-endian words.
    pub fn mbmd(&self) -> [u64; MBMD_WORDS] {
        self.stream.mbmd_words()
    }

    /// Number of the forward stream on which the destination has to import it, in order.
    pub const fn stream(&self) -> u16 {
        self.stream.index()
    }

    /// Entries of the GPA list, or pages of metadata; 0 for a token.
    pub const fn len(&self) -> usize {
        self.slots as usize
    }

    /// Whether there is nothing but the MBMD.
    pub const fn is_empty(&self) -> bool {
        self.slots == 0
    }

    /// Whether there are GPA-list entries and MACs.
    pub fn is_memory(&self) -> bool {
        self.content == Content::Memory
    }

    /// Entry `index` of the GPA list, if this is memory.
    pub fn entry(&self, index: usize) -> Option<GpaListEntry> {
        let entry = self
            .within(index)
            .then(|| self.stream.gpas().get(index))??;
        self.is_memory()
            .then(|| GpaListEntry::from_bits(entry.load(Ordering::Relaxed)))
    }

    /// The MAC of entry `index`, as little-endian words, if this is memory.
    pub fn mac(&self, index: usize) -> Option<[u64; 2]> {
        (self.within(index) && self.is_memory()).then(|| self.stream.mac(index))
    }

    /// Where the encrypted page of slot `index` lies, if it has one.
    pub fn page(&self, index: usize) -> Option<Hpa> {
        let entry = self
            .within(index)
            .then(|| self.stream.buffers().get(index))??;
        let entry = PageListEntry::from_bits(entry.load(Ordering::Relaxed));
        (!entry.invalid()).then(|| entry.hpa())
    }

    fn within(&self, index: usize) -> bool {
        index < self.len() && self.content != Content::Nothing
    }
}

/// The transport did not take a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsent;

/// Where exported bundles go.
///
/// Bundles of one stream are imported in the order in which they were sent; a token (MBMD only, stream 0) after all
/// bundles that any stream sent before it.
pub trait Sink<E: Embedder> {
    /// Copies `bundle` out of the stream's buffers, which are reused once this returns.
    ///
    /// A bundle that cannot be sent at all makes the session useless; wait rather than fail.
    fn send(&mut self, bundle: &Bundle<'_, '_, E>) -> Result<(), Unsent>;
}

impl<E: Embedder, F: FnMut(&Bundle<'_, '_, E>) -> Result<(), Unsent>> Sink<E> for F {
    fn send(&mut self, bundle: &Bundle<'_, '_, E>) -> Result<(), Unsent> {
        self(bundle)
    }
}

/// A bundle that has arrived. Nothing in it is trusted; the module checks what it takes.
pub trait Arrival {
    /// The MBMD: 48 bytes as little-endian words.
    fn mbmd(&self) -> [u64; MBMD_WORDS];

    /// Entries of the GPA list, or pages of metadata.
    fn len(&self) -> usize;

    /// Whether there is nothing but the MBMD.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entry `index` of the GPA list.
    fn entry(&self, index: usize) -> u64;

    /// The MAC of entry `index`, as little-endian words.
    fn mac(&self, index: usize) -> [u64; 2];

    /// Writes the encrypted page of slot `index` to the host's page at `to`; whatever is there stays if the slot has
    /// none.
    ///
    /// Called outside of every section and lock of this crate, so it may wait for the page to arrive.
    fn load(&self, index: usize, to: Hpa);
}

/// The first `N` bytes of an MBMD.
pub(super) fn head_of<const N: usize>(mbmd: &[u64; MBMD_WORDS]) -> [u8; N] {
    let mut bytes = [0; N];
    for (to, word) in bytes.chunks_exact_mut(8).zip(mbmd) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// What the MBMD of every bundle begins with.
pub(super) fn header(mbmd: &[u64; MBMD_WORDS]) -> MbmdHeader {
    MbmdHeader::from_bytes(head_of(mbmd))
}
