//! What the macros do: find the specification, read it, and write one section or the mistakes.

use alloc::sync::Arc;
use core::hash::Hash as _;
use core::hash::Hasher as _;
use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::hash::DefaultHasher;
use std::panic::catch_unwind;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;
use std::time::SystemTime;

use proc_macro2::TokenStream;
use proc_macro2::TokenTree;
use quote::quote;

use crate::Specification;
use crate::area::CORE;
use crate::check::check;
use crate::diagnostic::Diagnostics;
use crate::emit::rust::Options;
use crate::emit::rust::SECTIONS;
use crate::emit::rust::Section;
use crate::load::load_cached;
use crate::model::Spec;
use crate::source::Sources;
use crate::yaml::cache::Cache;

/// Expands the macro of the section called `name`.
///
/// Mistakes in the arguments or the specification become compile errors. The files that the section depends on are
/// named by `include_bytes!`, so that the compiler looks again when one of them changes.
///
/// `file` is the source file that holds the macro; a relative `spec` is looked for beside it, as `include_str!` does.
pub fn expand(name: &str, arguments: TokenStream, file: Option<&Path>) -> TokenStream {
    let Some(section) = SECTIONS.iter().find(|section| section.name == name) else {
        return error(&format!("there is no section `{name}`"));
    };
    match parse(arguments, file) {
        Ok(arguments) => expand_section(section, &arguments),
        Err(message) => error(&message),
    }
}

