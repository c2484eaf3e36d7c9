//! Rows of a site, gathered from many groups: by map and by `pread`, whole and damaged.
#![allow(missing_docs, clippy::unwrap_used)]

#[macro_use]
mod common;

use common::storage;
use lamina_format::{DType, ErrorKind};
use lamina_store::reader::{Access, Io, Part, Selection, SiteRows, Verify, Wanted};
use lamina_store::storage::{Files, Fs, FsFile, RealFs};
use lamina_store::writer::SiteInput;
use lamina_store::{Opening, Snapshot, Writer, create};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Three writers' groups of rows of 6 KiB that hold their number, in all 3 * 70.
fn run() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    create(storage(&path).as_ref(), "{}").unwrap();
    let mut number = 0u32;
    for _ in 0..3 {
        let writer = Writer::open(storage(&path), None).unwrap();
        for rows in [20, 50] {
            let bytes: Vec<u8> = (number..number + rows).flat_map(|row| row.to_le_bytes().repeat(1536)).collect();
            number += rows;
            let site =
                SiteInput { name: "x", dtype: DType::I32, shape: vec![1536], bytes: &bytes, lent: None, codes: None };
            writer.append(storage(&path).as_ref(), u64::from(rows), &[site], &[]).unwrap();
            common::wait(&writer.flush()).unwrap();
        }
        writer.close(None).unwrap();
    }
    (folder, path)
}

const ALL: [(Io, Verify); 6] = [
    (Io::Mmap, Verify::First),
    (Io::Mmap, Verify::Always),
    (Io::Mmap, Verify::Never),
    (Io::Pread, Verify::First),
    (Io::Pread, Verify::Always),
    (Io::Pread, Verify::Never),
];

fn open(files: Files, (io, verify): (Io, Verify)) -> Arc<Snapshot> {
    let snapshot = Snapshot::open(Arc::new(files), Opening::STRICT).unwrap();
    Arc::new(snapshot.with_access(Access { io, verify }))
}

fn all(snapshot: &Arc<Snapshot>) -> SiteRows {
    let groups = snapshot.groups();
    let parts = groups.iter().enumerate().map(|(index, group)| Part::whole(index, group.rows));
    SiteRows::new(Arc::clone(snapshot), "x", Selection::new(parts)).unwrap()
}

fn gathered(rows: &SiteRows, wanted: &Wanted, count: usize, threads: usize) -> lamina_format::Result<Vec<u32>> {
    let mut out = vec![0; count * rows.row_bytes()];
    rows.gather(wanted, &mut out, threads)?;
    let value = |row: &[u8]| u32::from_le_bytes([row[6143 - 3], row[6143 - 2], row[6143 - 1], row[6143]]);
    Ok(out.chunks(6144).map(value).collect())
}

#[test]
fn rows_come_in_the_order_asked_however_they_are_read() {
    let (_folder, path) = run();
    let scattered: Vec<i64> = (0..1000).map(|i| i * 37 % 210).collect();
    for access in ALL {
        for threads in [1, 3] {
            // a fresh snapshot, of which nothing is verified
            let rows = all(&open(Files::new(&path), access));
            for _ in 0..2 {
                let found = gathered(&rows, &Wanted::At(&scattered), 1000, threads).unwrap();
                assert!(found.iter().map(|&value| i64::from(value)).eq(scattered.iter().copied()), "{access:?}");
                let found = gathered(&rows, &Wanted::Span(3..207), 204, threads).unwrap();
                assert!(found.into_iter().eq(3..207), "{access:?}");
            }
            assert_eq!(rows.ids().unwrap()[68..72], [68, 69, 1 << 40, (1 << 40) + 1]);
            rows.will_need(&[0..0, 0..210, 100..101]).unwrap();
        }
    }
}

