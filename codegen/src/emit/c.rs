//! C headers: numbers as macros, formats as masks and accessors, structures as packed structs with asserted offsets.
//!
//! For C11, C++11 and later, gcc and clang, freestanding; the files with nothing but numbers may be included by assembler.

mod format;
mod leaf;
mod metadata;
mod names;
mod structure;
mod table;
mod virtualization;

use std::collections::HashSet;

use core::fmt::Write as _;

use super::File;
use crate::model::Spec;

/// What the enum, format or structure called `name` is called in C: the type is this and `_t`, macros are upper case.
pub fn entity_name(name: &str) -> String {
    names::snake(name)
}

/// Two entities would get one name in C.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The name.
    pub name: String,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "two entities would be called `{}` in C", self.name)
    }
}

impl core::error::Error for Error {}

/// What writes a header.
type Write = fn(&Spec, &mut Header);

/// The headers: `tdx.h`, and one for each kind of fact that it includes.
///
/// # Errors
///
/// Two entities would get one name.
pub fn headers(spec: &Spec) -> Result<Vec<File>, Error> {
    let parts: [(&str, &str, Write); 8] = [
        (
            "tdx_status.h",
            "Status codes and operand ids: what RAX says after a call",
            table::statuses,
        ),
        (
            "tdx_state.h",
            "Modules, features, and states of TDs and Secure-EPT entries",
            table::states,
        ),
        (
            "tdx_leaf.h",
            "Leaf numbers: what RAX holds before a call",
            leaf::leaves,
        ),
        (
            "tdx_field.h",
            "Metadata field ids, and who may read and write which bits",
            metadata::fields,
        ),
        (
            "tdx_format.h",
            "Registers and memory words, bit by bit",
            format::formats,
        ),
        (
            "tdx_structure.h",
            "Structures in memory, byte by byte",
            structure::structures,
        ),
        ("tdx_msr.h", "How MSRs behave in a TD", virtualization::msrs),
        (
            "tdx_cpuid.h",
            "How CPUID behaves in a TD, and what of it TD_PARAMS configures",
            virtualization::cpuid,
        ),
    ];
    let mut names = HashSet::new();
    let mut files = vec![File::new("tdx_base.h", base())];
    let mut umbrella = Header::new("tdx.h", "The whole ABI");
    for (file, what, write) in parts {
        let mut header = Header::new(file, what);
        header.line("#include \"tdx_base.h\"");
        if file == "tdx_structure.h" {
            header.line("#include \"tdx_format.h\"");
        }
        write(spec, &mut header);
        if let Some(twice) = header
            .names
            .iter()
            .find(|name| !names.insert((*name).clone()))
        {
            return Err(Error {
                name: twice.clone(),
            });
        }
        umbrella.line(&format!("#include \"{file}\""));
        files.push(File::new(file, header.finish()));
    }
    files.push(File::new("tdx.h", umbrella.finish()));
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn base() -> String {
    let mut header = Header::new("tdx_base.h", "What the other headers need");
    header.line(BASE);
    header.finish()
}

const BASE: &str = "\
#ifdef __ASSEMBLER__
#define TDX_U64(number) number
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#define TDX_U64(number) UINT64_C(number)
#ifdef __cplusplus
#define TDX_STATIC_ASSERT(condition, text) static_assert(condition, text)
#else
#define TDX_STATIC_ASSERT(condition, text) _Static_assert(condition, text)
#endif
#define TDX_PACKED __attribute__((__packed__))
#endif";

/// A header being written.
struct Header {
    guard: String,
    text: String,
    /// Every name that it defines.
    names: Vec<String>,
}

impl Header {
    fn new(file: &str, what: &str) -> Self {
        let guard = file.replace('.', "_").to_uppercase();
        let mut text = String::from("/* SPDX-License-Identifier: MIT OR Apache-2.0 */\n");
        let _ = write!(
            text,
            "/*\n * {what}.\n *\n * Written by `tdx spec generate --lang c` from the specification of the TDX ABI; edit that instead.\n */\n\
             #ifndef {guard}\n#define {guard}\n\n"
        );
        Self {
            guard,
            text,
            names: Vec::new(),
        }
    }

    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// A comment of its own, in lines of readable length.
    fn comment(&mut self, text: &str) {
        let lines = names::wrapped(text);
        if let [line] = &lines[..] {
            let _ = writeln!(self.text, "/* {line} */");
            return;
        }
        self.line("/*");
        for line in lines {
            let line = format!(" * {line}");
            self.line(line.trim_end());
        }
        self.line(" */");
    }

    fn section(&mut self, text: &str) {
        self.line("");
        self.comment(text);
    }

    /// `#define name value`, with a remark.
    fn define(&mut self, name: &str, value: &str, remark: Option<&str>) {
        self.names.push(name.to_owned());
        if let Some(remark) = remark {
            self.comment(remark);
        }
        let _ = writeln!(self.text, "#define {name} {value}");
    }

    fn define_u64(&mut self, name: &str, value: u64, remark: Option<&str>) {
        self.define(name, &format!("TDX_U64({value:#x})"), remark);
    }

    /// A macro that calls its argument for each row.
    fn table(&mut self, name: &str, rows: impl Iterator<Item = String>) {
        self.names.push(name.to_owned());
        let _ = write!(self.text, "#define {name}(X)");
        for row in rows {
            let _ = write!(self.text, " \\\n\tX({row})");
        }
        self.line("");
    }

    fn finish(mut self) -> String {
        let _ = write!(self.text, "\n#endif /* {} */\n", self.guard);
        self.text
    }
}
