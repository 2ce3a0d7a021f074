//! The crate `tdx-abi` as plain Rust: what is written by hand, with the macros expanded in place.
//!
//! For kernels that vendor code: no macros to run, no build dependencies, nothing but `core`.

mod prose;
mod tidy;

use proc_macro2::TokenStream;
use quote::quote;
use syn::Item;
use syn::parse::Parser as _;
use syn::visit_mut::VisitMut;

use super::File;
use super::rust::Options;
use super::rust::SECTIONS;
use crate::model::Spec;

/// What the files become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form<'p> {
    /// A crate: `Cargo.toml` and `src`.
    Crate,
    /// A module of another crate, by its path there, such as `crate::tdx`: `mod.rs` and its submodules.
    Module(&'p str),
}

/// Why there are no files.
#[derive(Debug)]
pub enum Error {
    /// A file written by hand invokes a macro that is no section.
    UnknownSection(String),
    /// A line that the macros need and plain code cannot have is not where it was: the file, and the line.
    NotFound(&'static str, &'static str),
    /// The path of the module is none.
    BadPath(String),
    /// A section is not Rust.
    Syntax(syn::Error),
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::UnknownSection(name) => write!(f, "there is no section `{name}`"),
            Self::NotFound(file, line) => write!(f, "{file} lacks `{}`", line.trim()),
            Self::BadPath(path) => write!(
                f,
                "`{path}` is no path of a module: expected one such as `crate::tdx`"
            ),
            Self::Syntax(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Error {}

impl From<syn::Error> for Error {
    fn from(error: syn::Error) -> Self {
        Self::Syntax(error)
    }
}

/// What only the crate with macros has: file, lines, and what stands there instead.
const REPLACED: [(&str, &str, &str); 2] = [
    (
        "lib.rs",
        "#[cfg(feature = \"source\")]\npub mod source;\n",
        "",
    ),
    (
        "lib.rs",
        "#[cfg(all(target_arch = \"x86_64\", feature = \"hardware\"))]\n",
        "#[cfg(target_arch = \"x86_64\")]\n",
    ),
];

const HEAD: &str = "\
// SPDX-License-Identifier: MIT OR Apache-2.0
// Written by `tdx spec generate --lang rust` from the specification of the TDX ABI; edit that instead.

";

const MANIFEST: &str = "\
# SPDX-License-Identifier: MIT OR Apache-2.0
# Written by `tdx spec generate --lang rust` from the specification of the TDX ABI; edit that instead.
[package]
name = \"tdx-abi\"
description = \"Typed no_std SEAMCALL, TDCALL and P-SEAMLDR interface of Intel TDX\"
version = \"0.0.0\"
edition = \"2024\"
rust-version = \"1.95\"
license = \"MIT OR Apache-2.0\"
publish = false

[dependencies]
";

/// The files of `runtime` (name and text of the files of `tdx-abi`) with the macros expanded to what `spec` says.
///
/// # Errors
///
/// `runtime` is not the source of `tdx-abi`, or `form` names no path.
pub fn vendor(spec: &Spec, runtime: &[(&str, &str)], form: Form<'_>) -> Result<Vec<File>, Error> {
    let (root, folder, first) = match form {
        Form::Crate => (quote!(crate), "src/", "lib.rs"),
        Form::Module(path) => (module_path(path)?, "", "mod.rs"),
    };
    let mut writer = Writer {
        spec,
        options: Options {
            root,
            bitfield: None,
            linted: true,
            area: None,
            part: None,
        },
        folder,
        files: Vec::new(),
    };
    for (name, text) in runtime {
        let mut text = (*text).to_owned();
        for (file, old, new) in REPLACED {
            if *name == file {
                if !text.contains(old) {
                    return Err(Error::NotFound(file, old));
                }
                text = text.replacen(old, new, 1);
            }
        }
        if let Form::Module(path) = form {
            text = text
                .replace("#![no_std]\n", "")
                .replace("crate::", &format!("{path}::"));
        }
        let stem = name.trim_end_matches(".rs");
        let is_root = stem == "lib";
        let text = writer.expand(&text, if is_root { "" } else { stem })?;
        let name = if is_root { first } else { name };
        writer
            .files
            .push(File::new(format!("{folder}{name}"), text));
    }
    if form == Form::Crate {
        writer.files.push(File::new("Cargo.toml", MANIFEST));
    }
    writer.files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(writer.files)
}

fn module_path(path: &str) -> Result<TokenStream, Error> {
    let bad = || Error::BadPath(path.to_owned());
    let parsed = syn::Path::parse_mod_style
        .parse_str(path)
        .map_err(|_| bad())?;
    let begins = parsed.segments.first().map(|first| first.ident.to_string());
    if begins.as_deref() != Some("crate") || parsed.segments.len() < 2 || path.contains(' ') {
        return Err(bad());
    }
    Ok(quote!(#parsed))
}

struct Writer<'s> {
    spec: &'s Spec,
    options: Options,
    folder: &'static str,
    files: Vec<File>,
}

impl Writer<'_> {
    /// The text of the module `path` (empty: the root) with sections in place of the macros.
    fn expand(&mut self, text: &str, path: &str) -> Result<String, Error> {
        let mut out = HEAD.to_owned();
        for line in text.lines() {
            // Whoever vendors the code has all of it.
            if line.trim_start().starts_with("#[cfg(feature = ") {
                continue;
            }
            let call = line.strip_prefix("tdx_codegen_macros::");
            match call.and_then(|call| call.strip_suffix(");")?.split_once("!(")) {
                None => out.push_str(line),
                Some((name, arguments)) => {
                    let section = SECTIONS.iter().find(|section| section.name == name);
                    let section = section.ok_or_else(|| Error::UnknownSection(name.to_owned()))?;
                    let argument = |name: &str| {
                        let mut pairs = arguments
                            .split(", ")
                            .filter_map(|one| one.split_once(" = "));
                        pairs.find_map(|(key, value)| (key == name).then(|| value.to_owned()))
                    };
                    self.options.area = argument("area");
                    self.options.part = argument("part");
                    let tokens = (section.emit)(self.spec, &self.options);
                    let mut file: syn::File = syn::parse2(tokens)?;
                    self.split(&mut file.items, path);
                    out.push_str(print(file).trim_end());
                }
            }
            out.push('\n');
        }
        Ok(out)
    }

    /// Gives each inline module of `items` a file of its own.
    fn split(&mut self, items: &mut [Item], path: &str) {
        for item in items {
            let Item::Mod(module) = item else { continue };
            let Some((_, mut content)) = module.content.take() else {
                continue;
            };
            module.semi = Some(Default::default());
            let name = module.ident.to_string();
            let path = match path {
                "" => name,
                path => format!("{path}/{name}"),
            };
            self.split(&mut content, &path);
            let text = print(syn::File {
                shebang: None,
                attrs: Vec::new(),
                items: content,
            });
            let name = format!("{}{path}.rs", self.folder);
            self.files.push(File::new(name, format!("{HEAD}{text}")));
        }
    }
}

fn print(mut file: syn::File) -> String {
    tidy::Tidy.visit_file_mut(&mut file);
    prose::Lines.visit_file_mut(&mut file);
    prose::spaced(&prettyplease::unparse(&file))
}
