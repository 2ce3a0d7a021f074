//! Vendored Rust: built without a warning under this repository's lints, in both forms, and used.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::command::repository;
use super::facts;
use super::folder;
use super::generate;
use super::run;

/// The lints of this repository as those of one crate.
fn lints() -> String {
    let manifest = fs::read_to_string(repository("Cargo.toml")).unwrap();
    let from = manifest.find("[workspace.lints.rust]").unwrap();
    let to = manifest.find("[profile").unwrap();
    manifest[from..to].replace("[workspace.lints.", "[lints.")
}

fn cargo(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(folder).args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_") || name == "RUSTFLAGS" {
            command.env_remove(name);
        }
    }
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        command.env("CARGO_HOME", home);
    }
    command.env("CARGO_NET_OFFLINE", "true");
    command.env("CARGO_TARGET_DIR", folder.parent().unwrap().join("target"));
    run(&mut command)
}

/// Names of all files in `folder`, after `prefix`.
fn collect(folder: &Path, prefix: &str, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            collect(&path, &format!("{name}/"), names);
        } else {
            names.insert(name);
        }
    }
}

#[test]
fn no_file_of_the_crate_is_forgotten() {
    let mut files = BTreeSet::new();
    collect(&repository("tdx-abi/src"), "", &mut files);
    files.remove("source.rs");
    let listed: BTreeSet<String> = tdx_abi::source::FILES
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(
        listed, files,
        "tdx-abi/src/source.rs lists the files beside it"
    );
}

#[test]
fn vendored_rust_is_used_without_a_warning() {
    let folder = folder("rust");
    generate("rust", &folder.join("tdx-abi"), &[]);
    generate("rust", &folder.join("src/tdx"), &["--module", "crate::tdx"]);
    let lints = lints();
    let vendored = folder.join("tdx-abi/Cargo.toml");
    let manifest = fs::read_to_string(&vendored).unwrap();
    fs::write(&vendored, format!("{manifest}\n{lints}")).unwrap();
    fs::copy(repository("clippy.toml"), folder.join("clippy.toml")).unwrap();
    fs::write(
        folder.join("Cargo.toml"),
        format!(
            "[package]\nname = \"kernel\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\nmembers = [\"tdx-abi\"]\n\n\
             [dependencies]\ntdx-abi = {{ path = \"tdx-abi\" }}\n\n{lints}"
        ),
    )
    .unwrap();
    fs::write(
        folder.join("src/lib.rs"),
        "//! A kernel.\n#![no_std]\npub mod tdx;\n",
    )
    .unwrap();
    fs::write(folder.join("src/main.rs"), PROGRAM).unwrap();
    if Command::new(env!("CARGO"))
        .args(["clippy", "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
    {
        cargo(&folder, &["clippy", "--workspace", "--", "-D", "warnings"]);
    } else {
        println!("NOT RUN: clippy, which is not installed");
    }
    let printed = cargo(
        &folder,
        &[
            "run",
            "--quiet",
            "--config",
            "build.rustflags=['-Dwarnings']",
        ],
    );
    let lines: BTreeSet<&str> = printed.lines().collect();
    for module in facts::MODULES {
        for (name, value) in facts::numbers(module, "status_codes", "value") {
            let name = name.trim_start_matches("TDX_");
            let line = format!("{module} status {name} {value:#x}");
            assert!(lines.contains(&*line), "{line}");
        }
        for (table, word) in [("seamcall_leaves", "seamcall"), ("tdcall_leaves", "tdcall")] {
            for (name, number) in facts::numbers(module, table, "number") {
                let line = format!("{word} {name} {number}");
                assert!(lines.contains(&*line), "{line}");
            }
        }
    }
    for module in facts::MODULES {
        for (name, id) in facts::numbers(module, "metadata_tdr_tdcs", "field_id") {
            let line = format!("{module} field {name} {id:#x}");
            assert!(lines.contains(&*line), "{line}");
        }
    }
    // TDH.MEM.PAGE.AUG (6) of the 2 MiB page at 0x40000000: the level stands in bits 2:0 of RCX.
    assert!(
        lines.contains("crate: rax 6 rcx 40000001 rdx 100000 r8 200000 OPERAND_BUSY (R8)"),
        "{printed}"
    );
    assert!(
        lines.contains("module: rax 6 rcx 40000001 rdx 100000 r8 200000 OPERAND_BUSY (R8)"),
        "{printed}"
    );
}

const PROGRAM: &str = r##"//! Calls a leaf through both forms, and prints the tables.

use core::cell::Cell;

macro_rules! call {
    ($tdx:path, $text:literal) => {{
        use $tdx as tdx;
        struct Busy(Cell<tdx::Registers>);
        impl tdx::Seamcall for Busy {
            fn seamcall(&self, registers: &mut tdx::Registers) -> Result<(), tdx::Trap> {
                self.0.set(*registers);
                registers.rax = 0x8000_0200_0000_0008;
                Ok(())
            }
        }
        use tdx::HostLeaf as _;
        let cpu = Busy(Cell::new(tdx::Registers::ZERO));
        let refused = tdx::tdh::mem::PageAug::<tdx::level::Pd> {
            gpa: tdx::Mapping::new(tdx::PrivateGpa::new(0x4000_0000)).expect("aligned"),
            tdr: tdx::Tdr::assume(tdx::Hpa::new(0x10_0000)),
            page: tdx::Page::owned(tdx::Hpa::new(0x20_0000)).expect("aligned"),
        }
        .call(&cpu)
        .expect_err("the answer is an error");
        let called = cpu.0.get();
        println!(
            "{}: rax {:x} rcx {:x} rdx {:x} r8 {:x} {}",
            $text, called.rax, called.rcx, called.rdx, called.r8, refused.error
        );
        assert_eq!(refused.leaf.page.hpa().bits(), 0x20_0000, "the page came back");
    }};
}

fn main() {
    call!(tdx_abi, "crate");
    call!(kernel::tdx, "module");
    for module in tdx_abi::Module::ALL {
        for row in tdx_abi::status::STATUS_CODES.iter().filter(|row| row.is_in(module)) {
            println!("{} status {} {:#x}", module.name(), row.name, row.value);
        }
        for row in tdx_abi::field::TDR_TDCS.of(module).iter() {
            println!("{} field {} {:#x}", module.name(), row.name, row.id.into_bits());
        }
    }
    for row in kernel::tdx::leaf::SEAMCALL_LEAVES {
        println!("seamcall {} {}", row.name, row.number);
    }
    for row in kernel::tdx::leaf::TDCALL_LEAVES {
        println!("tdcall {} {}", row.name, row.number);
    }
}
"##;
