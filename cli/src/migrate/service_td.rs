//! Migration TDs: what exchanges the keys of two TDs, each on its own platform.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use tdx_abi::Hkid;
use tdx_abi::HostLeaf;
use tdx_abi::Hpa;
use tdx_abi::HpaOf;
use tdx_abi::Leaf;
use tdx_abi::Page;
use tdx_abi::Refused;
use tdx_abi::Registers;
use tdx_abi::Retry;
use tdx_abi::Seamcall;
use tdx_abi::Tdr;
use tdx_abi::Tdvpr;
use tdx_abi::field::FieldId;
use tdx_abi::field::tdr_tdcs;
use tdx_abi::format::CacheWbCommand;
use tdx_abi::format::TdParams;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::level::Pt;
use tdx_abi::tdg;
use tdx_abi::tdh;
use tdx_emulator::Exited;
use tdx_emulator::GuestCpu;
use tdx_emulator::GuestFault;
use tdx_emulator::Lp;
use tdx_emulator::Platform;
use tdx_mmu::td::migration::Binding;

use crate::error::Error;

/// 64-bit words of a migration key.
const KEY_WORDS: usize = 4;

/// A migration key, as one migration TD sends it to the other.
pub type Key = [u64; KEY_WORDS];

/// A migration TD without memory: its one vCPU is a program of the emulator.
///
/// A real one attests itself to its peer first; this one just tells what it reads.
pub struct ServiceTd<'p> {
    platform: &'p Platform,
    lp: Lp<'p>,
    tdr: Hpa,
    tdvpr: Hpa,
    pages: Vec<Hpa>,
}

impl<'p> ServiceTd<'p> {
    /// Makes one on LP `lp` with the KeyID `hkid` and the TD_PARAMS at `parameters`; `tdcx` and `tdvpx` are how many
    /// pages TDCS and TDVPS need beside TDR and TDVPR, `take` is where pages come from.
    pub fn build(
        platform: &'p Platform,
        lp: usize,
        hkid: u16,
        parameters: Hpa,
        (tdcx, tdvpx): (u8, u8),
        mut take: impl FnMut() -> Result<Hpa, Error>,
    ) -> Result<Self, Error> {
        let lp = platform
            .lp(lp)
            .ok_or_else(|| Error::Failed(format!("there is no LP {lp}")))?;
        let mut pages = Vec::new();
        let mut take = || -> Result<Page<Pt>, Error> {
            let hpa = take()?;
            pages.push(hpa);
            Page::owned(hpa).ok_or_else(|| Error::Failed(format!("{hpa:#x} is no page")))
        };
        let page = take()?;
        let tdr = Tdr::assume(page.hpa());
        let _ = call(
            &lp,
            tdh::mng::Create {
                tdr: page,
                hkid: Hkid::new(hkid),
            },
        )?;
        call(&lp, tdh::mng::KeyConfig { tdr })?;
        for _ in 0..tdcx {
            call(&lp, tdh::mng::Addcx { tdcx: take()?, tdr })?;
        }
        let td_params = HpaOf::<TdParams>::new(parameters)
            .ok_or_else(|| Error::Failed(format!("{parameters:#x} is not aligned")))?;
        call(&lp, tdh::mng::Init { tdr, td_params })?;
        let page = take()?;
        let tdvpr = Tdvpr::assume(page.hpa());
        let _ = call(&lp, tdh::vp::Create { tdvpr: page, tdr })?;
        for _ in 0..tdvpx {
            call(
                &lp,
                tdh::vp::Addcx {
                    tdcx: take()?,
                    tdvpr,
                },
            )?;
        }
        call(
            &lp,
            tdh::vp::Init {
                tdvpr,
                initial_rcx: 0,
            },
        )?;
        call(&lp, tdh::mr::Finalize { tdr })?;
        Ok(Self {
            platform,
            lp,
            tdr: tdr.hpa(),
            tdvpr: tdvpr.hpa(),
            pages,
        })
    }

    /// What other TDs are bound to.
    pub const fn tdr(&self) -> Tdr {
        Tdr::assume(self.tdr)
    }

    /// Reads the key under which the TD behind `binding` will export.
    pub fn read_key(&self, binding: Binding) -> Result<Key, Error> {
        self.serve(move |cpu| {
            let mut key = Key::default();
            for (word, element) in key.iter_mut().zip(0..) {
                let [target_uuid_0, target_uuid_1, target_uuid_2, target_uuid_3] =
                    binding.target_uuid;
                let leaf = tdg::servtd::Rd {
                    handle: binding.handle,
                    field: tdr_tdcs::MIG_ENC_KEY.offset_by(element),
                    target_uuid_0,
                    target_uuid_1,
                    target_uuid_2,
                    target_uuid_3,
                };
                match guest_call(cpu, leaf)? {
                    Ok(read) => *word = read.value,
                    Err(failed) => return Ok(Err(failed)),
                }
            }
            Ok(Ok(key))
        })
    }

