//! Where a specification to compare comes from: a folder, a lock file, a git revision, a module of one.

use std::io;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::thread;

use tdx_codegen::source::Sources;

use crate::error::Error;
use crate::input;
use crate::spec::facts::Facts;

/// Bytes of the largest lock file that is read.
const LIMIT: u64 = 64 << 20;

/// The facts of the checked specification that `sources` hold.
pub(in crate::spec) fn facts(what: &str, sources: Sources) -> Result<Facts, Error> {
    match tdx_codegen::from_sources(sources) {
        Ok(read) => Ok(Facts::of(&read.spec)),
        Err(mistakes) => {
            let count = mistakes.list().len();
            let first = mistakes.rendered().next().unwrap_or_default();
            let mistakes = if count == 1 { "mistake" } else { "mistakes" };
            Err(Error::Failed(format!(
                "{what}: {count} {mistakes}, the first: {first}"
            )))
        }
    }
}

/// The facts of the specification in the folder, lock file or git revision `name`.
pub(super) fn read(name: &str, repository: &Path) -> Result<Facts, Error> {
    let path = Path::new(name);
    if path.is_dir() {
        let sources = Sources::read(path).map_err(|error| failed(name, &error))?;
        if sources.iter().next().is_none() {
            return Err(Error::Failed(format!("{name} holds no specification")));
        }
        return facts(name, sources);
    }
    if path.is_file() {
        let text = input::read(path, LIMIT)?;
        let text = String::from_utf8_lossy(&text);
        return Facts::parse(&text).map_err(|error| failed(name, &error));
    }
    facts(
        name,
        revision(name, repository).map_err(|error| failed(name, &error))?,
    )
}

fn failed(name: &str, error: &dyn core::fmt::Display) -> Error {
    Error::Failed(format!("{name}: {error}"))
}

/// The files of the specification at a git revision.
fn revision(name: &str, repository: &Path) -> io::Result<Sources> {
    let commit = git(
        repository,
        &[
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            &format!("{name}^{{commit}}"),
        ],
        b"",
    )
    .map_err(|_| {
        io::Error::other(
            "no module, folder or lock file, and no revision of the git repository here",
        )
    })?;
    let commit = String::from_utf8_lossy(&commit);
    let listing = git(
        repository,
        &["ls-tree", "-r", "-z", "--full-tree", commit.trim()],
        b"",
    )?;
    let listing = String::from_utf8_lossy(&listing);
    let files: Vec<(&str, &str)> = listing
        .split('\0')
        .filter_map(|entry| {
            let (head, path) = entry.split_once('\t')?;
            Some((head.split(' ').nth(2)?, path))
        })
        .collect();
    let root = files
        .iter()
        .filter_map(|(_, path)| path.strip_suffix("sources.yaml"))
        .find(|root| {
            let modules = format!("{root}modules/");
            files.iter().any(|(_, path)| path.starts_with(&modules))
        })
        .ok_or_else(|| io::Error::other("this revision has no specification"))?;
    let wanted: Vec<(&str, &str)> = files
        .iter()
        .filter_map(|(hash, path)| {
            let below = path.strip_prefix(root)?;
            let folder = below.split_once('/').map_or(".", |(folder, _)| folder);
            let is_part = tdx_codegen::source::FOLDERS.contains(&folder);
            (is_part && below.ends_with(".yaml")).then_some((*hash, below))
        })
        .collect();
    let hashes: String = wanted.iter().map(|(hash, _)| format!("{hash}\n")).collect();
    let contents = git(repository, &["cat-file", "--batch"], hashes.as_bytes())?;
    let mut rest = &contents[..];
    let mut sources = Sources::default();
    for (_, path) in wanted {
        sources.add(path, blob(&mut rest)?);
    }
    Ok(sources)
}

/// Takes one object, `<hash> blob <size>\n<content>\n`.
fn blob(rest: &mut &[u8]) -> io::Result<String> {
    let cut = || io::Error::other("git gave less than was asked for");
    let end = rest
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(cut)?;
    let head = String::from_utf8_lossy(&rest[..end]);
    let size = head.rsplit(' ').next().and_then(|size| size.parse().ok());
    let size: usize = size.ok_or_else(cut)?;
    let content = rest.get(end + 1..).and_then(|rest| rest.get(..size));
    let text = String::from_utf8(content.ok_or_else(cut)?.to_vec()).map_err(io::Error::other)?;
    *rest = rest.get(end + size + 2..).unwrap_or_default();
    Ok(text)
}

/// What `git` prints, given this on standard input.
fn git(repository: &Path, arguments: &[&str], input: &[u8]) -> io::Result<Vec<u8>> {
    let mut child = Command::new("git")
        .arg("-C")
        .arg(repository)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut stdin = child.stdin.take();
    let mut stdout = child.stdout.take();
    let mut output = Vec::new();
    // Both at once: git stops reading when nobody takes what it writes.
    thread::scope(|scope| {
        scope.spawn(move || stdin.as_mut().map(|stdin| stdin.write_all(input)));
        stdout
            .as_mut()
            .map_or(Ok(0), |stdout| stdout.read_to_end(&mut output))
    })?;
    if child.wait()?.success() {
        Ok(output)
    } else {
        Err(io::Error::other(format!("git {} failed", arguments[0])))
    }
}
