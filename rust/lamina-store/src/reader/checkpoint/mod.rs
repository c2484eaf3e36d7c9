//! Checkpoints of a snapshot: what the logs say of them.

mod alone;
mod chunks;
mod layout;
mod listing;
mod mapped;
mod stretches;
mod wholes;

pub(crate) use listing::Kept;
pub use listing::{SavedPart, SavedTensor};
pub use mapped::Mapping;
pub use stretches::Stretch;
pub use wholes::Region;

use crate::places::readable;
use chunks::Place;
use lamina_format::checksum;
use lamina_format::chunk::Key;
use lamina_format::record::{ATTACHED, Op, Part, Save};
use lamina_format::{Error, ErrorKind, Result, names};
use layout::Layout;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

/// What the logs say of checkpoints.
#[derive(Default)]
pub struct Checkpoints {
    chunks: HashMap<Key, Vec<Place>>,
    layouts: HashMap<Key, Layout>,
    /// With the logs that hold them.
    saves: Vec<(Arc<str>, Save)>,
    index: OnceLock<Index>,
}

/// Which saves count: of several of a part at one step that with the greatest time.
#[derive(Default)]
struct Index {
    /// By step, in order of their times.
    steps: BTreeMap<i64, Vec<At>>,
    named: HashMap<(i64, String), At>,
}

/// A save, and a part of it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct At {
    save: usize,
    part: usize,
}

impl Checkpoints {
    /// Takes up a record; one that cannot be true is an error and is left out.
    pub fn apply(&mut self, op: Op, log: &str) -> Result<()> {
        match op {
            Op::Chunks(chunks) => {
                names::check_blob(&chunks.pack)?;
                let pack: Arc<str> = Arc::from(chunks.pack);
                for chunk in chunks.chunks {
                    self.chunks.entry(chunk.key).or_default().push(Place::new(Arc::clone(&pack), chunk));
                }
            }
            Op::Layout(layout) => {
                let key = checksum::hash(&layout.content);
                self.layouts.entry(key).or_insert_with(|| Layout::read(layout.content));
            }
            Op::Save(save) => self.saves.push((Arc::from(log), save)),
            _ => {}
        }
        Ok(())
    }

    /// Forgets chunks in packs that are removed, and the parts of saves that name a chunk which stood only there: a
    /// writer that leans on such a pack finds that out, and writes the chunk again, before it acknowledges the save.
    pub fn forget(&mut self, dropped: &HashSet<String>) {
        if dropped.is_empty() {
            return;
        }
        let stands = |place: &&Place| !dropped.contains(place.pack.as_ref());
        let readable = readable(self.chunks.values().flatten().filter(stands).map(|place| &place.chunk));
        let mut gone: HashSet<Key> = HashSet::new();
        self.chunks.retain(|key, places| {
            places.retain(|place| !dropped.contains(place.pack.as_ref()));
            if !readable.contains(key) {
                gone.insert(*key);
            }
            readable.contains(key)
        });
        for (_, save) in &mut self.saves {
            save.parts.retain(|part| !keys(part).iter().any(|key| gone.contains(key)));
        }
        self.saves.retain(|(_, save)| !save.parts.is_empty());
    }

    fn layout(&self, part: &Part) -> Result<&Layout> {
        let lost = || Error::damaged(format!("the layout of part {:?} is lost with a damaged record", part.name));
        let layout = self.layouts.get(&part.layout).ok_or_else(lost)?;
        if layout.chunks()?.checked_mul(32) != Some(part.keys.len() as u64) {
            return Err(Error::damaged(format!("the record of part {:?} does not fit its tensors", part.name)));
        }
        Ok(layout)
    }

    /// What is wrong with checkpoints: those without a layout are left out, those without a chunk do not load.
    pub fn problems(&self) -> Vec<Error> {
        let mut problems = Vec::new();
        for (log, save) in &self.saves {
            for part in &save.parts {
                let lost = keys(part).iter().find(|key| !self.chunks.contains_key(*key));
                let lost = lost.map(|_| Error::damaged("a chunk is lost with a damaged record"));
                if let Some(error) = self.layout(part).err().or(lost) {
                    let message = format!("{}: {}", called(&part.name, save.step), error.message);
                    problems.push(Error { message, ..error }.in_file(log.as_ref()));
                }
            }
        }
        problems
    }

    fn at(&self, at: At) -> (&str, &Save, &Part) {
        let (log, save) = &self.saves[at.save];
        (log, save, &save.parts[at.part])
    }

    /// All saves in order of their times; of equal times the order of reading counts.
    fn by_time(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.saves.len()).collect();
        order.sort_by_key(|&save| self.saves[save].1.time);
        order
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let mut index = Index::default();
            let ordered = self.by_time();
            let parts = |&save: &usize| (0..self.saves[save].1.parts.len()).map(move |part| At { save, part });
            for at in ordered.iter().flat_map(parts) {
                let (_, save, part) = self.at(at);
                index.named.insert((save.step, part.name.clone()), at);
            }
            for at in ordered.iter().flat_map(parts) {
                let (_, save, part) = self.at(at);
                if index.named.get(&(save.step, part.name.clone())) == Some(&at) {
                    index.steps.entry(save.step).or_default().push(at);
                }
            }
            index
        })
    }

    /// The last save of a part at a step, and the log that holds it.
    fn part(&self, step: i64, name: &str) -> Result<(&str, &Part)> {
        let found = self.index().named.get(&(step, name.to_owned()));
        let missing = || Error::new(ErrorKind::NotFound, format!("step {step} has no checkpoint with a part {name:?}"));
        let (log, _, part) = self.at(*found.ok_or_else(missing)?);
        Ok((log, part))
    }
}

/// What a part is called in messages.
fn called(part: &str, step: i64) -> String {
    match step {
        ATTACHED => format!("attachment {part:?}"),
        _ => format!("part {part:?} at step {step}"),
    }
}

fn keys(part: &Part) -> &[Key] {
    part.keys.as_chunks::<32>().0
}
