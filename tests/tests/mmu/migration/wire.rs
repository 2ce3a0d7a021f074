//! What is between the two platforms: bundles as bytes.

use std::collections::VecDeque;

use tdx_abi::Hpa;
use tdx_mmu::td::migration::Arrival;
use tdx_mmu::td::migration::Bundle;
use tdx_mmu::td::migration::MBMD_WORDS;
use tdx_mmu::td::migration::Sink;
use tdx_mmu::td::migration::Unsent;

use super::super::host::Host;

type Content = Box<[u8; 4096]>;

/// A bundle that has left the source.
#[derive(Clone)]
pub struct Travelling {
    pub stream: u16,
    mbmd: [u64; MBMD_WORDS],
    /// Entry, MAC, page.
    slots: Vec<(u64, [u64; 2], Option<Content>)>,
}

/// Bundles under way, in order.
pub struct Wire<'h> {
    source: &'h Host,
    pub bundles: VecDeque<Travelling>,
    /// Bundles and pages that passed.
    pub passed: (u64, u64),
    /// Whether it takes anything.
    pub broken: bool,
}

impl<'h> Wire<'h> {
    pub const fn from(source: &'h Host) -> Self {
        Self {
            source,
            bundles: VecDeque::new(),
            passed: (0, 0),
            broken: false,
        }
    }
}

impl Sink<Host> for Wire<'_> {
    fn send(&mut self, bundle: &Bundle<'_, '_, Host>) -> Result<(), Unsent> {
        if self.broken {
            return Err(Unsent);
        }
        let slot = |index| {
            let entry = bundle.entry(index).map_or(0, |entry| entry.into_bits());
            let page = bundle.page(index).map(|hpa| {
                let mut bytes = Box::new([0; 4096]);
                // As the host sees it: nothing that is on the way is readable with the TD's key only.
                self.source
                    .platform
                    .host_memory()
                    .read(hpa, bytes.as_mut_slice())
                    .unwrap();
                bytes
            });
            (entry, bundle.mac(index).unwrap_or_default(), page)
        };
        let travelling = Travelling {
            stream: bundle.stream(),
            mbmd: bundle.mbmd(),
            slots: (0..bundle.len()).map(slot).collect(),
        };
        let pages = travelling.slots.iter().filter(|slot| slot.2.is_some());
        self.passed.0 += 1;
        self.passed.1 += pages.count() as u64;
        self.bundles.push_back(travelling);
        Ok(())
    }
}

/// A bundle that has arrived at `host`.
pub struct Arrived<'h> {
    pub host: &'h Host,
    pub bundle: Travelling,
}

impl Arrival for Arrived<'_> {
    fn mbmd(&self) -> [u64; MBMD_WORDS] {
        self.bundle.mbmd
    }

    fn len(&self) -> usize {
        self.bundle.slots.len()
    }

    fn entry(&self, index: usize) -> u64 {
        self.bundle.slots[index].0
    }

    fn mac(&self, index: usize) -> [u64; 2] {
        self.bundle.slots[index].1
    }

    fn load(&self, index: usize, to: Hpa) {
        if let Some(content) = &self.bundle.slots[index].2 {
            self.host
                .platform
                .host_memory()
                .write(to, content.as_slice());
        }
    }
}

impl Travelling {
    /// Flips a bit of the first page, or else of the MBMD's MAC.
    pub fn spoil(&mut self) {
        match self.slots.iter_mut().find_map(|slot| slot.2.as_mut()) {
            Some(page) => page[100] ^= 4,
            None => self.mbmd[5] ^= 1,
        }
    }
}
