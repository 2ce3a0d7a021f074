//! A TD of this kernel: bring-up of the module, build, and the vCPU's loop.

use alloc::rc::Rc;
use core::sync::atomic::Ordering;

use tdx_abi::Gpa;
use tdx_abi::HostLeaf;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::SharedBit;
use tdx_abi::Tdvpr;
use tdx_abi::field;
use tdx_abi::format::Eptp;
use tdx_abi::format::TdParams;
use tdx_abi::format::Xfam;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::status::Status;
use tdx_abi::tdh;
use tdx_mmu::GpaRange;
use tdx_mmu::Td;
use tdx_mmu::attributes::Visibility;
use tdx_mmu::platform::HkidPool;
use tdx_mmu::platform::MemoryRange;
use tdx_mmu::platform::bring_up::PamtMode;
use tdx_mmu::platform::bring_up::SystemInfo;
use tdx_mmu::platform::bring_up::bring_up;
use tdx_mmu::platform::layout::PamtMemory;
use tdx_mmu::platform::layout::Tdmr;
use tdx_mmu::td::Access;
use tdx_mmu::td::Resolution;
use tdx_mmu::td::TdConfig;

use crate::embedder::GUEST_MEMORY;
use crate::embedder::Host;
use crate::frames;
use crate::guest_image;
use crate::instruction;
use crate::layout;
use crate::log;
use crate::machine::Call;
use crate::machine::Event;
use crate::machine::Machine;
use crate::machine::Violation;
use crate::module;
use crate::physical;
use crate::seam_guest;
use crate::tables;

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const REASON_EXTERNAL_INTERRUPT: u16 = 1;
const REASON_EPT_VIOLATION: u16 = 48;
const REASON_EPT_MISCONFIGURATION: u16 = 49;
const REASON_TDCALL: u16 = 77;
/// Extended exit qualification: the page is there, but pending.
const EXTENDED_PENDING: u64 = 6;
/// Registers that the guest's TDG.VP.VMCALL hands over: R10 to R15.
const PASSED: u64 = 0xfc00;

/// The module's KeyID, those of TDs, and what the module said about itself.
pub(crate) struct Platform {
    /// KeyIDs for TDs.
    pub(crate) hkids: HkidPool,
    /// How many of them there were at the start.
    pub(crate) free_key_ids: usize,
    global_hkid: u16,
    info: SystemInfo,
}

/// Memory for PAMTs: 2 MiB blocks from the top of what is free.
struct Pamts;

impl PamtMemory for Pamts {
    fn allocate(&mut self, size: u64, _: MemoryRange) -> Option<Hpa> {
        // Blocks come from the top down, so consecutive ones are contiguous while nothing else has taken any.
        let mut start = frames::allocate_block()?;
        let end = start + frames::BLOCK;
        while end - start < size {
            let next = frames::allocate_block()?;
            if next + frames::BLOCK != start {
                return None;
            }
            start = next;
        }
        Some(Hpa::new(start))
    }

    fn free(&mut self, range: MemoryRange) {
        frames::free(range.start().bits(), range.size());
    }
}

/// Brings the loaded module up over all frames that this kernel gives out.
pub(crate) fn bring_up_module() -> Result<Platform, &'static str> {
    let host = Host::new();
    let key_ids = (1 << module::KEY_ID_BITS) - u32::from(module::FIRST_PRIVATE_KEY_ID);
    let hkids =
        HkidPool::new(module::FIRST_PRIVATE_KEY_ID.into(), key_ids).map_err(|_| "KeyID range")?;
    let global = hkids.allocate().ok_or("no KeyID for the module")?;
    let memory = MemoryRange::new(Hpa::new(layout::frames_start()), Hpa::new(layout::RAM))
        .ok_or("memory range")?;
    let mut tdmrs = [Tdmr::default(); 1];
    let mode = PamtMode::Static;
    match bring_up(&host, &[memory], &mut Pamts, mode, &global, &mut tdmrs) {
        Ok((info, tdmrs)) => {
            log!(
                "module is up: {} TDMR, {} reserved areas",
                tdmrs.len(),
                tdmrs.first().map_or(0, |tdmr| tdmr.reserved().len())
            );
            Ok(Platform {
                free_key_ids: hkids.available(),
                hkids,
                global_hkid: global.number(),
                info,
            })
        }
        Err(error) => {
            log!("bring-up: {error}");
            Err("bring-up")
        }
    }
}

