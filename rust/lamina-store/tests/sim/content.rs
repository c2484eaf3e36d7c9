//! A file's bytes, page by page: holes cost nothing, and copies share what they have in common.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

const PAGE: u64 = 4096;
type Page = [u8; PAGE as usize];

#[derive(Clone, Default)]
pub struct Content {
    pages: BTreeMap<u64, Arc<Page>>,
    length: u64,
}

impl Content {
    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (page, at, span) in pieces(offset, out.len()) {
            match self.pages.get(&page) {
                Some(bytes) => out[span.clone()].copy_from_slice(&bytes[at..at + span.len()]),
                None => out[span].fill(0),
            }
        }
        Ok(())
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (page, at, span) in pieces(offset, bytes.len()) {
            let present = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(present)[at..at + span.len()].copy_from_slice(&bytes[span]);
        }
        self.length = self.length.max(offset + bytes.len() as u64);
    }

    /// What is cut off reads as zeros if the file grows again.
    pub fn set_length(&mut self, length: u64) {
        if length < self.length {
            self.pages.split_off(&length.div_ceil(PAGE));
            if let Some(last) = self.pages.get_mut(&(length / PAGE)) {
                Arc::make_mut(last)[(length % PAGE) as usize..].fill(0);
            }
        }
        self.length = length;
    }
}

/// The page, the place in it, and the span of the buffer, of each piece of a transfer.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let (page, at) = ((offset + from as u64) / PAGE, ((offset + from as u64) % PAGE) as usize);
        let taken = (length - from).min(PAGE as usize - at);
        let piece = (page, at, from..from + taken);
        from += taken;
        (taken > 0).then_some(piece)
    })
}

#[test]
fn bytes_come_back_and_holes_are_zeros() {
    let mut content = Content::default();
    content.write(5000, b"abc");
    let copy = content.clone();
    content.write(5001, b"X");
    let mut out = [9; 5];
    content.read(4998, &mut out).unwrap();
    assert_eq!(&out, b"\0\0aXc");
    copy.read(4998, &mut out).unwrap();
    assert_eq!(&out, b"\0\0abc");
    assert!(content.read(4999, &mut out).is_err(), "beyond the end");
    content.set_length(5001);
    content.set_length(5003);
    content.read(4998, &mut out).unwrap();
    assert_eq!(&out, b"\0\0a\0\0");
}
