//! The index of sparse codes by feature: what it answers is what all codes say, and a build that fails leaves nothing.
#![allow(missing_docs, clippy::unwrap_used)]

#[macro_use]
mod common;

use common::{FailingFs, storage, wait};
use lamina_format::feature_index::{Description, TAIL};
use lamina_format::posting::{rank, stored};
use lamina_format::record::Site;
use lamina_format::sparse::Codes;
use lamina_format::{ColumnType, DType, ErrorKind, Value};
use lamina_store::index::State;
use lamina_store::keep::{Progress, verify};
use lamina_store::reader::{Access, Verify};
use lamina_store::storage::{Files, Fs, FsFile, RealFs};
use lamina_store::writer::{ColumnInput, SiteInput, Values};
use lamina_store::{Opening, Snapshot, Writer, create};
use proptest::prelude::*;
use std::cmp::Reverse;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

type Rows = Vec<Vec<(u32, u32)>>;

fn codes(rows: &[Vec<(u32, u32)>], dtype: DType) -> Codes {
    let mut codes = Codes::default();
    for row in rows {
        codes.ids.extend(row.iter().map(|unit| unit.0));
        codes.values.extend(row.iter().flat_map(|unit| unit.1.to_le_bytes().into_iter().take(dtype.size() as usize)));
        codes.indptr.push(codes.ids.len() as u32);
    }
    codes
}

/// A run with these rows, a durable point for each group; the step of a group is its number.
fn run(path: &Path, groups: &[Rows], width: u64, dtype: DType) {
    create(storage(path).as_ref(), "{}").unwrap();
    let writer = Writer::open(storage(path), None).unwrap();
    for (step, rows) in groups.iter().enumerate() {
        let codes = codes(rows, dtype);
        let site = SiteInput { name: "sae", dtype, shape: vec![width], bytes: &[], lent: None, codes: Some(&codes) };
        let values = Values::Constant(Value::Int(step as i64));
        let step = ColumnInput { name: "step", kind: ColumnType::Int, values, valid: None };
        let ticket = writer.append(storage(path).as_ref(), rows.len() as u64, &[site], &[step]).unwrap();
        wait(&ticket).unwrap();
    }
    writer.close(None).unwrap();
}

fn open(path: &Path) -> Snapshot {
    Snapshot::open(storage(path), Opening::STRICT).unwrap()
}

/// Group, position, feature, and bits of the value of every unit, as the codes have them.
fn units(snapshot: &Snapshot, site: &Site) -> Vec<(i64, i64, i64, u32)> {
    let mut all = Vec::new();
    for group in 0..snapshot.groups().len() {
        let codes = snapshot.codes(group, site).unwrap().all().unwrap();
        for row in 0..codes.rows() {
            let start = codes.indptr[row] as usize;
            let of_row = (start..).zip(codes.ids_of(row));
            let unit = |(at, &id): (usize, &u32)| {
                (group as i64, row as i64, i64::from(id), stored(&codes.values, site.dtype, at))
            };
            all.extend(of_row.map(unit));
        }
    }
    all
}

fn check(snapshot: &Snapshot, site: &Site, features: &[i64]) -> Result<(), TestCaseError> {
    let all = units(snapshot, site);
    let wanted: Vec<_> = all.iter().copied().filter(|unit| features.contains(&unit.2)).collect();
    let found = snapshot.indexed_units(site, features, 2).unwrap();
    let counts =
        (0..snapshot.groups().len() as i64).map(|group| (group, wanted.iter().filter(|unit| unit.0 == group).count()));
    prop_assert_eq!(&found.groups, &counts.collect::<Vec<_>>());
    let groups = found.groups.iter().flat_map(|&(group, units)| std::iter::repeat_n(group, units));
    let first = |group: i64| snapshot.groups()[group as usize].first;
    let found: Vec<_> = groups
        .enumerate()
        .map(|(at, group)| {
            let bits = stored(&found.values, site.dtype, at);
            (group, found.rows[at] - first(group), found.features[at], bits)
        })
        .collect();
    prop_assert_eq!(found, wanted);
    for &feature in features {
        let mut of_feature: Vec<_> = all.iter().filter(|unit| unit.2 == feature).collect();
        of_feature.sort_by_key(|unit| (Reverse(rank(site.dtype, unit.3)), unit.0, unit.1));
        for most in [1, 3, 1000] {
            let (_, found) = snapshot.top_units(site, feature, most).unwrap();
            let found: Vec<_> =
                found.iter().map(|unit| (unit.group as i64, unit.position as i64, feature, unit.bits)).collect();
            prop_assert_eq!(found, of_feature.iter().take(most).map(|unit| **unit).collect::<Vec<_>>());
        }
    }
    Ok(())
}

