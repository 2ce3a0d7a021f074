//! Finds what a line of a log says about a TDX call, whoever printed it.

use std::sync::LazyLock;

use regex::bytes::Captures;
use regex::bytes::Regex;

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// A call failed.
    Failure(Failure),
    /// Registers after the call that an earlier line names.
    Registers(Registers),
    /// The kernel says in words why no call can succeed.
    Condition(Condition),
}

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The leaf as printed, if it was.
    pub(super) leaf: Option<Leaf>,
    /// RAX after the call.
    pub(super) value: u64,
    /// Registers on the same line.
    pub(super) registers: Registers,
}

/// How a line names the leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    /// RAX before a SEAMCALL.
    Seamcall(u64),
    /// RAX before a TDCALL.
    Tdcall(u64),
    /// Intel's name with dots.
    Named(String),
}

/// Register values by lower-case name, in the order of the line.
pub(super) type Registers = Vec<(String, u64)>;

/// What the kernel says in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// SEAMCALL ended with VMfailInvalid.
    ModuleNotLoaded,
    /// SEAMCALL raised #UD.
    NotInVmxOperation,
    /// SEAMCALL raised #GP.
    NotEnabledByFirmware,
}

const NUMBER: &str = "0x[0-9a-fA-F]{1,16}|[0-9]{1,20}";

/// The vCPU's field that KVM read or changed, and how: `[VMCS.0x401e] &= ~0x80`.
const CHANGED_FIELD: &str = r"(?:\[[A-Z0-9_]+\.0x[0-9a-f]+\](?: [|&]?= ~?0x[0-9a-f]+)?)?";

static FAILURE: LazyLock<Regex> = LazyLock::new(|| {
    // Leaf by number: `SEAMCALL (0x21) failed: 0x..`, `SEAMCALL[33] failed: ..`, `SEAMCALL 7 failed: ..`,
    // `SEAMCALL failed: CPU 3: leaf 33, error 0x..`, `SEAMCALL failed: leaf: 0x21, error: 0x..`, and TDCALL alike.
    // Leaf by name: `SEAMCALL TDH_MNG_RD failed: 0x..`, `TDH_PHYMEM_PAMT_ADD failed: 0x..`,
    // `TDH.MNG.INIT failed with status: 0x..`, `TDH_VP_RD[VMCS.0x4402] failed: 0x..`, `TDH_VP_WR[VMCS.0x401e] |= 0x80 failed: 0x..`.
    let value = "(?P<value>(?:0x)?[0-9a-fA-F]{1,16})";
    let by_number = format!(
        r"(?P<call>SEAMCALL|TDCALL)\s*[\[(]?(?P<leaf>{NUMBER})[\])]?\s+failed(?:\s+with\s+(?:status|error))?:?\s*{value}\b"
    );
    let by_field = format!(
        r"(?P<call2>SEAMCALL|TDCALL) failed:(?: CPU [0-9]+:)? leaf:? (?P<leaf2>{NUMBER}), error:? {}",
        value.replace("value", "value2")
    );
    let by_name = format!(
        r"\b(?P<name>(?:TDH|TDG|SEAMLDR)[._][A-Z0-9._]*[A-Z0-9])\)?{CHANGED_FIELD}\s+failed(?:\s+with\s+(?:status|error))?:?\s*(?:status |error )?{}\b",
        value.replace("value", "value3").replace("(?:0x)?", "0x")
    );
    regex(&format!("(?-u){by_number}|{by_field}|{by_name}"))
});

static REGISTERS: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?-u)\b(?P<name>(?i:r[abcd]x|r[sd]i|rbp|r0?[89]|r1[0-5])|entry|level_state):?[ =]+0x(?P<value>[0-9a-fA-F]{1,16})\b",
    )
});

static REGISTERS_ONLY: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?-u)(?:additional output: rcx 0x|\b(?:RCX|rcx) 0x[0-9a-fA-F]+,? (?:RDX|rdx) 0x|\b(?:R09|R9|r9) 0x[0-9a-fA-F]+,? (?:R10|r10) 0x)",
    )
});

