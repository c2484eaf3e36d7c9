//! The chain of commits: how it is read, and how a writer adds to it.

use crate::clock;
use crate::storage::Storage;
use lamina_format::commit::{self, Commit, Parent};
use lamina_format::record::Op;
use lamina_format::segment::Declared;
use lamina_format::{Error, ErrorKind, Result, frame, names};
use std::collections::{BTreeSet, HashMap, HashSet};

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

    /// What the commits say of files that nothing needs.
    pub fn doomed(&self) -> Doomed {
        let mut doomed = Doomed::default();
        for (commit, _) in &self.commits {
            commit.ops.iter().for_each(|op| doomed.apply(op, commit.time));
        }
        doomed
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
        // a clock that was set back must not make a commit older than what it builds on
        let time = self.commits.iter().map(|(commit, _)| commit.time).fold(clock::now(), i64::max);
        // an operation that older readers do not know: they are to refuse the run, not to lose their way in it
        let need = |op: &Op| match op {
            Op::Discard(_) => Some(commit::DISCARD),
            Op::Note(_) => Some(commit::NOTES),
            Op::Site(site) if site.is_sparse() => Some(commit::SPARSE),
            _ => None,
        };
        let needs: BTreeSet<&str> = ops.iter().filter_map(need).collect();
        Commit { n, parent, skipped, writer, time, needs: needs.into_iter().map(str::to_owned).collect(), ops }
    }
}

/// Publishes `ops`, which were made from the run as it was at commit `base`, unless `spoils` finds an operation of a later
/// commit that they do not hold after. Returns the commit's number, or None if they were not published. The commit is
/// not older than `time`.
pub fn publish_after(
    storage: &dyn Storage,
    writer: Option<u32>,
    base: Option<u64>,
    time: i64,
    ops: &[Op],
    spoils: impl Fn(&Op) -> bool,
) -> Result<Option<u64>> {
    let later = |n: u64| base.is_none_or(|base| n > base);
    loop {
        let chain = Chain::read(storage)?;
        if let Some(writer) = writer
            && storage.fenced(writer)?
        {
            let error = Error::new(ErrorKind::Writer, "the work was fenced by somebody who took it for dead");
            return Err(error.in_file(names::fence(writer)).hint("start it again; what was published stays"));
        }
        let since = chain.commits.iter().filter(|(commit, _)| later(commit.n)).flat_map(|(commit, _)| &commit.ops);
        // what an unreadable commit says is not known
        if chain.unreadable.iter().any(|&n| later(n)) || since.into_iter().any(&spoils) {
            return Ok(None);
        }
        let mut commit = chain.next(writer, ops.to_vec());
        commit.time = commit.time.max(time);
        if storage.publish(commit.n, &commit::encode(&commit)?.0)? {
            return Ok(Some(commit.n));
        }
    }
}

/// Makes sure, durably, that who does not know a feature refuses the run, before anything is written that needs it.
pub fn require(storage: &dyn Storage, writer: Option<u32>, need: &str) -> Result<()> {
    loop {
        let chain = Chain::read(storage)?;
        if chain.commits.iter().any(|(commit, _)| commit.needs.iter().any(|known| known == need)) {
            return storage.settle_commits();
        }
        let commit = Commit { needs: vec![need.to_owned()], ..chain.next(writer, Vec::new()) };
        if storage.publish(commit.n, &commit::encode(&commit)?.0)? {
            return Ok(());
        }
    }
}

/// Files that commits condemned, with the time at which they did, and those that commits dropped.
#[derive(Default)]
pub struct Doomed {
    /// Microseconds since the epoch.
    pub condemned: HashMap<String, i64>,
    /// They are removed, or will be.
    pub dropped: HashSet<String>,
}

impl Doomed {
    /// Takes up what a commit of this time says.
    pub fn apply(&mut self, op: &Op, time: i64) {
        match op {
            Op::Condemn(files) => self.condemned.extend(files.files.iter().map(|file| (file.clone(), time))),
            Op::Drop(files) => self.dropped.extend(files.files.iter().cloned()),
            _ => {}
        }
    }

    /// Whether a file is condemned and not dropped yet.
    pub fn waiting(&self, file: &str) -> bool {
        self.condemned.contains_key(file) && !self.dropped.contains(file)
    }

    /// Whether there is such a file.
    pub fn waits(&self) -> bool {
        self.condemned.keys().any(|file| !self.dropped.contains(file))
    }

    /// Whether a file may be gone, or will be.
    pub fn holds(&self, file: &str) -> bool {
        self.condemned.contains_key(file) || self.dropped.contains(file)
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
        if storage.publish(commit.n, &commit::encode(&commit)?.0)? {
            commit.ops.iter().try_for_each(|op| declared.apply(op))?;
            return Ok(declared);
        }
    }
}
