//! The chain of commits: how it is read, and how a writer adds to it.

use crate::clock;
use crate::storage::Storage;
use lamina_format::commit::{self, Commit, Parent};
use lamina_format::record::Op;
use lamina_format::segment::Declared;
use lamina_format::{Error, ErrorKind, Result, frame, names};

/// What the readable commits say.
pub struct Chain {
    /// Readable commits, oldest first, each with its hash.
    pub commits: Vec<(Commit, [u8; 32])>,
    /// What could not be read, newest first.
    pub problems: Vec<Error>,
    /// The highest number that is taken.
    pub highest: Option<u64>,
    /// The declarations of all commits.
    pub declared: Declared,
    /// Numbers of those that could not be read, newest first.
    pub unreadable: Vec<u64>,
}

impl Chain {
    /// Reads every commit. What is damaged is passed over and reported; what needs a newer Lamina is an error.
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        let numbers = storage.commits()?;
        let highest = numbers.first().copied();
        let mut chain =
            Self { commits: vec![], problems: vec![], highest, declared: Declared::default(), unreadable: vec![] };
        for &n in &numbers {
            match storage.read_commit(n).and_then(|bytes| commit::decode(&bytes, n)) {
                Ok(commit) => chain.commits.push(commit),
                Err(error) if error.kind == ErrorKind::Format => return Err(error.in_file(names::commit(n))),
                Err(error) => {
                    chain.unreadable.push(n);
                    chain.problems.push(error.in_file(names::commit(n)));
                }
            }
        }
        chain.check_links();
        chain.commits.reverse();
        for (commit, _) in &chain.commits {
            for op in &commit.ops {
                if let Err(error) = chain.declared.apply(op) {
                    chain.problems.push(error.in_file(names::commit(commit.n)));
                }
            }
        }
        Ok(chain)
    }

    /// A commit whose parent is neither there nor known to be damaged, or is another, is a problem.
    fn check_links(&mut self) {
        let mut problems = Vec::new();
        for (at, (child, _)) in self.commits.iter().enumerate() {
            let Some(parent) = &child.parent else {
                if child.n > 0 {
                    let text = format!("commit {} names no parent", child.n);
                    problems.push(Error::damaged(text).in_file(names::commit(child.n)));
                }
                continue;
            };
            let below = self.commits.get(at + 1).filter(|(below, _)| below.n == parent.n);
            if below.map_or(!self.unreadable.contains(&parent.n), |(_, hash)| *hash != parent.hash) {
                let text = format!("commit {} builds on a commit {} that is not there", child.n, parent.n);
                problems.push(Error::damaged(text).in_file(names::commit(parent.n)));
            }
        }
        self.problems.extend(problems);
    }

    /// The declarations as a writer must know them, and how many numbers it must leave free for those that are lost.
    ///
    /// What a damaged commit declared stands in the logs as far as it was used; what was not used yet may still
    /// be, by a writer at work, so a range of numbers that no commit exhausts is left to it.
    fn known(&self, storage: &dyn Storage) -> Result<(Declared, u32)> {
        let mut declared = self.declared.clone();
        let listed = |n: &u64| self.commits.iter().any(|(commit, _)| commit.skipped.contains(n));
        let lost = self.unreadable.iter().filter(|n| !listed(n)).count() as u32;
        if !self.unreadable.is_empty() {
            for (writer, generation) in storage.logs()? {
                let frames = frame::scan(&storage.read_log(writer, generation)?, generation)?.frames;
                for op in frames.iter().flat_map(|frame| &frame.ops) {
                    // what contradicts is reported to readers; a writer goes by what came first
                    let _ = declared.apply(op);
                }
            }
        }
        Ok((declared, lost.saturating_mul(1 << 16)))
    }

    /// The commit that adds `ops` to the chain.
    pub fn next(&self, writer: Option<u32>, ops: Vec<Op>) -> Commit {
        let parent = self.commits.last().map(|(commit, hash)| Parent { n: commit.n, hash: *hash });
        let above = parent.as_ref().map_or(0, |parent| parent.n + 1);
        let n = self.highest.map_or(0, |highest| highest + 1);
        let skipped = self.unreadable.iter().copied().filter(|&skipped| skipped >= above).rev().collect();
        Commit { n, parent, skipped, writer, time: clock::now(), needs: Vec::new(), ops }
    }
}

/// Publishes what `ops` returns for the present declarations and the numbers to leave free, again and again until no other writer is faster.
/// Returns the declarations as they stand then. Publishes nothing if `ops` returns nothing.
pub fn publish(
    storage: &dyn Storage,
    writer: Option<u32>,
    mut ops: impl FnMut(&Declared, u32) -> Result<Vec<Op>>,
) -> Result<Declared> {
    loop {
        let chain = Chain::read(storage)?;
        let (mut declared, lost) = chain.known(storage)?;
        let new = ops(&declared, lost)?;
        if new.is_empty() {
            // what this writer records must not outlive the declarations that it goes by
            storage.settle_commits()?;
            return Ok(declared);
        }
        let commit = chain.next(writer, new);
        if storage.publish(commit.n, &commit::encode(&commit).0)? {
            commit.ops.iter().try_for_each(|op| declared.apply(op))?;
            return Ok(declared);
        }
    }
}
