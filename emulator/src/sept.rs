//! Secure-EPT entries and the walk over them.
//!
//! Entries lie in emulated memory in the module's own format, so that an emulated LP walks what the module wrote.
//! Source: `ia32e_sept_t` in `x86_defs.h`, `sept_manager.c` and `sept_manager.h` of the TDX module.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use tdx_abi::Level;

use crate::abi::L2SeptState;
use crate::abi::Module;
use crate::abi::SeptState;
use crate::abi::StatusCode;
use crate::memory::PhysicalMemory;

/// A Secure-EPT entry as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct SeptEntry(pub u64);

const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const EXECUTE: u64 = 1 << 2;
const MEMORY_TYPE: u64 = 7 << 3;
const WRITE_BACK: u64 = 6 << 3;
const IGNORE_PAT: u64 = 1 << 6;
const PAGE_SIZE: u64 = 1 << 7;
const DIRTY: u64 = 1 << 9;
const EXECUTE_USER: u64 = 1 << 10;
const ENTRY_LOCK: u64 = 1 << 11;
const HOST_PRIORITY: u64 = 1 << 52;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const SUPPRESS_VE: u64 = 1 << 63;
const STATE: u64 = DIRTY | IGNORE_PAT | PAGE_SIZE | 0xf << 53;
const ACCEPT_COUNTER: u64 = 0x1ff << 12;
const L2_STATE: u64 = READ | IGNORE_PAT | PAGE_SIZE | 1 << 55;
const MIG_EPOCH_SHIFT: u32 = 12;
const MIG_EPOCH_VALID: u64 = 1 << 44;

/// States by encoding.
const STATES: [SeptState; 128] = {
    let mut states = [SeptState::Free; 128];
    let mut encoding = 0;
    while encoding < states.len() {
        if let Some(state) = SeptState::decode(encoding as u8, Module::V1_5_01) {
            states[encoding] = state;
        }
        encoding += 1;
    }
    states
};

/// Read, write and execute.
pub(crate) const RWX: u64 = READ | WRITE | EXECUTE;

impl SeptEntry {
    /// A free entry.
    pub(crate) const FREE: Self = Self(state_bits(SeptState::Free) | SUPPRESS_VE);
    /// A free entry of an L2 VM's Secure-EPT.
    pub(crate) const L2_FREE: Self = Self(0);

    /// The entry's state. An encoding that the module never writes counts as free.
    pub(crate) const fn state(self) -> SeptState {
        let raw = self.0;
        let encoding = (raw >> 9 & 1) | (raw >> 53 & 0xf) << 1 | (raw >> 6 & 3) << 5;
        STATES[encoding as usize]
    }

    /// The state of an entry of an L2 VM's Secure-EPT; bit R is part of the encoding only of non-leaf entries.
    pub(crate) const fn l2_state(self) -> L2SeptState {
        let raw = self.0;
        let encoding = (raw >> 55 & 1) | (raw >> 6 & 3) << 1 | (raw & 1) << 3;
        match L2SeptState::from_encoding(encoding as u8) {
            Some(state) => state,
            None => match L2SeptState::from_encoding((encoding & 7) as u8) {
                Some(state) => state,
                None => L2SeptState::L2Free,
            },
        }
    }

    /// The same entry in another state, #VE suppressed.
    #[must_use]
    pub(crate) const fn with_state(self, state: SeptState) -> Self {
        Self(self.0 & !STATE | state_bits(state) | SUPPRESS_VE)
    }

    /// A leaf in `state` with permission bits `permissions` that maps the page at `hpa`.
    #[inline]
    pub(crate) const fn leaf(state: SeptState, permissions: u64, hpa: u64) -> Self {
        Self(
            permissions | state_bits(state) | WRITE_BACK | IGNORE_PAT | SUPPRESS_VE | hpa & ADDRESS,
        )
    }

    /// An entry that refers to the Secure-EPT page at `hpa`.
    pub(crate) const fn table(hpa: u64) -> Self {
        Self(RWX | state_bits(SeptState::NlMapped) | SUPPRESS_VE | hpa & ADDRESS)
    }

