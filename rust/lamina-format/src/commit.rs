//! Numbered commits: what all writers must agree on.

use crate::cbor;
use crate::checksum::hash;
use crate::error::{Error, ErrorKind, Result};
use crate::record::Op;
use minicbor::{Decode, Encode};

/// First bytes of a commit.
pub const MAGIC: &[u8; 8] = b"LAMCOMM1";
/// Most bytes of a commit's body, and so of `run.json`, of which the first commit holds a copy.
pub const LONGEST: usize = 16 << 20;
/// Bytes before the body: magic and length.
pub const HEAD: usize = 8 + 4;
/// Bytes after it: the hash.
pub const TAIL: usize = 32;

/// The feature of runs with attachments: saves of no step.
pub const ATTACHED: &str = "attached";
/// The feature of runs with chunks of checkpoints that are coded.
pub const CODED_CHUNKS: &str = "coded-chunks";
/// What a commit with a [`Discard`](crate::record::Discard) needs.
pub const DISCARD: &str = "discard";
/// What a commit with a [`Note`](crate::record::Note) needs.
pub const NOTES: &str = "notes";
/// The feature of runs with checkpoints whose tensors lie in pieces.
pub const PIECES: &str = "pieces";
/// What a commit that declares a site of sparse codes needs.
pub const SPARSE: &str = "sparse";
/// Features that this implementation knows; a commit or run that needs another is refused by name.
pub const KNOWN_NEEDS: &[&str] = &[ATTACHED, CODED_CHUNKS, DISCARD, NOTES, PIECES, SPARSE];

/// One commit.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Commit {
    /// Its number, also in its file's name.
    #[n(0)]
    pub n: u64,
    /// The commit that it builds on; None for the first.
    #[n(1)]
    pub parent: Option<Parent>,
    /// Numbers between the parent and this one that could not be read.
    #[n(2)]
    pub skipped: Vec<u64>,
    /// Who wrote it: the writer's ordinal, or None for the run's creator.
    #[n(3)]
    pub writer: Option<u32>,
    /// Microseconds since the epoch.
    #[n(4)]
    pub time: i64,
    /// Features that a reader must know from here on.
    #[n(5)]
    pub needs: Vec<String>,
    /// What was done.
    #[n(6)]
    pub ops: Vec<Op>,
}

/// The commit that another builds on.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Parent {
    /// Its number.
    #[n(0)]
    pub n: u64,
    /// BLAKE3 of its file's bytes but the last 32: the hash that stands there.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub hash: [u8; 32],
}

/// A commit's bytes and hash. One that nobody could read back is an error.
pub fn encode(commit: &Commit) -> Result<(Vec<u8>, [u8; 32])> {
    let payload = cbor::encode(commit);
    if payload.len() > LONGEST {
        let text = format!("{} bytes are too many to be published at once (at most {LONGEST})", payload.len());
        return Err(Error::schema(text).hint("give a smaller config, or declare or delete less at once"));
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&payload);
    let hash = hash(&bytes);
    bytes.extend_from_slice(&hash);
    Ok((bytes, hash))
}

/// Reads a commit back, with its hash.
pub fn decode(bytes: &[u8], n: u64) -> Result<(Commit, [u8; 32])> {
    let damaged = |why: &str| Error::damaged(format!("commit {n} is unreadable: {why}"));
    let Some((head, rest)) = bytes.split_at_checked(HEAD) else { return Err(damaged("it is cut short")) };
    let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
    if &head[..8] != MAGIC || length > LONGEST || rest.len() != length + TAIL {
        return Err(damaged("its envelope is broken"));
    }
    let (covered, stored) = bytes.split_at(bytes.len() - TAIL);
    let computed = hash(covered);
    if computed != stored {
        return Err(damaged("its checksum does not match"));
    }
    // needs first: what this version does not know may make the rest undecodable
    check_needs(&cbor::decode::<Needs>(&rest[..length], "a commit's flags")?.needs)?;
    let commit: Commit = cbor::decode(&rest[..length], &format!("commit {n}"))?;
    if commit.n != n {
        return Err(damaged(&format!("it says that it is commit {}", commit.n)));
    }
    Ok((commit, computed))
}

#[derive(Decode)]
#[cbor(map)]
struct Needs {
    #[n(5)]
    needs: Vec<String>,
}

/// Refuses, by name, features that this version does not know.
pub fn check_needs(needs: &[String]) -> Result<()> {
    match needs.iter().find(|need| !KNOWN_NEEDS.contains(&need.as_str())) {
        None => Ok(()),
        Some(need) => Err(Error::new(ErrorKind::Format, format!("the run needs the feature {need:?}"))
            .hint("this Lamina does not know it; update to one that does")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Files;

    fn example(needs: &[&str]) -> Commit {
        Commit {
            n: 4,
            parent: Some(Parent { n: 2, hash: [7; 32] }),
            skipped: vec![3],
            writer: Some(1),
            time: 99,
            needs: needs.iter().map(|need| (*need).to_owned()).collect(),
            ops: Vec::new(),
        }
    }

    #[test]
    fn a_commit_comes_back() {
        let (bytes, hash) = encode(&example(&[])).expect("short");
        assert_eq!(decode(&bytes, 4), Ok((example(&[]), hash)));
    }

    #[test]
    fn every_flip_and_every_cut_is_damage() {
        let (bytes, _) = encode(&example(&[])).expect("short");
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(decode(&flipped, 4).map_err(|e| e.kind), Err(ErrorKind::Damaged));
            assert_eq!(decode(&bytes[..at], 4).map_err(|e| e.kind), Err(ErrorKind::Damaged));
        }
        assert!(decode(&bytes, 5).is_err(), "a commit under another number");
    }

    #[test]
    fn an_unknown_need_is_refused_by_name() {
        let (bytes, _) = encode(&example(&["something-new"])).expect("short");
        let error = decode(&bytes, 4).expect_err("unknown");
        assert_eq!(error.kind, ErrorKind::Format);
        assert!(error.message.contains("something-new"));
    }

    #[test]
    fn what_could_not_be_read_back_is_not_encoded() {
        let long =
            |bytes: usize| Commit { ops: vec![Op::Drop(Files { files: vec!["a".repeat(bytes)] })], ..example(&[]) };
        let (bytes, hash) = encode(&long(LONGEST - 100)).expect("short enough");
        assert_eq!(decode(&bytes, 4), Ok((long(LONGEST - 100), hash)));
        assert_eq!(encode(&long(LONGEST)).expect_err("too long").kind, ErrorKind::Schema);
    }
}
