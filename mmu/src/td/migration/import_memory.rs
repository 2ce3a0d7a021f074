//! Importing memory: new pages in place, newer versions, and what the source has cancelled.

use core::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_abi::format::GpaListEntry;
use tdx_abi::format::GpaListOperation;
use tdx_abi::format::PageListEntry;

use super::super::Error;
use super::super::Td;
use super::super::invalidate::stopped;
use super::Arrival;
use super::Import;
use super::Received;
use super::Stream;
use super::leaves::LEVEL;
use super::leaves::Listed;
use super::lists::claim_any;
use super::lists::get;
use super::lists::put;
use super::lists::succeeded;
use super::session::ATTEMPTS;
use crate::Word;
use crate::deposit::DEPTH;
use crate::deposit::Deposit;
use crate::embed::Embedder;
use crate::mirror::Kind;
use crate::mirror::MirrorEntry;
use crate::mirror::Position;
use crate::mirror::Stop;

/// No page.
const NONE: u64 = PageListEntry::new().with_invalid(true).into_bits();

// What is noted of an entry of the list, in the bits of a page's address that are 0, once the leaf has run.
/// The page is not used, and the module has not seen it.
const UNTOUCHED: u64 = 1;
/// The page is not used any more, and has to be written back.
const TOUCHED: u64 = 2;
/// The leaf has carried the entry out.
const DONE: u64 = 4;

impl<E: Embedder> Import<'_, E> {
    /// Imports a bundle with memory.
    pub(super) fn receive_memory(
        &self,
        stream: &Stream<'_, E>,
        bundle: &impl Arrival,
    ) -> Result<Received, Error> {
        let td = self.td;
        let entries = match u16::try_from(bundle.len()) {
            Ok(entries) if entries > 0 && bundle.len() <= stream.capacity() => entries,
            _ => return Err(Error::BadBundle),
        };
        stream.set_mbmd(&bundle.mbmd());
        for buffer in stream.buffers() {
            buffer.store(NONE, Ordering::Relaxed);
        }
        let prepared = td
            .load(stream, entries, bundle)
            .and_then(|()| td.link_tables(stream, entries));
        if let Err(error) = prepared {
            td.return_all(stream, entries);
            return Err(error);
        }
        let listed = match td.import_list(stream, entries) {
            Ok(listed) => listed,
            Err(error) => {
                td.return_all(stream, entries);
                return Err(error);
            }
        };
        let pages = td.settle(stream, entries);
        self.checked(listed.result)?;
        Ok(Received::Memory {
            pages,
            skipped: u64::from(entries) - pages,
        })
    }
}

/// Whether the entry brings a page that the TD does not have.
fn is_new(entry: GpaListEntry) -> bool {
    entry.operation() == GpaListOperation::MIGRATE
}

impl<E: Embedder> Td<E> {
    /// Puts the bundle into the stream's lists and into pages: those of the TD's backing if they are new, which the
    /// module then takes as they are, the stream's own otherwise.
    fn load(
        &self,
        stream: &Stream<'_, E>,
        entries: u16,
        bundle: &impl Arrival,
    ) -> Result<(), Error> {
        for index in 0..entries {
            put(stream, index, 0, MirrorEntry::EMPTY);
        }
        for index in 0..entries {
            let slot = usize::from(index);
            let entry = GpaListEntry::from_bits(bundle.entry(slot));
            let gpa = entry.gpa();
            let beyond = self.mirror.tree().end().min(self.config.shared_bit.mask());
            if entry.operation() != GpaListOperation::NOP && gpa.bits() >= beyond {
                return Err(Error::BadAddress(gpa.bits()));
            }
            stream.set_mac(slot, bundle.mac(slot));
            let page = if is_new(entry) && self.lacks(gpa) {
                let page = self
                    .embedder
                    .private_page(gpa, LEVEL)
                    .ok_or(Error::OutOfPages)?;
                if page.level() != LEVEL {
                    self.embedder.take_back(gpa, page);
                    return Err(Error::BadAddress(gpa.bits()));
                }
                if let Err(error) = self.admit(page.hpa()) {
                    self.embedder.take_back(gpa, page);
                    return Err(error);
                }
                page.into_hpa()
            } else if entry.operation() != GpaListOperation::CANCEL
                && entry.operation() != GpaListOperation::NOP
                && !entry.pending()
            {
                // Of a page that is there already the module takes the content, or nothing.
                Hpa::new(stream.pool()[slot].load(Ordering::Relaxed))
            } else {
                put(stream, index, entry.into_bits(), MirrorEntry::EMPTY);
                continue;
            };
            stream.buffers()[slot].store(page.bits(), Ordering::Relaxed);
            put(stream, index, entry.into_bits(), MirrorEntry::EMPTY);
            if !entry.pending() {
                bundle.load(slot, page);
            }
        }
        Ok(())
    }

    /// Whether nothing is mapped at `gpa`.
    fn lacks(&self, gpa: PrivateGpa) -> bool {
        matches!(
            self.mirror.look(&self.embedder, gpa).entry.kind(),
            Kind::Empty | Kind::Table(_) | Kind::Frozen
        )
    }

    /// Links the tables that new pages need.
    fn link_tables(&self, stream: &Stream<'_, E>, entries: u16) -> Result<(), Error> {
        let external = self.external();
        let mut deposit = Deposit::new(&self.embedder);
        for index in 0..entries {
            let (entry, _) = get(stream, index);
            while is_new(entry) {
                let linked = self.mirror.section(&self.embedder).link(
                    &external,
                    entry.gpa(),
                    LEVEL,
                    &mut deposit,
                );
                match linked {
                    Ok(()) => break,
                    Err(Stop::NeedTables) => deposit.top_up(DEPTH)?,
                    Err(Stop::Retry) => self.embedder.pause(),
                    Err(stop) if external.pairs.answer(&stop)? => {}
                    Err(stop) => return Err(stopped(stop)),
                }
            }
        }
        Ok(())
    }

