//! Making a TD on the host.

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::SharedBit;
use tdx_abi::field::tdr_tdcs;
use tdx_abi::format::Eptp;
use tdx_abi::format::MemType;
use tdx_abi::format::TdAttributes;
use tdx_abi::format::TdParams;
use tdx_abi::format::Xfam;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::status::Status;
use tdx_emulator::PageType;
use tdx_mmu::GpaRange;
use tdx_mmu::Td;
use tdx_mmu::attributes::Visibility;
use tdx_mmu::platform::Executor;
use tdx_mmu::td::Error;
use tdx_mmu::td::TdConfig;

use super::Host;
use super::Up;
use super::frames::Use;
use super::image::Order;
use super::image::Step;
use super::image::steps;
use crate::tdvf::Tdvf;

/// A TD of this host.
pub type HostTd<'h> = Td<&'h Host>;

/// Why a TD could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// No KeyID is left.
    #[error("no private KeyID is left")]
    NoHkid,
    /// No frame is left.
    #[error("no memory is left")]
    NoMemory,
    /// The platform cannot be what the TD needs.
    #[error("the platform has {what} {value}, which a TD cannot use")]
    Platform {
        /// Which parameter.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// Pages did not come back.
    #[error("not every page came back: {0}")]
    Missing(String),
    /// An operation on the TD failed.
    #[error("{doing}")]
    Td {
        /// What was to be done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: Error,
    },
}

impl Host {
    /// Creates a TD with vCPUs, to which nothing has been added yet; its memory slots are private.
    pub fn create_td(&self, up: &Up) -> Result<HostTd<'_>, MakeError> {
        self.create_td_with(up, TdAttributes::new().with_sept_ve_disable(true))
    }

    /// The same with these attributes.
    pub fn create_td_with(
        &self,
        up: &Up,
        attributes: TdAttributes,
    ) -> Result<HostTd<'_>, MakeError> {
        let failed = |doing| move |source| MakeError::Td { doing, source };
        let hkid = up.hkids.allocate().ok_or(MakeError::NoHkid)?;
        let config = self.td_config(up)?;
        let vcpus = self.epochs.len();
        let parameters = self.td_parameters(vcpus, attributes)?;
        let created = Td::create(self, config, hkid, parameters);
        self.frames().free(parameters, Level::Pt, Use::Tables);
        let (td, done) = created.map_err(|(_, _, source)| MakeError::Td {
            doing: "cannot create the TD",
            source,
        })?;
        done.map_err(failed("cannot create the TD"))?;
        for _ in 0..vcpus {
            let vcpu = td.add_vcpu(0).map_err(failed("cannot add a vCPU"))?;
            // TDH.VP.INIT has associated it with the LP where it was executed.
            (&self).on_this_lp(|lp, _| self.note_lp(vcpu, lp));
            td.show_shared(vcpu)
                .map_err(failed("cannot show a vCPU its shared EPT"))?;
        }
        for slot in self.guest().slots() {
            td.declare(*slot, Visibility::Private)
                .map_err(failed("cannot declare memory"))?;
        }
        Ok(td)
    }

    /// A page with the parameters of a TD with `vcpus` vCPUs and these attributes.
    pub fn td_parameters(&self, vcpus: usize, attributes: TdAttributes) -> Result<Hpa, MakeError> {
        let parameters = self
            .frames()
            .allocate(Level::Pt, Use::Tables)
            .ok_or(MakeError::NoMemory)?;
        self.write(parameters, td_params(vcpus, attributes).as_bytes());
        Ok(parameters)
    }

    /// Creates a TD that is to be imported; its memory slots are private.
    pub fn create_td_for_import(&self, up: &Up) -> Result<HostTd<'_>, MakeError> {
        let failed = |source| MakeError::Td {
            doing: "cannot create the TD to be imported",
            source,
        };
        let hkid = up.hkids.allocate().ok_or(MakeError::NoHkid)?;
        let (td, done) = Td::create_for_import(self, self.td_config(up)?, hkid)
            .map_err(|(_, _, source)| failed(source))?;
        done.map_err(failed)?;
        for slot in self.guest().slots() {
            td.declare(*slot, Visibility::Private).map_err(failed)?;
        }
        Ok(td)
    }

    /// Adds and measures `image`, and finalizes the TD; `progress` is called after each step.
    pub fn build(
        &self,
        td: &HostTd<'_>,
        image: &Tdvf,
        order: Order,
        mut progress: impl FnMut(),
    ) -> Result<(), MakeError> {
        let failed = |doing| move |source| MakeError::Td { doing, source };
        let source = self
            .frames()
            .allocate(Level::Pt, Use::Tables)
            .ok_or(MakeError::NoMemory)?;
        let mut build = || {
            for step in steps(image, order) {
                match step {
                    Step::Add { gpa, content } => {
                        self.soil(source, Level::Pt, 0);
                        self.write(source, content);
                        let hpa = self.frames().allocate(Level::Pt, Use::Private);
                        let page = hpa.and_then(|hpa| Page::assume_owned(hpa, Level::Pt));
                        let page = page.ok_or(MakeError::NoMemory)?;
                        td.add_page(PrivateGpa::new(gpa), page, source)
                            .map_err(|rejected| rejected.error)
                            .map_err(failed("cannot add a page"))?;
                    }
                    Step::Extend { gpa } => {
                        td.extend_page(PrivateGpa::new(gpa))
                            .map_err(failed("cannot measure a page"))?;
                    }
                }
                progress();
            }
            td.finalize().map_err(failed("cannot finalize the TD"))
        };
        let built = build();
        self.frames().free(source, Level::Pt, Use::Tables);
        built
    }

    /// Reads the MRTD of a finalized TD, by TDH.MNG.RD.
    pub fn mrtd(&self, td: &HostTd<'_>) -> Result<[u8; 48], MakeError> {
        let mut mrtd = [0; 48];
        for (element, bytes) in (0..).zip(mrtd.as_chunks_mut::<8>().0) {
            let leaf = SeamcallLeaf::TDH_MNG_RD;
            let mut registers = Registers {
                rax: leaf.number().into(),
                rcx: td.tdr().bits(),
                rdx: tdr_tdcs::MRTD.offset_by(element).into_bits(),
                ..Registers::default()
            };
            let name = leaf.name().unwrap_or_default();
            let failed = |source| MakeError::Td {
                doing: "cannot read MRTD",
                source,
            };
            (&self)
                .on_this_lp(|_, lp| lp.seamcall(&mut registers))
                .map_err(|trap| failed(Error::Trap { leaf: name, trap }))?;
            let status = Status::from_rax(registers.rax);
            if status.is_error() {
                let details = [registers.rcx, registers.rdx];
                return Err(failed(Error::Seamcall {
                    leaf: name,
                    status,
                    details,
                }));
            }
            *bytes = registers.r8.to_le_bytes();
        }
        Ok(mrtd)
    }

    /// Tears the TD down to the last page, and checks that every page is back.
    pub fn tear_down(&self, up: &Up, td: HostTd<'_>) -> Result<(), MakeError> {
        let failed = |source| MakeError::Td {
            doing: "cannot tear the TD down",
            source,
        };
        let teardown = td.teardown().map_err(|(_, error)| failed(error))?;
        let torn = teardown.finish().map_err(|(_, error)| failed(error))?;
        up.hkids
            .release(torn.hkid)
            .map_err(|hkid| MakeError::Platform {
                what: "a KeyID that was never given out:",
                value: hkid.number().into(),
            })?;
        for slot in self.guest().slots() {
            self.drop_shared(*slot);
        }
        match self.missing_pages() {
            None => Ok(()),
            Some(missing) => Err(MakeError::Missing(missing)),
        }
    }

    /// What says that not every page is back; `None` if every one is.
    pub fn missing_pages(&self) -> Option<String> {
        if !self.frames().is_balanced() {
            return Some("the frame allocator does not balance".to_owned());
        }
        let mut missing = None;
        self.platform().for_each_used_page(|hpa, level, kind, _| {
            if !matches!(kind, PageType::Nda | PageType::Reserved) {
                missing = Some(format!(
                    "the PAMT has a {kind:?} page of {level:?} at {hpa:#x}"
                ));
            }
        });
        missing
    }

    /// What the platform asks of a TD.
    pub(crate) fn td_config(&self, up: &Up) -> Result<TdConfig, MakeError> {
        let config = self.platform().config();
        let small =
            |what, value: u64| u8::try_from(value).map_err(|_| MakeError::Platform { what, value });
        let position = config.shared_bit(false);
        let bit = u8::try_from(position).ok().and_then(SharedBit::new);
        Ok(TdConfig {
            shared_bit: bit.ok_or(MakeError::Platform {
                what: "SHARED bit",
                value: position.into(),
            })?,
            private_top: Level::Pml4,
            shared_top: Level::Pml4,
            keyid_shift: small("KeyID bits from bit", config.key_id_shift().into())?,
            global_hkid: up.global_hkid.number(),
            tdcx_pages: small("TDCX pages", up.info.tdcs_pages.into())?,
            tdvpx_pages: small("TDVPS pages", up.info.tdvps_pages.saturating_sub(1).into())?,
            l2_vms: 0,
        })
    }

    /// Writes to the host's memory from `hpa` on.
    fn write(&self, hpa: Hpa, bytes: &[u8]) {
        self.platform().host_memory().write(hpa, bytes);
    }
}

