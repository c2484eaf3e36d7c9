//! What compaction replaced: groups that count no longer, and those that hold their rows.

use super::group::StoredGroup;
use super::hidden::Origin;
use super::reading::Reading;
use crate::chain::Chain;
use lamina_format::names;
use lamina_format::record::{Op, Replace};
use lamina_format::segment::Declared;
use std::collections::{HashMap, HashSet};

impl Reading {
    /// Puts replaced groups out and those that replace them in. What an unreadable commit replaced is taken from the
    /// copy in its writer's log.
    pub(super) fn replace(&mut self, chain: &Chain, declared: &Declared) {
        let lost = |copy: &Replace| copy.commit.filter(|n| chain.unreadable.contains(n));
        let copies = std::mem::take(&mut self.copies);
        let mut all: Vec<(u64, &Replace)> = copies.iter().filter_map(|copy| Some((lost(copy)?, copy))).collect();
        for (commit, _) in &chain.commits {
            for op in &commit.ops {
                match op {
                    Op::Replace(replace) => all.push((commit.n, replace)),
                    Op::Seal(seal) => drop(self.sealed.insert(seal.file.clone())),
                    _ => {}
                }
            }
        }
        let mut replaced: HashMap<&str, HashSet<u32>> = HashMap::new();
        for (n, replace) in all {
            for old in &replace.old {
                replaced.entry(&old.file).or_default().extend(old.numbers());
            }
            for record in &replace.new {
                let origin = Origin::Commit { n, writer: replace.writer };
                self.take(record.clone(), origin, declared, &names::commit(n));
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
