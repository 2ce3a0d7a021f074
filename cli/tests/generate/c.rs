//! C headers: compiled as C and C++, and what a program prints of them held against Intel's tables and an interpreter of
//! the model that reads it bit by bit.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use tdx_codegen::emit::c::entity_name;
use tdx_codegen::model::BitField;
use tdx_codegen::model::BitItem;
use tdx_codegen::model::FieldRow;
use tdx_codegen::model::Format;
use tdx_codegen::model::Spec;
use tdx_codegen::model::StructureItem;
use tdx_codegen::source::Sources;

use super::facts;
use super::folder;
use super::generate;
use super::run;

/// Compilers with the language that they take a program for.
const COMPILERS: [(&str, &str, &str); 4] = [
    ("gcc", "c", "-std=c11"),
    ("clang", "c", "-std=c11"),
    ("g++", "c++", "-std=c++11"),
    ("clang++", "c++", "-std=c++11"),
];

fn is_there(compiler: &str) -> bool {
    Command::new(compiler).arg("--version").output().is_ok()
}

fn compile(headers: &Path, compiler: (&str, &str, &str), program: &Path) -> PathBuf {
    let (name, language, standard) = compiler;
    let out = program.with_extension(name);
    run(Command::new(name)
        .args([
            standard,
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Wconversion",
            "-Werror",
            "-x",
            language,
        ])
        .arg("-I")
        .arg(headers)
        .arg("-o")
        .arg(&out)
        .arg(program));
    out
}

/// Compiles `functions` and a `main` of `body` with every compiler that is there, gcc among them, runs it, and returns the lines
/// that all print.
fn lines(name: &str, functions: &str, body: &str) -> Vec<String> {
    let folder = folder(name);
    let headers = folder.join("include");
    generate("c", &headers, &[]);
    let program = folder.join("program.c");
    let text = format!(
        "#include \"tdx.h\"\n#include <stdio.h>\n#define SHOW(text, value) printf(\"%s %llx\\n\", text, (unsigned long long)(value))\n\
         {functions}int main(void)\n{{\n{body}\treturn 0;\n}}\n"
    );
    fs::write(&program, text).unwrap();
    let mut printed: Option<String> = None;
    assert!(is_there("gcc"), "gcc must be installed");
    for compiler in COMPILERS {
        if !is_there(compiler.0) {
            println!("NOT RUN: {}, which is not installed", compiler.0);
            continue;
        }
        let text = run(&mut Command::new(compile(&headers, compiler, &program)));
        assert_eq!(*printed.get_or_insert(text.clone()), text, "{}", compiler.0);
    }
    printed.unwrap().lines().map(str::to_owned).collect()
}

fn spec() -> Spec {
    tdx_codegen::from_sources(Sources::embedded()).unwrap().spec
}

#[test]
fn numbers_are_those_of_the_tables() {
    let mut names: BTreeSet<(String, u64)> = BTreeSet::new();
    for module in facts::MODULES {
        for (name, value) in facts::numbers(module, "status_codes", "value") {
            let name = name.trim_start_matches("TDX_");
            names.insert((format!("TDX_{name}"), value));
        }
        for (name, value) in facts::numbers(module, "operand_ids", "value") {
            names.insert((format!("TDX_OPERAND_ID_{name}"), value));
        }
        for (name, value) in facts::numbers(module, "op_states", "value") {
            names.insert((format!("TDX_OP_STATE_{name}"), value));
        }
        for table in ["seamcall_leaves", "tdcall_leaves"] {
            for (name, number) in facts::numbers(module, table, "number") {
                names.insert((name.replace('.', "_"), number));
            }
        }
        let states = facts::rows(module, "sept_states");
        for (level, prefix) in [("l1", "TDX_SEPT_STATE_"), ("l2", "TDX_L2_SEPT_STATE_")] {
            for row in states[level].as_array().unwrap() {
                let name = row["name"].as_str().unwrap();
                names.insert((format!("{prefix}{name}"), facts::value(&row["encoding"])));
                let public = format!("{prefix}PUBLIC_{name}");
                names.insert((public, facts::value(&row["flags"]["public_state"])));
            }
        }
    }
    assert!(names.len() > 500);
    let mut body = String::new();
    for (name, _) in &names {
        let _ = writeln!(body, "\tSHOW(\"{name}\", {name});");
    }
    let lines = lines("c_numbers", "", &body);
    for ((name, value), line) in names.iter().zip(&lines) {
        assert_eq!(*line, format!("{name} {value:x}"));
    }
    assert_eq!(lines.len(), names.len());
}