#[test]
fn a_selection_of_a_selection_and_its_description() {
    let (_folder, path) = run();
    let snapshot = open(Files::new(&path), ALL[0]);
    let some = [5, 3, 4, 209, 100, 101, 20, 21, 3];
    let rows = all(&snapshot).narrow(&Wanted::At(&some)).unwrap();
    assert_eq!(gathered(&rows, &Wanted::Span(0..9), 9, 1).unwrap(), [5, 3, 4, 209, 100, 101, 20, 21, 3]);
    let fewer = rows.narrow(&Wanted::Span(2..7)).unwrap();
    assert_eq!(gathered(&fewer, &Wanted::At(&[4, 0]), 2, 1).unwrap(), [20, 4]);
    let parts = fewer.described().into_iter().map(|(file, number, part)| (file.to_owned(), number, part));
    let again = SiteRows::restore(open(Files::new(&path), ALL[0]), "x", parts).unwrap();
    assert_eq!(gathered(&again, &Wanted::Span(0..5), 5, 1).unwrap(), [4, 209, 100, 101, 20]);
    let lost = fewer.described().into_iter().map(|(_, number, part)| ("segments/gone".to_owned(), number, part));
    let error = SiteRows::restore(snapshot, "x", lost).map(drop).unwrap_err();
    assert_eq!((error.kind, error.file.as_deref()), (ErrorKind::NotFound, Some("segments/gone")));
}

#[test]
fn what_is_not_there_is_refused() {
    let (_folder, path) = run();
    let snapshot = open(Files::new(&path), ALL[0]);
    let rows = all(&snapshot);
    assert_eq!(gathered(&rows, &Wanted::At(&[0, 210]), 2, 1).unwrap_err().kind, ErrorKind::Outside);
    assert_eq!(gathered(&rows, &Wanted::At(&[-1]), 1, 1).unwrap_err().kind, ErrorKind::Outside);
    assert_eq!(gathered(&rows, &Wanted::Span(200..211), 11, 1).unwrap_err().kind, ErrorKind::Outside);
    assert_eq!(gathered(&rows, &Wanted::Span(0..2), 3, 1).unwrap_err().kind, ErrorKind::Schema);
    assert!(SiteRows::new(Arc::clone(&snapshot), "y", Selection::default()).is_err());
    assert!(SiteRows::new(snapshot, "x", Selection::new([Part::whole(6, 1)])).is_err());
}

#[test]
fn a_damaged_piece_is_found_when_it_is_touched_and_its_neighbors_are_read() {
    let (_folder, path) = run();
    let file = "segments/000001-000000.safetensors";
    // row 20 of the second writer begins its second group; pieces of 128 KiB hold 21 and a third rows
    let groups = open(Files::new(&path), ALL[0]).groups().iter().map(|group| group.first).collect::<Vec<_>>();
    assert_eq!(groups[2..4], [1 << 40, (1 << 40) + 20]);
    let segment = path.join(file);
    let bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(8).position(|window| window == [95u32.to_le_bytes(), 95u32.to_le_bytes()].concat()).unwrap();
    OpenOptions::new().write(true).open(&segment).unwrap().write_all_at(&[255], at as u64 + 9).unwrap();
    for access in ALL {
        let rows = all(&open(Files::new(&path), access));
        let others: Vec<i64> = (0..90).chain(120..210).collect();
        let found = gathered(&rows, &Wanted::At(&others), 180, 2).unwrap();
        assert!(found.iter().map(|&value| i64::from(value)).eq(others), "{access:?}");
        for wanted in [Wanted::At(&[0, 95]), Wanted::Span(94..96)] {
            for _ in 0..2 {
                match gathered(&rows, &wanted, 2, 2) {
                    Ok(_) => assert_eq!(access.1, Verify::Never),
                    Err(error) => {
                        assert_ne!(access.1, Verify::Never);
                        assert_eq!((error.kind, error.file.as_deref()), (ErrorKind::Damaged, Some(file)));
                        assert!(error.offset.unwrap() <= at as u64 && at as u64 - error.offset.unwrap() < 128 * 1024);
                    }
                }
            }
        }
    }
}

