//! The module's lock primitives: they never wait, a lock that is taken is an error of the call.
//!
//! Lock words are plain 16-bit (8-bit for a mutex) values in the module's structures, and can be read and
//! written as such. Source of the algorithms: `src/common/helpers/tdx_locks.h` of the TDX module.

use core::sync::atomic::Ordering;

use crate::abi::StatusCode;
use crate::sync::AtomicU64;

/// A 16-bit lock word within a quadword.
#[derive(Clone, Copy, Debug)]
pub struct LockWord<'a> {
    cell: &'a AtomicU64,
    shift: u32,
}

impl<'a> LockWord<'a> {
    /// The word at bits `shift + 15 : shift` of `cell`; `shift` is at most 48.
    pub const fn new(cell: &'a AtomicU64, shift: u32) -> Self {
        Self { cell, shift }
    }

    /// The raw word.
    #[inline]
    pub fn get(self) -> u16 {
        (self.cell.load(Ordering::Acquire) >> self.shift) as u16
    }

    /// Overwrites the raw word.
    pub fn set(self, value: u16) {
        self.update(|_| Some(value));
    }

    #[inline]
    fn update(self, next: impl Fn(u16) -> Option<u16>) -> u16 {
        let mut old = self.cell.load(Ordering::Relaxed);
        loop {
            let word = (old >> self.shift) as u16;
            let Some(new) = next(word) else { return word };
            let new = (old & !(0xffff << self.shift)) | (u64::from(new) << self.shift);
            match self
                .cell
                .compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return word,
                Err(seen) => old = seen,
            }
        }
    }

    #[inline]
    fn add(self, value: u16) -> u16 {
        self.update(|word| Some(word.wrapping_add(value)))
    }

    #[inline]
    fn exchange_if(self, expected: u16, new: u16) -> u16 {
        self.update(|word| (word == expected).then_some(new))
    }
}

/// How a lock is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Together with others.
    Shared,
    /// Alone.
    Exclusive,
}

/// Which side takes a lock that knows host priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// A SEAMCALL.
    Host,
    /// A TDCALL.
    Guest,
}

/// A shared-exclusive lock: bit 0 exclusive, bits 15:1 number of readers.
#[derive(Debug)]
#[must_use = "dropping releases the lock"]
pub(crate) struct Sharex<'a> {
    word: LockWord<'a>,
    mode: Mode,
}

const SHAREX_EXCLUSIVE: u16 = 1;
const SHAREX_READER: u16 = 2;

impl<'a> Sharex<'a> {
    /// Takes the lock, or `None` if it is held otherwise.
    ///
    /// As in the module a shared attempt that fails still leaves its reader counted.
    #[inline]
    pub(crate) fn acquire(word: LockWord<'a>, mode: Mode) -> Option<Self> {
        let free = match mode {
            Mode::Shared => word.add(SHAREX_READER) & SHAREX_EXCLUSIVE == 0,
            Mode::Exclusive => word.exchange_if(0, SHAREX_EXCLUSIVE) == 0,
        };
        // Lazily: a value made and dropped would release what it never held.
        free.then(|| Self { word, mode })
    }
}

impl Drop for Sharex<'_> {
    #[inline]
    fn drop(&mut self) {
        match self.mode {
            Mode::Shared => self.word.add(SHAREX_READER.wrapping_neg()),
            Mode::Exclusive => self.word.update(|_| Some(0)),
        };
    }
}

/// A shared-exclusive lock with host priority: bit 0 exclusive, bit 1 host priority, bits 15:2 number of readers.
#[derive(Debug)]
#[must_use = "dropping releases the lock"]
pub(crate) struct SharexHp<'a> {
    word: LockWord<'a>,
    mode: Mode,
}

const HP_EXCLUSIVE: u16 = 1;
const HP_HOST: u16 = 2;
const HP_READER: u16 = 4;

