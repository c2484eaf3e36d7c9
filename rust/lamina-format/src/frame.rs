//! Frames of a log: what one writer did between two durable points.
//!
//! A frame states the hash of the one before, so that each can be checked alone and the chain as a whole.

use crate::checksum::hash;
use crate::error::{Error, Result};
use crate::record::Op;
use crate::{cbor, error::ErrorKind};

/// First bytes of a frame.
pub const MAGIC: &[u8; 8] = b"LAMFRAM1";
/// Bytes before the operations: magic, length, generation, sequence number, hash of the frame before.
pub const HEAD: usize = 8 + 4 + 4 + 8 + 32;
/// Bytes after them: the hash.
pub const TAIL: usize = 32;
/// Most bytes that the operations of a frame may take.
pub const LONGEST: usize = (16 << 20) - HEAD - TAIL;

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Position in the log, from 0.
    pub seq: u64,
    /// Hash of the frame before; zeros for the first.
    pub previous: [u8; 32],
    /// Hash of this one.
    pub hash: [u8; 32],
    /// What was done.
    pub ops: Vec<Op>,
}

/// Encodes a frame and returns its bytes and hash.
pub fn encode(generation: u32, seq: u64, previous: [u8; 32], ops: &[Op]) -> Result<(Vec<u8>, [u8; 32])> {
    let payload = cbor::encode(&ops);
    if payload.len() > LONGEST {
        return Err(Error::new(ErrorKind::Writer, format!("a record of {} bytes exceeds a frame", payload.len()))
            .hint("save fewer or smaller tensors at once"));
    }
    let mut bytes = Vec::with_capacity(HEAD + payload.len() + TAIL);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&generation.to_le_bytes());
    bytes.extend_from_slice(&seq.to_le_bytes());
    bytes.extend_from_slice(&previous);
    bytes.extend_from_slice(&payload);
    let hash = hash(&bytes);
    bytes.extend_from_slice(&hash);
    Ok((bytes, hash))
}

/// Bytes that may be hashed in vain for each byte of a log: between damaged bytes each that looks like a frame's first
/// is tried, and a log of nothing but such bytes must not keep its reader for hours.
const IN_VAIN: usize = 16;

/// The frame that starts at `offset`, and where it ends; None if no whole, valid frame starts there. What is hashed in vain
/// is taken from `patience`.
fn parse<'a>(
    bytes: &'a [u8],
    offset: usize,
    generation: u32,
    patience: &mut usize,
) -> Option<(Frame, usize, &'a [u8])> {
    let head = bytes.get(offset..offset.checked_add(HEAD)?)?;
    let number = |range: std::ops::Range<usize>| {
        head[range].iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte))
    };
    if &head[..8] != MAGIC || number(12..16) != u64::from(generation) {
        return None;
    }
    let length = number(8..12) as usize;
    if length > LONGEST {
        return None;
    }
    let end = offset + HEAD + length;
    let stored: [u8; 32] = bytes.get(end..end + TAIL)?.try_into().ok()?;
    let left = patience.checked_sub(end - offset)?;
    if hash(&bytes[offset..end]) != stored {
        *patience = left;
        return None;
    }
    let previous = head[24..56].try_into().ok()?;
    let frame = Frame { seq: number(16..24), previous, hash: stored, ops: Vec::new() };
    Some((frame, end + TAIL, &bytes[offset + HEAD..end]))
}

/// What a log holds.
#[derive(Debug, Default)]
pub struct Scan {
    /// The valid frames in order.
    pub frames: Vec<Frame>,
    /// Bytes up to the end of the last valid frame.
    pub valid: u64,
    /// Where bytes begin that are no frame but are followed by one: damage.
    pub damaged: Vec<u64>,
    /// Whether bytes follow the last valid frame: unacknowledged, or damaged.
    pub tail: bool,
}