/// A TD with one vCPU that runs the guest image.
pub(crate) struct TdGuest {
    /// The TD.
    pub(crate) td: Rc<Td<Host>>,
    tdvpr: Hpa,
    answer: Call,
    last: [u64; 3],
}

impl TdGuest {
    /// Builds the TD up to TDH.MR.FINALIZE, its first pages measured.
    pub(crate) fn build(platform: &Platform) -> Result<Self, &'static str> {
        let hkid = platform.hkids.allocate().ok_or("no KeyID")?;
        let parameters = frames::allocate_frame().ok_or("no frame for TD_PARAMS")?;
        write_bytes(parameters, td_params().as_bytes());
        let config = TdConfig {
            shared_bit: SharedBit::new(module::SHARED_BIT).ok_or("SHARED bit")?,
            private_top: Level::Pml4,
            shared_top: Level::Pml4,
            keyid_shift: (module::MAX_PA - module::KEY_ID_BITS) as u8,
            global_hkid: platform.global_hkid,
            tdcx_pages: platform.info.tdcs_pages as u8,
            tdvpx_pages: platform.info.tdvps_pages as u8 - 1,
            l2_vms: 0,
        };
        let (td, created) = Td::create(Host::new(), config, hkid, Hpa::new(parameters))
            .map_err(|_| "no pages for a TD")?;
        frames::free(parameters, frames::FRAME);
        created.map_err(|error| say("TDH.MNG", &error))?;
        let vcpu = td.add_vcpu(0).map_err(|error| say("TDH.VP", &error))?;
        let tdvpr = td.tdvpr(vcpu).ok_or("no TDVPR")?;
        set_shared_eptp(tdvpr, td.shared().tree().root())?;
        let memory = GpaRange::new(0, GUEST_MEMORY).ok_or("guest memory")?;
        td.declare(memory, Visibility::Private)
            .map_err(|error| say("declare", &error))?;
        add_image(&td)?;
        td.finalize()
            .map_err(|error| say("TDH.MR.FINALIZE", &error))?;
        Ok(Self {
            td: Rc::new(td),
            tdvpr,
            answer: Call::default(),
            last: [0; 3],
        })
    }

    /// Lets the MMU resolve the EPT violation that the last run ended with.
    pub(crate) fn resolve(&self) -> Option<Resolution> {
        let [qualification, extended, gpa] = self.last;
        match self
            .td
            .fault(Access::from_exit(qualification, extended, Gpa::new(gpa)))
        {
            Ok(resolution) => Some(resolution),
            Err(error) => {
                log!("fault at {gpa:#x}: {error}");
                None
            }
        }
    }

    /// The root that the CPU walks, once the vCPU has run.
    pub(crate) fn root(&self) -> Option<u64> {
        seam_guest::root(self.tdvpr.bits())
    }

    /// Tears the TD down, and checks that every KeyID and page came back.
    pub(crate) fn tear_down(self, platform: &Platform) -> Result<(), &'static str> {
        let td = Rc::into_inner(self.td).ok_or("somebody still uses the TD")?;
        let teardown = td
            .teardown()
            .map_err(|(_, error)| say("teardown", &error))?;
        let torn = teardown
            .finish()
            .map_err(|(_, error)| say("reclaim", &error))?;
        seam_guest::forget(self.tdvpr.bits());
        torn.embedder.free_shared();
        platform
            .hkids
            .release(torn.hkid)
            .map_err(|_| "the KeyID was not of the pool")
    }
}

