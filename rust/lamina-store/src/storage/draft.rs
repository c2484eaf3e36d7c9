//! A run's folder under another name until it is whole: it exists wholly or not at all.

use super::files::{Files, refused};
use crate::clock;
use lamina_format::{Error, ErrorKind, Result};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder and those above it; the last is the root or this process's own.
fn above(folder: &Path) -> impl Iterator<Item = &Path> {
    folder.ancestors().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
}

impl Files {
    /// Refuses a run's place where something is already, or inside of another run.
    pub(crate) fn check_free(&self) -> Result<()> {
        if self.fs.exists(&self.root) {
            let text = format!("{} already exists", self.root.display());
            return Err(
                Error::new(ErrorKind::NotARun, text).hint("choose another path, or lamina.open() it if it is a run")
            );
        }
        let place = std::path::absolute(&self.root).unwrap_or_else(|_| self.root.clone());
        if let Some(run) = place.ancestors().skip(1).find(|folder| self.fs.exists(&folder.join("run.json"))) {
            let text = format!("{} lies inside of the run {}", self.root.display(), run.display());
            return Err(Error::new(ErrorKind::NotARun, text).hint("choose a path beside it"));
        }
        Ok(())
    }

    /// The same run under a name of its own beside it, which nobody takes for a run.
    pub(crate) fn draft(&self) -> Self {
        let name = self.root.file_name().unwrap_or_default().to_string_lossy();
        let root = self.parent().join(format!(".{name}.{}", clock::unique()));
        Self { fs: Arc::clone(&self.fs), root }
    }

    fn parent(&self) -> &Path {
        self.root.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// The folders above the run that are not there yet.
    pub(crate) fn missing_above(&self) -> Vec<PathBuf> {
        above(self.parent()).take_while(|folder| !self.fs.exists(folder)).map(Path::to_owned).collect()
    }

    /// Gives a draft, all of which is durable, the run's name, durably; `made` are the folders above that were missing.
    pub(crate) fn take_over(&self, draft: &Self, made: &[PathBuf]) -> Result<()> {
        let fail = |error: io::Error| refused(&error, "cannot create the run", &self.root.display().to_string());
        self.check_free()?;
        // a rename onto an existing, non-empty folder fails, so two creators cannot both succeed
        self.fs.rename(&draft.root, &self.root).map_err(fail)?;
        self.fs.sync_dir(self.parent()).map_err(fail)?;
        // a name is durable only if that of the folder is; who made the folders above may not have synced them yet
        for folder in above(self.parent()).skip(1) {
            let inside = made.iter().any(|made| above(made).nth(1) == Some(folder));
            match self.fs.sync_dir(folder) {
                Err(error) if inside => return Err(fail(error)),
                _ => {} // most folders far above are not ours to open
            }
        }
        Ok(())
    }

    /// Removes a draft that will not become a run, as far as that can be done: what stays is no run.
    pub(crate) fn discard(&self) {
        let _ = self.fs.remove_dir_all(&self.root);
    }
}
