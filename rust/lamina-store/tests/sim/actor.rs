//! One writer, and what it was asked to do.

use super::disk::mix;
use super::history::{self, Call, Called, Note, tag};
use super::scene::Scene;
use super::view::brief;
use lamina_format::record::TensorSpec;
use lamina_format::{ColumnType, DType};
use lamina_store::storage::Storage;
use lamina_store::writer::{ColumnInput, CompletePart, PartInput, RowSet, ShardInput, SiteInput, WholeInput};
use lamina_store::{Ticket, Writer};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A writer, and what it was asked to do.
pub struct Actor {
    pub scene: Scene,
    pub slot: usize,
    pub writer: Writer,
    pub storage: Arc<dyn Storage>,
    pub staged: usize,
    /// Names of the rows that it attached something to.
    pub attached: BTreeSet<i64>,
}

impl Actor {
    /// Hands a call to the writer.
    pub fn stage(&mut self, call: Call) {
        let tag = tag(self.slot, self.staged);
        let mut wrote = history::wrote(tag, &call);
        let chosen = if let Call::Attach { rows } = call { self.choose(tag, rows) } else { Vec::new() };
        let site = history::attached_site(self.slot);
        for (at, (_, row)) in chosen.iter().enumerate() {
            wrote.attached.insert((*row, site.clone()), brief(&history::bytes(tag + at as i64, &site, ATTACHED)));
        }
        self.scene.called(self.slot, Called { call: call.clone(), wrote: Arc::new(wrote) });
        self.scene.fs.note(Note::Staged { slot: self.slot });
        self.staged += 1;
        let failed = match call {
            Call::Append { set, rows } => self.append(tag, set, rows).err(),
            Call::Attach { .. } if chosen.is_empty() => None,
            Call::Attach { .. } => self.attach(tag, &site, &chosen).err(),
            Call::Examples { rows } => {
                let columns = history::example_columns(tag, rows);
                with_columns(&columns, |columns| self.writer.examples(self.storage.as_ref(), rows, columns).err())
            }
            Call::Log => self.writer.log(tag, 1, &[("loss".to_owned(), tag as f64 + 0.5)], None, None).err(),
            Call::Save { bytes } => {
                let tensors = history::tensors(tag, bytes);
                let tensors =
                    tensors.iter().map(|(spec, bytes): &(TensorSpec, _)| (spec.clone(), bytes[..].into())).collect();
                self.writer.save(tag, &[PartInput { name: "model", tree: "{}", scalars: "[]", tensors }]).err()
            }
            Call::Divided { .. } => panic!("stage_divided"),
        };
        self.expect(failed);
    }

    /// Hands a checkpoint to the writer of which `other` stores the first half of each tensor; it was staged when that half
    /// and its own were durable. False if that failed.
    pub fn stage_divided(&mut self, other: &Self, bytes: u64) -> bool {
        let call = Call::Divided { bytes };
        let tag = tag(self.slot, self.staged);
        let wrote = Arc::new(history::wrote(tag, &call));
        self.scene.called(self.slot, Called { call, wrote });
        self.scene.fs.note(Note::Staged { slot: self.slot });
        self.staged += 1;
        let failed = self.divided(other, tag, bytes).err();
        self.expect(failed)
    }

    fn divided(&self, other: &Self, tag: i64, bytes: u64) -> lamina_format::Result<Ticket> {
        let condemned = self.writer.condemned()?;
        let mut wholes = Vec::new();
        for (spec, bytes) in history::tensors(tag, bytes) {
            let (size, rows) = (spec.dtype.size(), bytes.len() as u64 / spec.dtype.size());
            assert_eq!(spec.shape, [rows]);
            let mut shards = Vec::new();
            for (writer, first, end) in [(&other.writer, 0, rows / 2), (&self.writer, rows / 2, rows)] {
                let part = TensorSpec { shape: vec![end - first], ..spec.clone() };
                let (ticket, keys) = writer.shard(&part, &bytes[(first * size) as usize..(end * size) as usize])?;
                assert!(ticket.wait(Duration::from_secs(60))?);
                let keys = keys.get().unwrap().clone();
                shards.push(ShardInput { offsets: vec![first], sizes: vec![end - first], keys });
            }
            wholes.push(WholeInput { spec, shards });
        }
        let (name, tree, scalars) = ("model".to_owned(), "{}".to_owned(), "[]".to_owned());
        self.writer.complete(tag, condemned, vec![CompletePart { name, tree, scalars, wholes }])
    }

