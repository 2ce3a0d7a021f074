//! Two platforms, each with a migration TD, and the TD that moves from one to the other.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::field::tdr_tdcs;
use tdx_abi::format::SeptEntry;
use tdx_abi::format::ServtdAttributes;
use tdx_abi::format::ServtdType;
use tdx_abi::format::TdAttributes;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_cli::migrate::service_td::ServiceTd;
use tdx_emulator::Module;
use tdx_emulator::Platform;
use tdx_emulator::PlatformConfig;
use tdx_mmu::Td;
use tdx_mmu::attributes::Visibility;
use tdx_mmu::platform::HkidPool;
use tdx_mmu::platform::bring_up::PamtMode;
use tdx_mmu::td::migration::Binding;
use tdx_mmu::td::migration::Import;
use tdx_mmu::td::migration::Received;
use tdx_mmu::td::migration::Stream;

use super::super::compare::Entry;
use super::super::compare::assert_equal;
use super::super::compare::mirror;
use super::super::host::Host;
use super::super::host::SCRATCH;
use super::super::host::config;
use super::super::host::ram;
use super::super::life::end;
use super::super::life::finalized;
use super::wire::Arrived;
use super::wire::Wire;

const PARAMETERS: u64 = SCRATCH + 0x2000;
/// Where migration TDs have their pages.
const SERVICE_PAGES: u64 = 0x1_1800_0000;
const SERVICE_HKID: u16 = 40;
pub const STREAMS: u16 = 2;

/// One side.
pub struct Side {
    pub td: Td<Host>,
    service: ServiceTd<'static>,
    binding: Binding,
}

impl Side {
    /// A host whose TDs may migrate, with a migration TD.
    fn host(seed: u64, pamt: PamtMode) -> (Host, ServiceTd<'static>) {
        let platform = PlatformConfig {
            seed: PlatformConfig::default().seed ^ seed,
            ..PlatformConfig::default()
        };
        let host = match pamt {
            PamtMode::Static => Host::on(Box::leak(Box::new(Platform::new(platform))), None),
            PamtMode::Dynamic => {
                let module = Module::V1_5_34;
                Host::dynamic_on(PlatformConfig { module, ..platform }, 0)
            }
        };
        let next = AtomicU64::new(SERVICE_PAGES);
        let service = ServiceTd::build(
            host.platform,
            1,
            SERVICE_HKID,
            Hpa::new(PARAMETERS),
            (6, 5),
            || {
                let page = Hpa::new(next.fetch_add(4096, Ordering::Relaxed));
                tdx_mmu::pamt::admit(&host, &host.config(), page).unwrap();
                Ok(page)
            },
        )
        .unwrap();
        // The next page that is allocated is the TDR of the TD that moves.
        host.allocated.lock().unwrap().clear();
        let attributes = TdAttributes::new()
            .with_sept_ve_disable(true)
            .with_migratable(true);
        // The first word of TD_PARAMS.
        host.platform
            .memory()
            .write_u64(PARAMETERS, attributes.into_bits());
        (host, service)
    }

    /// Binds the migration TD to one that has not been finalized, and creates its streams.
    fn new(td: Td<Host>, service: ServiceTd<'static>) -> Self {
        let binding = td
            .bind_service(service.tdr(), ServtdType::MIGTD, ServtdAttributes::new())
            .unwrap();
        for _ in 0..=STREAMS {
            td.add_stream().unwrap();
        }
        Self {
            td,
            service,
            binding,
        }
    }

    /// A TD that runs and may migrate.
    pub fn source(vcpus: usize) -> Self {
        Self::source_on(vcpus, PamtMode::Static)
    }

    /// The same on a module that keeps its PAMT this way.
    pub fn source_on(vcpus: usize, pamt: PamtMode) -> Self {
        let (host, service) = Self::host(0, pamt);
        let side = Self::new(host.create(vcpus), service);
        Self {
            td: finalized(side.td),
            ..side
        }
    }

    /// A TD that is about to be imported.
    pub fn destination() -> Self {
        Self::destination_on(PamtMode::Static)
    }

