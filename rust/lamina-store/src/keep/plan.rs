//! Which row groups are worth rewriting together.

use crate::Snapshot;
use crate::reader::{Mask, StoredGroup};
use lamina_format::record::{Block, Table};
use lamina_format::segment::MOST_ROWS;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Groups below this are small.
const SMALL: u64 = 16 << 20;
/// Bytes at which no further group joins a batch; as all but one of its groups are small, it stays below 64 MiB.
const ENOUGH: u64 = 32 << 20;

/// A group by its segment and number.
pub type Name = (String, u32);

/// Groups of one writer whose rows will stand together.
pub struct Batch<'a> {
    pub writer: u32,
    pub table: Table,
    pub members: Vec<&'a StoredGroup>,
}

impl Batch<'_> {
    pub fn bytes(&self) -> u64 {
        self.members.iter().map(|group| group.record.length).sum()
    }
}

pub fn name(group: &StoredGroup) -> Name {
    (group.record.file.clone(), group.record.number)
}

/// What groups must have in common: writer, table, sites, and for examples, where an absent column is not a null, columns.
type Kind = (u32, u32, Vec<u32>, Vec<u32>);

fn kind(group: &StoredGroup) -> Kind {
    let record = &group.record;
    let table = match record.table {
        Table::Rows => 0,
        Table::Examples => 1,
        Table::Attached => 2,
    };
    let columns = || {
        let constants = record.constants.iter().map(|constant| constant.id);
        let mut columns: Vec<u32> = record.blocks.iter().filter_map(Block::column).chain(constants).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    };
    let mut sites: Vec<u32> = group.sites().collect();
    sites.sort_unstable();
    (group.origin.writer(), table, sites, if table == 1 { columns() } else { Vec::new() })
}

/// Whether some of its bytes are hidden, or lie as they are and shall be cold.
fn dirty(group: &StoredGroup, cold: &HashSet<u32>) -> bool {
    let hidden = group.record.sites().any(|site| group.hidden.of_site(site) != Mask::None);
    let warm = |block: &Block| block.pieces.is_none() && block.site().is_some_and(|site| cold.contains(&site));
    hidden || group.record.blocks.iter().any(warm)
}

/// Segments of which half or more counts no longer: what does is worth moving, so that the file can go.
fn stale(snapshot: &Snapshot) -> HashSet<&str> {
    let (mut dead, mut live): (HashMap<&str, u64>, HashMap<&str, u64>) = Default::default();
    dead.extend(snapshot.dead().iter().map(|(file, bytes)| (file.as_str(), *bytes)));
    for group in snapshot.stored() {
        let to = if group.hidden.rows == Mask::All { &mut dead } else { &mut live };
        *to.entry(&group.record.file).or_default() += group.record.length;
    }
    dead.into_iter()
        .filter(|(file, bytes)| live.get(file).is_some_and(|live| bytes >= live))
        .map(|pair| pair.0)
        .collect()
}

/// What to rewrite: small groups that are alike, groups of which something is hidden or whose file holds little else that
/// counts, and those that shall be cold and are not. Only groups of `settled` writers, and none of those in `left`.
pub fn plan<'a>(
    snapshot: &'a Snapshot,
    settled: &HashSet<u32>,
    left: &HashSet<Name>,
    cold: &HashSet<u32>,
) -> Vec<Batch<'a>> {
    let mut open: BTreeMap<Kind, Batch> = BTreeMap::new();
    let mut batches = Vec::new();
    let mut examples = None;
    let stale = stale(snapshot);
    let dirty = |group: &StoredGroup| stale.contains(group.record.file.as_str()) || dirty(group, cold);
    let mut groups: Vec<&StoredGroup> = snapshot.stored().collect();
    groups.sort_by_key(|group| (group.record.first, group.origin.writer()));
    for group in groups {
        let kind = kind(group);
        let small = group.record.length < SMALL && group.record.rows < MOST_ROWS / 2;
        if group.record.table == Table::Examples && examples.replace(kind.clone()).is_some_and(|before| before != kind)
        {
            // of an example that is written again the later group counts, so that none may pass another
            let (closed, others) = open.into_iter().partition(|(_, batch)| batch.table == Table::Examples);
            open = others;
            batches.extend(BTreeMap::into_values(closed));
        }
        if !settled.contains(&group.origin.writer()) || left.contains(&name(group)) || !small && !dirty(group) {
            if group.record.table == Table::Examples {
                batches.extend(open.remove(&kind));
            }
            continue;
        }
        let fits = |batch: &mut Batch| {
            let rows: u64 = batch.members.iter().map(|member| member.record.rows).sum();
            let last = batch.members.last().map_or(-1, |member| member.record.span().1);
            let ascending = group.record.table == Table::Attached || last < group.record.first;
            batch.bytes() < ENOUGH && small && rows + group.record.rows <= MOST_ROWS && ascending
        };
        if !open.get_mut(&kind).is_some_and(fits) {
            batches.extend(open.remove(&kind));
        }
        let new = || Batch { writer: kind.0, table: group.record.table, members: Vec::new() };
        open.entry(kind.clone()).or_insert_with(new).members.push(group);
    }
    batches.extend(open.into_values());
    batches.retain(|batch| batch.members.len() > 1 || batch.members.iter().any(|group| dirty(group)));
    batches
}
