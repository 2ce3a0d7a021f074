//! Which TDX module a platform has, and how it keeps its page metadata.

use std::sync::atomic::AtomicU64;

use clap::builder::PossibleValue;
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;
use serde::Serialize;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_emulator::Module;
use tdx_mmu::pamt::PairCount;
use tdx_mmu::platform::bring_up::PamtMode;

use super::Host;
use super::Up;
use super::frames::Use;

/// The module to be loaded.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct ModuleArgs {
    /// Version of the TDX module.
    #[arg(long, value_name = "VERSION", default_value = Module::V1_5_01.name(), value_parser = versions())]
    pub module: Module,
    /// Give the module memory for what it knows of 4 KiB pages as needed (Dynamic PAMT).
    #[arg(long)]
    pub dynamic_pamt: bool,
}

impl Default for ModuleArgs {
    fn default() -> Self {
        Self {
            module: Module::V1_5_01,
            dynamic_pamt: false,
        }
    }
}

impl ModuleArgs {
    pub(super) const fn pamt_mode(self) -> PamtMode {
        match self.dynamic_pamt {
            true => PamtMode::Dynamic,
            false => PamtMode::Static,
        }
    }
}

fn versions() -> impl TypedValueParser<Value = Module> {
    PossibleValuesParser::new(Module::ALL.map(|module| PossibleValue::new(module.name()))).try_map(
        |name| {
            Module::ALL
                .into_iter()
                .find(|module| module.name() == name)
                .ok_or("unknown")
        },
    )
}

/// Memory that holds the module's page metadata, in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PamtMemory {
    /// Reserved at bring-up.
    pub reserved: u64,
    /// In pairs of pages at this moment; 0 without Dynamic PAMT.
    pub pairs: u64,
    /// What a PAMT without Dynamic PAMT takes for the same TDMRs.
    pub without_dynamic_pamt: u64,
}

impl Host {
    /// A word for each 2 MiB of `frames` frames, if PAMT is dynamic.
    pub(super) fn pamt_counts(module: ModuleArgs, frames: usize) -> Option<Vec<AtomicU64>> {
        let ranges = frames / (Level::Pd.size() / Level::Pt.size()) as usize;
        module.dynamic_pamt.then(|| {
            std::iter::repeat_with(AtomicU64::default)
                .take(ranges)
                .collect()
        })
    }

    /// The count for the 2 MiB range of `hpa`.
    pub(super) fn pamt_word(&self, hpa: Hpa) -> Option<&AtomicU64> {
        let (base, _) = self.frames.extent();
        let range = hpa.bits().checked_sub(base)? / Level::Pd.size();
        self.pamt.as_ref()?.get(usize::try_from(range).ok()?)
    }

    /// How much memory the module's page metadata takes now.
    pub fn pamt_memory(&self, up: &Up) -> PamtMemory {
        let words = self.pamt.iter().flatten();
        let pairs = words.filter(|word| PairCount::new(*word).pages().is_some());
        let mut limits = up.info.limits;
        limits.pamt_page_bitmap_entry_bits = None;
        let size = |level| {
            let sizes = up
                .tdmrs
                .iter()
                .map(|tdmr| limits.pamt_size(level, tdmr.range().size()));
            sizes.flatten().sum::<u64>()
        };
        PamtMemory {
            reserved: self.frames.used(Use::Pamt),
            pairs: pairs.count() as u64 * 2 * Level::Pt.size(),
            without_dynamic_pamt: [Level::Pt, Level::Pd, Level::Pdpt].map(size).iter().sum(),
        }
    }
}
