//! A typed call compiles to what one would write by hand: `tests/assembly` has both, and this compares them.
#![cfg(target_arch = "x86_64")]
#![expect(clippy::std_instead_of_alloc, reason = "a test binary has std")]

use std::collections::BTreeSet;
use std::env;
use std::path::PathBuf;
use std::process::Command;

/// What a typed call may have more on its way to success: `asm!` cannot return CF, so it goes through a register (`sbb`, and
/// `test` with a conditional jump where by hand `jc` does), and the value for a trap is loaded ahead of the jump.
const THROUGH_A_REGISTER: usize = 3;

/// What a trap costs beside that way: the handler's landing (in a section of its own), and what tells one trap from another.
const TRAP: usize = 6;

/// What a typed TDH.VP.ENTER does beside moves: two flags are put into RCX, there is a block to make room for and a register more
/// to save, and RAX is looked at.
const PACKING: usize = 20;

/// The assembly of `tests/assembly` as a release build makes it.
fn assembly() -> String {
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("typed-calls.s");
    let built = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["rustc", "--release", "--quiet", "--lib"])
        .args(["--package", "tdx-tests-assembly", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .args([
            "--",
            "-Cllvm-args=-x86-asm-syntax=intel",
            "-Ccodegen-units=1",
            "-Cdebuginfo=0",
        ])
        .arg("--emit")
        .arg(format!("asm={}", out.display()))
        .status()
        .expect("cargo runs");
    assert!(built.success(), "the fixture does not build");
    std::fs::read_to_string(&out).expect("the assembly was written")
}

/// Lines of the function called `name`: labels and instructions, the bytes of SEAMCALL or TDCALL as one line.
fn function(assembly: &str, name: &str) -> Vec<String> {
    let mut lines = Vec::<String>::new();
    let mut elsewhere = false;
    let body = assembly
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .skip_while(|line| *line != format!("{name}:"))
        .skip(1)
        .take_while(|line| !line.starts_with(".size"));
    for line in body {
        if line.starts_with(".section") {
            elsewhere = !line.contains(name);
        } else if let Some(byte) = line.strip_prefix(".byte") {
            match lines.last_mut() {
                Some(last) if last.starts_with(".byte") => {
                    last.push(' ');
                    last.push_str(byte.trim());
                }
                _ => lines.push(format!(".byte {}", byte.trim())),
            }
        } else if !elsewhere && !line.is_empty() && (!line.starts_with('.') || line.ends_with(':'))
        {
            lines.push(line.replace('\t', " "));
        }
    }
    assert!(!lines.is_empty(), "there is no {name}");
    lines
}

fn mnemonic(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

/// What is executed if the callee returns 0 in RAX and CF = 0: every `test` on the way sees 0, and what is compared is not equal
/// to another number.
fn success_path(lines: &[String]) -> Vec<&str> {
    let mut executed = Vec::new();
    let mut at = 0;
    let mut equal = true;
    while let Some(line) = lines.get(at) {
        at += 1;
        if line.ends_with(':') {
            continue;
        }
        executed.push(line.as_str());
        assert!(executed.len() < 200, "a loop: {lines:#?}");
        match mnemonic(line) {
            "ret" => break,
            "test" => equal = true,
            "cmp" => equal = line.ends_with(", 0"),
            "je" if !equal => {}
            "jne" if equal => {}
            "jmp" | "je" | "jne" | "jns" | "jae" | "jnb" => {
                let label = format!("{}:", line.rsplit(' ').next().unwrap_or_default());
                let target = lines.iter().position(|line| *line == label);
                at = target.unwrap_or_else(|| panic!("{label} is not in the function: {lines:#?}"));
            }
            _ => {}
        }
    }
    executed
}

/// General registers that the instructions name, each by its 64-bit name.
fn registers(instructions: &[&str]) -> BTreeSet<String> {
    let words = instructions
        .iter()
        .filter(|line| !line.starts_with('.') && !line.starts_with('j'))
        .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric()).skip(1));
    words
        .filter_map(|word| match word.strip_prefix(['r', 'e']) {
            Some(name @ ("ax" | "bx" | "cx" | "dx" | "si" | "di" | "bp" | "sp")) => {
                Some(format!("r{name}"))
            }
            Some(name) if name.starts_with(|c: char| c.is_ascii_digit()) => {
                Some(format!("r{}", name.trim_end_matches(['d', 'w', 'b'])))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn a_typed_call_is_what_one_would_write_by_hand() {
    let assembly = assembly();
    for (leaf, bytes) in [
        ("page_aug", ".byte 102 15 1 207"),
        ("range_block", ".byte 102 15 1 207"),
        ("page_accept", ".byte 102 15 1 204"),
    ] {
        let typed = function(&assembly, &format!("typed_{leaf}"));
        let written = function(&assembly, &format!("written_{leaf}"));
        let (on_success, by_hand) = (success_path(&typed), success_path(&written));
        let shown = format!("{leaf}: {typed:#?}\nby hand: {written:#?}");
        for (function, path) in [(&typed, &on_success), (&written, &by_hand)] {
            let calls = function.iter().filter(|line| line.starts_with(".byte"));
            assert_eq!(calls.collect::<Vec<_>>(), [bytes], "one call\n{shown}");
            assert!(path.contains(&bytes), "{shown}");
        }
        assert!(
            on_success.len() <= by_hand.len() + THROUGH_A_REGISTER,
            "{} instructions, {} by hand\n{shown}",
            on_success.len(),
            by_hand.len()
        );
        let (used, expected) = (registers(&on_success), registers(&by_hand));
        let further: Vec<&String> = used.difference(&expected).collect();
        assert!(
            further.len() <= 1,
            "CF needs one register: {further:?}\n{shown}"
        );
        assert!(expected.is_subset(&used), "{expected:?}\n{shown}");
        let memory = on_success
            .iter()
            .find(|line| line.contains('[') || matches!(mnemonic(line), "call" | "push" | "pop"));
        assert_eq!(memory, None, "memory or another function\n{shown}");
        // Not with an error either: its class is nobody's business here.
        assert_eq!(leaves(&typed), None, "{shown}");
        let whole = |lines: &[String]| lines.iter().filter(|line| !line.ends_with(':')).count();
        assert!(
            whole(&typed) <= whole(&written) + THROUGH_A_REGISTER + TRAP,
            "{} instructions, {} by hand\n{shown}",
            whole(&typed),
            whole(&written)
        );
    }
    entering_moves_each_register_once(&assembly);
    a_typed_entry_adds_moves_only(&assembly);
}

/// The first instruction that leads out of the function for good or for a while.
fn leaves(function: &[String]) -> Option<&String> {
    function
        .iter()
        .find(|line| matches!(mnemonic(line), "call" | "ud2" | "int3" | "rep"))
}

/// The inputs are scattered over a type and the instruction wants every register but RSP, so that by hand too they would go
/// through a block in memory: a typed call may move each of them there, and RAX back, and nothing else.
fn a_typed_entry_adds_moves_only(assembly: &str) {
    let typed = function(assembly, "typed_vp_enter_leaf");
    let block = function(assembly, "typed_vp_enter");
    let shown = format!("{typed:#?}\nthrough a block: {block:#?}");
    let calls = typed.iter().filter(|line| line.starts_with(".byte"));
    assert_eq!(calls.collect::<Vec<_>>(), [".byte 102 15 1 207"], "{shown}");
    assert_eq!(leaves(&typed), None, "{shown}");
    let (typed, block) = (success_path(&typed), success_path(&block));
    let moves = |path: &[&str]| {
        let moves = path
            .iter()
            .filter(|line| mnemonic(line).contains("mov") && line.contains('['));
        moves.count()
    };
    // A load and a store for each register.
    assert!(moves(&typed) <= moves(&block) + 2 * 15, "{shown}");
    let rest = |path: &[&str]| {
        path.iter()
            .filter(|line| !mnemonic(line).contains("mov"))
            .count()
    };
    assert!(rest(&typed) <= rest(&block) + PACKING, "{shown}");
}

/// TDH.VP.ENTER has every register: each is loaded and stored once, and nothing else happens in memory but that what Rust
/// keeps in registers is saved.
fn entering_moves_each_register_once(assembly: &str) {
    let enter = function(assembly, "typed_vp_enter");
    let calls = enter.iter().filter(|line| line.starts_with(".byte"));
    assert_eq!(
        calls.collect::<Vec<_>>(),
        [".byte 102 15 1 207"],
        "{enter:#?}"
    );
    let block = |line: &&String| mnemonic(line) == "mov" && line.contains("[rdi");
    let (stores, loads): (Vec<_>, Vec<_>) = enter
        .iter()
        .filter(block)
        .partition(|line| line.contains("], "));
    assert_eq!((loads.len(), stores.len()), (15, 15), "{enter:#?}");
    assert_eq!(leaves(&enter), None, "{enter:#?}");
    let other = enter
        .iter()
        .find(|line| line.contains('[') && !line.contains("[rdi") && !line.contains("[rsp]"));
    assert_eq!(other, None, "{enter:#?}");
}
