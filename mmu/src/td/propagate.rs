//! Changes of the mirror as SEAMCALLs on the Secure-EPT.

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::PrivateGpa;

use super::Error;
use super::l2::L2;
use super::leaves::L2Operands;
use super::leaves::Memory;
use super::leaves::NO_PAGES;
use super::pamt::Pairs;
use crate::embed::Embedder;
use crate::mirror::ExportState;
use crate::mirror::External;
use crate::mirror::Kind;
use crate::mirror::MirrorEntry;
use crate::mirror::Position;
use crate::mirror::SetError;
use crate::mirror::Stop;
use crate::mirror::external_page;

/// The Secure-EPT of a TD that has its key.
pub(crate) struct Propagate<'e, E: Embedder> {
    pub(crate) memory: Memory<'e, E>,
    /// Where the content of a new leaf comes from: PAGE.ADD instead of PAGE.AUG.
    pub(crate) source: Option<Hpa>,
    /// For ranges whose first 4 KiB page is given to the module.
    pub(crate) pairs: Pairs<'e, E>,
    /// For tables of L2 VMs.
    pub(crate) l2: L2<'e, E>,
}

impl<E: Embedder> Propagate<'_, E> {
    /// What `stop` asks for is got ready; `false` if it asks for something else. To be called outside of sections.
    pub(crate) fn answer(&self, stop: &Stop<Error>) -> Result<bool, Error> {
        match self.l2 {
            L2::Prepared(l2) if l2.answer(stop)? => Ok(true),
            _ => self.pairs.answer(stop),
        }
    }

    /// Makes `call`, which splits the page of an entry into those of `table`.
    fn split(
        &self,
        table: Hpa,
        call: impl FnOnce(L2Operands) -> Result<L2Operands, Error>,
    ) -> Result<(), SetError<Error>> {
        match self.l2 {
            L2::Absent => call(NO_PAGES).map(drop).map_err(SetError::Unchanged),
            L2::Unprepared => Err(SetError::Unchanged(Error::NoL2Page)),
            L2::Prepared(l2) => l2.split(table, call),
        }
    }

    /// Makes a call of `leaf`, which takes `table` out of the Secure-EPT: `alone`, or `with_l2` where L2 VMs may have
    /// tables beside it.
    fn take_table(
        &self,
        leaf: &'static str,
        at: Position,
        table: Hpa,
        alone: impl FnOnce() -> Result<Hpa, Error>,
        with_l2: impl FnOnce() -> Result<(Hpa, L2Operands), Error>,
    ) -> Result<(), SetError<Error>> {
        let expected = external_page(self.memory.embedder, table);
        match self.l2 {
            L2::Absent => returned(leaf, expected, alone()),
            L2::Unprepared => Err(SetError::Unchanged(Error::NoL2Page)),
            L2::Prepared(l2) => {
                l2.check(at, table)?;
                let (page, pages) = with_l2().map_err(SetError::Unchanged)?;
                returned(leaf, expected, Ok(page))?;
                l2.take_over(leaf, table, pages)
            }
        }
    }
}

impl<E: Embedder> External for Propagate<'_, E> {
    type Error = Error;

    #[inline]
    fn set(
        &self,
        gpa: PrivateGpa,
        level: Level,
        old: MirrorEntry,
        new: MirrorEntry,
    ) -> Result<(), SetError<Error>> {
        let (memory, pairs) = (&self.memory, &self.pairs);
        let external = |table| external_page(memory.embedder, table);
        let at = Position {
            gpa,
            level,
            entry: old,
        };
        let entry = || memory.tracked(gpa, level);
        let unblock = || memory.range_unblock(entry()?);
        let done = match (old.kind(), new.kind()) {
            (Kind::Empty, Kind::Leaf(page)) => match (self.source, level) {
                (Some(source), _) => pairs.with(page, || memory.page_add(gpa, page, source)),
                (None, Level::Pt) => pairs.with(page, || memory.page_aug(gpa, level, page)),
                (None, _) => pairs
                    .collect(page)
                    .and_then(|()| memory.page_aug(gpa, level, page)),
            },
            (Kind::Empty, Kind::Table(table)) => {
                let table = external(table);
                pairs.with(table, || memory.sept_add(gpa, level, table))
            }
            (Kind::Leaf(_), Kind::BlockedLeaf(_)) | (Kind::Table(_), Kind::BlockedTable(_)) => {
                memory.range_block(gpa, level)
            }
            (Kind::BlockedLeaf(_), Kind::Leaf(page)) if page == old.address() => unblock(),
            (Kind::BlockedTable(_), Kind::Table(_)) => unblock(),
            (Kind::ExportLeaf(_, ExportState::WriteBlocked), Kind::BlockedLeaf(_)) => {
                memory.range_block(gpa, level)
            }
            (Kind::ExportLeaf(page, ExportState::WriteBlocked), Kind::Leaf(same))
            | (Kind::ExportLeaf(page, _), Kind::ExportLeaf(same, ExportState::Dirty))
                if page == same =>
            {
                memory.export_unblockw(gpa)
            }
            (
                Kind::Leaf(page)
                | Kind::BlockedLeaf(page)
                | Kind::ExportLeaf(page, ExportState::WriteBlocked),
                Kind::Empty,
            ) => {
                return returned(
                    "TDH.MEM.PAGE.REMOVE",
                    page,
                    entry().and_then(|entry| memory.page_remove(entry)),
                );
            }
            (Kind::Leaf(page) | Kind::BlockedLeaf(page), Kind::Leaf(target)) => {
                return returned(
                    "TDH.MEM.PAGE.RELOCATE",
                    page,
                    pairs.with(target, || {
                        memory.page_relocate(memory.tracked_at(gpa)?, target)
                    }),
                );
            }
            (Kind::Leaf(page) | Kind::BlockedLeaf(page), Kind::Table(table)) => {
                let page_of_table = external(table);
                return self.split(table, |l2| {
                    pairs.with(page_of_table, || {
                        pairs.split(page, |pair| {
                            memory.page_demote(entry()?, page_of_table, pair, l2)
                        })
                    })
                });
            }
            (Kind::Table(table) | Kind::BlockedTable(table), Kind::Leaf(page))
                if level == Level::Pd =>
            {
                return self.take_table(
                    "TDH.MEM.PAGE.PROMOTE",
                    at,
                    table,
                    || {
                        pairs.promote(page, |dynamic_pamt| {
                            memory.page_promote(memory.tracked_at(gpa)?, dynamic_pamt)
                        })
                    },
                    || {
                        pairs.promote(page, |dynamic_pamt| {
                            memory.page_promote_l2(memory.tracked_at(gpa)?, dynamic_pamt)
                        })
                    },
                );
            }
            (Kind::Table(table) | Kind::BlockedTable(table), Kind::Empty) => {
                return self.take_table(
                    "TDH.MEM.SEPT.REMOVE",
                    at,
                    table,
                    || memory.sept_remove(entry()?),
                    || memory.sept_remove_l2(entry()?),
                );
            }
            _ => Err(Error::Unexpected(at)),
        };
        done.map_err(SetError::Unchanged)
    }
}

/// Checks that the module gave back the page that the mirror has.
fn returned(
    leaf: &'static str,
    expected: Hpa,
    answer: Result<Hpa, Error>,
) -> Result<(), SetError<Error>> {
    match answer {
        Ok(page) if page == expected => Ok(()),
        Ok(returned) => Err(SetError::Unknown(Error::WrongPage {
            leaf,
            expected,
            returned,
        })),
        Err(error) => Err(SetError::Unchanged(error)),
    }
}