    /// An entry of an L2 VM's Secure-EPT that refers to the page at `hpa`.
    pub(crate) const fn l2_table(hpa: u64) -> Self {
        Self(RWX | EXECUTE_USER | hpa & ADDRESS)
    }

    /// Whether it maps a page.
    pub(crate) const fn is_leaf(self) -> bool {
        self.0 & PAGE_SIZE != 0
    }

    /// Its permission bits.
    pub(crate) const fn permissions(self) -> u64 {
        self.0 & RWX
    }

    /// The same entry with write permission given or taken.
    #[must_use]
    pub(crate) const fn with_write(self, writable: bool) -> Self {
        Self(if writable {
            self.0 | WRITE
        } else {
            self.0 & !WRITE
        })
    }

    /// The same entry with read, write and execute.
    #[must_use]
    pub(crate) const fn with_rwx(self) -> Self {
        Self(self.0 | RWX)
    }

    /// The same entry without read, write and execute.
    #[must_use]
    pub(crate) const fn without_rwx(self) -> Self {
        Self(self.0 & !RWX)
    }

    /// Its address bits.
    pub(crate) const fn address(self) -> u64 {
        self.0 & ADDRESS
    }

    /// The same entry with other address bits.
    #[must_use]
    pub(crate) const fn with_address(self, hpa: u64) -> Self {
        Self(self.0 & !ADDRESS | hpa & ADDRESS)
    }

    /// Where a leaf at `level` maps `gpa`; what lies below a large page's size in the entry is not address.
    pub(crate) const fn translate(self, gpa: u64, level: Level) -> u64 {
        let offset = level.size() - 1;
        self.address() & !offset | gpa & offset
    }

    /// The same entry with the lock bit set or clear.
    #[must_use]
    pub(crate) const fn with_lock(self, locked: bool) -> Self {
        Self(if locked {
            self.0 | ENTRY_LOCK
        } else {
            self.0 & !ENTRY_LOCK
        })
    }

    /// How many 4 KiB pages of a pending 2 MiB page have been accepted.
    pub(crate) const fn accept_counter(self) -> u64 {
        (self.0 & ACCEPT_COUNTER) >> 12
    }

    /// The same entry with another accept counter.
    #[must_use]
    pub(crate) const fn with_accept_counter(self, count: u64) -> Self {
        Self(self.0 & !ACCEPT_COUNTER | count << 12 & ACCEPT_COUNTER)
    }

    /// The entry as the host's leaves look at it: the accept counter of a pending 2 MiB page is no address.
    #[must_use]
    pub(crate) const fn without_pending_count(self, level: Level) -> Self {
        if self.state().any_pending_and_guest_acceptable() && matches!(level, Level::Pd) {
            self.with_accept_counter(0)
        } else {
            self
        }
    }

    /// The entry unblocked, if it was blocked.
    #[must_use]
    pub(crate) const fn unblocked(self) -> Self {
        match self.state() {
            SeptState::NlBlocked => {
                let entry = self.with_state(SeptState::NlMapped).with_rwx();
                Self(entry.0 & !MEMORY_TYPE)
            }
            SeptState::Blocked => {
                let entry = self.with_state(SeptState::Mapped).with_rwx();
                Self(entry.0 & !MEMORY_TYPE | WRITE_BACK)
            }
            SeptState::PendingBlocked => self.with_state(SeptState::Pending),
            _ => self,
        }
    }

    /// The entry blocked; `None` if its state cannot be.
    pub(crate) const fn blocked(self, level: Level) -> Option<Self> {
        let entry = self.without_pending_count(level);
        Some(match self.state() {
            SeptState::NlMapped => entry.with_state(SeptState::NlBlocked).without_rwx(),
            SeptState::Mapped | SeptState::Blockedw => {
                entry.without_rwx().with_state(SeptState::Blocked)
            }
            SeptState::Pending | SeptState::PendingBlockedw => {
                entry.with_state(SeptState::PendingBlocked)
            }
            _ => return None,
        })
    }

    /// A removed entry, as REMOVE leaves it during an import in migration epoch `epoch`.
    pub(crate) const fn removed(epoch: u32) -> Self {
        Self(
            state_bits(SeptState::Removed)
                | SUPPRESS_VE
                | MIG_EPOCH_VALID
                | (epoch as u64) << MIG_EPOCH_SHIFT,
        )
    }

