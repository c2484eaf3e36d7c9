//! What a power cut leaves: the durable image, and any part of what was not synced.

use super::content::Content;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Number of a file or folder.
pub type Inode = usize;

/// A file or a folder.
#[derive(Clone)]
pub enum Node {
    File(Content),
    Folder(BTreeMap<String, Inode>),
}

/// A change of a file.
#[derive(Clone)]
pub enum Change {
    Write(u64, Arc<[u8]>),
    Length(u64),
}

/// A change of a folder. A rename happens wholly or not at all.
#[derive(Clone)]
pub enum Entry {
    Name(String, Inode),
    Unname(String),
    Rename(String, String),
}

/// What happened, in order.
#[derive(Clone)]
pub enum Event {
    /// The next number is that of this empty file or folder.
    New(Node),
    File(Inode, Change),
    SyncFile(Inode),
    Folder(Inode, Entry),
    SyncFolder(Inode),
    Note(super::history::Note),
}

/// How much of what was not synced survives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Survives {
    Nothing,
    Everything,
    /// A part, by this seed.
    Some(u64),
}

/// Files and folders as of the last syncs, and what was done since.
#[derive(Clone)]
pub struct Disk {
    nodes: Vec<Node>,
    changes: Vec<Vec<Change>>,
    entries: Vec<Vec<Entry>>,
}

/// A number that depends on all of these.
pub fn mix(seed: u64, a: u64, b: u64) -> u64 {
    let mut x = seed ^ a.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ b.wrapping_mul(0xD1B5_4A32_D192_ED03);
    for _ in 0..2 {
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^= x >> 31;
    }
    x
}

fn change(content: &mut Content, change: &Change) {
    match change {
        Change::Write(offset, bytes) => content.write(*offset, bytes),
        Change::Length(length) => content.set_length(*length),
    }
}

pub fn enter(names: &mut BTreeMap<String, Inode>, entry: &Entry) {
    match entry {
        Entry::Name(name, inode) => drop(names.insert(name.clone(), *inode)),
        Entry::Unname(name) => drop(names.remove(name)),
        Entry::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

impl Disk {
    pub fn new(nodes: Vec<Node>) -> Self {
        let count = nodes.len();
        Self { nodes, changes: vec![Vec::new(); count], entries: vec![Vec::new(); count] }
    }

    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::New(node) => {
                self.nodes.push(node.clone());
                self.changes.push(Vec::new());
                self.entries.push(Vec::new());
            }
            Event::File(inode, change) => self.changes[*inode].push(change.clone()),
            Event::Folder(inode, entry) => self.entries[*inode].push(entry.clone()),
            Event::SyncFile(inode) => {
                let Node::File(content) = &mut self.nodes[*inode] else { panic!("a folder is no file") };
                self.changes[*inode].drain(..).for_each(|done| change(content, &done));
            }
            Event::SyncFolder(inode) => {
                let Node::Folder(names) = &mut self.nodes[*inode] else { panic!("a file is no folder") };
                self.entries[*inode].drain(..).for_each(|done| enter(names, &done));
            }
            Event::Note(_) => {}
        }
    }

    /// The disk after a power cut.
    pub fn cut(&self, survives: Survives) -> Vec<Node> {
        let mut nodes = self.nodes.clone();
        for (inode, node) in nodes.iter_mut().enumerate() {
            match node {
                Node::File(content) => keep_changes(content, &self.changes[inode], survives, inode as u64),
                Node::Folder(names) => keep_entries(names, &self.entries[inode], survives, inode as u64),
            }
        }
        nodes
    }
}

/// A journal keeps the first entries, a plain file system any of them.
fn keep_entries(names: &mut BTreeMap<String, Inode>, entries: &[Entry], survives: Survives, inode: u64) {
    let keeps = |at: usize| match survives {
        Survives::Nothing => false,
        Survives::Everything => true,
        Survives::Some(seed) if mix(seed, 1, 0).is_multiple_of(2) => {
            (at as u64) < mix(seed, 2, inode) % (entries.len() as u64 + 1)
        }
        Survives::Some(seed) => mix(seed, 3 + at as u64, inode).is_multiple_of(2),
    };
    let kept = entries.iter().enumerate().filter(|(at, _)| keeps(*at));
    kept.for_each(|(_, entry)| enter(names, entry));
}

/// Each sector, or page, was last written back after any of the changes; so was the length, or it lies between.
fn keep_changes(content: &mut Content, changes: &[Change], survives: Survives, inode: u64) {
    let seed = match survives {
        _ if changes.is_empty() => return,
        Survives::Nothing => return,
        Survives::Everything => return changes.iter().for_each(|done| change(content, done)),
        Survives::Some(seed) => seed,
    };
    let unit = if mix(seed, 4, 0).is_multiple_of(2) { 512 } else { 4096 };
    let count = changes.len() as u64;
    // how many of the changes a unit has seen: none, all, or some
    let seen = |at: u64| match (mix(seed, 5, inode) % 4, mix(seed, 6 + at, inode) % 16) {
        (0, chance) if chance > 1 => 0,
        (1, chance) if chance > 1 => count,
        (2, chance) => [0, count][chance as usize % 2],
        _ => mix(seed, 7 + at, inode) % (count + 1),
    };
    let before = content.length();
    let mut lengths = vec![before];
    for (number, change) in changes.iter().enumerate() {
        let last = lengths[number];
        match change {
            Change::Write(offset, bytes) => {
                let end = offset + bytes.len() as u64;
                let mut at = *offset;
                while at < end {
                    let next = ((at / unit + 1) * unit).min(end);
                    if (number as u64) < seen(at / unit) {
                        content.write(at, &bytes[(at - offset) as usize..(next - offset) as usize]);
                    }
                    at = next;
                }
                lengths.push(last.max(end));
            }
            Change::Length(length) => {
                // what is cut off may be gone for good, or come back
                if *length < last && (number as u64) < seen(length / unit) {
                    content.set_length(*length);
                }
                lengths.push(*length);
            }
        }
    }
    let after = lengths[(mix(seed, 8, inode) % (count + 1)) as usize];
    let between = after.saturating_sub(before) / unit + 1;
    let length = match mix(seed, 9, inode) % 3 {
        0 if after > before => (before + mix(seed, 10, inode) % between * unit).min(after),
        _ => after,
    };
    content.set_length(length);
}
