//! A logical processor that holds locks and does nothing else.

use tdx_abi::Hpa;
use tdx_abi::Level;

use crate::lock::Mode;
use crate::lock::Mutex;
use crate::lock::Sharex;
use crate::lock::SharexHp;
use crate::lock::Side;
use crate::platform::Platform;
use crate::platform::TdLock;
use crate::sept;
use crate::sept::EntryLock;

/// A lock of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// That of a PAMT entry.
    Pamt {
        /// The page.
        page: Hpa,
        /// Its size.
        level: Level,
    },
    /// One in the TDCS of the TD whose TDR is `tdr`.
    Td {
        /// Address of the TDR.
        tdr: Hpa,
        /// Which one.
        lock: TdLock,
    },
    /// That of the Secure-EPT entry for `gpa` at `level`, which is always exclusive.
    SeptEntry {
        /// Address of the TDR.
        tdr: Hpa,
        /// Guest-physical address.
        gpa: u64,
        /// Level of the entry.
        level: Level,
    },
    /// That of the KeyID ownership table.
    KeyOwnership,
    /// The module's global lock.
    Global,
    /// That of cache write-back on a package, which is always exclusive.
    WriteBack {
        /// Number of the package.
        package: usize,
    },
}

/// How a ghost holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Together with others.
    Shared,
    /// Alone.
    Exclusive,
}

/// A lock held by a ghost until this is dropped.
#[derive(Debug)]
#[must_use = "dropping releases the lock"]
pub struct Ghost<'p> {
    _lock: Held<'p>,
}

#[derive(Debug)]
#[expect(dead_code, reason = "they are held for their release")]
enum Held<'p> {
    Sharex(Sharex<'p>),
    SharexHp(SharexHp<'p>),
    Mutex(Mutex<'p>),
    Entry(EntryLock<'p>),
}

impl Platform {
    /// Lets a ghost take `lock` as a SEAMCALL would; `None` if there is no such lock, or if it is taken.
    pub fn hold(&self, lock: Lock, how: Hold) -> Option<Ghost<'_>> {
        let mode = match how {
            Hold::Shared => Mode::Shared,
            Hold::Exclusive => Mode::Exclusive,
        };
        let held = match lock {
            Lock::Pamt { page, level } => {
                let word = self.pamt_lock(page.bits(), level)?;
                Held::SharexHp(SharexHp::acquire(word, mode, Side::Host).ok()?)
            }
            Lock::Td { tdr, lock } => {
                self.sept_root(tdr)?;
                let word = self.td_lock(tdr.bits(), lock);
                match lock {
                    TdLock::OpState | TdLock::Rtmr | TdLock::ServiceTdBindings => {
                        Held::SharexHp(SharexHp::acquire(word, mode, Side::Host).ok()?)
                    }
                    TdLock::SeptTree | TdLock::Epoch | TdLock::Migration => {
                        Held::Sharex(Sharex::acquire(word, mode)?)
                    }
                }
            }
            Lock::SeptEntry { tdr, gpa, level } => {
                self.sept_root(tdr)?;
                let root = self.core.tdcs(self.core.tdr(tdr.bits())).root();
                let found = sept::walk(self.core.memory(), root, gpa, level);
                if found.level != level {
                    return None;
                }
                Held::Entry(found.cell.lock_host().ok()?)
            }
            Lock::KeyOwnership => Held::Sharex(Sharex::acquire(self.kot_lock(), mode)?),
            Lock::Global => Held::Sharex(Sharex::acquire(self.global_lock(), mode)?),
            Lock::WriteBack { package } => {
                Held::Mutex(Mutex::acquire(self.write_back_lock(package)?)?)
            }
        };
        Some(Ghost { _lock: held })
    }
}
