//! What the macros do: find the specification, read it, and write one section or the mistakes.

use alloc::sync::Arc;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::SystemTime;

use proc_macro2::TokenStream;
use proc_macro2::TokenTree;
use quote::quote;

use crate::Error;
use crate::Specification;
use crate::emit::rust::Options;
use crate::emit::rust::SECTIONS;
use crate::emit::rust::Section;

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

fn expand_section(section: &Section, arguments: &Arguments) -> TokenStream {
    let specification = match read_cached(&arguments.directory) {
        Ok(specification) => specification,
        Err(ReadError { texts, files }) => {
            let errors = texts.iter().map(|text| error(text));
            let track = track(files.iter().map(PathBuf::as_path));
            return quote!(#(#errors)* #track);
        }
    };
    let items = (section.emit)(
        &specification.spec,
        &Options {
            root: arguments.root.clone(),
            bitfield_struct: true,
        },
    );
    let used = specification.sources.iter().map(|(_, source)| source);
    let used = used.filter(|source| {
        section
            .files
            .iter()
            .any(|beginning| source.name().starts_with(beginning))
    });
    let track = track(used.map(|source| source.path()));
    quote!(#items #track)
}

fn track<'p>(paths: impl Iterator<Item = &'p Path>) -> TokenStream {
    let paths = paths.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    let paths = paths.map(|path| path.to_string_lossy().into_owned());
    quote!(const _: &[&[u8]] = &[#(::core::include_bytes!(#paths)),*];)
}

struct Arguments {
    directory: PathBuf,
    root: TokenStream,
}

/// `key = value, ..` without a parser crate.
fn parse(arguments: TokenStream, file: Option<&Path>) -> Result<Arguments, String> {
    let mut parsed = Arguments {
        directory: PathBuf::from(tdx_spec::DIRECTORY),
        root: quote!(crate),
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
            _ => {
                return Err(format!(
                    "unknown argument `{key}`: known are `spec` and `root`"
                ));
            }
        }
    }
    Ok(parsed)
}

#[derive(Clone)]
struct ReadError {
    texts: Vec<String>,
    files: Vec<PathBuf>,
}

type Cached = Result<Arc<Specification>, ReadError>;

/// The last specification that was read, with what its files looked like then: one crate has many macros.
static CACHE: Mutex<Option<(PathBuf, Fingerprint, Cached)>> = Mutex::new(None);

type Fingerprint = Vec<(PathBuf, Option<SystemTime>, u64)>;

fn read_cached(directory: &Path) -> Cached {
    let fingerprint = fingerprint(directory);
    let mut cache = match CACHE.lock() {
        Ok(cache) => cache,
        Err(poisoned) => poisoned.into_inner(),
    };
    if let Some((cached_directory, cached_fingerprint, cached)) = &*cache
        && cached_directory == directory
        && *cached_fingerprint == fingerprint
    {
        return cached.clone();
    }
    let read = read(directory);
    *cache = Some((directory.to_owned(), fingerprint, read.clone()));
    read
}

fn read(directory: &Path) -> Cached {
    match crate::read(directory) {
        Ok(specification) => Ok(Arc::new(specification)),
        Err(Error::Io(error)) => Err(ReadError {
            texts: vec![format!(
                "the specification in {} cannot be read: {error}",
                directory.display()
            )],
            files: Vec::new(),
        }),
        Err(Error::Mistakes(mistakes)) => Err(ReadError {
            texts: mistakes.rendered().collect(),
            files: mistakes
                .sources()
                .iter()
                .map(|(_, source)| source.path().to_owned())
                .collect(),
        }),
    }
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
