//! Parts of codes whose features have more units than are taken at once.
#![allow(clippy::unwrap_used)]

use super::transpose::{Limits, Transposer};
use super::visit::Source;
use crate::reader::Mask;
use crate::storage::{Files, Storage};
use crate::writer::SiteInput;
use crate::{Opening, Snapshot, Writer, create};
use lamina_format::DType;
use lamina_format::packing::BLOCK;
use lamina_format::posting::unit;
use lamina_format::sparse::Codes;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Rows whose features are named from one on: the third is in all of them, the eighth in every other, others in few.
fn write(path: &Path, first: u32, width: u64) -> Vec<(u32, u64)> {
    let storage: Arc<dyn Storage> = Arc::new(Files::new(path));
    create(storage.as_ref(), "{}").unwrap();
    let writer = Writer::open(Arc::clone(&storage), None).unwrap();
    let (mut units, mut before) = (Vec::new(), 0);
    for rows in [700u32, 1, 300] {
        let mut codes = Codes::default();
        for row in before..before + rows {
            let chosen =
                |id: &u32| *id == 2 || *id == 7 && row.is_multiple_of(2) || (row * 31 + id * 17).is_multiple_of(97);
            for id in (0..20).filter(chosen) {
                let value = (row * 7 + id) % 4096;
                codes.ids.push(first + id);
                codes.values.extend((value as u16).to_le_bytes());
                units.push((first + id, unit(row, value)));
            }
            codes.indptr.push(codes.ids.len() as u32);
        }
        before += rows;
        let shape = vec![width];
        let site = SiteInput { name: "sae", dtype: DType::F16, shape, bytes: &[], lent: None, codes: Some(&codes) };
        let ticket = writer.append(storage.as_ref(), rows.into(), &[site], &[]).unwrap();
        ticket.wait(Duration::from_secs(20)).unwrap();
    }
    writer.close(None).unwrap();
    units.sort_unstable();
    units
}

#[test]
fn features_with_more_units_than_are_sorted_at_once_come_in_pieces() {
    // all features have counters of their own; all of the rows share one; some do, at the end of the width
    for (first, width, counters) in [(0, 20, 1 << 20), (0, 1 << 20, 64), (9_980, 10_000, 1250)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let wanted = write(&path, first, width);
        let snapshot = Snapshot::open(Arc::new(Files::new(&path)), Opening::STRICT).unwrap();
        let site = snapshot.site("sae").unwrap();
        let mut start = 0;
        let source = |group| {
            let source = Source { group, start, unseen: Mask::None };
            start = source.end();
            source
        };
        let groups: Vec<Source> = snapshot.of_rows().0.iter().map(source).collect();
        for (units, rows, threads) in [(150, 300, 1), (150, 97, 2), (40, 1 << 20, 3), (600, 10, 2), (1 << 20, 10, 2)] {
            let limits = Limits { counters, units, rows };
            let found = Mutex::new(Vec::new());
            let transposer = Transposer::new(&snapshot, site, &groups, threads, limits).unwrap();
            let each = transposer.each_part(|number, part| {
                let (mut of_part, mut left) = (Vec::new(), 0);
                part.features(|feature, count, units| {
                    left = if left == 0 { count } else { left } - units.len() as u64;
                    assert!(!units.is_empty() && (left == 0 || units.len().is_multiple_of(BLOCK)));
                    assert!(units.len() as u64 <= limits.units.max(limits.rows as u64 + BLOCK as u64));
                    of_part.extend(units.iter().map(|&unit| (feature, unit)));
                })?;
                assert_eq!(left, 0, "units are missing");
                found.lock().unwrap().push((number, of_part));
                Ok(())
            });
            each.unwrap();
            let mut found = found.into_inner().unwrap();
            found.sort_by_key(|(number, _)| *number);
            assert!(found.iter().map(|(number, _)| *number).eq(0..found.len()));
            let few = |(_, part): &(usize, Vec<_>)| part.len() as u64 <= units;
            assert_eq!(found.iter().all(few), units > 1000, "the third feature has 1001 units");
            let found: Vec<(u32, u64)> = found.into_iter().flat_map(|(_, part)| part).collect();
            assert!(found == wanted, "{width} features, {counters} counters, {units} units");
        }
    }
}