static CONDITION: LazyLock<Regex> = LazyLock::new(|| {
    regex(concat!(
        r"(?-u)(?P<loaded>(?:TDX|tdx:) module (?:is )?not (?:yet )?loaded)",
        r"|(?P<vmx>SEAMCALL failed: CPU [0-9]+ is not in VMX operation)",
        r"|(?P<firmware>TDX is not enabled by BIOS|tdx: not enabled by BIOS)",
    ))
});

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap_or_else(|error| unreachable!("a constant pattern: {error}"))
}

/// What `line` says about a TDX call, if anything.
pub(super) fn scan(line: &[u8]) -> Option<Finding> {
    if let Some(captures) = FAILURE.captures(line) {
        return failure(&captures, line);
    }
    if REGISTERS_ONLY.is_match(line) {
        return Some(Finding::Registers(registers(line)));
    }
    let captures = CONDITION.captures(line)?;
    Some(Finding::Condition(if captures.name("loaded").is_some() {
        Condition::ModuleNotLoaded
    } else if captures.name("vmx").is_some() {
        Condition::NotInVmxOperation
    } else {
        Condition::NotEnabledByFirmware
    }))
}

fn failure(captures: &Captures<'_>, line: &[u8]) -> Option<Finding> {
    let text = |name: &str| {
        captures
            .name(name)
            .and_then(|found| std::str::from_utf8(found.as_bytes()).ok())
    };
    let value = text("value").or(text("value2")).or(text("value3"))?;
    let leaf = match (text("leaf").or(text("leaf2")), text("name")) {
        (Some(number), _) => {
            let number = leaf_number(number)?;
            match text("call").or(text("call2")) {
                Some("TDCALL") => Leaf::Tdcall(number),
                _ => Leaf::Seamcall(number),
            }
        }
        (None, name) => Leaf::Named(name?.replace('_', ".")),
    };
    let digits = value.strip_prefix("0x");
    // Without 0x only what has every digit of a status is one: `failed: bad` is a word.
    let digits = digits.or_else(|| (value.len() == 16).then_some(value))?;
    let value = u64::from_str_radix(digits, 16).ok()?;
    Some(Finding::Failure(Failure {
        leaf: Some(leaf),
        value,
        registers: registers(line),
    }))
}

