//! Writes generated files: whole or not at all, only where something changed, and over nothing that is somebody else's.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use tdx_codegen::emit::File;

use crate::error::Error;
use crate::input::InputError;

/// Lists what was generated into a folder, one name a line.
const LIST: &str = ".tdx-generated";

/// What happens to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It was not there.
    New,
    /// It had another content.
    Updated,
    /// It stays as it is.
    Same,
    /// It was generated before, and is no longer.
    Removed,
}

impl Change {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Updated => "updated",
            Self::Same => "unchanged",
            Self::Removed => "removed",
        }
    }
}

/// What happens to one file.
pub(super) struct Step<'f> {
    pub(super) name: String,
    pub(super) change: Change,
    /// `None` for a file that is removed.
    pub(super) text: Option<&'f str>,
}

/// What has to be done so that `folder` holds `files`; by name.
///
/// # Errors
///
/// A file that was not generated is in the way, and not `force`.
pub(super) fn plan<'f>(
    folder: &Path,
    files: &'f [File],
    force: bool,
) -> Result<Vec<Step<'f>>, Error> {
    let ours = listed(folder)?;
    let mut steps = Vec::new();
    for file in files {
        let path = folder.join(&file.name);
        let old = read(&path)?;
        let change = match old {
            None => Change::New,
            Some(old) if old == file.text.as_bytes() => Change::Same,
            Some(_) if force || ours.contains(&file.name) => Change::Updated,
            Some(_) => {
                return Err(Error::Failed(format!(
                    "{} was not written by this command: choose another folder, or --force to replace it",
                    path.display()
                )));
            }
        };
        steps.push(Step {
            name: file.name.clone(),
            change,
            text: Some(&file.text),
        });
    }
    let current: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
    for name in ours {
        if !current.contains(name.as_str()) && read(&folder.join(&name))?.is_some() {
            steps.push(Step {
                name,
                change: Change::Removed,
                text: None,
            });
        }
    }
    steps.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(steps)
}

/// Does what [`plan`] says.
pub(super) fn carry_out(folder: &Path, steps: &[Step<'_>]) -> Result<(), Error> {
    for step in steps {
        let path = folder.join(&step.name);
        match (step.change, step.text) {
            (Change::Same, _) => {}
            (_, Some(text)) => replace(&path, text)?,
            (_, None) => fs::remove_file(&path).map_err(|error| failed(&path, &error))?,
        }
    }
    let mut list = String::new();
    for step in steps.iter().filter(|step| step.text.is_some()) {
        list.push_str(&step.name);
        list.push('\n');
    }
    let path = folder.join(LIST);
    if read(&path)?.as_deref() != Some(list.as_bytes()) {
        replace(&path, &list)?;
    }
    Ok(())
}

/// Names below `folder` that this command wrote before; names that lead out of it are not taken.
fn listed(folder: &Path) -> Result<BTreeSet<String>, Error> {
    let bytes = read(&folder.join(LIST))?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let inside = |name: &&str| {
        !name.is_empty()
            && Path::new(name)
                .components()
                .all(|part| matches!(part, std::path::Component::Normal(_)))
    };
    Ok(text.lines().filter(inside).map(str::to_owned).collect())
}

/// The content of a file, if it is there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Input(InputError::Read {
            path: path.display().to_string(),
            source,
        })),
    }
}

/// Writes beside the file first, so that a reader sees the old content or the new one and nothing between.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), Error> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        // Nothing is lost if that fails too: the file is ours and incomplete.
        let _ = fs::remove_file(&beside);
        failed(path, &error)
    })
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::Failed(format!("cannot write {}: {error}", path.display()))
}