impl<'a> SharexHp<'a> {
    /// Takes the lock, or says `OPERAND_BUSY` or (to a guest) `OPERAND_BUSY_HOST_PRIORITY`.
    ///
    /// As in the module a host's shared attempt that fails leaves its reader counted and host priority
    /// set; a host's exclusive attempt that fails leaves host priority set.
    #[inline]
    pub(crate) fn acquire(word: LockWord<'a>, mode: Mode, side: Side) -> Result<Self, StatusCode> {
        match mode {
            Mode::Shared => acquire_hp_shared(word, side)?,
            Mode::Exclusive => acquire_hp_exclusive(word, side)?,
        }
        Ok(Self { word, mode })
    }

    /// Turns a shared hold into an exclusive one if nobody else reads; the hold stays shared on failure.
    #[inline]
    pub(crate) fn promote(&mut self) -> Result<(), StatusCode> {
        for expected in [HP_READER, HP_READER | HP_HOST] {
            if self.word.exchange_if(expected, HP_EXCLUSIVE) == expected {
                self.mode = Mode::Exclusive;
                return Ok(());
            }
        }
        self.word.update(|word| Some(word | HP_HOST));
        Err(StatusCode::OPERAND_BUSY)
    }

    /// Keeps the lock held beyond this value's life; [`SharexHp::release`] ends that.
    pub(crate) fn leak(self) {
        core::mem::forget(self);
    }

    /// Releases a hold that [`SharexHp::leak`] kept.
    #[inline]
    pub(crate) fn release(word: LockWord<'a>, mode: Mode) {
        match mode {
            Mode::Shared => word.add(HP_READER.wrapping_neg()),
            Mode::Exclusive => word.update(|word| Some(word & HP_HOST)),
        };
    }
}

impl Drop for SharexHp<'_> {
    #[inline]
    fn drop(&mut self) {
        Self::release(self.word, self.mode);
    }
}

#[inline]
fn acquire_hp_shared(word: LockWord<'_>, side: Side) -> Result<(), StatusCode> {
    let old = word.add(HP_READER);
    match side {
        Side::Guest if old & HP_HOST != 0 => {
            word.add(HP_READER.wrapping_neg());
            Err(StatusCode::OPERAND_BUSY_HOST_PRIORITY)
        }
        Side::Guest if old & HP_EXCLUSIVE != 0 => Err(StatusCode::OPERAND_BUSY),
        Side::Guest => Ok(()),
        Side::Host if old & HP_EXCLUSIVE != 0 => {
            word.update(|word| Some(word | HP_HOST));
            Err(StatusCode::OPERAND_BUSY)
        }
        Side::Host => {
            if old & HP_HOST != 0 {
                word.update(|word| Some(word & !HP_HOST));
            }
            Ok(())
        }
    }
}

#[inline]
fn acquire_hp_exclusive(word: LockWord<'_>, side: Side) -> Result<(), StatusCode> {
    match (word.exchange_if(0, HP_EXCLUSIVE), side) {
        (0, _) => Ok(()),
        (HP_HOST, Side::Guest) => Err(StatusCode::OPERAND_BUSY_HOST_PRIORITY),
        (HP_HOST, Side::Host) if word.exchange_if(HP_HOST, HP_EXCLUSIVE) == HP_HOST => Ok(()),
        (HP_HOST, Side::Host) | (_, Side::Guest) => Err(StatusCode::OPERAND_BUSY),
        (_, Side::Host) => {
            word.update(|word| Some(word | HP_HOST));
            Err(StatusCode::OPERAND_BUSY)
        }
    }
}

/// A mutex: 1 when held.
#[derive(Debug)]
#[must_use = "dropping releases the lock"]
pub(crate) struct Mutex<'a>(LockWord<'a>);

impl<'a> Mutex<'a> {
    /// Takes the lock, or `None` if it is held.
    pub(crate) fn acquire(word: LockWord<'a>) -> Option<Self> {
        (word.exchange_if(0, 1) == 0).then(|| Self(word))
    }
}

impl Drop for Mutex<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.exchange_if(1, 0);
    }
}