/// Rows with some of a few features, which lie all over the width.
fn rows(width: u64) -> impl Strategy<Value = Rows> {
    let feature = (0u64..12).prop_map(move |which| (which * (width - 1) / 11) as u32);
    let row = proptest::collection::btree_map(feature, any::<u32>(), 0..8);
    proptest::collection::vec(row.prop_map(|row| row.into_iter().collect()), 1..160)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn an_index_answers_what_the_codes_say(
        (width, groups) in prop_oneof![Just(12u64), Just(1 << 16), Just(70_000), Just((1 << 21) + 7)]
            .prop_flat_map(|width| (Just(width), proptest::collection::vec(rows(width), 1..4))),
        kind in 0usize..3,
    ) {
        let dtype = [DType::F16, DType::Bf16, DType::F32][kind];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        run(&path, &groups, width, dtype);
        let snapshot = open(&path);
        let site = snapshot.site("sae").unwrap();
        let scanned = if width < 1 << 20 { Some(snapshot.feature_stats(site, 2).unwrap()) } else { None };
        let segments = snapshot.feature_indexes(site).unwrap();
        prop_assert_eq!(segments.len(), 1);
        snapshot.build_feature_index(site, &segments[0].file, 2).unwrap();
        prop_assert_eq!(snapshot.feature_indexes(site).unwrap()[0].state, State::Ready);
        let features: Vec<i64> = (0..12u64).map(|which| (which * (width - 1) / 11) as i64).collect();
        check(&snapshot, site, &features)?;
        check(&snapshot, site, &features[3..5])?;
        if let Some(scanned) = scanned {
            let indexed = snapshot.feature_stats(site, 1).unwrap();
            prop_assert_eq!(format!("{indexed:?}"), format!("{scanned:?}"));
        }
        prop_assert!(verify(&storage(&path), &Progress::default()).unwrap().damages.is_empty());
    }
}

#[test]
fn an_index_of_many_parts_has_the_same_bytes_whatever_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    // more rows than a share, in groups that shares cut; feature 3 is in every row
    let row = |row: u32| {
        let ids: std::collections::BTreeSet<u32> =
            (0..40).map(|at| (row * 97 + at * at * 31) % 900).chain([3]).collect();
        ids.into_iter().map(|id| (id, 0x3000 + (row * 7 + id) % 4096)).collect()
    };
    let groups = [(0..5000).map(row).collect(), (5000..9000).map(row).collect()];
    run(&path, &groups, 900, DType::F16);
    let snapshot = open(&path);
    let site = snapshot.site("sae").unwrap();
    let file = snapshot.feature_indexes(site).unwrap()[0].file.clone();
    let name = path.join(lamina_format::names::feature_index(&file, site.id).unwrap());
    let built = [1, 2, 5].map(|threads| {
        snapshot.build_feature_index(site, &file, threads).unwrap();
        std::fs::read(&name).unwrap()
    });
    assert!(built[0] == built[1] && built[0] == built[2]);
    let length = built[0].len() as u64;
    let described = Description::length(built[0].last_chunk().unwrap(), length).unwrap() + TAIL;
    let description = Description::decode(&built[0][built[0].len() - described..], length).unwrap();
    assert!(description.parts.len() > 3, "{} parts", description.parts.len());
    check(&snapshot, site, &[0, 3, 4, 450, 899]).unwrap();
}

