//! All metric values of a run, as columns.

use lamina_format::record::Metrics;
use lamina_format::runfile::possible_time;
use lamina_format::{Error, Result};
use std::collections::HashMap;

/// Columns of one length, in order of writing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricColumns {
    /// The step.
    pub steps: Vec<i64>,
    /// Microseconds since the epoch.
    pub times: Vec<i64>,
    /// The value.
    pub values: Vec<f64>,
    /// Index of the name in `words`.
    pub names: Vec<u32>,
    /// Index of the site, if any.
    pub sites: Vec<Option<u32>>,
    /// Index of the source, if any.
    pub sources: Vec<Option<u32>>,
    /// Rank of the writer, if it has one.
    pub ranks: Vec<Option<i64>>,
    /// Names, sites and sources.
    pub words: Vec<String>,
    index: HashMap<String, u32>,
}

impl MetricColumns {
    /// Takes up a record, without what stands at the step `hidden` or later.
    pub(super) fn extend(&mut self, record: Metrics, rank: Option<i64>, hidden: Option<i64>) -> Result<()> {
        let broken = || Error::damaged("a record of metrics has columns of different lengths");
        let count = record.steps.len() / 8;
        let lengths = [record.times.len(), record.values.len()].map(|length| length / 8);
        let indices = [&record.names, &record.sites, &record.sources].map(|bytes| bytes.len() / 4);
        if lengths != [count; 2] || indices != [count; 3] {
            return Err(broken());
        }
        let times = record.times.as_chunks().0;
        if !times.iter().all(|&bytes| possible_time(i64::from_le_bytes(bytes))) {
            return Err(Error::damaged("a record of metrics has an impossible time"));
        }
        let count = record.words.len() as u32;
        let indices = |bytes: &[u8], none: bool| {
            let good = |&bytes: &[u8; 4]| u32::from_le_bytes(bytes) < count || none && bytes == [u8::MAX; 4];
            bytes.as_chunks().0.iter().all(good)
        };
        if !indices(&record.names, false) || !indices(&record.sites, true) || !indices(&record.sources, true) {
            return Err(Error::damaged("a record of metrics refers to words that it does not have"));
        }
        let words: Vec<u32> = record.words.into_iter().map(|word| self.word(word)).collect();
        let word = |bytes: &[u8; 4]| words.get(u32::from_le_bytes(*bytes) as usize).copied();
        let indices = |bytes: &[u8], row: usize| bytes.as_chunks().0.get(row).and_then(word);
        for (row, &step) in record.steps.as_chunks().0.iter().enumerate() {
            let step = i64::from_le_bytes(step);
            let Some(name) = indices(&record.names, row).filter(|_| hidden.is_none_or(|hidden| step < hidden)) else {
                continue;
            };
            self.steps.push(step);
            self.times.push(i64::from_le_bytes(times[row]));
            self.values.push(f64::from_le_bytes(record.values.as_chunks().0[row]));
            self.names.push(name);
            self.sites.push(indices(&record.sites, row));
            self.sources.push(indices(&record.sources, row));
        }
        self.ranks.resize(self.steps.len(), rank);
        Ok(())
    }

    fn word(&mut self, word: String) -> u32 {
        let next = self.words.len() as u32;
        *self.index.entry(word).or_insert_with_key(|word| {
            self.words.push(word.clone());
            next
        })
    }
}