/// A leaf is printed with 0x in hexadecimal, and without in decimal.
fn leaf_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn registers(line: &[u8]) -> Registers {
    let found = REGISTERS.captures_iter(line).filter_map(|captures| {
        let name = std::str::from_utf8(&captures["name"])
            .ok()?
            .to_ascii_lowercase();
        // KVM prints what the leaves of the Secure EPT return under the names of its variables.
        let name = match &*name {
            "entry" => "rcx".to_owned(),
            "level_state" => "rdx".to_owned(),
            name => name.replacen("r0", "r", 1),
        };
        let value = u64::from_str_radix(std::str::from_utf8(&captures["value"]).ok()?, 16).ok()?;
        Some((name, value))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn finds(line: &str, leaf: Leaf, value: u64) {
        match scan(line.as_bytes()) {
            Some(Finding::Failure(found)) => {
                assert_eq!(found.leaf, Some(leaf));
                assert_eq!(found.value, value);
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_printed_form_is_found() {
        let busy = 0x8000_0200_0000_0092;
        finds(
            "[    1.2] virt/tdx: SEAMCALL (0x0000000000000021) failed: 0xc000090000000000",
            Leaf::Seamcall(0x21),
            0xc000_0900_0000_0000,
        );
        finds(
            "tdx: SEAMCALL (33) failed: 0x8000020000000092",
            Leaf::Seamcall(33),
            busy,
        );
        finds(
            "SEAMCALL (0x7) failed: 0x8000020000000092",
            Leaf::Seamcall(7),
            busy,
        );
        finds(
            "tdx: SEAMCALL failed: leaf 34, error 0x8000020000000092.",
            Leaf::Seamcall(34),
            busy,
        );
        finds(
            "tdx: SEAMCALL failed: CPU 3: leaf 36, error 0x8000020000000092.",
            Leaf::Seamcall(36),
            busy,
        );
        finds(
            "SEAMCALL failed: leaf: 0x22, error: 0x8000020000000092",
            Leaf::Seamcall(0x22),
            busy,
        );
        finds(
            "SEAMCALL[0x22] failed: 0x8000020000000092",
            Leaf::Seamcall(0x22),
            busy,
        );
        finds(
            "kvm_intel: SEAMCALL TDH_MEM_PAGE_AUG failed: 0x8000020000000092, entry 0x1",
            named("TDH.MEM.PAGE.AUG"),
            busy,
        );
        finds(
            "tdx: TDH_PHYMEM_PAMT_ADD failed: 0x8000020000000092",
            named("TDH.PHYMEM.PAMT.ADD"),
            busy,
        );
        finds(
            "VMX: TDH.MNG.INIT failed with status: 0x8000020000000092",
            named("TDH.MNG.INIT"),
            busy,
        );
        for change in [
            "TDH_VP_RD[VMCS.0x4402] failed:",
            "TDH_VP_WR[VMCS.0x401e] = 0x80 failed:",
            "TDH_VP_WR[MANAGEMENT.0x1f] |= 0x80 failed:",
            "TDH_VP_WR[VMCS.0x401e] &= ~0x80 failed:",
        ] {
            finds(
                &format!("kvm_intel: {change} 0x8000020000000092"),
                named(if change.contains("RD") {
                    "TDH.VP.RD"
                } else {
                    "TDH.VP.WR"
                }),
                busy,
            );
        }
        finds(
            "tdx: SEAMCALL (0x8000000000000001) failed: 0x8000000000020001",
            Leaf::Seamcall(1 << 63 | 1),
            0x8000_0000_0002_0001,
        );
        finds(
            "Kernel panic: TDCALL 1 failed (0x8000020000000092)"
                .replace(" (", ": ")
                .trim_end_matches(')'),
            Leaf::Tdcall(1),
            busy,
        );
    }

    fn named(name: &str) -> Leaf {
        Leaf::Named(name.to_string())
    }

    #[test]
    fn registers_are_read_on_the_line_and_after_it() {
        let all = "SEAMCALL (0x7) failed: 0x8000020000000092 RCX 0x1 RDX 0x2 R8 0x3 R9 0x4 R10 0x5 R11 0x6";
        let Some(Finding::Failure(found)) = scan(all.as_bytes()) else {
            panic!()
        };
        assert_eq!(found.registers.len(), 6);
        assert_eq!(found.registers[2], ("r8".into(), 3));

        let Some(Finding::Failure(found)) = scan(
            b"kvm_intel: SEAMCALL TDH_MEM_RANGE_BLOCK failed: 0x8000020000000092, entry 0x7, level_state 0x401",
        ) else {
            panic!()
        };
        assert_eq!(found.registers, [("rcx".into(), 7), ("rdx".into(), 0x401)]);

        let next = scan(b"RCX 0x0000000000000001 RDX 0x0000000000000401 R08 0x0000000000000000");
        let expected = [("rcx".into(), 1), ("rdx".into(), 0x401), ("r8".into(), 0)];
        assert_eq!(next, Some(Finding::Registers(expected.to_vec())));

        let Some(Finding::Registers(found)) =
            scan(b"tdx: additional output: rcx 0x1, rdx 0x2, r8 0x3, r9 0x4, r10 0x5, r11 0x6.")
        else {
            panic!()
        };
        assert_eq!(found.len(), 6);
    }

    #[test]
    fn words_of_the_kernel_are_found() {
        for line in [
            "virt/tdx: module not loaded",
            "tdx: TDX module is not loaded.",
        ] {
            assert_eq!(
                scan(line.as_bytes()),
                Some(Finding::Condition(Condition::ModuleNotLoaded))
            );
        }
        assert_eq!(
            scan(b"tdx: SEAMCALL failed: CPU 5 is not in VMX operation."),
            Some(Finding::Condition(Condition::NotInVmxOperation))
        );
    }

    #[test]
    fn other_lines_are_left_alone() {
        for line in [
            "usb 1-1: device descriptor read/64, error -71",
            "virt/tdx: BIOS enabled: private KeyID range [64, 128)",
            "SEAMCALL",
            "",
            "TDX failed",
            "SEAMCALL 7 failed: bad",
            "RAX: 0000000000000000 RBX: 0000000000000000 RCX: 0000000000000000",
        ] {
            assert_eq!(scan(line.as_bytes()), None, "{line}");
        }
    }
}
