//! Row groups that lie on each other: a record that says so lies, and could make a small file as long as it likes.

use super::group::StoredGroup;
use super::reading::Reading;
use lamina_format::Error;
use std::collections::{HashMap, HashSet};

/// Where a group begins and ends, and which it is: of the examples or not, and its place there.
type Place = (u64, u64, bool, usize);

impl Reading {
    /// Leaves out groups that overlap one that begins before them in the same segment.
    pub(super) fn check_overlaps(&mut self) {
        let mut files: HashMap<&str, Vec<Place>> = HashMap::new();
        for (examples, groups) in [(false, &self.groups), (true, &self.examples)] {
            for (at, group) in groups.iter().enumerate() {
                let (start, end) = (group.record.offset, group.record.offset.saturating_add(group.record.length));
                files.entry(&group.record.file).or_default().push((start, end, examples, at));
            }
        }
        let mut lies = HashSet::new();
        for places in files.values_mut() {
            // a writer's groups come as they lie
            if !places.is_sorted() {
                places.sort_unstable();
            }
            let mut last = 0;
            for &(start, end, examples, at) in places.iter() {
                if start < last && start < end {
                    lies.insert((examples, at));
                } else {
                    last = last.max(end);
                }
            }
        }
        if lies.is_empty() {
            return;
        }
        let problems = &mut self.problems;
        let mut keep = |groups: &mut Vec<StoredGroup>, examples: bool| {
            let mut at = 0;
            groups.retain(|group| {
                let lie = lies.contains(&(examples, at));
                at += 1;
                if lie {
                    let text = format!("row group {} overlaps another", group.record.number);
                    let error = Error::damaged(text).in_file(&group.record.file).at(group.record.offset);
                    problems.push(error.hint("its rows were left out"));
                }
                !lie
            });
        };
        keep(&mut self.groups, false);
        keep(&mut self.examples, true);
    }
}
