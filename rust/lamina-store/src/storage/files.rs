//! A run as a folder of files: where each thing lies, and in which order it becomes durable.

use super::stream::Stream;
use super::{Blob, Fs, FsFile, Log, Mapped, Private, Ranges, RealFs, Storage};
use crate::clock;
use lamina_format::{Error, ErrorKind, Result, commit, names};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The folder of a run.
#[derive(Clone)]
pub struct Files {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) root: PathBuf,
}

const FOLDERS: [&str; 4] = ["commits", "logs", "segments", "chunks"];

pub(super) fn refused(error: &io::Error, doing: &str, file: &str) -> Error {
    use io::ErrorKind as Io;
    let cut = error.kind() == Io::UnexpectedEof;
    let kind = if cut { ErrorKind::Damaged } else { ErrorKind::Storage };
    let message =
        if cut { "the file is shorter than what was acknowledged".to_owned() } else { format!("{doing}: {error}") };
    let hint = match error.kind() {
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => {
            "free some space and start a new writer; what was acknowledged is there"
        }
        Io::PermissionDenied | Io::ReadOnlyFilesystem => "check the permissions of the run's folder",
        Io::NotFound => "the file is missing; was it moved or removed?",
        Io::InvalidInput => "a run consists of plain files and folders; copy it with what its links lead to (cp -rL)",
        _ => return Error::new(kind, message).in_file(file),
    };
    Error::new(kind, message).in_file(file).hint(hint)
}

fn is_draft(name: &str) -> bool {
    name.split_once('/').is_some_and(|(folder, name)| {
        matches!(folder, "commits" | "fences" | "index")
            && name.starts_with('.')
            && name[1..].bytes().all(|b| b.is_ascii_hexdigit())
    })
}

impl Files {
    /// The run in this folder, on this machine's file system.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self::on(Arc::new(RealFs), root)
    }

    /// The run in this folder, on another file system.
    pub fn on(fs: Arc<dyn Fs>, root: impl Into<PathBuf>) -> Self {
        Self { fs, root: root.into() }
    }

    /// All of a file that has no more than `most` bytes.
    pub(super) fn read(&self, name: &str, most: usize) -> Result<Vec<u8>> {
        let fail = |error: io::Error| refused(&error, "cannot read", name);
        let file = self.fs.open(&self.root.join(name)).map_err(fail)?;
        let length = usize::try_from(file.length().map_err(fail)?).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        // a file of holes may be longer than any memory
        if length > most || bytes.try_reserve_exact(length).is_err() {
            return Err(Error::damaged(format!("a file of {length} bytes is too long to be read")).in_file(name));
        }
        bytes.resize(length, 0);
        file.read_at(0, &mut bytes).map_err(fail)?;
        Ok(bytes)
    }

    fn write_durably(&self, path: &Path, bytes: &[u8], name: &str) -> Result<()> {
        let write = || {
            let file = self.fs.create_new(path)?;
            file.write_at(0, bytes)?;
            file.sync_data()
        };
        write().map_err(|error| refused(&error, "cannot write", name))
    }

    /// Creates a file with all of its bytes, durably; false if its name is taken.
    pub(super) fn create_whole(&self, folder: &str, name: &str, bytes: &[u8]) -> Result<bool> {
        loop {
            let draft = self.root.join(format!("{folder}/.{}", clock::unique()));
            self.write_durably(&draft, bytes, name)?;
            // a link fails if the name is taken, where a rename would replace it
            let linked = self.fs.link(&draft, &self.root.join(name));
            let removed = self.fs.remove_file(&draft);
            let collected = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
            match linked {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
                // somebody took the draft for garbage: this process slept for long
                Err(error) if collected(&error) && removed.as_ref().is_err_and(collected) => continue,
                Err(error) => return Err(refused(&error, "cannot publish", name)),
                Ok(()) => {
                    let removed = removed.or_else(|error| if collected(&error) { Ok(()) } else { Err(error) });
                    removed.map_err(|error| refused(&error, "cannot remove the draft of", name))?;
                    self.sync_folder(folder)?;
                    return Ok(true);
                }
            }
        }
    }

    /// Makes a folder that runs begin without, durably. A run that was removed meanwhile does not come back by it.
    pub(super) fn add_folder(&self, name: &str) -> io::Result<()> {
        let folder = self.root.join(name);
        if self.fs.exists(&folder) {
            return Ok(());
        }
        self.fs.create_dir(&folder)?;
        self.fs.sync_dir(&self.root)
    }

    pub(super) fn sync_folder(&self, name: &str) -> Result<()> {
        self.fs.sync_dir(&self.root.join(name)).map_err(|error| refused(&error, "cannot sync", name))
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        self.fs.list(&self.root.join(folder)).map_err(|error| refused(&error, "cannot list", folder))
    }
}