    /// The migration epoch in which the page was removed, if it was during an import.
    pub(crate) fn removed_in(self) -> Option<u32> {
        let recorded = self.state() == SeptState::Removed && self.0 & MIG_EPOCH_VALID != 0;
        recorded.then_some((self.0 >> MIG_EPOCH_SHIFT) as u32)
    }

    /// Whether the entry has a counterpart in the Secure-EPT of L2 VM `vm`, 1 to 3.
    pub(crate) const fn is_aliased(self, vm: usize) -> bool {
        self.0 >> (57 + vm) & 1 != 0
    }

    /// The same entry with the alias bit of L2 VM `vm` set.
    #[must_use]
    pub(crate) const fn with_alias(self, vm: usize) -> Self {
        Self(self.0 | 1 << (57 + vm))
    }

    /// The same entry with the alias bit of L2 VM `vm` clear.
    #[must_use]
    pub(crate) const fn without_alias(self, vm: usize) -> Self {
        Self(self.0 & !(1 << (57 + vm)))
    }

    /// The same entry without what differs between pages that may be merged: accessed, dirty, a waiting host.
    pub(crate) const fn comparable(self) -> Self {
        const ACCESSED: u64 = 1 << 8;
        Self(self.0 & !(HOST_PRIORITY | ACCESSED | DIRTY))
    }

    /// What SEAMCALLs return of the entry: (RCX, RDX).
    ///
    /// As in the module, the accept counter of a pending 2 MiB page shows through.
    pub(crate) const fn details(self, level: Level) -> (u64, u64) {
        let state = self.state();
        let shown = match state {
            SeptState::Free => SUPPRESS_VE,
            _ if self.is_leaf() => {
                self.0 & (RWX | MEMORY_TYPE | ADDRESS | IGNORE_PAT | PAGE_SIZE | SUPPRESS_VE)
            }
            _ => self.0 & (RWX | PAGE_SIZE),
        };
        (shown, (state.public_state() as u64) << 8 | level as u64)
    }
}

/// L2 Secure-EPT entries. Source: `sept_l2_*` of `sept_manager.h` and `block_l2_sept_entry` of `tdh_mem_range_block.c`.
impl SeptEntry {
    const L2_TD_READ: u64 = 1 << 3;
    const L2_TD_EXECUTE: u64 = 1 << 4;
    const L2_TD_EXECUTE_USER: u64 = 1 << 5;
    const L2_TD_WRITE: u64 = 1 << 59;
    const L2_BLOCKED_BIT: u64 = 1 << 55;
    const L2_RWXU: u64 = RWX | EXECUTE_USER;
    /// Bits of permissions, and where they are kept while the entry is blocked.
    const L2_SAVED: [(u64, u64); 4] = [
        (READ, Self::L2_TD_READ),
        (WRITE, Self::L2_TD_WRITE),
        (EXECUTE, Self::L2_TD_EXECUTE),
        (EXECUTE_USER, Self::L2_TD_EXECUTE_USER),
    ];

    /// The entry blocked, its permissions saved; the saved write permission stays if L1 was blocked for writing.
    #[must_use]
    pub(crate) const fn l2_blocked(self, l1_blocked_for_writing: bool) -> Self {
        let mut raw = self.0;
        if self.is_leaf() {
            let mut n = 0;
            while n < Self::L2_SAVED.len() {
                let (bit, saved) = Self::L2_SAVED[n];
                if !(l1_blocked_for_writing && saved == Self::L2_TD_WRITE) {
                    raw = if self.0 & bit != 0 {
                        raw | saved
                    } else {
                        raw & !saved
                    };
                }
                n += 1;
            }
        }
        Self(raw & !Self::L2_RWXU | Self::L2_BLOCKED_BIT)
    }

