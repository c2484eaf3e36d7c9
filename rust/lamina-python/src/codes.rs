//! Sparse codes: from Python to a writer, and as long tables back.

use crate::arrow::{self, ArrowArray};
use crate::buffer::Bytes;
use crate::errors::raise;
use crate::snapshot::Snapshot;
use arrow_array::{ArrayRef, Int64Array};
use arrow_buffer::MutableBuffer;
use lamina_format::record::Site;
use lamina_format::sparse::Codes;
use lamina_format::{DType, Error};
use lamina_store::reader::Features;
use lamina_store::writer::{Bounds, Entries, Twice};
use pyo3::prelude::*;
use std::sync::Arc;

/// Entries of codes: how many each row has, or row pointers (i64); ids and values, each with its dtype.
#[derive(FromPyObject)]
pub struct CodesArgument<'py>(Bound<'py, PyAny>, (String, Bound<'py, PyAny>), (String, Bound<'py, PyAny>));

/// Entries with their bytes borrowed.
pub struct HeldCodes {
    bounds: HeldBounds,
    id_dtype: DType,
    ids: Bytes,
    pub dtype: DType,
    values: Bytes,
}

enum HeldBounds {
    Each(usize),
    Between(Vec<i64>),
}

impl CodesArgument<'_> {
    pub fn hold(self) -> PyResult<HeldCodes> {
        let bounds = match self.0.extract::<usize>() {
            Ok(each) => HeldBounds::Each(each),
            Err(_) => HeldBounds::Between(Bytes::get(&self.0)?.as_i64s()),
        };
        let ((id_dtype, ids), (dtype, values)) = (self.1, self.2);
        let parse = |name: &str| DType::parse(name).map_err(raise);
        let (id_dtype, dtype) = (parse(&id_dtype)?, parse(&dtype)?);
        Ok(HeldCodes { bounds, id_dtype, ids: Bytes::get(&ids)?, dtype, values: Bytes::get(&values)? })
    }
}

impl HeldCodes {
    /// As they are stored.
    pub fn codes(&self, rows: u64, width: u64, summed: bool) -> lamina_format::Result<Codes> {
        let bounds = match &self.bounds {
            HeldBounds::Each(each) => Bounds::Each(*each),
            HeldBounds::Between(ends) => Bounds::Between(ends),
        };
        let (ids, values) = (self.ids.as_slice(), self.values.as_slice());
        let entries = Entries { bounds, id_dtype: self.id_dtype, ids, dtype: self.dtype, values };
        entries.codes(rows as usize, width, if summed { Twice::Summed } else { Twice::Refused })
    }
}

/// A long table while it grows.
struct Long {
    at: Vec<i64>,
    features: Vec<i64>,
    values: MutableBuffer,
}

impl Long {
    /// Adds the units of rows, of which the first is the `at`-th of those that were asked for, if their features are wanted.
    fn extend(&mut self, codes: &Codes, at: usize, size: usize, is_wanted: impl Fn(u32) -> bool) {
        for row in 0..codes.rows() {
            let start = codes.indptr[row] as usize;
            for (unit, &id) in (start..).zip(codes.ids_of(row)) {
                if is_wanted(id) {
                    self.at.push((at + row) as i64);
                    self.features.push(i64::from(id));
                    self.values.extend_from_slice(&codes.values[unit * size..(unit + 1) * size]);
                }
            }
        }
    }

    /// Adds all units of rows.
    fn extend_all(&mut self, codes: &Codes, at: usize, size: usize) {
        for row in 0..codes.rows() {
            let ids = codes.ids_of(row);
            let start = codes.indptr[row] as usize;
            self.at.extend(std::iter::repeat_n((at + row) as i64, ids.len()));
            self.features.extend(ids.iter().map(|&id| i64::from(id)));
            self.values.extend_from_slice(&codes.values[start * size..(start + ids.len()) * size]);
        }
    }

    fn batch(self, site: &Site) -> PyResult<ArrowArray> {
        let scalar = Site { shape: vec![], sparse: None, ..site.clone() };
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("at", Arc::new(Int64Array::from(self.at))),
            ("feature", Arc::new(Int64Array::from(self.features))),
            ("value", arrow::vectors(&scalar, self.values, true, None)?),
        ];
        let rows = columns[0].1.len();
        ArrowArray::batch(rows, columns.into_iter().map(|(name, array)| (name.to_owned(), array)).collect())
    }
}

/// Active units of rows wherever they lie: for each row its group and position there; of some features, or of all. Ends once
/// there are `most` units; returns how many rows were looked at, and a record batch: at (which of the rows), feature, value.
#[pyfunction]
#[pyo3(signature = (snapshot, site, groups, positions, features, most))]
pub fn codes_at(
    py: Python<'_>,
    snapshot: &Snapshot,
    site: &str,
    groups: Bound<'_, PyAny>,
    positions: Bound<'_, PyAny>,
    features: Option<Bound<'_, PyAny>>,
    most: usize,
) -> PyResult<(usize, ArrowArray)> {
    let (groups, positions) = (Bytes::get(&groups)?.as_i64s(), Bytes::get(&positions)?.as_i64s());
    let features = features.as_ref().map(Bytes::get).transpose()?.map(|features| features.as_i64s());
    let site = snapshot.0.site(site).map_err(raise)?;
    py.detach(|| {
        if groups.len() != positions.len() {
            return Err(raise(Error::schema("there are not as many groups as positions")));
        }
        let wanted = features.map(|features| Features::new(&features, site.width())).transpose().map_err(raise)?;
        let (mask, size) = (wanted.as_ref().and_then(Features::mask), site.dtype.size() as usize);
        let mut long = Long { at: Vec::new(), features: Vec::new(), values: MutableBuffer::new(0) };
        let mut done = 0;
        for run in groups.chunk_by(|a, b| a == b) {
            let end = done + run.len();
            let Ok(group) = usize::try_from(run[0]) else {
                done = end;
                continue;
            };
            let codes = snapshot.0.codes(group, site).map_err(raise)?;
            while done < end && long.at.len() < most {
                let first = usize::try_from(positions[done]).ok().filter(|&first| first < codes.rows());
                let outside = || raise(Error::schema(format!("a group has no row {}", positions[done])));
                let first = first.ok_or_else(outside)?;
                // rows that stand one after another are read together
                let follow = (first as i64..codes.rows() as i64).zip(&positions[done..end]);
                let rows = follow.take_while(|(row, position)| row == *position).count();
                let read = codes.each_stretch(first..first + rows, |_, some| {
                    match (&wanted, &mask) {
                        (None, _) => long.extend_all(some, done, size),
                        (_, Some(mask)) => {
                            long.extend(some, done, size, |id| mask.get(id as usize).is_some_and(|&byte| byte != 0));
                        }
                        (Some(wanted), None) => long.extend(some, done, size, |id| wanted.place(id).is_some()),
                    }
                    done += some.rows();
                    Ok(long.at.len() < most)
                });
                read.map_err(raise)?;
            }
            if done < end {
                break;
            }
        }
        Ok((done, long.batch(site)?))
    })
}