impl Storage for Files {
    fn create(&self, run_json: &[u8], commit: &[u8]) -> Result<()> {
        self.check_free()?;
        let fail = |error: io::Error| refused(&error, "cannot create the run", &self.root.display().to_string());
        let made = self.missing_above();
        let draft = self.draft();
        let written = || {
            for folder in FOLDERS {
                self.fs.create_dir_all(&draft.root.join(folder)).map_err(fail)?;
            }
            self.write_durably(&draft.root.join("run.json"), run_json, "run.json")?;
            self.write_durably(&draft.root.join(names::commit(0)), commit, &names::commit(0))?;
            self.fs.sync_dir(&draft.root.join("commits")).map_err(fail)?;
            self.fs.sync_dir(&draft.root).map_err(fail)?;
            self.take_over(&draft, &made)
        };
        written().inspect_err(|_| draft.discard())
    }

    fn run_json(&self) -> Result<Vec<u8>> {
        let shown = self.root.display();
        if !self.fs.exists(&self.root) {
            return Err(Error::new(ErrorKind::NotARun, format!("there is nothing at {shown}"))
                .hint("check the path; lamina.Run.create() makes a run"));
        }
        if !self.fs.exists(&self.root.join("run.json")) && !self.fs.exists(&self.root.join("commits")) {
            return Err(Error::new(ErrorKind::NotARun, format!("{shown} is not a run: it has no run.json"))
                .hint("give the folder that Run.create() made"));
        }
        self.read("run.json", commit::LONGEST)
    }

    fn commits(&self) -> Result<Vec<u64>> {
        let mut numbers: Vec<u64> = self.list("commits")?.iter().filter_map(|name| names::parse_commit(name)).collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        Ok(numbers)
    }

    fn read_commit(&self, n: u64) -> Result<Vec<u8>> {
        self.read(&names::commit(n), commit::HEAD + commit::LONGEST + commit::TAIL)
    }

    fn publish(&self, n: u64, commit: &[u8]) -> Result<bool> {
        self.create_whole("commits", &names::commit(n), commit)
    }

    fn settle_commits(&self) -> Result<()> {
        self.sync_folder("commits")
    }

    fn logs(&self) -> Result<Vec<(u32, u32)>> {
        let mut logs: Vec<_> = self.list("logs")?.iter().filter_map(|name| names::parse_log(name)).collect();
        logs.sort_unstable();
        Ok(logs)
    }

    fn read_log(&self, writer: u32, generation: u32) -> Result<Vec<u8>> {
        let end = self.fence_end(writer).unwrap_or(None);
        let mut bytes = self.read(&names::log(writer, generation), usize::MAX)?;
        bytes.truncate(end.map_or(usize::MAX, |end| end as usize));
        Ok(bytes)
    }

    fn fence(&self, writer: u32) -> Result<()> {
        self.raise_fence(writer)
    }

    fn check_fence(&self, writer: u32) -> Result<()> {
        self.fence_end(writer).map(drop)
    }

    fn fenced(&self, writer: u32) -> Result<bool> {
        Ok(self.fs.exists(&self.root.join(names::fence(writer))))
    }