    /// Names of some rows that are there, and the rows.
    fn choose(&self, tag: i64, rows: usize) -> Vec<(i64, (i64, i64))> {
        let found = self.scene.found().unwrap_or_else(|wrong| panic!("{wrong}"));
        let mut free: Vec<_> = found.names.into_iter().filter(|(name, _)| !self.attached.contains(name)).collect();
        // any order will do
        free.sort_by_key(|(name, _)| mix(tag as u64, 11, *name as u64));
        free.truncate(rows);
        free
    }

    fn attach(&mut self, tag: i64, site: &str, rows: &[(i64, (i64, i64))]) -> lamina_format::Result<Ticket> {
        let names: Vec<i64> = rows.iter().map(|(name, _)| *name).collect();
        let bytes: Vec<u8> = (0..rows.len()).flat_map(|at| history::bytes(tag + at as i64, site, ATTACHED)).collect();
        let codes = history::is_codes(site).then(|| history::codes(&bytes, ATTACHED as usize / 2));
        let input =
            SiteInput { name: site, dtype: DType::U8, shape: vec![ATTACHED], bytes: &bytes, lent: None, codes: None };
        let sites = [match &codes {
            None => input,
            codes => {
                SiteInput { dtype: DType::F16, shape: vec![ATTACHED / 2], bytes: &[], codes: codes.as_ref(), ..input }
            }
        }];
        self.attached.extend(&names);
        let set = RowSet { rows: names.len() as u64, sites: &sites, columns: &[], names: Some(&names) };
        self.writer.append_sets(self.storage.as_ref(), &[set])
    }

    /// Nothing fails but behind a fence, and where a collection gives no grace.
    fn expect(&self, failure: Option<lamina_format::Error>) -> bool {
        if let Some(error) = &failure {
            let known = ["closed this writer for good", "collected as garbage while a save"];
            assert!(known.iter().any(|text| error.message.contains(text)), "{error}");
        }
        failure.is_none()
    }

    fn append(&self, tag: i64, set: history::Set, rows: u64) -> lamina_format::Result<Ticket> {
        let data: Vec<_> = history::sites(set)
            .into_iter()
            .map(|(name, dtype, shape)| {
                let item = shape.iter().product::<u64>() * dtype.size();
                let bytes = history::bytes(tag, &name, rows * item);
                let codes = history::is_codes(&name).then(|| history::codes(&bytes, shape[0] as usize));
                (if codes.is_some() { Vec::new() } else { bytes }, codes, name, dtype, shape)
            })
            .collect();
        let sites: Vec<SiteInput> = data
            .iter()
            .map(|(bytes, codes, name, dtype, shape)| SiteInput {
                name,
                dtype: *dtype,
                shape: shape.clone(),
                bytes,
                lent: None,
                codes: codes.as_ref(),
            })
            .collect();
        with_columns(&history::columns(tag, set, rows), |columns| {
            self.writer.append(self.storage.as_ref(), rows, &sites, columns)
        })
    }

    /// Waits until everything is durable.
    pub fn wait(&mut self) {
        let waited = self.writer.flush().wait(Duration::from_secs(60));
        assert!(waited != Ok(false), "a minute is enough for anything");
        if self.expect(waited.err()) {
            self.scene.fs.note(Note::Acknowledged { slot: self.slot, calls: self.staged });
        }
    }

    pub fn close(self) {
        let closed = self.writer.close(None).err();
        if self.expect(closed) {
            self.scene.fs.note(Note::Closed { slot: self.slot });
        }
    }
}

/// Bytes of a value that is attached.
const ATTACHED: u64 = 24;

fn with_columns<T>(
    columns: &[(&'static str, ColumnType, Vec<lamina_format::Value>)],
    use_them: impl FnOnce(&[ColumnInput]) -> T,
) -> T {
    let inputs: Vec<_> =
        columns.iter().map(|(name, kind, values)| (name, kind, history::input(*kind, values))).collect();
    let inputs: Vec<ColumnInput> = inputs
        .into_iter()
        .map(|(name, kind, (values, valid))| ColumnInput {
            name,
            kind: *kind,
            values,
            valid: valid.map(|valid| &*Box::leak(valid.into_boxed_slice())),
        })
        .collect();
    use_them(&inputs)
}