#[test]
fn fields_are_those_of_the_tables() {
    let tables = ["global", "tdr_tdcs", "tdvps", "td_vmcs", "td_l2_vmcs"];
    let mut body = String::from(
        "#define ROW(id, name, modules, fields, elements, a, b, c, d, e, f, g, h, i, j) \\\n\
         \tprintf(\"%s %x %llx %d %d %llx %llx %llx %llx %llx %llx %llx %llx %llx %llx\\n\", name, modules, \\\n\
         \t(unsigned long long)id, fields, elements, N(a), N(b), N(c), N(d), N(e), N(f), N(g), N(h), N(i), N(j));\n\
         #define N(mask) (unsigned long long)mask\n",
    );
    for table in tables {
        let _ = writeln!(
            body,
            "\tputs(\"{table}\");\n\tTDX_FIELDS_{}(ROW)",
            table.to_uppercase()
        );
    }
    let lines = lines("c_fields", "", &body);
    for (module, bit) in [("1.5.01", 1), ("2.0.18", 4)] {
        let of_module = lines.iter().filter_map(|line| {
            let parts: Vec<&str> = line.rsplitn(15, ' ').collect();
            let [rest @ .., modules, name] = &parts[..] else {
                return Some(line.clone());
            };
            let modules = u32::from_str_radix(modules, 16).unwrap();
            let rest: Vec<&str> = rest.iter().rev().copied().collect();
            (modules & bit != 0).then(|| format!("{name} {}", rest.join(" ")))
        });
        let mut expected: Vec<String> = Vec::new();
        for table in tables {
            expected.push(table.to_owned());
            for row in facts::rows(module, &format!("metadata_{table}"))
                .as_array()
                .unwrap()
            {
                let masks = FieldRow::MASKS.map(|mask| {
                    let names = match mask {
                        "prod_rd" => ["prod_rd_mask", "vmm_rd_mask"],
                        "prod_wr" => ["prod_wr_mask", "vmm_wr_mask"],
                        "guest_rd" => ["guest_rd_mask", "l1_vmm_rd_mask"],
                        "guest_wr" => ["guest_wr_mask", "l1_vmm_wr_mask"],
                        _ => ["", ""],
                    };
                    let own = format!("{mask}_mask");
                    let found = names
                        .iter()
                        .copied()
                        .chain([&*own])
                        .find_map(|name| row.get(name));
                    found.map_or("0".to_owned(), |mask| format!("{:x}", facts::value(mask)))
                });
                expected.push(format!(
                    "{} {:x} {} {} {}",
                    row["name"].as_str().unwrap(),
                    facts::value(&row["field_id"]),
                    row["num_of_fields"],
                    row["num_of_elem"],
                    masks.join(" ")
                ));
            }
        }
        let of_module: Vec<String> = of_module.collect();
        for (line, expected) in of_module.iter().zip(&expected) {
            assert_eq!(line, expected, "{module}");
        }
        assert_eq!(of_module.len(), expected.len(), "{module}");
    }
}