    /// Claims the entries of the list, calls TDH.IMPORT.MEM, and publishes what became of each.
    fn import_list(&self, stream: &Stream<'_, E>, entries: u16) -> Result<Listed, Error> {
        for _ in 0..ATTEMPTS {
            let mut section = self.mirror.section(&self.embedder);
            let mut claimed = 0;
            let mut stuck = None;
            while claimed < entries {
                let (entry, _) = get(stream, claimed);
                if entry.operation() != GpaListOperation::NOP {
                    match claim_any(&mut section, entry.gpa()) {
                        Ok(Some(old)) => put(stream, claimed, entry.into_bits(), old),
                        Ok(None) => break,
                        Err(at) => {
                            stuck = Some(at);
                            break;
                        }
                    }
                }
                claimed += 1;
            }
            if claimed == entries {
                let listed = self.memory().import_mem(stream, entries);
                for index in 0..entries {
                    if let Some((gpa, now)) = outcome(stream, index, &listed) {
                        section.publish(gpa, now);
                    }
                }
                return Ok(listed);
            }
            for index in 0..claimed {
                let (entry, old) = get(stream, index);
                if entry.operation() != GpaListOperation::NOP {
                    section.publish(entry.gpa(), old);
                }
            }
            drop(section);
            if let Some(at) = stuck {
                return Err(stopped(Stop::Found(at)));
            }
            self.embedder.pause();
        }
        let (entry, _) = get(stream, 0);
        Err(Error::Unexpected(Position {
            gpa: entry.gpa(),
            level: LEVEL,
            entry: MirrorEntry::FROZEN,
        }))
    }

    /// Gives back the pages that are not the TD's after the leaf has run; counts the entries that were carried out.
    ///
    /// A page that cannot be written back is in quarantine then. That is no error here: the bundle is imported, and
    /// cannot be imported again.
    fn settle(&self, stream: &Stream<'_, E>, entries: u16) -> u64 {
        let mut pages = 0;
        for index in 0..entries {
            let (entry, note) = get(stream, index);
            let flags = note.bits() & (Level::Pt.size() - 1);
            let page = Page::assume_owned(note.address(), LEVEL);
            match (flags & (UNTOUCHED | TOUCHED), page) {
                (UNTOUCHED, Some(page)) => self.return_page(entry.gpa(), page),
                (TOUCHED, Some(page)) => {
                    let _quarantined = self.give_back(entry.gpa(), page);
                }
                _ => {}
            }
            pages += u64::from(flags & DONE != 0);
        }
        pages
    }

    /// Gives back all new pages: the leaf was not called.
    fn return_all(&self, stream: &Stream<'_, E>, entries: u16) {
        for index in 0..entries {
            let (entry, _) = get(stream, index);
            if let Some(page) = backing_page(stream, index)
                && let Some(page) = Page::assume_owned(page, LEVEL)
            {
                self.return_page(entry.gpa(), page);
            }
        }
    }

    /// Gives a page back that the module has not got. A PAMT page pair that stays with the module serves the next page
    /// of its range.
    fn return_page(&self, gpa: PrivateGpa, page: Page) {
        let _kept = self.dismiss(page.hpa(), LEVEL);
        self.embedder.scrub(&page);
        self.embedder.take_back(gpa, page);
    }
}

/// The page of the TD's backing that is in slot `index`: not one of the stream's own.
fn backing_page<E: Embedder>(stream: &Stream<'_, E>, index: u16) -> Option<Hpa> {
    let slot = usize::from(index);
    let buffer = stream.buffers()[slot].load(Ordering::Relaxed);
    let entry = PageListEntry::from_bits(buffer);
    (!entry.invalid() && buffer != stream.pool()[slot].load(Ordering::Relaxed)).then(|| entry.hpa())
}

/// What the mirror says of entry `index` from now on, if it was claimed; what is to be done with pages is noted in the
/// place of what the mirror said before.
fn outcome<E: Embedder>(
    stream: &Stream<'_, E>,
    index: u16,
    listed: &Listed,
) -> Option<(PrivateGpa, MirrorEntry)> {
    let (asked, old) = get(stream, index);
    let slot = usize::from(index);
    let success = index < listed.processed && succeeded(stream, index);
    let (now, note) = match (asked.operation(), success, backing_page(stream, index)) {
        (GpaListOperation::NOP, ..) => (None, 0),
        (GpaListOperation::MIGRATE, true, Some(page)) => (Some(MirrorEntry::leaf(page)), DONE),
        // The module has taken as new what it has: what it has is not known.
        (GpaListOperation::MIGRATE, true, None) => (Some(old.poisoned()), 0),
        (GpaListOperation::MIGRATE, false, Some(page)) => {
            // The page of the entry at which the leaf failed may have been written.
            let touched = index <= listed.processed;
            let flag = if touched { TOUCHED } else { UNTOUCHED };
            (Some(old), page.bits() | flag)
        }
        (GpaListOperation::CANCEL, true, _) => (
            Some(MirrorEntry::EMPTY),
            old.address().bits() | TOUCHED | DONE,
        ),
        (_, true, _) => (Some(old), DONE),
        (_, false, _) => (Some(old), 0),
    };
    stream.old()[slot].store(note, Ordering::Relaxed);
    now.map(|now| (asked.gpa(), now))
}