    /// The entry unblocked, if it was blocked.
    #[must_use]
    pub(crate) const fn l2_unblocked(self) -> Self {
        match self.l2_state() {
            L2SeptState::L2NlBlocked => Self(
                (self.0 & !Self::L2_BLOCKED_BIT | Self::L2_RWXU)
                    & !MEMORY_TYPE
                    & !Self::L2_TD_WRITE,
            ),
            L2SeptState::L2Blocked => {
                let mut raw = self.0;
                let mut n = 0;
                while n < Self::L2_SAVED.len() {
                    let (bit, saved) = Self::L2_SAVED[n];
                    raw = if self.0 & saved != 0 {
                        raw | bit
                    } else {
                        raw & !bit
                    };
                    n += 1;
                }
                Self(raw & !Self::L2_BLOCKED_BIT & !MEMORY_TYPE & !Self::L2_TD_WRITE | WRITE_BACK)
            }
            _ => self,
        }
    }

    /// The attributes of the page for one L2 VM as 16 bits: R, W, Xs, Xu, VGP, PWA, SSS, SVE, and valid in bit 15.
    pub(crate) const fn l2_attributes(self, l1_blocked_for_writing: bool) -> u16 {
        const VALID: u16 = 1 << 15;
        let raw = self.0;
        let sve = (raw >> 63) as u16;
        if matches!(self.l2_state(), L2SeptState::L2Free) {
            return sve << 7;
        }
        if !self.is_leaf() {
            return VALID | 0xf;
        }
        let blocked = matches!(self.l2_state(), L2SeptState::L2Blocked);
        let mut bits = VALID;
        let mut n = 0;
        while n < Self::L2_SAVED.len() {
            let (bit, saved) = Self::L2_SAVED[n];
            let source = if blocked && (n == 1 || !l1_blocked_for_writing) {
                saved
            } else {
                bit
            };
            if raw & source != 0 {
                bits |= 1 << n;
            }
            n += 1;
        }
        bits | ((raw >> 57 & 1) as u16 * 0x10)
            | ((raw >> 58 & 1) as u16 * 0x20)
            | ((raw >> 60 & 1) as u16 * 0x40)
            | sve << 7
    }

    /// What SEAMCALLs return of the entry of L2 VM `vm`: (RCX, RDX). A debug TD's permissions show.
    pub(crate) const fn l2_details(self, vm: usize, debug: bool, level: Level) -> (u64, u64) {
        const LEAF: u64 = MEMORY_TYPE | ADDRESS | IGNORE_PAT | PAGE_SIZE | SUPPRESS_VE;
        const MIGRATABLE: u64 = RWX | EXECUTE_USER | 1 << 57 | 1 << 58 | 1 << 60 | SUPPRESS_VE;
        let state = self.l2_state();
        let shown = match state {
            L2SeptState::L2Free => SUPPRESS_VE,
            _ if !self.is_leaf() => self.0 & (Self::L2_RWXU | PAGE_SIZE),
            _ if debug => self.0 & (LEAF | MIGRATABLE),
            L2SeptState::L2Mapped => self.0 & LEAF | Self::L2_RWXU,
            _ => self.0 & LEAF,
        };
        (
            shown,
            (state.public_state() as u64) << 8 | level as u64 | (vm as u64) << 16,
        )
    }
}

const fn state_bits(state: SeptState) -> u64 {
    let encoding = state.encoding() as u64;
    (encoding & 1) << 9 | (encoding >> 1 & 0xf) << 53 | (encoding >> 5 & 3) << 6
}

/// An entry in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryCell<'m>(pub &'m AtomicU64);

impl<'m> EntryCell<'m> {
    /// Reads the entry.
    pub(crate) fn get(self) -> SeptEntry {
        SeptEntry(self.0.load(Ordering::Acquire))
    }

    /// Writes the entry.
    pub(crate) fn set(self, entry: SeptEntry) {
        self.0.store(entry.0, Ordering::Release);
    }

    /// Sets bits without touching others.
    pub(crate) fn set_bits(self, bits: u64) {
        self.0.fetch_or(bits, Ordering::AcqRel);
    }

    /// Clears bits without touching others.
    pub(crate) fn clear_bits(self, bits: u64) {
        self.0.fetch_and(!bits, Ordering::AcqRel);
    }

