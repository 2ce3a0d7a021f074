//! Pages for the tables of L2 VMs, around the calls that take or return them.

use core::cell::Cell;
use core::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::format::SeptPageOrNone;

use super::super::Error;
use super::super::Td;
use super::super::leaves::L2Operands;
use super::super::leaves::Memory;
use super::super::leaves::NO_PAGE;
use super::super::leaves::NO_PAGES;
use crate::Word;
use crate::embed::Embedder;
use crate::l2::Link;
use crate::l2::MAX_L2_VMS;
use crate::mirror::MirrorEntry;
use crate::mirror::Position;
use crate::mirror::SetError;
use crate::mirror::Stop;

/// One page for each L2 VM, or none.
type PerVm = [Cell<Option<Page>>; MAX_L2_VMS];

/// What [`super::super::propagate::Propagate`] has for the tables of L2 VMs.
pub(crate) enum L2<'e, E: Embedder> {
    /// The TD has no L2 VMs.
    Absent,
    /// The operation takes and returns no tables.
    Unprepared,
    /// Pages for those that it takes, and room for those that it returns.
    Prepared(&'e L2Pages<'e, E>),
}

/// Pages held ready for one operation, and those that have come back; all of them are given back outside of sections
/// by [`L2Pages::settle`], or when dropped.
pub(crate) struct L2Pages<'e, E: Embedder> {
    td: &'e Td<E>,
    /// Counted for Dynamic PAMT already.
    held: PerVm,
    /// Whether the module may have begun to write to those.
    touched: Cell<bool>,
    back: PerVm,
}

impl<'e, E: Embedder> L2Pages<'e, E> {
    pub(crate) const fn new(td: &'e Td<E>) -> Self {
        Self {
            td,
            held: [const { Cell::new(None) }; MAX_L2_VMS],
            touched: Cell::new(false),
            back: [const { Cell::new(None) }; MAX_L2_VMS],
        }
    }

    /// Gets a page for each L2 VM ready. To be called outside of sections.
    fn top_up(&self) -> Result<(), Error> {
        let embedder = &self.td.embedder;
        for place in self.held.iter().take(self.td.l2_vms()) {
            let page = match place.take() {
                Some(page) => page,
                None => {
                    let page = embedder.allocate_module_page().ok_or(Error::OutOfPages)?;
                    if let Err(error) = self.td.admit(page.hpa()) {
                        embedder.free_module_page(page);
                        return Err(error);
                    }
                    page
                }
            };
            place.set(Some(page));
        }
        Ok(())
    }

    /// What `stop` asks for is got ready; `false` if it asks for something else.
    pub(crate) fn answer(&self, stop: &Stop<Error>) -> Result<bool, Error> {
        match stop {
            Stop::Refused(Error::NoL2Page) => self.top_up().map(|()| true),
            _ => Ok(false),
        }
    }

    /// Gives back the pages that have come back and those that are not used. To be called outside of sections.
    pub(crate) fn settle(&self) -> Result<(), Error> {
        let mut result = Ok(());
        for page in self.back.iter().filter_map(Cell::take) {
            result = result.and(self.td.give_back_external(page));
        }
        for page in self.held.iter().filter_map(Cell::take) {
            result = result.and(self.td.dismiss(page.hpa(), Level::Pt));
            if self.touched.get() {
                self.td.give_back_touched(page);
            } else {
                self.td.embedder.free_module_page(page);
            }
        }
        result
    }

    /// Adds the table of the L2 VM number `index` + 1 beside `table`, which is the one behind the entry at `at`.
    /// Returns whether it was missing.
    ///
    /// The word beside the table is claimed, the module called once, and the page or nothing published. The entry
    /// itself stays as it is: whoever takes the table out of the tree does that, or blocks it, in an exclusive section.
    pub(super) fn link(
        &self,
        memory: &Memory<'_, E>,
        at: Position,
        table: Hpa,
        index: usize,
    ) -> Result<bool, Stop<Error>> {
        let links = self.td.embedder.l2_links(table);
        let link = links
            .and_then(|links| links.get(index))
            .ok_or(Stop::Refused(Error::NoL2Links))?;
        match Link::from_bits(link.load(Ordering::Acquire)) {
            Link::Absent => {}
            Link::Changing => return Err(Stop::Retry),
            Link::Page(_) => return Ok(false),
            Link::Poisoned(page) => return Err(Stop::Found(poisoned(at, page))),
        }
        let page = self.held.iter().find_map(Cell::take);
        let page = page.ok_or(Stop::Refused(Error::NoL2Page))?;
        if link
            .replace(Link::Absent.bits(), Link::Changing.bits())
            .is_err()
        {
            self.put_back(page);
            return Err(Stop::Retry);
        }
        let mut operands = NO_PAGES;
        operands[index] = SeptPageOrNone::new().with_hpa(page.hpa());
        let (now, result) = match memory.sept_add_l2(at.gpa, at.level, operands) {
            Ok(left) if left == NO_PAGES => (Link::Page(page.into_hpa()), Ok(true)),
            Ok(left) => {
                let expected = page.into_hpa();
                let error = Error::WrongPage {
                    leaf: "TDH.MEM.SEPT.ADD",
                    expected,
                    returned: left[index].hpa(),
                };
                (Link::Poisoned(expected), Err(Stop::Poisoned(error)))
            }
            Err(error) => {
                self.put_back(page);
                (Link::Absent, Err(Stop::Refused(error)))
            }
        };
        link.store(now.bits(), Ordering::Release);
        result
    }

