//! EPT violations.

use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_abi::Split;

use super::Access;
use super::AccessKind;
use super::Error;
use super::Resolution;
use super::Td;
use crate::attributes::Visibility;
use crate::deposit::DEPTH;
use crate::deposit::Deposit;
use crate::deposit::Pair;
use crate::embed::Embedder;
use crate::mirror::Kind;
use crate::mirror::MirrorEntry;
use crate::mirror::Position;
use crate::mirror::Stop;

/// How often a fault looks again at an entry that stays frozen or blocked.
pub(super) const LOCAL_RETRIES: u32 = 1 << 12;

/// What the mirror asks a fault to do.
enum Plan {
    /// Map a page of at most this level.
    Map(Level),
    /// Nothing more.
    Done(Resolution),
    /// Split the large leaf here.
    Split,
    /// Let the guest write to the page again that an export has blocked for writing.
    AllowWrites,
    /// Look again.
    Retry,
}

impl<E: Embedder> Td<E> {
    /// Resolves the EPT violation that `access` ended in.
    ///
    /// Retries by itself where the entry is being changed: entering the guest again only to fault again
    /// counts towards the module's zero-step filter. Runs on any number of threads at once.
    pub fn fault(&self, access: Access) -> Result<Resolution, Error> {
        match self.config.shared_bit.split(access.gpa) {
            Split::Private(gpa) => self.fault_private(gpa, access.kind),
            Split::Shared(gpa) => self.fault_shared(gpa, access.kind),
        }
    }

    fn fault_private(&self, gpa: PrivateGpa, kind: AccessKind) -> Result<Resolution, Error> {
        if let AccessKind::Alias { vm } = kind {
            return self.fault_alias(gpa, vm);
        }
        let mut deposit = Deposit::new(&self.embedder);
        for _ in 0..LOCAL_RETRIES {
            let sequence = self.sequence();
            let (visibility, uniform) = self.visibility.look(&self.embedder, gpa.bits());
            if visibility == Visibility::Shared {
                return Ok(Resolution::MemoryFault {
                    gpa: gpa.bits(),
                    private: true,
                });
            }
            let largest = match self.plan(gpa, kind)? {
                Plan::Done(resolution) => return Ok(resolution),
                Plan::Split => return self.split(gpa).map(|()| Resolution::Split),
                Plan::AllowWrites => {
                    if self.allow_writes(gpa)? {
                        return Ok(Resolution::WriteAllowed);
                    }
                    self.embedder.pause();
                    continue;
                }
                Plan::Retry => {
                    self.embedder.pause();
                    continue;
                }
                Plan::Map(level) => level.min(uniform),
            };
            let Some(page) = self.embedder.private_page(gpa, largest) else {
                return Ok(Resolution::NoMemory {
                    gpa: gpa.bits(),
                    private: true,
                });
            };
            let leaf = match kind {
                AccessKind::Accept(_) => MirrorEntry::leaf(page.hpa()).accepted(),
                _ => MirrorEntry::leaf(page.hpa()),
            };
            if let Some(resolution) =
                self.map_fault(gpa, largest, (page, leaf), sequence, &mut deposit)?
            {
                self.notice(gpa);
                return Ok(resolution);
            }
        }
        Ok(Resolution::Retry)
    }

    /// What to do about an access to `gpa`, by what the mirror says.
    fn plan(&self, gpa: PrivateGpa, kind: AccessKind) -> Result<Plan, Error> {
        let at = self.mirror.look(&self.embedder, gpa);
        let asked = kind.level();
        let wanted = asked.unwrap_or(Self::LARGEST_PRIVATE);
        Ok(match at.entry.kind() {
            // The violation of a 4 KiB ACCEPT under a pending 2 MiB leaf would repeat for ever.
            Kind::Leaf(_) if at.level > wanted => Plan::Split,
            Kind::Leaf(_) if asked.is_some_and(|level| at.level < level) => {
                Plan::Done(Resolution::SizeMismatch { mapped: at.level })
            }
            Kind::Leaf(_) => Plan::Done(Resolution::Spurious(at.level)),
            Kind::Empty if asked.is_some_and(|level| at.level < level) => {
                Plan::Done(Resolution::SizeMismatch { mapped: at.level })
            }
            Kind::Empty if self.awaits_import() && asked.is_none() => {
                Plan::Done(Resolution::Awaited { gpa: gpa.bits() })
            }
            Kind::Empty => Plan::Map(wanted.min(at.level).min(self.largest_private())),
            Kind::ExportLeaf(..) if asked.is_some_and(|level| at.level < level) => {
                Plan::Done(Resolution::SizeMismatch { mapped: at.level })
            }
            Kind::ExportLeaf(_, state)
                if state.is_write_blocked() && (kind == AccessKind::Write || asked.is_some()) =>
            {
                Plan::AllowWrites
            }
            Kind::ExportLeaf(..) => Plan::Done(Resolution::Spurious(at.level)),
            Kind::Poisoned(_) => return Err(Error::Poisoned(at)),
            Kind::Frozen | Kind::BlockedLeaf(_) | Kind::BlockedTable(_) | Kind::Table(_) => {
                Plan::Retry
            }
        })
    }

    /// Maps `page` by `leaf` for a fault at `gpa`; `None` asks to start over.
    fn map_fault(
        &self,
        gpa: PrivateGpa,
        largest: Level,
        (page, leaf): (Page, MirrorEntry),
        sequence: u64,
        deposit: &mut Deposit<'_, E, Pair>,
    ) -> Result<Option<Resolution>, Error> {
        let level = page.level();
        if level > largest {
            self.embedder.take_back(gpa, page);
            return Err(Error::BadAddress(gpa.bits()));
        }
        let external = self.external();
        let stop = loop {
            let mut section = self.mirror.section(&self.embedder);
            if self.sequence() != sequence {
                break Stop::Retry;
            }
            let stop =
                match section.map_leaf(&external, gpa.align_down(level), leaf, level, deposit) {
                    Ok(()) => {
                        let _ = page.into_hpa();
                        return Ok(Some(Resolution::Mapped(level)));
                    }
                    Err(stop) => stop,
                };
            drop(section);
            match stop {
                Stop::NeedTables if deposit.top_up(DEPTH).is_ok() => {}
                stop => match external.pairs.answer(&stop) {
                    Ok(true) => {}
                    Ok(false) => break stop,
                    Err(error) => break Stop::Refused(error),
                },
            }
        };
        self.embedder.take_back(gpa, page);
        match stop {
            // Somebody else was here first, or the range is being invalidated.
            Stop::Retry => Ok(None),
            Stop::Found(Position { entry, .. }) if !matches!(entry.kind(), Kind::Poisoned(_)) => {
                Ok(None)
            }
            stop => Err(super::invalidate::stopped(stop)),
        }
    }
}
