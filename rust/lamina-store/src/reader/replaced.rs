//! What compaction replaced: groups that count no longer, and those that hold their rows.

use super::Reading;
use super::group::StoredGroup;
use super::hidden::Origin;
use crate::chain::Chain;
use lamina_format::record::{Op, Replace, Table};
use lamina_format::segment::Declared;
use lamina_format::{Error, check, names};
use std::collections::{HashMap, HashSet};

impl Reading {
    /// Puts replaced groups out and those that replace them in. What an unreadable commit replaced is taken from the
    /// copy in its writer's log.
    pub(super) fn replace(&mut self, chain: &Chain, declared: &mut Declared) {
        let lost = |copy: &Replace| copy.commit.filter(|n| chain.unreadable.contains(n));
        let copies = std::mem::take(&mut self.copies);
        let mut all: Vec<(u64, &Replace)> = copies.iter().filter_map(|copy| Some((lost(copy)?, copy))).collect();
        for (commit, _) in &chain.commits {
            all.extend(commit.ops.iter().filter_map(|op| match op {
                Op::Replace(replace) => Some((commit.n, replace)),
                _ => None,
            }));
        }
        let mut replaced: HashMap<&str, HashSet<u32>> = HashMap::new();
        for (n, replace) in all {
            for old in &replace.old {
                replaced.entry(&old.file).or_default().extend(old.numbers());
            }
            for record in &replace.new {
                let (first, last) = record.span();
                let own = record.table == Table::Attached
                    || first >> 40 == i64::from(replace.writer) && last >> 40 == first >> 40;
                let foreign = || Error::damaged("a row group bears another writer's row names").in_file(&record.file);
                if let Err(error) = check::group(record, declared).and_then(|()| own.then_some(()).ok_or_else(foreign))
                {
                    let hint = format!("the record stands in {}; its rows were left out", names::commit(n));
                    self.problems.push(error.hint(hint));
                    continue;
                }
                let origin = Origin::Commit { n, writer: replace.writer };
                let to = if record.table == Table::Examples { &mut self.examples } else { &mut self.groups };
                to.push(StoredGroup::new(record.clone(), origin));
            }
        }
        if !replaced.is_empty() {
            let dead = &mut self.dead;
            let mut counts = |group: &StoredGroup| {
                let record = &group.record;
                let gone = replaced.get(record.file.as_str()).is_some_and(|numbers| numbers.contains(&record.number));
                if gone {
                    *dead.entry(record.file.clone()).or_default() += record.length;
                }
                !gone
            };
            self.groups.retain(&mut counts);
            self.examples.retain(&mut counts);
        }
    }
}
