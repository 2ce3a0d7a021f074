//! The host's buffers of a migration stream.

use core::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::format::GpaListInfo;
use tdx_abi::format::HpaAndSize;
use tdx_abi::format::MbmdMem;
use tdx_abi::format::MigrationStreamAndCommand;
use tdx_abi::format::PageListInfo;

use super::super::Error;
use super::super::Td;
use crate::Word;
use crate::embed::Embedder;

/// 64-bit words of an MBMD.
pub const MBMD_WORDS: usize = MbmdMem::SIZE / 8;

/// Fewest pages that a stream has: the state of a vCPU must fit into them.
pub const MIN_PAGES: u16 = 8;

/// Most pages that a stream has: the entries of a GPA list.
pub const MAX_PAGES: u16 = 512;

const MACS_PER_PAGE: usize = 256;

/// One forward migration stream and the host's pages for its bundles: lists, MACs, MBMD, encrypted pages.
///
/// Several streams may be used by as many threads at once. The pages come from
/// [`Frames::allocate_table`](crate::embed::Frames::allocate_table) and go back when this is dropped.
#[derive(Debug)]
pub struct Stream<'e, E: Embedder> {
    embedder: &'e E,
    index: u16,
    capacity: u16,
    /// The GPA list.
    gpas: Hpa,
    /// The GPA list as it was before the module wrote to it.
    asked: Hpa,
    /// What the mirror said of each entry of the list.
    old: Hpa,
    /// The list of pages that the module is told.
    buffers: Hpa,
    /// Where the stream's own pages are.
    pool: Hpa,
    macs: [Hpa; 2],
    mbmd: Hpa,
}

impl<E: Embedder> Td<E> {
    /// Buffers for forward stream `index` (from 0 on), which carry up to `pages` 4 KiB pages at once
    /// ([`MIN_PAGES`] to [`MAX_PAGES`]).
    ///
    /// The stream itself must have been created ([`Td::add_stream`]); on the source it is used by
    /// [`Td::export`], on the destination by [`Td::import`].
    pub fn stream(&self, index: u16, pages: u16) -> Result<Stream<'_, E>, Error> {
        Stream::new(&self.embedder, index, pages.clamp(MIN_PAGES, MAX_PAGES))
    }
}

impl<'e, E: Embedder> Stream<'e, E> {
    fn new(embedder: &'e E, index: u16, capacity: u16) -> Result<Self, Error> {
        let mut lists = [Hpa::new(0); 8];
        for (taken, place) in (0..).zip(lists.iter_mut()) {
            *place = match embedder.allocate_table() {
                Some(page) => page.into_hpa(),
                None => {
                    lists
                        .into_iter()
                        .take(taken)
                        .for_each(|page| free(embedder, page));
                    return Err(Error::OutOfPages);
                }
            };
        }
        let [gpas, asked, old, buffers, pool, macs_0, macs_1, mbmd] = lists;
        let mut stream = Self {
            embedder,
            index,
            capacity: 0,
            gpas,
            asked,
            old,
            buffers,
            pool,
            macs: [macs_0, macs_1],
            mbmd,
        };
        for place in stream.pool().iter().take(usize::from(capacity)) {
            let page = embedder.allocate_table().ok_or(Error::OutOfPages)?;
            place.store(page.into_hpa().bits(), Ordering::Relaxed);
            stream.capacity += 1;
        }
        Ok(stream)
    }

    /// Number of the forward stream.
    pub const fn index(&self) -> u16 {
        self.index
    }

    /// Pages that one bundle can carry.
    pub const fn capacity(&self) -> usize {
        self.capacity as usize
    }

    pub(super) fn gpas(&self) -> &'e [E::Word; 512] {
        self.embedder.entries(self.gpas)
    }

    pub(super) fn asked(&self) -> &'e [E::Word; 512] {
        self.embedder.entries(self.asked)
    }

    pub(super) fn old(&self) -> &'e [E::Word; 512] {
        self.embedder.entries(self.old)
    }

    pub(super) fn buffers(&self) -> &'e [E::Word; 512] {
        self.embedder.entries(self.buffers)
    }

    pub(super) fn pool(&self) -> &'e [E::Word; 512] {
        self.embedder.entries(self.pool)
    }

    /// Tells the module to use the stream's own pages, one for each slot.
    pub(super) fn use_pool(&self) {
        for (buffer, page) in self.buffers().iter().zip(self.pool()).take(self.capacity()) {
            buffer.store(page.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    fn mac_words(&self, index: usize) -> &'e [E::Word] {
        let page = self.embedder.entries(self.macs[index / MACS_PER_PAGE % 2]);
        &page[index % MACS_PER_PAGE * 2..][..2]
    }

    pub(super) fn mac(&self, index: usize) -> [u64; 2] {
        let words = self.mac_words(index);
        core::array::from_fn(|word| words[word].load(Ordering::Relaxed))
    }

    pub(super) fn set_mac(&self, index: usize, mac: [u64; 2]) {
        for (place, word) in self.mac_words(index).iter().zip(mac) {
            place.store(word, Ordering::Relaxed);
        }
    }

    pub(super) fn mbmd_words(&self) -> [u64; MBMD_WORDS] {
        let words = self.embedder.entries(self.mbmd);
        core::array::from_fn(|word| words[word].load(Ordering::Relaxed))
    }

    pub(super) fn set_mbmd(&self, mbmd: &[u64; MBMD_WORDS]) {
        for (place, word) in self.embedder.entries(self.mbmd).iter().zip(mbmd) {
            place.store(*word, Ordering::Relaxed);
        }
    }

    /// R8: the buffer of the MBMD.
    pub(super) const fn mbmd_operand(&self) -> HpaAndSize {
        HpaAndSize::new()
            .with_hpa(self.mbmd)
            .with_size(MbmdMem::SIZE as u16)
    }

    /// R10: the stream, beginning.
    pub(super) const fn operand(&self) -> MigrationStreamAndCommand {
        MigrationStreamAndCommand::new().with_index(self.index)
    }

    /// RCX: the first `entries` of the GPA list, at least one.
    pub(super) const fn gpa_list(&self, entries: u16) -> GpaListInfo {
        GpaListInfo::new()
            .with_hpa(self.gpas)
            .with_last_entry(entries.saturating_sub(1))
    }

    /// R9 of state leaves: the first `pages` of the stream's pages, at least one.
    pub(super) const fn page_list(&self, pages: u16) -> PageListInfo {
        PageListInfo::new()
            .with_hpa(self.buffers)
            .with_last_entry(pages.saturating_sub(1))
    }

    /// R9 of memory leaves.
    pub(super) const fn buffer_list(&self) -> Hpa {
        self.buffers
    }

    /// R11 and R12.
    pub(super) const fn mac_lists(&self) -> [Hpa; 2] {
        self.macs
    }
}

fn free<E: Embedder>(embedder: &E, page: Hpa) {
    if let Some(page) = Page::assume_owned(page, Level::Pt) {
        embedder.free_table(page);
    }
}

impl<E: Embedder> Drop for Stream<'_, E> {
    fn drop(&mut self) {
        for page in self.pool().iter().take(self.capacity()) {
            free(self.embedder, Hpa::new(page.load(Ordering::Relaxed)));
        }
        let [macs_0, macs_1] = self.macs;
        for page in [
            self.gpas,
            self.asked,
            self.old,
            self.buffers,
            self.pool,
            macs_0,
            macs_1,
            self.mbmd,
        ] {
            free(self.embedder, page);
        }
    }
}