#[test]
fn only_always_sees_what_is_damaged_after_it_was_read() {
    let (_folder, path) = run();
    for (access, seen) in ALL.into_iter().zip([false, true, false, false, true, false]) {
        let rows = all(&open(Files::new(&path), access));
        gathered(&rows, &Wanted::Span(0..210), 210, 1).unwrap();
        let segment = OpenOptions::new().read(true).write(true).open(path.join("segments/000000-000000.safetensors"));
        let (segment, mut byte) = (segment.unwrap(), [0]);
        let at = (1 << 20) + 100;
        segment.read_exact_at(&mut byte, at).unwrap();
        segment.write_all_at(&[!byte[0]], at).unwrap();
        assert_eq!(gathered(&rows, &Wanted::At(&[0]), 1, 1).is_err(), seen, "{access:?}");
        segment.write_all_at(&byte, at).unwrap();
    }
}

#[test]
fn a_file_cut_short_is_an_error_before_it_is_mapped_and_always_under_pread() {
    let (_folder, path) = run();
    let opened = all(&open(Files::new(&path), (Io::Pread, Verify::Never)));
    gathered(&opened, &Wanted::At(&[0]), 1, 1).unwrap();
    let segment = OpenOptions::new().write(true).open(path.join("segments/000000-000000.safetensors")).unwrap();
    segment.set_len((1 << 20) + 4096).unwrap();
    for rows in [opened, all(&open(Files::new(&path), (Io::Mmap, Verify::First)))] {
        let error = gathered(&rows, &Wanted::At(&[1]), 1, 1).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Damaged, "{error}");
        assert_eq!(gathered(&rows, &Wanted::At(&[80]), 1, 1).unwrap(), [80], "other files are whole");
    }
}

#[test]
fn a_segment_that_grows_is_mapped_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    create(storage(&path).as_ref(), "{}").unwrap();
    let writer = Writer::open(storage(&path), None).unwrap();
    let mut first = None;
    for step in 0..4i32 {
        let bytes = step.to_le_bytes().repeat(1536 * 40);
        let site =
            SiteInput { name: "x", dtype: DType::I32, shape: vec![1536], bytes: &bytes, lent: None, codes: None };
        writer.append(storage(&path).as_ref(), 40, &[site], &[]).unwrap();
        common::wait(&writer.flush()).unwrap();
        let rows = all(&open(Files::new(&path), (Io::Mmap, Verify::First)));
        let last = i64::from(step) * 40;
        assert_eq!(gathered(&rows, &Wanted::At(&[last, 0]), 2, 1).unwrap(), [step as u32, 0]);
        first.get_or_insert(rows);
    }
    writer.close(None).unwrap();
    assert_eq!(gathered(&first.unwrap(), &Wanted::Span(0..40), 40, 1).unwrap(), [0; 40], "an old map lives on");
}

/// A file system without maps.
struct NoMaps;

struct NoMap(Box<dyn FsFile>);

impl Fs for NoMaps {
    real!(create_dir_all create_dir create_new open_direct rename link remove_file sync_dir list exists);

    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        Ok(Box::new(NoMap(RealFs.open(path)?)))
    }
}

impl FsFile for NoMap {
    inner!(0: length read_at write_at sync_data set_length);
}

#[test]
fn a_file_system_without_maps_is_read_all_the_same() {
    let (_folder, path) = run();
    for io in [Io::Auto, Io::Mmap] {
        let rows = all(&open(Files::on(Arc::new(NoMaps), &path), (io, Verify::First)));
        assert!(gathered(&rows, &Wanted::Span(0..210), 210, 2).unwrap().into_iter().eq(0..210));
        rows.will_need(std::slice::from_ref(&(0..210))).unwrap();
    }
}