#[test]
fn msrs_are_those_of_the_table() {
    let body = "#define ROW(name, first, last, modules, read, write) if (modules & TDX_MODULE_1_5_01) \\\n\
         \tprintf(\"%s %x %x %s/%s\\n\", name, first, last, read, write);\n\tTDX_MSRS(ROW)\n";
    let rows = facts::rows("1.5.01", "msr_virtualization");
    let rows = rows.as_array().unwrap().iter();
    let expected: Vec<String> = rows
        .map(|row| {
            let access = |access: &str| {
                let word = |key: &str, prefix: &str| {
                    let word = row[access][key].as_str().unwrap();
                    word.trim_start_matches(prefix).to_owned()
                };
                format!(
                    "{} {}",
                    word("bitmap", "MSR_BITMAP_"),
                    word("action", "MSR_ACTION_")
                )
            };
            format!(
                "{} {:x} {:x} {}/{}",
                row["name"].as_str().unwrap(),
                facts::value(&row["start"]),
                facts::value(&row["end"]),
                access("read"),
                access("write")
            )
        })
        .collect();
    assert!(expected.len() > 100);
    assert_eq!(lines("c_msrs", "", body), expected);
}

#[test]
fn cpuid_tables_are_the_model_s() {
    let spec = spec();
    let table = spec.cpuid.first().expect("a CPUID table");
    let module = spec.module_names(table.modules)[0].replace('.', "_");
    let mut body = String::new();
    for (name, quadruples) in [("LOOKUP", 5), ("CONFIGURABLE", 2), ("XFAM_MASKS", 1)] {
        let (keys, extra) = match name {
            "LOOKUP" => ("leaf, subleaf, faulting, config", "%x %x %d %x"),
            "XFAM_MASKS" => ("leaf, subleaf, bit", "%x %x %d"),
            _ => ("leaf, subleaf", "%x %x"),
        };
        let words: Vec<String> = (0..quadruples * 4).map(|i| format!("v{i}")).collect();
        let words = words.join(", ");
        let formats = " %x".repeat(quadruples * 4);
        let _ = writeln!(
            body,
            "#define ROW_{name}({keys}, {words}) printf(\"{extra}{formats}\\n\", {keys}, {words});\n\tTDX_CPUID_{name}_{module}(ROW_{name})"
        );
    }
    let subleaf = |subleaf: Option<u32>| subleaf.unwrap_or(u32::MAX);
    let four = |values: &[[u32; 4]]| -> String {
        values
            .concat()
            .iter()
            .map(|word| format!(" {word:x}"))
            .collect()
    };
    let lookup = table.lookup.iter().map(|row| {
        let values = [
            row.verify_mask,
            row.verify_value,
            row.verify_same,
            row.fixed0_or_dynamic,
            row.fixed1,
        ];
        format!(
            "{:x} {:x} {} {:x}{}",
            row.leaf,
            subleaf(row.subleaf),
            u8::from(row.faulting),
            row.config.unwrap_or(u32::MAX),
            four(&values)
        )
    });
    let configurable = table.configurable.iter().map(|row| {
        let values = four(&[row.direct, row.allow]);
        format!("{:x} {:x}{values}", row.leaf, subleaf(row.subleaf))
    });
    let masks = table.xfam_masks.iter().map(|row| {
        let values = four(&[row.mask]);
        format!(
            "{:x} {:x} {}{values}",
            row.leaf,
            subleaf(row.subleaf),
            row.xfam_bit
        )
    });
    let expected: Vec<String> = lookup.chain(configurable).chain(masks).collect();
    assert!(expected.len() > 100, "{}", expected.len());
    assert_eq!(lines("c_cpuid", "", &body), expected);
}

/// Bits of the word that belong to the field, from the lowest bit of the value up.
fn positions(field: &BitField) -> impl Iterator<Item = u32> + '_ {
    field
        .bits
        .iter()
        .rev()
        .flat_map(|bits| bits.low..=bits.high)
}

fn read(field: &BitField, word: u64) -> u64 {
    positions(field)
        .enumerate()
        .fold(0, |value, (to, from)| value | (word >> from & 1) << to)
}

fn write(field: &BitField, word: u64, value: u64) -> u64 {
    positions(field).enumerate().fold(word, |word, (from, to)| {
        word & !(1 << to) | (value >> from & 1) << to
    })
}

fn words(format: &Format) -> Vec<u64> {
    let all = u64::MAX >> (64 - format.width);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut words = vec![0, all];
    for _ in 0..6 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        words.push(random & all);
    }
    words
}