/// The range of 4 KiB pages that the image's sections outside of `[0, ram)` need.
pub fn slots(ram: u64, image: &Tdvf) -> Vec<GpaRange> {
    let mut slots: Vec<GpaRange> = GpaRange::new(0, ram).into_iter().collect();
    let mut sections: Vec<(u64, u64)> = image
        .sections()
        .iter()
        .map(|section| (section.gpa.max(ram), section.gpa + section.size))
        .filter(|(start, end)| start < end)
        .collect();
    sections.sort_unstable();
    slots.extend(
        sections
            .into_iter()
            .filter_map(|(start, end)| GpaRange::new(start, end - start)),
    );
    slots
}

/// Parameters of a TD with 4-level page tables and a GPA width of 48.
fn td_params(vcpus: usize, attributes: TdAttributes) -> TdParams {
    /// x87 and SSE state, without which no TD is.
    const XFAM: u64 = 0b11;
    /// 2.5 GHz in units of 25 MHz.
    const TSC_FREQUENCY: u16 = 100;
    /// Number of levels less one.
    const WALK_LENGTH: u8 = 3;
    let mut params = TdParams::new();
    params.set_attributes(attributes);
    params.set_xfam(Xfam::from_bits(XFAM));
    params.set_max_vcpus(u16::try_from(vcpus).unwrap_or(u16::MAX));
    params.set_eptp_controls(
        Eptp::new()
            .with_mem_type(MemType::WB)
            .with_walk_length(WALK_LENGTH),
    );
    params.set_tsc_frequency(TSC_FREQUENCY);
    params
}
