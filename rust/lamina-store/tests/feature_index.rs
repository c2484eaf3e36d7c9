//! The index of sparse codes by feature: what it answers is what all codes say, and a build that fails leaves nothing.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{FailingFs, storage, wait};
use lamina_format::posting::{rank, stored};
use lamina_format::record::Site;
use lamina_format::sparse::Codes;
use lamina_format::{ColumnType, DType, ErrorKind, Value};
use lamina_store::index::State;
use lamina_store::keep::{Progress, verify};
use lamina_store::storage::Files;
use lamina_store::writer::{ColumnInput, SiteInput, Values};
use lamina_store::{Opening, Snapshot, Writer, create};
use proptest::prelude::*;
use std::cmp::Reverse;
use std::io;
use std::path::Path;
use std::sync::Arc;

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
    let (groups, found) = snapshot.indexed_units(site, features, 2).unwrap();
    prop_assert_eq!(groups, (0..snapshot.groups().len() as i64).collect::<Vec<_>>());
    let bits = |at: usize| stored(&found.values, site.dtype, at);
    let found: Vec<_> = (0..found.groups.len())
        .map(|at| (found.groups[at], found.positions[at], found.features[at], bits(at)))
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
