//! The vCPUs of the guest: they enter, leave, are kicked, and accept pages.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Registers;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::leaf::TdcallLeaf;
use tdx_emulator::ExitInfo;
use tdx_emulator::GuestCall;
use tdx_emulator::GuestExit;
use tdx_emulator::HostCall;
use tdx_mmu::embed::Flush;
use tdx_mmu::embed::Vcpus;
use tdx_mmu::platform::LpId;
use tdx_mmu::td::Laggards;

use super::Host;

impl Host {
    /// Enters `tdvpr` on LP `lp`.
    #[track_caller]
    pub fn enter(&self, lp: usize, tdvpr: Hpa) {
        let mut registers = Registers {
            rax: SeamcallLeaf::TDH_VP_ENTER.number().into(),
            rcx: tdvpr.bits(),
            ..Registers::default()
        };
        // It may be associated with the LP where it was made or last entered.
        for other in (0..self.lps.len()).filter(|other| *other != lp) {
            let mut flush = Registers {
                rax: SeamcallLeaf::TDH_VP_FLUSH.number().into(),
                rcx: tdvpr.bits(),
                ..Registers::default()
            };
            self.platform.lp(other).unwrap().host_call(&mut flush);
        }
        let entered = self.platform.lp(lp).unwrap().host_call(&mut registers);
        assert_eq!(
            entered,
            HostCall::EnteredTd,
            "VP.ENTER: {:#x}",
            registers.rax
        );
    }

    /// The guest on LP `lp` is interrupted, if there is one.
    pub fn leave(&self, lp: usize) {
        let interrupt = ExitInfo {
            reason: 1,
            interruption_info: 0x8000_0020,
            ..ExitInfo::default()
        };
        let lp = self.platform.lp(lp).unwrap();
        // A module that suspects to be single-stepped withholds the interrupt for some instructions.
        while lp.guest_exit(&interrupt, &mut Registers::default()) == GuestExit::ResumedTd {}
    }

    /// The guest on LP `lp` accepts a page of `level` at `gpa`; RAX as it sees it.
    pub fn accept(&self, lp: usize, gpa: u64, level: Level) -> u64 {
        let mut registers = Registers {
            rax: TdcallLeaf::TDG_MEM_PAGE_ACCEPT.number().into(),
            rcx: gpa | level as u64,
            ..Registers::default()
        };
        assert_eq!(
            self.platform.lp(lp).unwrap().guest_call(&mut registers),
            GuestCall::ReturnedToTd
        );
        registers.rax
    }
}

impl Vcpus for Host {
    fn epochs(&self) -> &[AtomicU64] {
        &self.epochs
    }

    /// Counted even if every vCPU has left meanwhile, as one on another thread may.
    fn kick(&self, _: Laggards<'_, AtomicU64>) {
        if self.kick_disabled.load(Ordering::Relaxed) {
            return;
        }
        self.kicks.fetch_add(1, Ordering::Relaxed);
        (0..self.lps.len()).for_each(|lp| self.leave(lp));
    }

    fn last_lp(&self, _: usize) -> Option<LpId> {
        None
    }
}

impl Flush for Host {
    fn invept(&self) {
        self.invepts.fetch_add(1, Ordering::Relaxed);
    }
}
