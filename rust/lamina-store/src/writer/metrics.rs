//! Metric values between two durable points.

use lamina_format::record::{Metrics, Op};
use std::collections::HashMap;

const NONE: u32 = u32::MAX;
/// Values a record: keeps it far below the longest frame.
const MOST: usize = 100_000;

/// Values that wait for the next frame.
#[derive(Default)]
pub struct MetricStage {
    full: Vec<Op>,
    words: HashMap<String, u32>,
    order: Vec<String>,
    steps: Vec<u8>,
    times: Vec<u8>,
    values: Vec<u8>,
    names: Vec<u8>,
    sites: Vec<u8>,
    sources: Vec<u8>,
}

impl MetricStage {
    pub fn push(&mut self, step: i64, time: i64, value: f64, name: &str, site: Option<&str>, source: Option<&str>) {
        if self.steps.len() >= 8 * MOST || self.order.len() >= MOST {
            self.cut();
        }
        let name = self.word(Some(name));
        let (site, source) = (self.word(site), self.word(source));
        self.steps.extend_from_slice(&step.to_le_bytes());
        self.times.extend_from_slice(&time.to_le_bytes());
        self.values.extend_from_slice(&value.to_le_bytes());
        self.names.extend_from_slice(&name.to_le_bytes());
        self.sites.extend_from_slice(&site.to_le_bytes());
        self.sources.extend_from_slice(&source.to_le_bytes());
    }

    fn word(&mut self, word: Option<&str>) -> u32 {
        let Some(word) = word else { return NONE };
        if let Some(&index) = self.words.get(word) {
            return index;
        }
        let index = self.order.len() as u32;
        self.words.insert(word.to_owned(), index);
        self.order.push(word.to_owned());
        index
    }

    fn cut(&mut self) {
        let Self { full, order, steps, times, values, names, sites, sources, words } = self;
        if steps.is_empty() {
            return;
        }
        words.clear();
        let [steps, times, values, names, sites, sources] =
            [steps, times, values, names, sites, sources].map(std::mem::take);
        full.push(Op::Metrics(Metrics { steps, times, values, words: std::mem::take(order), names, sites, sources }));
    }

    /// Takes out the records.
    pub fn take(&mut self) -> Vec<Op> {
        self.cut();
        std::mem::take(&mut self.full)
    }
}
