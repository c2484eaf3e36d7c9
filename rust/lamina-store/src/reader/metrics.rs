//! All metric values of a run, as columns.

use lamina_format::record::Metrics;
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
    pub(super) fn extend(&mut self, record: Metrics, rank: Option<i64>) -> Result<()> {
        let broken = || Error::damaged("a record of metrics has columns of different lengths");
        let count = record.steps.len() / 8;
        let lengths = [record.times.len(), record.values.len()].map(|length| length / 8);
        let indices = [&record.names, &record.sites, &record.sources].map(|bytes| bytes.len() / 4);
        if lengths != [count; 2] || indices != [count; 3] {
            return Err(broken());
        }
        let words: Vec<u32> = record.words.into_iter().map(|word| self.word(word)).collect();
        let word = |&bytes: &[u8; 4]| match u32::from_le_bytes(bytes) {
            u32::MAX => Ok(None),
            index => words.get(index as usize).copied().map(Some).ok_or_else(broken),
        };
        self.steps.extend(record.steps.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)));
        self.times.extend(record.times.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)));
        self.values.extend(record.values.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes)));
        for bytes in record.names.as_chunks().0 {
            self.names.push(word(bytes)?.ok_or_else(broken)?);
        }
        for bytes in record.sites.as_chunks().0 {
            self.sites.push(word(bytes)?);
        }
        for bytes in record.sources.as_chunks().0 {
            self.sources.push(word(bytes)?);
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