fn error(message: &str) -> TokenStream {
    quote!(::core::compile_error! { #message })
}

fn expand_section(section: &'static Section, arguments: &Arguments) -> TokenStream {
    let call = Call {
        section: section.name,
        area: arguments.area.clone(),
        part: arguments.part.clone(),
    };
    let (read, reports) = read_once(&arguments.directory, call);
    let read = match read {
        Ok(read) => read,
        Err(message) => {
            let error = reports.then(|| error(&message));
            return quote!(#error);
        }
    };
    let options = Options {
        root: arguments.root.clone(),
        bitfield: arguments.bitfield.clone(),
        linted: false,
        area: arguments.area.clone(),
        part: arguments.part.clone(),
    };
    let Specification { spec, sources } = &read.specification;
    if read.mistakes.is_empty() {
        if let Some(message) = unknown_area(spec, arguments) {
            return error(&message);
        }
        let items = (section.emit)(spec, &options);
        // That of the core is always there.
        let tracks = options.area.as_deref().is_none_or(|area| area == CORE);
        let used = sources.iter().filter(|_| tracks);
        let used = used.filter(|(_, source)| {
            let mut files = section.files.iter();
            files.any(|beginning| source.name().starts_with(beginning))
        });
        let mut named = read.named.lock().unwrap_or_else(PoisonError::into_inner);
        let used = used.filter(|(file, _)| !core::mem::replace(&mut named[file.index()], true));
        let track = track(used.map(|(_, source)| source.path()));
        quote!(#items #track)
    } else {
        let errors = read.mistakes.iter().filter(|_| reports);
        let errors = errors.map(|text| error(text));
        // What could be read is written all the same, lest the compiler miss hundreds of names that have nothing to do with
        // the mistakes. The emitters may rely on a specification without mistakes: if one stumbles, its items are missing.
        let items = catch_unwind(AssertUnwindSafe(|| (section.emit)(spec, &options)));
        let items = items.unwrap_or_default();
        let track = track(sources.iter().map(|(_, source)| source.path()));
        quote!(#(#errors)* #items #track)
    }
}

/// The complaint about an area that is none: its macro would silently write nothing.
fn unknown_area(spec: &Spec, arguments: &Arguments) -> Option<String> {
    let area = arguments.area.as_deref()?;
    let mut known = vec![CORE];
    known.extend(spec.areas.iter().map(|area| area.name.as_str()));
    if known.contains(&area) {
        return None;
    }
    Some(format!(
        "there is no area `{area}`: known are {}",
        known.join(", ")
    ))
}

fn track<'p>(paths: impl Iterator<Item = &'p Path>) -> TokenStream {
    let absolute = |path: &Path| match path.is_absolute() {
        true => path.to_owned(),
        false => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
    };
    let paths = paths.map(|path| absolute(path).to_string_lossy().into_owned());
    let paths: Vec<String> = paths.collect();
    // The compiler checks again the constant that an edited file is in.
    let constants = paths
        .chunks(TOGETHER)
        .map(|paths| quote!(const _: &[&[u8]] = &[#(::core::include_bytes!(#paths)),*];));
    constants.collect()
}

/// Files that one constant names.
const TOGETHER: usize = 16;

struct Arguments {
    directory: PathBuf,
    root: TokenStream,
    bitfield: Option<TokenStream>,
    area: Option<String>,
    part: Option<String>,
}

/// The specification that goes with the crate being compiled: in a checkout the one beside it, for a checkout may have been moved
/// or copied together with what was built in it; otherwise where `tdx-spec` lay when it was compiled.
fn default_directory() -> PathBuf {
    let beside = std::env::var_os("CARGO_MANIFEST_DIR")
        .map(|folder| Path::new(&folder).join("../spec"))
        .filter(|spec| spec.join("sources.yaml").is_file() && spec.join("SCHEMA.md").is_file())
        .and_then(|spec| spec.canonicalize().ok());
    beside.unwrap_or_else(|| PathBuf::from(tdx_spec::DIRECTORY))
}

/// `key = value, ..` without a parser crate.
fn parse(arguments: TokenStream, file: Option<&Path>) -> Result<Arguments, String> {
    let mut parsed = Arguments {
        directory: default_directory(),
        root: quote!(crate),
        bitfield: None,
        area: None,
        part: None,
    };
    let mut tokens = arguments.into_iter().peekable();
    while let Some(key) = tokens.next() {
        let key = key.to_string();
        match tokens.next() {
            Some(TokenTree::Punct(punct)) if punct.as_char() == '=' => {}
            _ => return Err(format!("expected `=` after `{key}`")),
        }
        let value: TokenStream = core::iter::from_fn(|| {
            tokens.next_if(|token| !matches!(token, TokenTree::Punct(p) if p.as_char() == ','))
        })
        .collect();
        tokens.next();
        match key.as_str() {
            "spec" => {
                let text = value.to_string();
                let path = text.trim_matches('"');
                parsed.directory = match file.and_then(Path::parent) {
                    Some(folder) => folder.join(path),
                    None => PathBuf::from(path),
                };
            }
            "root" => parsed.root = value,
            "bitfield" => parsed.bitfield = Some(value),
            "area" => parsed.area = Some(value.to_string()),
            "part" => parsed.part = Some(value.to_string()),
            _ => {
                return Err(format!(
                    "unknown argument `{key}`: known are `spec`, `root`, `bitfield`, `area` and `part`"
                ));
            }
        }
    }
    Ok(parsed)
}

/// A specification, which may have mistakes.
struct Read {
    specification: Specification,
    /// The mistakes as text.
    mistakes: Vec<String>,
    /// Files that a macro has named to the compiler: once is enough, and it reads them.
    named: Mutex<Vec<bool>>,
}

/// What tells the macros of a crate apart.
#[derive(PartialEq, Eq)]
struct Call {
    section: &'static str,
    area: Option<String>,
    part: Option<String>,
}

type Cached = Result<Arc<Read>, String>;

/// A specification as it was read last.
struct Snapshot {
    directory: PathBuf,
    /// When the files were looked at, and what they looked like.
    looked: Instant,
    fingerprint: Fingerprint,
    read: Cached,
    /// The macro that reports the mistakes: one crate has many.
    reporter: Call,
}

static SNAPSHOT: Mutex<Option<Snapshot>> = Mutex::new(None);

/// How long files are taken to be unchanged: the macros of one crate follow each other faster.
const FRESH: Duration = Duration::from_secs(1);

type Fingerprint = Vec<(PathBuf, Option<SystemTime>, u64)>;

/// Whether `call` is the one to report its mistakes, with the specification.
fn read_once(directory: &Path, call: Call) -> (Cached, bool) {
    let mut snapshot = match SNAPSHOT.lock() {
        Ok(snapshot) => snapshot,
        Err(poisoned) => poisoned.into_inner(),
    };
    if let Some(known) = &mut *snapshot
        && known.directory == directory
        && (known.looked.elapsed() < FRESH || known.fingerprint == fingerprint(directory))
    {
        known.looked = Instant::now();
        return (known.read.clone(), known.reporter == call);
    }
    let fingerprint = fingerprint(directory);
    let read = read(directory);
    *snapshot = Some(Snapshot {
        directory: directory.to_owned(),
        looked: Instant::now(),
        fingerprint,
        read: read.clone(),
        reporter: call,
    });
    (read, true)
}

fn read(directory: &Path) -> Cached {
    let sources = Sources::read(directory).map_err(|error| {
        format!(
            "the specification in {} cannot be read: {error}",
            directory.display()
        )
    })?;
    let mut cache = parsed_files(directory).map_or_else(Cache::none, Cache::open);
    let (spec, mut mistakes) = load_cached(&sources, &mut cache);
    cache.save();
    mistakes.extend(check(&spec));
    let specification = Specification { spec, sources };
    let mistakes = if mistakes.is_empty() {
        Vec::new()
    } else {
        let mistakes = Diagnostics::new(specification.sources.clone(), mistakes);
        mistakes.rendered().collect()
    };
    let named = vec![false; specification.sources.iter().count()];
    Ok(Arc::new(Read {
        specification,
        mistakes,
        named: Mutex::new(named),
    }))
}

/// Where the parsed files of the specification in `directory` are kept: beside what the compiler keeps of this crate.
///
/// `None` if it keeps nothing, or if the process is not the compiler.
fn parsed_files(directory: &Path) -> Option<PathBuf> {
    let folder = std::env::args_os().find_map(|argument| {
        let text = argument.to_str()?;
        Some(PathBuf::from(text.strip_prefix("incremental=")?))
    })?;
    let mut hasher = DefaultHasher::new();
    directory.hash(&mut hasher);
    Some(folder.join(format!("tdx-spec-{:016x}", hasher.finish())))
}

fn fingerprint(directory: &Path) -> Fingerprint {
    crate::source::paths(directory)
        .unwrap_or_default()
        .into_iter()
        .map(|path| match path.metadata() {
            Ok(metadata) => (path, metadata.modified().ok(), metadata.len()),
            Err(_) => (path, None, 0),
        })
        .collect()
}