    fn put_back(&self, page: Page) {
        let mut page = Some(page);
        for place in &self.held {
            let held = place.take();
            place.set(held.or_else(|| page.take()));
        }
    }

    /// Makes `demote`, which splits a page into those of `table`, with a page for each L2 VM, and notes which of them
    /// the module has used.
    pub(crate) fn split(
        &self,
        table: Hpa,
        demote: impl FnOnce(L2Operands) -> Result<L2Operands, Error>,
    ) -> Result<(), SetError<Error>> {
        // Without words no L2 VM has been given a table, and so the page has no alias.
        let Some(links) = self.td.embedder.l2_links(table) else {
            return demote(NO_PAGES).map(drop).map_err(SetError::Unchanged);
        };
        let mut operands = NO_PAGES;
        let places = self.held.iter().take(self.td.l2_vms());
        for (place, operand) in places.clone().zip(&mut operands) {
            let page = place.take();
            let hpa = page.as_ref().map(Page::hpa);
            place.set(page);
            let hpa = hpa.ok_or(SetError::Unchanged(Error::NoL2Page))?;
            *operand = SeptPageOrNone::new().with_hpa(hpa);
        }
        self.touched.set(true);
        let left = demote(operands).map_err(SetError::Unchanged)?;
        self.touched.set(false);
        let mut result = Ok(());
        for ((place, link), (given, left)) in places.zip(links).zip(operands.into_iter().zip(left))
        {
            if left == given.with_not_used(true) {
                continue;
            }
            // Used, or better leaked than handed out while the module may use it.
            let _ = place.take().map(Page::into_hpa);
            link.store(Link::Page(given.hpa()).bits(), Ordering::Relaxed);
            if left != given {
                result = Err(SetError::Unknown(Error::WrongPage {
                    leaf: "TDH.MEM.PAGE.DEMOTE",
                    expected: given.hpa(),
                    returned: left.hpa(),
                }));
            }
        }
        result
    }

    /// Refuses to touch `table` if it is not known which tables of L2 VMs there are beside it.
    pub(crate) fn check(&self, at: Position, table: Hpa) -> Result<(), SetError<Error>> {
        for link in self.td.embedder.l2_links(table).into_iter().flatten() {
            if let Link::Poisoned(page) = Link::from_bits(link.load(Ordering::Acquire)) {
                return Err(SetError::Unchanged(Error::Poisoned(poisoned(at, page))));
            }
        }
        Ok(())
    }

    /// Takes over the `pages` that `leaf` has taken out of the Secure-EPTs of L2 VMs together with `table`.
    pub(crate) fn take_over(
        &self,
        leaf: &'static str,
        table: Hpa,
        pages: L2Operands,
    ) -> Result<(), SetError<Error>> {
        let links = self.td.embedder.l2_links(table);
        let links = links.into_iter().flatten();
        for ((link, place), page) in links.zip(&self.back).zip(pages) {
            let expected = match Link::from_bits(link.load(Ordering::Acquire)) {
                Link::Page(page) => Some(page),
                _ => None,
            };
            let returned = (page != NO_PAGE).then(|| page.hpa());
            if expected != returned {
                return Err(SetError::Unknown(Error::WrongPage {
                    leaf,
                    expected: expected.unwrap_or_default(),
                    returned: returned.unwrap_or_default(),
                }));
            }
            link.store(Link::Absent.bits(), Ordering::Relaxed);
            place.set(returned.and_then(|page| Page::assume_owned(page, Level::Pt)));
        }
        Ok(())
    }
}

impl<E: Embedder> Drop for L2Pages<'_, E> {
    fn drop(&mut self) {
        // After a failure, which is what is reported; a pair of PAMT pages may be left idle.
        let _ = self.settle();
    }
}

/// What [`Error::Poisoned`] says of the page of an L2 VM.
fn poisoned(at: Position, page: Hpa) -> Position {
    Position {
        entry: MirrorEntry::table(page).poisoned(),
        ..at
    }
}
