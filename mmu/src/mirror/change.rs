use core::sync::atomic::Ordering;

use tdx_abi::Level;
use tdx_abi::PrivateGpa;

use super::External;
use super::Kind;
use super::MirrorEntry;
use super::Mode;
use super::SetError;
use crate::Word;

/// Why a change did not happen. Mirror and Secure-EPT are equal, but for [`Stop::Poisoned`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop<E> {
    /// Somebody else is changing the entry: look again.
    Retry,
    /// A table is missing and the deposit is empty.
    NeedTables,
    /// The entry says something that the change does not start from.
    Found(Position),
    /// The backend refused; the entry is what it was.
    Refused(E),
    /// The backend answered what cannot be; the entry is poisoned now.
    Poisoned(E),
}

/// An entry of the mirror and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// First address that the entry covers.
    pub gpa: PrivateGpa,
    /// Its level.
    pub level: Level,
    /// What it said.
    pub entry: MirrorEntry,
}

impl Position {
    pub(super) const fn new(address: u64, level: Level, bits: u64) -> Self {
        Self {
            gpa: PrivateGpa::new(address).align_down(level),
            level,
            entry: MirrorEntry::from_bits(bits),
        }
    }

    /// First address behind the entry.
    pub const fn end(&self) -> u64 {
        self.gpa.bits().saturating_add(self.level.size())
    }
}

/// Changes the entry at `at`, which starts from `at.entry`, to `new`.
///
/// The section claims the entry (by freezing it, if others may be about), the backend is called once,
/// and one release store publishes the new value, or the old one if the backend refused.
#[inline(always)]
pub(super) fn change<M: Mode<W>, W: Word, X: External>(
    external: &X,
    entry: &W,
    at: Position,
    new: MirrorEntry,
) -> Result<(), Stop<X::Error>> {
    match M::claim(entry, at.entry.bits()) {
        Ok(()) => change_claimed(external, entry, at, new),
        Err(seen) => Err(found_instead(at, seen)),
    }
}

/// As [`change`], where the section has just read `at.entry` from `entry`.
#[inline(always)]
pub(super) fn change_seen<M: Mode<W>, W: Word, X: External>(
    external: &X,
    entry: &W,
    at: Position,
    new: MirrorEntry,
) -> Result<(), Stop<X::Error>> {
    match M::claim_seen(entry, at.entry.bits()) {
        Ok(()) => change_claimed(external, entry, at, new),
        Err(seen) => Err(found_instead(at, seen)),
    }
}

#[inline(always)]
fn change_claimed<W: Word, X: External>(
    external: &X,
    entry: &W,
    at: Position,
    new: MirrorEntry,
) -> Result<(), Stop<X::Error>> {
    let (now, result) = match external.set(at.gpa, at.level, at.entry, new) {
        Ok(()) => (new, Ok(())),
        Err(SetError::Unchanged(error)) => (at.entry, Err(Stop::Refused(error))),
        Err(SetError::Unknown(error)) => (
            last_known(at.entry, new).poisoned(),
            Err(Stop::Poisoned(error)),
        ),
    };
    entry.store(now.bits(), Ordering::Release);
    result
}

fn last_known(old: MirrorEntry, new: MirrorEntry) -> MirrorEntry {
    if old == MirrorEntry::EMPTY { new } else { old }
}

#[cold]
fn found_instead<E>(at: Position, seen: u64) -> Stop<E> {
    found(Position {
        entry: MirrorEntry::from_bits(seen),
        ..at
    })
}

/// Why a change cannot start from what is at `position`.
#[cold]
pub(super) fn found<E>(position: Position) -> Stop<E> {
    match position.entry.kind() {
        Kind::Frozen => Stop::Retry,
        _ => Stop::Found(position),
    }
}
