//! Changes of the mirror as SEAMCALLs on the Secure-EPT.

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::PrivateGpa;

use super::Error;
use super::leaves::Memory;
use crate::embed::Relax;
use crate::embed::Tables;
use crate::mirror::External;
use crate::mirror::Kind;
use crate::mirror::MirrorEntry;
use crate::mirror::Position;
use crate::mirror::SetError;
use crate::mirror::external_page;
use crate::platform::Executor;

/// The Secure-EPT of a TD that has its key.
pub(crate) struct Propagate<'e, E> {
    pub(crate) memory: Memory<'e, E>,
    /// Where the content of a new leaf comes from: PAGE.ADD instead of PAGE.AUG.
    pub(crate) source: Option<Hpa>,
}

impl<E: Executor + Relax + Tables> External for Propagate<'_, E> {
    type Error = Error;

    #[inline]
    fn set(
        &self,
        gpa: PrivateGpa,
        level: Level,
        old: MirrorEntry,
        new: MirrorEntry,
    ) -> Result<(), SetError<Error>> {
        let memory = &self.memory;
        let external = |table| external_page(memory.embedder, table);
        let entry = || memory.tracked(gpa, level);
        let unblock = || memory.range_unblock(entry()?);
        let done = match (old.kind(), new.kind()) {
            (Kind::Empty, Kind::Leaf(page)) => match self.source {
                None => memory.page_aug(gpa, level, page),
                Some(source) => memory.page_add(gpa, page, source),
            },
            (Kind::Empty, Kind::Table(table)) => memory.sept_add(gpa, level, external(table)),
            (Kind::Leaf(_), Kind::BlockedLeaf(_)) | (Kind::Table(_), Kind::BlockedTable(_)) => {
                memory.range_block(gpa, level)
            }
            (Kind::BlockedLeaf(_), Kind::Leaf(page)) if page == old.address() => unblock(),
            (Kind::BlockedTable(_), Kind::Table(_)) => unblock(),
            (Kind::Leaf(page) | Kind::BlockedLeaf(page), Kind::Empty) => {
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
                    memory
                        .tracked_page(gpa)
                        .and_then(|entry| memory.page_relocate(entry, target)),
                );
            }
            (Kind::Leaf(_) | Kind::BlockedLeaf(_), Kind::Table(table)) => {
                entry().and_then(|entry| memory.page_demote(entry, external(table)))
            }
            (Kind::Table(table) | Kind::BlockedTable(table), Kind::Leaf(_)) => {
                return returned(
                    "TDH.MEM.PAGE.PROMOTE",
                    external(table),
                    entry().and_then(|entry| memory.page_promote(entry)),
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