/// Reads every valid frame of a log. Fails only on a frame that is valid but not understood.
pub fn scan(bytes: &[u8], generation: u32) -> Result<Scan> {
    let mut scan = Scan::default();
    let (mut offset, mut invalid_from) = (0, None);
    let mut patience = LONGEST + IN_VAIN * bytes.len();
    while offset < bytes.len() {
        let chained = |frame: &Frame| scan.frames.last().is_none_or(|last: &Frame| frame.seq > last.seq);
        match parse(bytes, offset, generation, &mut patience).filter(|(frame, ..)| chained(frame)) {
            Some((mut frame, end, payload)) => {
                frame.ops = cbor::decode(payload, "a frame").map_err(|e| e.at(offset as u64))?;
                let expected = scan.frames.last().map_or((0, [0; 32]), |last| (last.seq + 1, last.hash));
                if let Some(start) = invalid_from.take() {
                    scan.damaged.push(start as u64);
                } else if (frame.seq, frame.previous) != expected {
                    scan.damaged.push(offset as u64);
                }
                scan.frames.push(frame);
                scan.valid = end as u64;
                offset = end;
            }
            None => {
                invalid_from.get_or_insert(offset);
                offset = next_magic(bytes, offset + 1);
            }
        }
    }
    scan.tail = invalid_from.is_some();
    Ok(scan)
}

fn next_magic(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    rest.windows(MAGIC.len()).position(|window| window == MAGIC).map_or(bytes.len(), |found| from + found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Close;

    fn close(text: &str) -> Op {
        Op::Close(Close { error: Some(text.to_owned()), time: 7 })
    }

    fn log(texts: &[&str]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends, mut previous) = (Vec::new(), Vec::new(), [0; 32]);
        for (seq, text) in texts.iter().enumerate() {
            let (frame, hash) = encode(3, seq as u64, previous, &[close(text)]).expect("small");
            previous = hash;
            bytes.extend(frame);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn frames_come_back_in_order() {
        let (bytes, _) = log(&["a", "b", "c"]);
        let scan = scan(&bytes, 3).expect("valid");
        assert_eq!(scan.frames.iter().map(|f| f.ops[0].clone()).collect::<Vec<_>>(), ["a", "b", "c"].map(close));
        assert!(scan.damaged.is_empty() && !scan.tail && scan.valid == bytes.len() as u64);
    }

    #[test]
    fn a_cut_anywhere_keeps_the_whole_frames_before_it() {
        let (bytes, ends) = log(&["a", "b", "c"]);
        for cut in 0..bytes.len() {
            let scan = scan(&bytes[..cut], 3).expect("readable");
            let whole = ends.iter().filter(|&&end| end <= cut).count();
            assert_eq!(scan.frames.len(), whole);
            assert_eq!(scan.tail, cut != 0 && !ends.contains(&cut));
        }
    }

    #[test]
    fn every_flipped_byte_is_noticed_and_costs_one_frame_at_most() {
        let (bytes, ends) = log(&["a", "b", "c"]);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x40;
            let scan = scan(&flipped, 3).expect("readable");
            assert_eq!(scan.frames.len(), 2, "byte {at}");
            let hit = ends.iter().filter(|&&end| end <= at).count();
            assert_eq!(scan.tail, hit == 2);
            assert_eq!(scan.damaged.len(), usize::from(hit < 2));
        }
    }

    #[test]
    fn frames_of_another_generation_or_a_lost_frame_are_damage() {
        let (bytes, ends) = log(&["a", "b", "c"]);
        assert!(scan(&bytes, 4).expect("readable").frames.is_empty());
        let gap = [&bytes[..ends[0]], &bytes[ends[1]..]].concat();
        assert_eq!(scan(&gap, 3).expect("readable").damaged, [ends[0] as u64]);
    }

    #[test]
    fn a_length_beyond_the_file_or_the_limit_is_no_frame() {
        let (mut bytes, _) = log(&["a"]);
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(scan(&bytes, 3).expect("readable").frames.is_empty());
    }

    #[test]
    fn bytes_that_all_look_like_frames_are_given_up() {
        // each of these asks for a hash over the half of what follows
        let head = [&MAGIC[..], &(1u32 << 20).to_le_bytes(), &3u32.to_le_bytes()].concat();
        let mut bytes = head.repeat((2 << 20) / head.len());
        let mut patience = IN_VAIN * bytes.len();
        let before = patience;
        for at in (0..bytes.len()).step_by(head.len()) {
            assert!(parse(&bytes, at, 3, &mut patience).is_none());
        }
        assert!(before - patience > 15 * bytes.len(), "they were tried, and then no more");
        let (good, _) = log(&["a"]);
        bytes.splice(0..0, good);
        let scan = scan(&bytes, 3).expect("readable");
        assert!(scan.frames.len() == 1 && scan.tail, "what is lost by it is reported");
    }
}
