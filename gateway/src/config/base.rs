//! The folder that file names are taken from, which remembers what was named: a gateway that runs keeps the right to read those
//! files (see `harden`), and whoever adds a key for a file need not think of it.

use std::cell::RefCell;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// The configuration file's own folder.
#[derive(Debug)]
pub(super) struct Base {
    folder: PathBuf,
    named: RefCell<Vec<PathBuf>>,
}

impl Base {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), named: RefCell::default() }
    }

    /// The file of this name, seen from the folder.
    pub(super) fn name(&self, file: &str) -> PathBuf {
        let file = self.folder.join(file);
        let mut named = self.named.borrow_mut();
        if !named.contains(&file) {
            named.push(file.clone());
        }
        file
    }

    /// Every file that was named.
    pub(super) fn named(&self) -> Vec<PathBuf> {
        self.named.borrow().clone()
    }
}

impl Deref for Base {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.folder
    }
}