/// Prints `error`, and names the step for the caller.
pub(crate) fn say(step: &'static str, error: &dyn core::fmt::Display) -> &'static str {
    log!("{step}: {error}");
    step
}

fn td_params() -> TdParams {
    let mut parameters = TdParams::new();
    parameters.set_xfam(Xfam::from_bits(3));
    parameters.set_max_vcpus(1);
    parameters.set_eptp_controls(Eptp::from_bits(tables::EPTP));
    parameters.set_tsc_frequency(40);
    parameters
}

fn set_shared_eptp(tdvpr: Hpa, root: Hpa) -> Result<(), &'static str> {
    let write = tdh::vp::Wr {
        tdvpr: Tdvpr::assume(tdvpr),
        field: field::td_vmcs::SHARED_EPTP,
        value: root.bits(),
        mask: ADDRESS,
    };
    match write.call(&instruction::seamcall()) {
        Ok(_) => Ok(()),
        Err(refused) => {
            log!("TDH.VP.WR of the shared EPTP: {:x?}", refused.error);
            Err("TDH.VP.WR")
        }
    }
}

/// Adds and measures the guest's first pages.
fn add_image(td: &Td<Host>) -> Result<(), &'static str> {
    let source = frames::allocate_frame().ok_or("no frame for a source page")?;
    for index in 0..guest_image::pages() {
        let gpa = PrivateGpa::new(guest_image::BASE + index * frames::FRAME);
        for (word, value) in physical::frame(source)
            .ok_or("source page")?
            .iter()
            .zip(guest_image::page(index))
        {
            word.store(value, Ordering::Relaxed);
        }
        let frame = frames::allocate_frame().ok_or("no frame for a page")?;
        let page = Page::assume_owned(Hpa::new(frame), Level::Pt).ok_or("frame alignment")?;
        td.add_page(gpa, page, Hpa::new(source))
            .map_err(|rejected| say("TDH.MEM.PAGE.ADD", &rejected.error))?;
        td.extend_page(gpa)
            .map_err(|error| say("TDH.MR.EXTEND", &error))?;
    }
    frames::free(source, frames::FRAME);
    Ok(())
}

fn write_bytes(frame: u64, bytes: &[u8]) {
    physical::clear(frame);
    if let Some(words) = physical::frame(frame) {
        for (word, bytes) in words.iter().zip(bytes.chunks_exact(8)) {
            let mut eight = [0; 8];
            eight.copy_from_slice(bytes);
            word.store(u64::from_le_bytes(eight), Ordering::Relaxed);
        }
    }
}

impl Machine for TdGuest {
    fn run(&mut self, ticks: u32) -> Event {
        seam_guest::limit(ticks);
        self.td.embedder().note_entry();
        let mut registers = Registers {
            rax: u64::from(SeamcallLeaf::TDH_VP_ENTER.number()),
            rcx: self.tdvpr.bits(),
            r10: self.answer.r10,
            r11: self.answer.r11,
            r12: self.answer.r12,
            r13: self.answer.r13,
            r14: self.answer.r14,
            r15: self.answer.r15,
            ..Registers::default()
        };
        let entered = match self.td.enter(0) {
            Ok(entered) => entered,
            Err(error) => {
                say("enter", &error);
                return Event::Unexpected(u32::MAX, 0);
            }
        };
        let called = instruction::seamcall().seamcall(&mut registers);
        drop(entered);
        if called.is_err() || Status::from_rax(registers.rax).is_error() {
            return Event::Unexpected(u32::MAX, registers.rax);
        }
        match registers.rax as u16 {
            REASON_TDCALL if registers.rcx == PASSED => Event::Call(Call {
                r10: registers.r10,
                r11: registers.r11,
                r12: registers.r12,
                r13: registers.r13,
                r14: registers.r14,
                r15: registers.r15,
            }),
            REASON_EPT_VIOLATION => {
                self.last = [registers.rcx, registers.rdx, registers.r8];
                Event::Violation(Violation {
                    gpa: registers.r8,
                    access: registers.rcx & tables::RWX,
                    pending: registers.rdx & 0xf == EXTENDED_PENDING,
                })
            }
            REASON_EPT_MISCONFIGURATION => Event::Misconfiguration(registers.r8),
            REASON_EXTERNAL_INTERRUPT => Event::Timer,
            other => Event::Unexpected(other.into(), registers.rax),
        }
    }

    fn answer(&mut self, answer: Call) {
        self.answer = answer;
    }
}
