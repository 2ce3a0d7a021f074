//! What is fuzzed: one function for each decoder, shared by cargo-fuzz and the test on stable Rust.
#![forbid(unsafe_code)]

pub mod mutate;
mod specification;

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use tdx_abi::CallError;
use tdx_abi::HostLeaf as _;
use tdx_abi::Leaf;
use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::Trap;
use tdx_abi::format;
use tdx_cli::fuzz;
use tdx_cli::tdvf::Tdvf;
use tdx_cli::trace::Trace;

/// A name, what takes the bytes, and files of `tests/data` (or below) that are worth changing.
pub struct Target {
    /// Name of the target.
    pub name: &'static str,
    /// Takes any bytes, and comes back.
    pub run: fn(&[u8]),
    /// Seeds: files, or folders of them, below `tests/data`.
    pub seeds: &'static [&'static str],
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target {
        name: "abi",
        run: abi,
        seeds: &[],
    },
    Target {
        name: "value",
        run: value,
        seeds: &[],
    },
    Target {
        name: "tdreport",
        run: fuzz::tdreport,
        seeds: &["tdreport/tdreport_azure_1024.bin"],
    },
    Target {
        name: "log",
        run: fuzz::log,
        seeds: &["logs"],
    },
    Target {
        name: "tdvf",
        run: tdvf,
        seeds: &[],
    },
    Target {
        name: "trace",
        run: trace,
        seeds: &[],
    },
    Target {
        name: "recording",
        run: fuzz::recording,
        seeds: &[],
    },
    Target {
        name: "yaml",
        run: specification::yaml,
        seeds: &["codegen/golden_spec"],
    },
    Target {
        name: "import",
        run: import,
        seeds: &["facts/tdx-module-1.5.34"],
    },
    Target {
        name: "constants",
        run: constants,
        seeds: &[],
    },
];

/// The target called `name`.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data")
}

impl Target {
    /// The seeds' bytes (of each at most 64 KiB), and a few short texts.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        let mut seeds: Vec<Vec<u8>> = match self.name {
            "trace" => vec![b"# name t\n# ram 4096\n0 T 0 p\n".to_vec()],
            "recording" => {
                vec![br#"{"call":"TDH.SYS.INIT","in":{"rcx":"0x0"},"out":{"rax":"0x0"}}"#.to_vec()]
            }
            "constants" => vec![
                b"#define TDX_BUSY 0x8000020000000000ULL\nenum { A = 1, B, C = A << 3 };\n"
                    .to_vec(),
                b"pub const TDH_VP_ENTER: u64 = 0;\npub enum L { A = 1, B = (2 + 3) * 4 }\n"
                    .to_vec(),
            ],
            "value" => vec![b"\x000x8000020000000092".to_vec(), b"\x030x10016".to_vec()],
            _ => vec![(0_u8..=255).collect()],
        };
        for seed in self.seeds {
            collect(&data().join(seed), &mut seeds);
        }
        seeds
    }
}

fn collect(path: &Path, seeds: &mut Vec<Vec<u8>>) {
    if let Ok(entries) = fs::read_dir(path) {
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        paths.iter().for_each(|path| collect(path, seeds));
    } else if let Ok(mut bytes) = fs::read(path) {
        bytes.truncate(64 << 10);
        seeds.push(bytes);
    }
}

fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    let length = bytes.len().min(8);
    word[..length].copy_from_slice(&bytes[..length]);
    u64::from_le_bytes(word)
}

/// Answers every call with the same registers.
struct Answer(Registers);

impl Seamcall for Answer {
    fn seamcall(&self, registers: &mut Registers) -> Result<(), Trap> {
        *registers = self.0;
        Ok(())
    }
}

fn called<L: Leaf>(result: Result<tdx_abi::Success<L::Output>, tdx_abi::Refused<L>>, rax: u64) {
    match result {
        Ok(done) => assert!(!done.status.is_error() && done.status.rax() == rax),
        Err(refused) => match refused.error {
            CallError::Trap(_) => unreachable!("the answer is no trap"),
            error => assert!(
                error.status().is_some_and(|status| status.rax() == rax),
                "{error}"
            ),
        },
    }
}

/// Whatever the callee leaves in the registers, typed calls decode it and lose nothing of RAX.
fn abi(bytes: &[u8]) {
    let mut words = bytes.chunks(8).map(word);
    let mut next = || words.next().unwrap_or_default();
    let registers = Registers {
        rax: next(),
        rcx: next(),
        rdx: next(),
        r8: next(),
        r9: next(),
        r10: next(),
        r11: next(),
        ..Registers::ZERO
    };
    let lp = Answer(registers);
    let hpa = tdx_abi::Hpa::new(next());
    let tdr = tdx_abi::Tdr::assume(hpa);
    called(
        tdx_abi::tdh::mng::KeyConfig { tdr }.call(&lp),
        registers.rax,
    );
    called(
        tdx_abi::tdh::phymem::PageReclaim { page: hpa }.call(&lp),
        registers.rax,
    );
    called(
        tdx_abi::tdh::vp::Flush {
            tdvpr: tdx_abi::Tdvpr::assume(hpa),
        }
        .call(&lp),
        registers.rax,
    );
    let word = next();
    let _ = format!(
        "{:?}{:?}{:?}{:?}{:?}{:?}{:?}{}",
        format::SeptEntry::from_bits(word),
        format::ArchSeptEntry::from_bits(word),
        format::EptLeaf4K::from_bits(word),
        format::SeptInfo::from_bits(word),
        format::GpaMapping::from_bits(word),
        format::ExitReason::from_bits(word as u32),
        tdx_abi::field::FieldId::from_bits(word),
        tdx_abi::Status::from_rax(word),
    );
    assert_eq!(format::SeptEntry::from_bits(word).into_bits(), word);
}

fn value(bytes: &[u8]) {
    let Some((what, rest)) = bytes.split_first() else {
        return;
    };
    let level = Some(what >> 4).filter(|level| *level < 5);
    fuzz::value(what & 7, level, &String::from_utf8_lossy(rest));
    fuzz::value(what & 7, level, &format!("{:#x}", word(rest)));
}

fn tdvf(bytes: &[u8]) {
    if let Ok(image) = Tdvf::parse(bytes.to_vec()) {
        for section in image.sections() {
            let _ = image.page(section, 0);
            let _ = image.page(section, u64::MAX);
        }
    }
}

fn trace(bytes: &[u8]) {
    if let Ok(trace) = Trace::parse(bytes) {
        let _ = trace.vcpus();
    }
}

fn import(bytes: &[u8]) {
    fuzz::import(&String::from_utf8_lossy(bytes));
}

fn constants(bytes: &[u8]) {
    fuzz::constants(&String::from_utf8_lossy(bytes));
}