    /// Locks the entry for a SEAMCALL; a failure sets host priority, a success clears it.
    #[inline]
    pub(crate) fn lock_host(self) -> Result<EntryLock<'m>, StatusCode> {
        if self.0.fetch_or(ENTRY_LOCK, Ordering::AcqRel) & ENTRY_LOCK != 0 {
            self.set_bits(HOST_PRIORITY);
            return Err(StatusCode::OPERAND_BUSY);
        }
        if self.0.load(Ordering::Relaxed) & HOST_PRIORITY != 0 {
            self.clear_bits(HOST_PRIORITY);
        }
        Ok(EntryLock {
            cell: self,
            held: true,
        })
    }

    /// Locks the entry for a TDCALL, which host priority prevents.
    pub(crate) fn lock_guest(self) -> Result<EntryLock<'m>, StatusCode> {
        let old = self.0.fetch_or(ENTRY_LOCK, Ordering::AcqRel);
        if old & ENTRY_LOCK != 0 {
            return Err(StatusCode::OPERAND_BUSY);
        }
        if old & HOST_PRIORITY != 0 {
            self.clear_bits(ENTRY_LOCK);
            return Err(StatusCode::OPERAND_BUSY_HOST_PRIORITY);
        }
        Ok(EntryLock {
            cell: self,
            held: true,
        })
    }
}

/// A locked entry; the lock is released when this is dropped, or by writing an unlocked value.
#[derive(Debug)]
#[must_use = "dropping releases the lock"]
pub(crate) struct EntryLock<'m> {
    cell: EntryCell<'m>,
    held: bool,
}

impl EntryLock<'_> {
    /// The entry.
    pub(crate) fn get(&self) -> SeptEntry {
        self.cell.get()
    }

    /// Writes the entry and leaves it locked.
    pub(crate) fn set(&self, entry: SeptEntry) {
        self.cell.set(entry.with_lock(true));
    }

    /// Leaves the entry locked for ever.
    pub(crate) fn leave_locked(mut self) {
        self.held = false;
    }

    /// Writes the entry, and unlocks it by that.
    #[inline]
    pub(crate) fn set_and_release(mut self, entry: SeptEntry) {
        self.cell.set(entry.with_lock(false));
        self.held = false;
    }
}

impl Drop for EntryLock<'_> {
    fn drop(&mut self) {
        if self.held {
            self.cell.clear_bits(ENTRY_LOCK);
        }
    }
}

/// The root of a Secure-EPT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Root {
    /// Physical address of the root page, without KeyID bits.
    pub hpa: u64,
    /// Level of the entries in the root page.
    pub level: Level,
}

/// Where a walk stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'m> {
    /// The entry in memory.
    pub cell: EntryCell<'m>,
    /// Its value when it was read.
    pub entry: SeptEntry,
    /// Its level.
    pub level: Level,
}

/// Walks from `root` towards the entry for `gpa` at `target`, and stops there, at a leaf, or at an entry without permissions.
#[inline]
pub(crate) fn walk<'m>(
    memory: &'m dyn PhysicalMemory,
    root: Root,
    gpa: u64,
    target: Level,
) -> Found<'m> {
    walk_while(memory, root, gpa, target, |entry| entry.permissions() != 0)
}

/// The walk of a guest's leaf over an L2 VM's Secure-EPT, which stops at free entries only.
pub(crate) fn walk_l2_guest<'m>(
    memory: &'m dyn PhysicalMemory,
    root: Root,
    gpa: u64,
    target: Level,
) -> Found<'m> {
    walk_while(memory, root, gpa, target, |entry| entry.0 & L2_STATE != 0)
}

#[inline]
fn walk_while<'m>(
    memory: &'m dyn PhysicalMemory,
    root: Root,
    gpa: u64,
    target: Level,
    descend: impl Fn(SeptEntry) -> bool,
) -> Found<'m> {
    let mut level = root.level;
    let mut table = root.hpa;
    loop {
        let cell = EntryCell(&memory.frame(table >> 12).qwords()[level.index(gpa)]);
        let entry = cell.get();
        let found = Found { cell, entry, level };
        if level == target || !descend(entry) || entry.is_leaf() {
            return found;
        }
        match level.below() {
            Some(below) => level = below,
            None => return found,
        }
        table = entry.address();
    }
}