    /// Gives the TD behind `binding` the key of its peer, and the protocol's version.
    pub fn write_key(&self, binding: Binding, key: Key) -> Result<(), Error> {
        /// Bits of MIG_VERSION.
        const VERSION: u64 = 0xffff;
        self.serve(move |cpu| {
            let fields = (0..).map(|element| tdr_tdcs::MIG_DEC_KEY.offset_by(element));
            let keys = fields
                .zip(key)
                .map(|(field, value)| (field, value, u64::MAX));
            for (field, value, mask) in keys.chain([(tdr_tdcs::MIG_VERSION, 0, VERSION)]) {
                if let Err(failed) = write(cpu, binding, field, value, mask)? {
                    return Ok(Err(failed));
                }
            }
            Ok(Ok(()))
        })
    }

    /// Enters the TD and has it do `work` once.
    fn serve<T: Send + 'static>(
        &self,
        mut work: impl FnMut(&mut GuestCpu<'_>) -> Result<Result<T, String>, GuestFault>
        + Send
        + 'static,
    ) -> Result<T, Error> {
        let done = Arc::new(Mutex::new(None));
        let result = Arc::clone(&done);
        let mut program = move |cpu: &mut GuestCpu<'_>| -> Exited {
            match work(cpu) {
                Err(GuestFault::Exited(exited)) => return exited,
                Err(fault @ (GuestFault::Event(_) | GuestFault::LeftL2)) => {
                    put(&result, Err(format!("the migration TD got {fault:?}")));
                }
                Ok(done) => put(&result, done),
            }
            cpu.interrupt()
        };
        self.platform
            .set_guest(self.tdvpr, move |cpu: &mut GuestCpu<'_>| program(cpu));
        loop {
            let mut registers = Registers {
                rax: SeamcallLeaf::TDH_VP_ENTER.number().into(),
                rcx: self.tdvpr.bits(),
                ..Registers::default()
            };
            let called = self.lp.seamcall(&mut registers);
            called.map_err(|trap| Error::Failed(format!("TDH.VP.ENTER: {trap}")))?;
            if tdx_abi::Status::from_rax(registers.rax).is_error() {
                let status = tdx_abi::Status::from_rax(registers.rax);
                return Err(Error::Failed(format!("the migration TD: {status}")));
            }
            if let Some(done) = done.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return done.map_err(Error::Failed);
            }
        }
    }

    /// Tears it down; `free` takes the pages. Call this when no TD that it serves needs it any more.
    pub fn tear_down(self, mut free: impl FnMut(Hpa) -> Result<(), Error>) -> Result<(), Error> {
        let tdr = self.tdr();
        let tdvpr = Tdvpr::assume(self.tdvpr);
        call(&self.lp, tdh::vp::Flush { tdvpr })?;
        call(&self.lp, tdh::mng::Vpflushdone { tdr })?;
        let config = self.platform.config();
        for package in 0..config.packages {
            let lp = self
                .platform
                .lp((package * config.lps_per_package) as usize);
            let command = CacheWbCommand::START;
            lp.map_or(Ok(()), |lp| {
                call(&lp, tdh::phymem::CacheWb { command }).map(drop)
            })?;
        }
        call(&self.lp, tdh::mng::KeyFreeid { tdr })?;
        // The TDR last.
        for page in self.pages.into_iter().rev() {
            let _ = call(&self.lp, tdh::phymem::PageReclaim { page })?;
            free(page)?;
        }
        Ok(())
    }
}

fn put<T>(place: &Mutex<Option<T>>, value: T) {
    *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
}

fn write(
    cpu: &mut GuestCpu<'_>,
    binding: Binding,
    field: FieldId,
    value: u64,
    mask: u64,
) -> Result<Result<(), String>, GuestFault> {
    let [target_uuid_0, target_uuid_1, target_uuid_2, target_uuid_3] = binding.target_uuid;
    let leaf = tdg::servtd::Wr {
        handle: binding.handle,
        field,
        value,
        mask,
        target_uuid_0,
        target_uuid_1,
        target_uuid_2,
        target_uuid_3,
    };
    Ok(guest_call(cpu, leaf)?.map(drop))
}

/// A TDCALL of the guest.
fn guest_call<L: Leaf>(
    cpu: &mut GuestCpu<'_>,
    leaf: L,
) -> Result<Result<L::Output, String>, GuestFault> {
    let mut registers = leaf.encode();
    cpu.tdcall(&mut registers)?;
    Ok(match leaf.decode(&registers) {
        Ok(success) => Ok(success.output),
        Err(refused) => Err(refused.to_string()),
    })
}

/// A SEAMCALL, again while it is busy or interrupted.
fn call<L: HostLeaf>(lp: &Lp<'_>, leaf: L) -> Result<L::Output, Error> {
    let mut leaf = leaf;
    loop {
        match leaf.call(lp) {
            Ok(success) => return Ok(success.output),
            Err(refused) => match refused.retry() {
                Some(Retry::Busy | Retry::Restartable) => {
                    let Refused { leaf: again, .. } = refused;
                    leaf = again;
                    std::thread::yield_now();
                }
                _ => return Err(Error::Failed(refused.to_string())),
            },
        }
    }
}

impl std::fmt::Debug for ServiceTd<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceTd")
            .field("tdr", &self.tdr)
            .field("tdvpr", &self.tdvpr)
            .finish_non_exhaustive()
    }
}
