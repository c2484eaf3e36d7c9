//! Every power cut of every workload: what was acknowledged is there, and what is there opens.
#![allow(missing_docs, clippy::unwrap_used)]

mod actor;
mod checkpoints;
mod collected;
mod content;
mod disk;
mod divided;
mod fixed;
mod fs;
mod hide;
mod history;
mod interrupted;
mod kept;
mod random;
mod saves;
mod scene;
mod unasked;
mod view;