#[test]
fn accessors_agree_with_the_interpreter() {
    let spec = spec();
    let (mut functions, mut body) = (String::new(), String::new());
    let mut expected = Vec::new();
    for format in &spec.formats {
        let name = entity_name(&format.name);
        let _ = writeln!(functions, "static void show_{name}(void)\n{{");
        let _ = writeln!(body, "\tshow_{name}();");
        let fields = format.items.iter().filter_map(|item| match item {
            BitItem::Field(field) => Some((field, true)),
            _ => None,
        });
        for (field, writable) in fields.chain(format.views.iter().map(|view| (view, false))) {
            let words = words(format);
            for (index, &word) in words.iter().enumerate() {
                let getter = format!("{name}_{}", field.name);
                let _ = writeln!(
                    functions,
                    "\tSHOW(\"{getter}\", {getter}(UINT64_C({word:#x}) & ({name}_t)-1));"
                );
                expected.push(format!("{getter} {:x}", read(field, word) << field.shift));
                if writable {
                    let with = format!("{name}_with_{}", field.name);
                    let value = read(field, words[(index * 3 + 1) % words.len()]);
                    let given = value << field.shift;
                    let _ = writeln!(
                        functions,
                        "\tSHOW(\"{with}\", {with}(UINT64_C({word:#x}) & ({name}_t)-1, {given:#x}));"
                    );
                    expected.push(format!("{with} {:x}", write(field, word, value)));
                }
            }
        }
        functions.push_str("}\n");
    }
    assert!(expected.len() > 5000);
    let lines = lines("c_formats", &functions, &body);
    for (line, expected) in lines.iter().zip(&expected) {
        assert_eq!(line, expected);
    }
    assert_eq!(lines.len(), expected.len());
}

#[test]
fn structures_lie_as_the_model_says() {
    let spec = spec();
    let mut body = String::new();
    let mut expected = Vec::new();
    for structure in &spec.structures {
        let name = entity_name(&structure.name);
        let _ = writeln!(body, "\tSHOW(\"{name}\", sizeof({name}_t));");
        expected.push(format!("{name} {:x}", structure.size));
        let items = structure.items.iter();
        for (index, item) in items.clone().enumerate() {
            let StructureItem::Field(field) = item else {
                continue;
            };
            let end = items
                .clone()
                .nth(index + 1)
                .map_or(structure.size, |item| match item {
                    StructureItem::Field(field) => field.offset,
                    StructureItem::Reserved { offset, .. } => *offset,
                });
            // A structure has no gaps: a member ends where the next one begins.
            let member = &field.name;
            let _ = writeln!(
                body,
                "\tSHOW(\"{name}.{member}\", offsetof({name}_t, {member}));\n\tSHOW(\"end\", sizeof((({name}_t *)0)->{member}) + offsetof({name}_t, {member}));"
            );
            expected.push(format!("{name}.{member} {:x}", field.offset));
            expected.push(format!("end {end:x}"));
        }
    }
    assert!(expected.len() > 300, "{}", expected.len());
    assert_eq!(lines("c_structures", "", &body), expected);
}

/// The files with nothing but numbers serve assembler.
#[test]
fn assembler_takes_the_numbers() {
    let folder = folder("assembler");
    generate("c", &folder, &[]);
    let program = folder.join("numbers.S");
    fs::write(
        &program,
        "#include \"tdx.h\"\nmov $TDH_MEM_PAGE_AUG, %eax\nmovabs $TDX_OPERAND_BUSY, %rdx\nmovabs $SEAMLDR_INFO, %rax\n",
    )
    .unwrap();
    let object = folder.join("numbers.o");
    run(Command::new("gcc")
        .arg("-c")
        .arg(&program)
        .arg("-o")
        .arg(&object));
    let bytes = fs::read(object).unwrap();
    // B8 imm32 with the leaf's number, REX.W BA imm64 with the status.
    let expected = [
        &[0xb8, 6, 0, 0, 0, 0x48, 0xba][..],
        &0x8000_0200_0000_0000_u64.to_le_bytes(),
    ]
    .concat();
    assert!(
        bytes
            .windows(expected.len())
            .any(|window| window == expected)
    );
}
