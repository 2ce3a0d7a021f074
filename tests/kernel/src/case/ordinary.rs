//! An ordinary guest under an EPT of the MMU's own, with the hardware's accessed and dirty flags.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use tdx_abi::Gpa;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_mmu::deposit::DEPTH;
use tdx_mmu::deposit::Deposit;
use tdx_mmu::embed::Frames;
use tdx_mmu::shared::Attributes;
use tdx_mmu::shared::Ept;
use tdx_mmu::shared::EptStop;
use tdx_mmu::shared::Gather;
use tdx_mmu::shared::Permissions;

use crate::check;
use crate::check_eq;
use crate::embedder::Host;
use crate::frames;
use crate::frames::FRAME;
use crate::guest_image;
use crate::log;
use crate::machine::Conversation;
use crate::machine::Event;
use crate::machine::Next;
use crate::machine::Operation;
use crate::machine::Outcome;
use crate::ordinary::Ordinary;
use crate::physical;
use crate::protocol::operation;
use crate::report;
use crate::tables;

const SMALL: u64 = 0x0100_0000;
const SMALL_BYTES: u64 = 64 << 10;
const LARGE: u64 = 0x0200_0000;
const EXECUTE_ONLY: u64 = 0x0300_0000;
const ON_DEMAND: u64 = 0x0400_0000;
/// Number of primes below 2^20 (OEIS A007053).
const PRIMES: u64 = 82_025;
const LIMIT: u64 = 1 << 20;

/// The guest and its EPT.
struct Bench {
    host: Host,
    ept: Ept,
    guest: Ordinary,
    talk: Conversation,
    mapped: Vec<(u64, Level)>,
}

pub(super) fn run() {
    report::group("an ordinary guest with accessed and dirty flags");
    let mut bench = match Bench::new() {
        Ok(bench) => bench,
        Err(step) => return report::check("the guest is made", false, format_args!("{step}")),
    };
    bench.on_demand();
    bench.accessed_dirty();
    bench.execute_only();
    bench.free();
}

