//! Changes of the mirror as SEAMCALLs on the Secure-EPT.

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::PrivateGpa;

use super::Error;
use super::leaves::Memory;
use super::pamt::Pairs;
use crate::embed::Clean;
use crate::embed::Frames;
use crate::embed::Relax;
use crate::embed::Tables;
use crate::mirror::ExportState;
use crate::mirror::External;
use crate::mirror::Kind;
use crate::mirror::MirrorEntry;
use crate::mirror::Position;
use crate::mirror::SetError;
use crate::mirror::external_page;
use crate::platform::Executor;

/// The Secure-EPT of a TD that has its key.
pub(crate) struct Propagate<'e, E: Frames + Clean> {
    pub(crate) memory: Memory<'e, E>,
    /// Where the content of a new leaf comes from: PAGE.ADD instead of PAGE.AUG.
    pub(crate) source: Option<Hpa>,
    /// For ranges whose first 4 KiB page is given to the module.
    pub(crate) pairs: Pairs<'e, E>,
}

impl<E: Executor + Relax + Tables + Frames + Clean> External for Propagate<'_, E> {
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
                        memory.page_relocate(memory.tracked_page(gpa)?, target)
                    }),
                );
            }
            (Kind::Leaf(page) | Kind::BlockedLeaf(page), Kind::Table(table)) => {
                let table = external(table);
                pairs.with(table, || {
                    pairs.split(page, |pair| memory.page_demote(entry()?, table, pair))
                })
            }
            (Kind::Table(table) | Kind::BlockedTable(table), Kind::Leaf(page)) => {
                return returned(
                    "TDH.MEM.PAGE.PROMOTE",
                    external(table),
                    entry()
                        .and_then(|entry| memory.page_promote(entry))
                        .inspect(|(_, pair)| pairs.promoted(page, *pair))
                        .map(|(page, _)| page),
                );
            }
            (Kind::Table(table) | Kind::BlockedTable(table), Kind::Empty) => {
                return returned(
                    "TDH.MEM.SEPT.REMOVE",
                    external(table),
                    entry().and_then(|entry| memory.sept_remove(entry)),
                );
            }
            _ => Err(Error::Unexpected(Position {
                gpa,
                level,
                entry: old,
            })),
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
