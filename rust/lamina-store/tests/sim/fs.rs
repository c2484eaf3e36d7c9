//! A file system in memory that writes down what happens.

use super::content::Content;
use super::disk::{Change, Disk, Entry, Event, Inode, Node, enter};
use super::history::Note;
use lamina_store::storage::{Fs, FsFile};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

/// The file system. Clones are the same one.
#[derive(Clone)]
pub struct SimFs(Arc<Mutex<State>>);

type Interruption = Box<dyn FnOnce() + Send>;

struct State {
    nodes: Vec<Node>,
    /// As it was before the first event.
    start: Vec<Node>,
    trace: Vec<Event>,
    lies: Lies,
    calls: usize,
    interruption: Option<(usize, Interruption)>,
}

/// Syncs that are reported as done and are not.
#[derive(Clone, Copy, Default)]
pub struct Lies {
    pub of_files: bool,
    pub of_folders: bool,
}

const ROOT: Inode = 0;

impl SimFs {
    /// An empty one with a durable folder `/data`.
    pub fn new() -> Self {
        let root = BTreeMap::from([("work".to_owned(), 1)]);
        Self::on(vec![Node::Folder(root), Node::Folder(BTreeMap::new())])
    }

    /// What a power cut left.
    pub fn on(nodes: Vec<Node>) -> Self {
        let state = State {
            start: nodes.clone(),
            nodes,
            trace: Vec::new(),
            lies: Lies::default(),
            calls: 0,
            interruption: None,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    pub fn lying(self, lies: Lies) -> Self {
        self.0.lock().unwrap().lies = lies;
        self
    }

    /// Does this just before call number `at`, counted from now, on the thread that makes the call.
    pub fn interrupt(&self, at: usize, what: impl FnOnce() + Send + 'static) {
        let mut state = self.0.lock().unwrap();
        state.interruption = Some((state.calls + at, Box::new(what)));
    }

    /// Whether an interruption still waits for its call; it waits no longer.
    pub fn uninterrupted(&self) -> bool {
        self.0.lock().unwrap().interruption.take().is_some()
    }

    pub fn note(&self, note: Note) {
        self.0.lock().unwrap().trace.push(Event::Note(note));
    }

    /// The disk at the beginning, and what happened since.
    pub fn history(&self) -> (Disk, Vec<Event>) {
        let state = self.0.lock().unwrap();
        (Disk::new(state.start.clone()), state.trace.clone())
    }

    /// Every call comes through here.
    fn call(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap();
        state.calls += 1;
        match state.interruption.take() {
            Some((at, what)) if state.calls > at => {
                drop(state);
                what();
                self.0.lock().unwrap()
            }
            waiting => {
                state.interruption = waiting;
                state
            }
        }
    }
}

impl State {
    fn folder(&self, inode: Inode) -> io::Result<&BTreeMap<String, Inode>> {
        match &self.nodes[inode] {
            Node::Folder(names) => Ok(names),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<Inode> {
        let mut inode = ROOT;
        for name in path.strip_prefix("/").expect("an absolute path") {
            let found = self.folder(inode)?.get(name.to_str().unwrap());
            inode = *found.ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(inode)
    }

    /// The folder of a path, and its last name.
    fn split(&self, path: &Path) -> io::Result<(Inode, String)> {
        let folder = self.find(path.parent().unwrap())?;
        self.folder(folder)?;
        Ok((folder, path.file_name().unwrap().to_str().unwrap().to_owned()))
    }

    fn make(&mut self, node: Node) -> Inode {
        self.trace.push(Event::New(node.clone()));
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn enter(&mut self, folder: Inode, entry: Entry) {
        let Node::Folder(names) = &mut self.nodes[folder] else { panic!("a file is no folder") };
        enter(names, &entry);
        self.trace.push(Event::Folder(folder, entry));
    }

    fn content(&mut self, inode: Inode) -> &mut Content {
        let Node::File(content) = &mut self.nodes[inode] else { panic!("a folder is no file") };
        content
    }
}

impl Fs for SimFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.call();
        let ancestors: Vec<&Path> = path.ancestors().collect();
        for path in ancestors.into_iter().rev().skip(1) {
            if state.find(path).is_err() {
                let (folder, name) = state.split(path)?;
                let made = state.make(Node::Folder(BTreeMap::new()));
                state.enter(folder, Entry::Name(name, made));
            }
        }
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.call();
        let (folder, name) = state.split(path)?;
        if !state.folder(folder)?.contains_key(&name) {
            let made = state.make(Node::Folder(BTreeMap::new()));
            state.enter(folder, Entry::Name(name, made));
        }
        Ok(())
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let mut state = self.call();
        let (folder, name) = state.split(path)?;
        if state.folder(folder)?.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.make(Node::File(Content::default()));
        state.enter(folder, Entry::Name(name, inode));
        Ok(Box::new(SimFile { fs: self.clone(), inode }))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        // what is written past the page cache may still lie in the disk's own
        self.open(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let inode = self.call().find(path)?;
        Ok(Box::new(SimFile { fs: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.call();
        let ((folder, from), (target, to)) = (state.split(from)?, state.split(to)?);
        assert_eq!(folder, target, "renames within a folder are simulated");
        if !state.folder(folder)?.contains_key(&from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let replaced = state.folder(folder)?.get(&to).copied();
        if replaced.is_some_and(|there| state.folder(there).is_ok_and(|names| !names.is_empty())) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        state.enter(folder, Entry::Rename(from, to));
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.call();
        let (inode, (folder, name)) = (state.find(from)?, state.split(to)?);
        if state.folder(folder)?.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.enter(folder, Entry::Name(name, inode));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.call();
        let (folder, name) = state.split(path)?;
        state.find(path)?;
        state.enter(folder, Entry::Unname(name));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.call();
        let inode = state.find(path)?;
        state.folder(inode)?;
        if !state.lies.of_folders {
            state.trace.push(Event::SyncFolder(inode));
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.call();
        Ok(state.folder(state.find(path)?)?.keys().cloned().collect())
    }

    fn exists(&self, path: &Path) -> bool {
        self.call().find(path).is_ok()
    }
}

struct SimFile {
    fs: SimFs,
    inode: Inode,
}

impl FsFile for SimFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.fs.call().content(self.inode).length())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.fs.call().content(self.inode).read(offset, out)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.fs.call();
        state.content(self.inode).write(offset, bytes);
        state.trace.push(Event::File(self.inode, Change::Write(offset, Arc::from(bytes))));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.fs.call();
        if !state.lies.of_files {
            state.trace.push(Event::SyncFile(self.inode));
        }
        Ok(())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut state = self.fs.call();
        state.content(self.inode).set_length(length);
        state.trace.push(Event::File(self.inode, Change::Length(length)));
        Ok(())
    }
}