    /// The same on a module that keeps its PAMT this way.
    pub fn destination_on(pamt: PamtMode) -> Self {
        let (host, service) = Self::host(0x5a5a, pamt);
        let hkid = HkidPool::<1>::new(33, 31).unwrap().allocate().unwrap();
        let (td, done) = Td::create_for_import(host, config(), hkid)
            .unwrap_or_else(|(_, _, error)| panic!("{error}"));
        done.unwrap();
        td.declare(ram(), Visibility::Private).unwrap();
        Self::new(td, service)
    }

    /// The two migration TDs tell each other the keys.
    pub fn exchange_keys(&self, other: &Self) {
        for (from, to) in [(self, other), (other, self)] {
            let key = from.service.read_key(from.binding).unwrap();
            to.service.write_key(to.binding, key).unwrap();
        }
    }

    /// Tears everything down; every page has to be back.
    #[track_caller]
    pub fn end(self) {
        let host = self.td.embedder();
        let back = |page| {
            tdx_mmu::pamt::dismiss(host, &host.config(), page).unwrap();
            Ok(())
        };
        self.service.tear_down(back).unwrap();
        end(self.td);
    }

    /// Streams 0 and up with buffers of `pages` pages.
    pub fn streams(&self, pages: u16) -> Vec<Stream<'_, Host>> {
        (0..STREAMS)
            .map(|index| self.td.stream(index, pages).unwrap())
            .collect()
    }
}

/// MRTD, read by TDH.MNG.RD.
pub fn mrtd(td: &Td<Host>) -> [u64; 6] {
    core::array::from_fn(|element| {
        let field = tdr_tdcs::MRTD.offset_by(u32::try_from(element).unwrap());
        let operands = [td.tdr().bits(), field.into_bits(), 0];
        td.embedder().call(0, SeamcallLeaf::TDH_MNG_RD, operands).r8
    })
}

/// Gives everything that is on the wire to the destination.
#[track_caller]
pub fn deliver(
    wire: &mut Wire<'_>,
    import: &Import<'_, Host>,
    td: &Td<Host>,
    streams: &mut [Stream<'_, Host>],
) -> Vec<Received> {
    let mut received = Vec::new();
    while let Some(bundle) = wire.bundles.pop_front() {
        let stream = &mut streams[usize::from(bundle.stream)];
        let arrived = Arrived {
            host: td.embedder(),
            bundle,
        };
        received.push(import.receive(stream, &arrived).unwrap());
        assert_equal(td);
    }
    received
}

/// Content of every 4 KiB page that a TD has and whether the guest has accepted it, by address. Read from the
/// emulated memory in plaintext, not through the MMU.
pub fn content(td: &Td<Host>) -> BTreeMap<u64, Option<Vec<u8>>> {
    let host = td.embedder();
    let mut pages = BTreeMap::new();
    for ((gpa, level), entry) in mirror(td) {
        let Entry::Leaf { page, .. } = entry else {
            continue;
        };
        let sept = host
            .platform
            .sept_entry(td.tdr().bits(), gpa, level)
            .unwrap()
            .load(Ordering::Acquire);
        let pending = SeptEntry::from_bits(sept).state().unwrap().any_pending();
        for offset in (0..level.size()).step_by(Level::Pt.size() as usize) {
            let bytes = (!pending).then(|| {
                let mut bytes = vec![0; 4096];
                host.platform.memory().read(page + offset, &mut bytes);
                bytes
            });
            pages.insert(gpa + offset, bytes);
        }
    }
    pages
}

/// Makes the first bundle on the wire the beginning of an import.
#[track_caller]
pub fn begin<'t>(
    wire: &mut Wire<'_>,
    td: &'t Td<Host>,
    stream: &mut Stream<'_, Host>,
) -> Import<'t, Host> {
    let arrived = Arrived {
        host: td.embedder(),
        bundle: wire.bundles.pop_front().unwrap(),
    };
    td.import(stream, &arrived).unwrap()
}

/// Fails unless both TDs have the same pages with the same content and the same measurement.
#[track_caller]
pub fn assert_same(source: &Td<Host>, destination: &Td<Host>) {
    let (before, after) = (content(source), content(destination));
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        after.keys().collect::<Vec<_>>()
    );
    for (gpa, bytes) in &before {
        assert!(after[gpa] == *bytes, "page {gpa:#x} differs");
    }
    assert_eq!(mrtd(source), mrtd(destination));
    assert_ne!(mrtd(source), [0; 6]);
}