    fn files(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for folder in ["segments", "chunks", "commits", "fences", "index"] {
            if !self.fs.exists(&self.root.join(folder)) {
                continue;
            }
            let files = self.list(folder)?.into_iter().map(|name| format!("{folder}/{name}"));
            found.extend(files.filter(|name| names::owner(name).is_some() || is_draft(name)));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn remove(&self, file: &str) -> Result<()> {
        if names::owner(file).is_none() && !is_draft(file) {
            return Err(Error::damaged(format!("{file:?} is no file that may be removed")));
        }
        match self.fs.remove_file(&self.root.join(file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|error| refused(&error, "cannot remove", file)),
        }
    }

    fn settle_log(&self, writer: u32, generation: u32) -> Result<()> {
        let name = names::log(writer, generation);
        let settled = self.fs.open(&self.root.join(&name)).and_then(|file| file.sync_data());
        settled.map_err(|error| refused(&error, "cannot sync", &name))
    }

    fn create_log(&self, writer: u32, generation: u32) -> Result<Option<Box<dyn Log>>> {
        let name = names::log(writer, generation);
        let file = match self.fs.create_new(&self.root.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            file => file.map_err(|error| refused(&error, "cannot create", &name))?,
        };
        self.sync_folder("logs")?;
        Ok(Some(Box::new(OpenLog { file, name, end: 0 })))
    }

    fn create_blob(&self, name: &str) -> Result<Box<dyn Blob>> {
        let path = self.root.join(name);
        let file = self.fs.create_new(&path).map_err(|error| refused(&error, "cannot create", name))?;
        let folder = name.split_once('/').map_or("", |(folder, _)| folder).to_owned();
        let stream = Stream::new(Arc::clone(&self.fs), path, file);
        Ok(Box::new(OpenBlob { files: self.clone(), stream, name: name.to_owned(), folder, named: false }))
    }

    fn open_blob(&self, name: &str) -> Result<Box<dyn Ranges>> {
        names::check_blob(name)?;
        let file = self.fs.open(&self.root.join(name)).map_err(|error| refused(&error, "cannot open", name))?;
        Ok(Box::new(OpenRanges { file, name: name.to_owned(), map: Mutex::default() }))
    }

    fn create_index(&self, name: &str) -> Result<Box<dyn Blob>> {
        self.draft_index(name)
    }

    fn open_index(&self, name: &str) -> Result<Option<Box<dyn Ranges>>> {
        let file = match self.fs.open(&self.root.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| refused(&error, "cannot open", name))?,
        };
        Ok(Some(Box::new(OpenRanges { file, name: name.to_owned(), map: Mutex::default() })))
    }
}

struct OpenLog {
    file: Box<dyn FsFile>,
    name: String,
    end: u64,
}

impl Log for OpenLog {
    fn append(&mut self, frame: &[u8]) -> Result<()> {
        self.file.write_at(self.end, frame).map_err(|error| refused(&error, "cannot write", &self.name))?;
        self.end += frame.len() as u64;
        self.file.sync_data().map_err(|error| refused(&error, "cannot sync", &self.name))
    }
}

struct OpenBlob {
    files: Files,
    stream: Stream,
    name: String,
    folder: String,
    named: bool,
}

impl OpenBlob {
    /// The file's name is durable too once its folder is.
    fn sync_name(&mut self) -> Result<()> {
        if !self.named {
            self.files.sync_folder(&self.folder)?;
            self.named = true;
        }
        Ok(())
    }
}

impl Blob for OpenBlob {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.stream.write(offset, bytes).map_err(|error| refused(&error, "cannot write", &self.name).at(offset))
    }

    fn flush(&mut self) -> Result<()> {
        self.stream.flush().map_err(|error| refused(&error, "cannot write", &self.name))
    }

    fn sync(&mut self) -> Result<()> {
        self.stream.sync().map_err(|error| refused(&error, "cannot sync", &self.name))?;
        self.sync_name()
    }

    fn finish(&mut self, length: u64) -> Result<()> {
        self.stream.finish(length).map_err(|error| refused(&error, "cannot end", &self.name))?;
        self.sync_name()
    }
}

struct OpenRanges {
    file: Box<dyn FsFile>,
    name: String,
    /// The latest map. An earlier and shorter one lives on as long as somebody holds it.
    map: Mutex<Option<Arc<Mapped>>>,
}

impl Ranges for OpenRanges {
    fn length(&self) -> Result<u64> {
        self.file.length().map_err(|error| refused(&error, "cannot read", &self.name))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.file.read_at(offset, out).map_err(|error| refused(&error, "cannot read", &self.name).at(offset))
    }

    fn map(&self, least: u64) -> Result<Option<Arc<Mapped>>> {
        let mut latest = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = latest.as_ref().filter(|map| map.length() >= least) {
            return Ok(Some(Arc::clone(map)));
        }
        let map = self.file.map(least).map_err(|error| refused(&error, "cannot map", &self.name))?;
        *latest = map.map(Arc::new);
        Ok(latest.clone())
    }

    fn map_private(&self, range: Range<u64>) -> Result<Option<Private>> {
        self.file.map_private(range).map_err(|error| refused(&error, "cannot map", &self.name))
    }

    fn is_remote(&self) -> bool {
        self.file.is_remote()
    }

    fn will_need(&self, range: Range<u64>) {
        self.file.will_need(range);
    }
}