impl Bench {
    fn new() -> Result<Self, &'static str> {
        let host = Host::new();
        let root = host.allocate_table().ok_or("no frame for the root")?;
        let ept = Ept::new(&host, root.into_hpa(), Level::Pml4);
        let eptp = ept.tree().root().bits() | tables::EPTP | tables::EPTP_AD;
        let guest = Ordinary::new(eptp, None)?;
        let mut bench = Self {
            host,
            ept,
            guest,
            talk: Conversation::new(),
            mapped: Vec::new(),
        };
        for index in 0..guest_image::pages() {
            let hpa = bench.map(
                guest_image::BASE + index * FRAME,
                Level::Pt,
                Permissions::ALL,
            )?;
            for (word, value) in physical::frame(hpa)
                .ok_or("image page")?
                .iter()
                .zip(guest_image::page(index))
            {
                word.store(value, Ordering::SeqCst);
            }
        }
        Ok(bench)
    }

    /// Maps cleared memory at `gpa`, and returns where it is.
    fn map(
        &mut self,
        gpa: u64,
        level: Level,
        permissions: Permissions,
    ) -> Result<u64, &'static str> {
        let hpa = if level == Level::Pd {
            frames::allocate_block()
        } else {
            frames::allocate_frame()
        }
        .ok_or("no memory")?;
        (hpa..hpa + level.size())
            .step_by(FRAME as usize)
            .for_each(|frame| assert!(physical::clear(frame)));
        self.mapped.push((hpa, level));
        let mut deposit = Deposit::new(&self.host);
        loop {
            let mut section = self.ept.section(&self.host);
            match section.map(
                Gpa::new(gpa),
                Hpa::new(hpa),
                level,
                Attributes::new(permissions),
                &mut deposit,
            ) {
                Ok(()) => return Ok(hpa),
                Err(EptStop::NeedTables) => drop(section),
                Err(stop) => {
                    log!("map {gpa:#x}: {stop:?}");
                    return Err("map");
                }
            }
            deposit.top_up(DEPTH).map_err(|_| "no tables")?;
        }
    }

    fn perform(&mut self, operation: Operation) -> Outcome {
        let Self { guest, talk, .. } = self;
        talk.perform(guest, operation, &mut |_, _| Next::Stop)
    }

    fn on_demand(&mut self) {
        let mut violations = 0;
        let mut outcome = self.perform([operation::PRIMES, ON_DEMAND, LIMIT, 0]);
        while let Outcome::Stopped(Event::Violation(violation)) = outcome {
            violations += 1;
            if self
                .map(
                    violation.gpa & !(FRAME - 1),
                    Level::Pt,
                    Permissions::READ_WRITE,
                )
                .is_err()
            {
                break;
            }
            let Self { guest, talk, .. } = self;
            outcome = talk.advance(guest, &mut |_, _| Next::Stop);
        }
        check_eq!(
            "a sieve over 1 MiB finds the primes",
            outcome.value(),
            Some(PRIMES)
        );
        check_eq!("one EPT violation a page", violations, LIMIT / FRAME);
    }

    /// Pages of a range that were read, and those that were written, since the last call.
    fn collect(&mut self, start: u64, end: u64) -> (Vec<u64>, Vec<u64>) {
        let (mut accessed, mut dirty) = (Vec::new(), Vec::new());
        let mut gather = Gather::new();
        self.ept
            .section(&self.host)
            .collect_accessed_dirty(start, end, &mut gather, |at| {
                let page = (at.gpa.bits() - start) / FRAME;
                if at.entry.accessed() {
                    accessed.push(page);
                }
                if at.entry.dirty() {
                    dirty.push(page);
                }
            });
        let _flushed = gather.flush(&self.host);
        (accessed, dirty)
    }

    fn accessed_dirty(&mut self) {
        let end = SMALL + SMALL_BYTES;
        let small = (SMALL..end)
            .step_by(FRAME as usize)
            .all(|gpa| self.map(gpa, Level::Pt, Permissions::READ_WRITE).is_ok());
        let large = self.map(LARGE, Level::Pd, Permissions::READ_WRITE).is_ok();
        check!("memory is mapped ahead", small && large);
        check_eq!(
            "nothing is accessed or dirty yet",
            self.collect(SMALL, end),
            (Vec::new(), Vec::new())
        );
        self.perform([operation::WRITE, SMALL + 2 * FRAME, 5, 0]);
        self.perform([operation::READ, SMALL + 5 * FRAME, 0, 0]);
        check_eq!(
            "the hardware marked what was used and what was written",
            self.collect(SMALL, end),
            (alloc::vec![2, 5], alloc::vec![2])
        );
        check_eq!(
            "once only",
            self.collect(SMALL, end),
            (Vec::new(), Vec::new())
        );
        self.perform([operation::READ, SMALL + 2 * FRAME, 0, 0]);
        check_eq!(
            "a page that was cleared is marked again",
            self.collect(SMALL, end),
            (alloc::vec![2], Vec::new())
        );
        let block = LARGE + (2 << 20);
        self.perform([operation::READ, LARGE + 0x12_3000, 0, 0]);
        check_eq!(
            "a 2 MiB page is marked as read",
            self.collect(LARGE, block),
            (alloc::vec![0], Vec::new())
        );
        self.perform([operation::WRITE, LARGE + 0x1f_fff8, 6, 0]);
        check_eq!(
            "and as written",
            self.collect(LARGE, block),
            (alloc::vec![0], alloc::vec![0])
        );
    }

    fn execute_only(&mut self) {
        // mov eax, 0x1234; ret
        const CODE: u64 = 0xc300_0012_34b8;
        let execute = Permissions {
            read: false,
            write: false,
            execute: true,
        };
        let Ok(hpa) = self.map(EXECUTE_ONLY, Level::Pt, execute) else {
            return;
        };
        if let Some(word) = physical::word(hpa) {
            word.store(CODE, Ordering::SeqCst);
        }
        check_eq!(
            "a function runs in an execute-only page",
            self.perform([operation::EXECUTE, EXECUTE_ONLY, 0, 0])
                .value(),
            Some(0x1234)
        );
        let read = self.perform([operation::READ, EXECUTE_ONLY, 0, 0]);
        let expected = matches!(read, Outcome::Stopped(Event::Violation(violation)) if violation.access == tables::READ && violation.gpa == EXECUTE_ONLY);
        check!("and cannot be read", expected);
    }

    /// Takes everything apart.
    fn free(self) {
        let Self {
            host,
            ept,
            guest,
            mapped,
            ..
        } = self;
        guest.free();
        let mut gather = Gather::new();
        let zapped = ept.section(&host).zap(0, 1 << 39, &mut gather);
        check_eq!("the tree is emptied", zapped, Ok(()));
        let _flushed = gather.flush(&host);
        if let Some(root) = tdx_abi::Page::assume_owned(ept.tree().root(), Level::Pt) {
            host.free_table(root);
        }
        mapped
            .iter()
            .for_each(|(hpa, level)| frames::free(*hpa, level.size()));
        log!(
            "tables retired {}, INVEPT {}",
            host.retired.load(Ordering::Relaxed),
            host.invepts.load(Ordering::Relaxed)
        );
    }
}
