//! The files of a specification.

use std::fs;
use std::io;
use std::path::MAIN_SEPARATOR_STR;
use std::path::Path;
use std::path::PathBuf;

pub use tdx_spec::FOLDERS;

use crate::diagnostic::Place;
use crate::yaml;
use crate::yaml::Position;

/// Number of a file in [`Sources`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(u32);

impl FileId {
    /// Position of the file in its [`Sources`].
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One file.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    path: PathBuf,
    text: String,
}

impl Source {
    /// Path below the specification's directory, with `/`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The files of a specification, in the order of their names.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<Source>,
}

impl Sources {
    /// Reads every `.yaml` file below `directory`.
    ///
    /// # Errors
    ///
    /// A folder or file cannot be read, or is not UTF-8.
    pub fn read(directory: &Path) -> io::Result<Self> {
        let mut sources = Self::default();
        for path in paths(directory)? {
            let failed = |kind, what: &dyn core::fmt::Display| {
                io::Error::new(kind, format!("{}{what}", path.display()))
            };
            let bytes = fs::read(&path)
                .map_err(|error| failed(error.kind(), &format_args!(": {error}")))?;
            let text = String::from_utf8(bytes).map_err(|error| {
                let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
                failed(
                    io::ErrorKind::InvalidData,
                    &format_args!(":{line}: this is not UTF-8; save the file as UTF-8"),
                )
            })?;
            let relative = path.strip_prefix(directory).unwrap_or(&path);
            let name = relative.to_string_lossy().replace(MAIN_SEPARATOR_STR, "/");
            sources.files.push(Source { name, path, text });
        }
        Ok(sources)
    }

    /// The files that this crate was compiled with.
    #[cfg(feature = "embed")]
    pub fn embedded() -> Self {
        let mut sources = Self::default();
        for (name, text) in tdx_spec::FILES {
            sources.add(*name, *text);
        }
        sources
    }

    /// Adds a file that need not exist on disk.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> FileId {
        let name = name.into();
        let path = PathBuf::from(&name);
        self.files.push(Source {
            name,
            path,
            text: text.into(),
        });
        FileId(u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX))
    }

    /// The file with this number.
    pub fn get(&self, id: FileId) -> Option<&Source> {
        self.files.get(id.index())
    }

    /// All files with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (FileId, &Source)> {
        (0..).map(FileId).zip(&self.files)
    }

    /// Line and column of a node.
    pub fn position(&self, place: Place) -> Option<Position> {
        yaml::locate(self.get(place.file)?.text(), place.node)
    }
}

/// Paths of the YAML files of the specification in `directory`, sorted.
pub(crate) fn paths(directory: &Path) -> io::Result<Vec<PathBuf>> {
    if !directory.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{} is no directory", directory.display()),
        ));
    }
    let mut paths = Vec::new();
    for folder in FOLDERS {
        let folder = if folder == "." {
            directory.to_owned()
        } else {
            directory.join(folder)
        };
        collect(&folder, folder != directory, &mut paths)?;
    }
    Ok(paths)
}

fn collect(folder: &Path, deep: bool, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(io::Error::new(
                error.kind(),
                format!("{}: {error}", folder.display()),
            ));
        }
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if deep {
                collect(&path, deep, paths)?;
            }
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let at = paths.partition_point(|before| *before < path);
            paths.insert(at, path);
        }
    }
    Ok(())
}