#[test]
fn row_pointers_that_lie_are_refused_by_who_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let counts = [1, 2, 3, 0, 2, 1];
    let rows: Rows = counts.map(|count| (0..count).map(|id| (id, 0x3c00)).collect()).into();
    run(&path, &[rows], 9, DType::F16);
    let segment = std::fs::read_dir(path.join("segments")).unwrap().next().unwrap().unwrap().path();
    let honest = std::fs::read(&segment).unwrap();
    let pointers: Vec<u8> = [0u32, 1, 3, 6, 6, 8, 9].iter().flat_map(|end| end.to_le_bytes()).collect();
    let at = honest.windows(pointers.len()).position(|bytes| bytes == pointers).unwrap();
    // what is not checked is what an author who computed the checksums could have written
    let access = Access { verify: Verify::Never, ..Access::default() };
    for (which, lie, wrong, right) in [
        (0, 1u32, 0..1, 2..6),
        (3, 2, 2..3, 4..6),
        (3, u32::MAX, 1..4, 0..2),
        (5, 10, 4..5, 0..4),
        (5, 5, 4..6, 1..3),
        (6, 8, 5..6, 0..5),
        (6, u32::MAX, 0..6, 3..5),
    ] {
        let mut bytes = honest.clone();
        bytes[at + 4 * which..][..4].copy_from_slice(&lie.to_le_bytes());
        std::fs::write(&segment, bytes).unwrap();
        let snapshot = open(&path).with_access(access);
        let site = snapshot.site("sae").unwrap();
        let codes = snapshot.codes(0, site).unwrap();
        let refused = [
            codes.read(wrong.start, wrong.end).unwrap_err(),
            codes.all().unwrap_err(),
            codes.each_stretch(wrong, |_, _| Ok(true)).unwrap_err(),
            snapshot.build_feature_index(site, &snapshot.feature_indexes(site).unwrap()[0].file, 2).unwrap_err(),
        ];
        for error in refused {
            assert_eq!(error.kind, ErrorKind::Damaged, "pointer {which} as {lie}: {error}");
        }
        let units: u32 = counts[right.clone()].iter().sum();
        assert_eq!(
            codes.read(right.start, right.end).unwrap().ids.len(),
            units as usize,
            "the other rows are readable"
        );
    }
}

#[test]
fn a_build_that_fails_at_any_call_leaves_the_index_that_was_there_or_none() {
    let rows: Rows = (0..40).map(|row| vec![(row % 7, 0x3c00 + row), (9, 0x4000)]).collect();
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::ReadOnlyFilesystem] {
        for allowed in 0.. {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("run");
            run(&path, &[rows.clone(), rows.clone()], 10, DType::F16);
            let fs = FailingFs::new(allowed, kind);
            let failing = Snapshot::open(Arc::new(Files::on(Arc::new(fs), &path)), Opening::STRICT).unwrap();
            let site = failing.site("sae").unwrap();
            let file = failing.feature_indexes(site).unwrap()[0].file.clone();
            let built = failing.build_feature_index(site, &file, 2);
            let snapshot = open(&path);
            let state = snapshot.feature_indexes(site).unwrap()[0].state;
            match built {
                Ok(_) => {
                    assert_eq!(state, State::Ready);
                    assert!(allowed > 5, "the loop reached the end");
                    break;
                }
                Err(error) => assert_eq!(error.kind, ErrorKind::Storage, "after {allowed} calls: {error}"),
            }
            assert!(matches!(state, State::Missing | State::Ready), "after {allowed} calls");
            snapshot.build_feature_index(site, &file, 2).unwrap();
            check(&snapshot, site, &(0..10).collect::<Vec<_>>()).unwrap();
        }
    }
}

/// Removes the run before one of the calls that make, name or sync something.
struct RemovingFs {
    run: PathBuf,
    left: AtomicUsize,
}

impl RemovingFs {
    fn call(&self) -> RealFs {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            std::fs::remove_dir_all(&self.run).unwrap();
        }
        RealFs
    }
}

impl Fs for RemovingFs {
    real!(open link remove_file list exists);

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.call().create_dir_all(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.call().create_dir(path)
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.call().create_new(path)
    }

    fn open_direct(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.call().open_direct(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call().rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.call().sync_dir(path)
    }
}

#[test]
fn a_run_that_is_removed_while_it_is_indexed_stays_removed() {
    let rows: Rows = (0..40).map(|row| vec![(row % 7, 0x3c00 + row)]).collect();
    for calls in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        run(&path, std::slice::from_ref(&rows), 10, DType::F16);
        let fs = Arc::new(RemovingFs { run: path.clone(), left: AtomicUsize::new(calls) });
        let snapshot = Snapshot::open(Arc::new(Files::on(fs, &path)), Opening::STRICT).unwrap();
        let site = snapshot.site("sae").unwrap();
        let file = snapshot.feature_indexes(site).unwrap()[0].file.clone();
        let built = snapshot.build_feature_index(site, &file, 2);
        if path.exists() {
            assert!(built.is_ok() && calls > 3, "{calls} calls");
            break;
        }
        assert_eq!(built.unwrap_err().kind, ErrorKind::Storage);
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "after {calls} calls");
    }
}
