//! The TDX module as far as block, track and remove go: what it refuses, the model panics on.

#![expect(unreachable_pub, reason = "a module of a test binary")]

use std::collections::BTreeMap;
use std::sync::Mutex;

use shuttle::thread;
use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::Trap;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::status::Status;
use tdx_abi::status::StatusCode;

pub const VCPUS: usize = 2;

/// An entry of the Secure-EPT.
#[derive(Clone, Copy, Debug)]
struct Entry {
    page: u64,
    /// The TD's epoch when it was blocked.
    blocked: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// By address and level as the leaves take them.
    entries: BTreeMap<u64, Entry>,
    /// The tables of L2 VM 1, likewise.
    l2_tables: BTreeMap<u64, u64>,
    epoch: u64,
    /// The epoch in which each vCPU entered, while it is inside.
    inside: [Option<u64>; VCPUS],
    /// Calls that are under way and hold the tree's lock shared.
    sharing: usize,
    alone: bool,
}

/// The module and its one Secure-EPT.
#[derive(Debug, Default)]
pub struct Module(Mutex<State>);

impl Module {
    /// TDH.VP.ENTER begins.
    pub fn enter(&self, vcpu: usize) {
        let mut state = self.0.lock().unwrap();
        state.inside[vcpu] = Some(state.epoch);
    }

    /// The vCPU has left the TD.
    pub fn leave(&self, vcpu: usize) {
        self.0.lock().unwrap().inside[vcpu] = None;
    }

    /// The page that a walk of the CPU finds at `gpa`.
    pub fn walk(&self, gpa: u64) -> Option<u64> {
        let state = self.0.lock().unwrap();
        let entry = state.entries.get(&gpa)?;
        entry.blocked.is_none().then_some(entry.page)
    }

    /// The tables of L2 VM 1, by address and level.
    pub fn l2_tables(&self) -> BTreeMap<u64, u64> {
        self.0.lock().unwrap().l2_tables.clone()
    }

    fn execute(&self, leaf: SeamcallLeaf, registers: &mut Registers) -> Option<StatusCode> {
        let mut state = self.0.lock().unwrap();
        let at = registers.rcx;
        match leaf {
            SeamcallLeaf::TDH_MEM_SEPT_ADD if registers.rax >> 16 != 0 => {
                let parent = state.entries.get(&at).unwrap();
                assert!(parent.blocked.is_none(), "TDX_EPT_ENTRY_STATE_INCORRECT");
                let page = registers.r9;
                let known = state.l2_tables.insert(at, page);
                assert!(known.is_none(), "TDX_L2_SEPT_ENTRY_NOT_FREE");
                registers.r9 = u64::MAX;
            }
            SeamcallLeaf::TDH_MEM_SEPT_REMOVE => {
                let entry = state.entries.remove(&at).unwrap();
                assert!(entry.blocked.unwrap() < state.epoch, "not tracked");
                let l2_table = state.l2_tables.remove(&at);
                registers.rcx = entry.page;
                [registers.r9, registers.r10, registers.r11] =
                    [l2_table.unwrap_or(u64::MAX), u64::MAX, u64::MAX];
            }
            SeamcallLeaf::TDH_MEM_PAGE_AUG | SeamcallLeaf::TDH_MEM_SEPT_ADD => {
                let entry = Entry {
                    page: registers.r8,
                    blocked: None,
                };
                assert!(state.entries.insert(at, entry).is_none(), "{at:#x} in use");
            }
            SeamcallLeaf::TDH_MEM_RANGE_BLOCK => {
                let epoch = state.epoch;
                let entry = state.entries.get_mut(&at).unwrap();
                assert!(entry.blocked.replace(epoch).is_none(), "blocked twice");
            }
            SeamcallLeaf::TDH_MEM_TRACK => {
                let epoch = state.epoch;
                if state
                    .inside
                    .iter()
                    .flatten()
                    .any(|entered| *entered < epoch)
                {
                    return Some(StatusCode::PREVIOUS_TLB_EPOCH_BUSY);
                }
                state.epoch += 1;
            }
            SeamcallLeaf::TDH_MEM_PAGE_REMOVE => {
                let entry = state.entries.remove(&at).unwrap();
                let blocked = entry.blocked.unwrap();
                let stale = state
                    .inside
                    .iter()
                    .flatten()
                    .any(|entered| *entered <= blocked);
                assert!(state.epoch > blocked && !stale, "TLB_TRACKING_NOT_DONE");
                registers.rcx = entry.page;
            }
            _ => {}
        }
        None
    }
}

impl Seamcall for &Module {
    fn seamcall(&self, registers: &mut Registers) -> Result<(), Trap> {
        let number = u16::try_from(registers.rax & 0xffff).unwrap();
        let leaf = SeamcallLeaf::new(number);
        let alone = [
            SeamcallLeaf::TDH_MEM_RANGE_BLOCK,
            SeamcallLeaf::TDH_MEM_SEPT_REMOVE,
        ]
        .contains(&leaf);
        let shared = [
            SeamcallLeaf::TDH_MEM_PAGE_AUG,
            SeamcallLeaf::TDH_MEM_SEPT_ADD,
            SeamcallLeaf::TDH_MEM_PAGE_REMOVE,
        ]
        .contains(&leaf);
        {
            let mut state = self.0.lock().unwrap();
            assert!(!(state.alone && (alone || shared)), "TDX_OPERAND_BUSY");
            assert!(!(alone && state.sharing > 0), "TDX_OPERAND_BUSY");
            state.alone |= alone;
            state.sharing += usize::from(shared);
        }
        thread::yield_now();
        let status = self.execute(leaf, registers);
        thread::yield_now();
        {
            let mut state = self.0.lock().unwrap();
            state.alone &= !alone;
            state.sharing -= usize::from(shared);
        }
        registers.rax = status.map_or(0, |code| Status::of(code).rax());
        Ok(())
    }
}
