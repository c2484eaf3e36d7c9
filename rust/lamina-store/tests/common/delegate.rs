//! File systems that differ from the real one in a few calls: the others, handed on.
#![allow(unused_macros, unused_macro_rules)]

/// Calls of `Fs` that go to the real file system as they are.
macro_rules! real {
    ($($call:ident)*) => { $(real!(@$call);)* };
    (@create_dir_all) => {
        fn create_dir_all(&self, path: &std::path::Path) -> std::io::Result<()> {
            lamina_store::storage::RealFs.create_dir_all(path)
        }
    };
    (@create_dir) => {
        fn create_dir(&self, path: &std::path::Path) -> std::io::Result<()> {
            lamina_store::storage::RealFs.create_dir(path)
        }
    };
    (@create_new) => {
        fn create_new(&self, path: &std::path::Path) -> std::io::Result<Box<dyn FsFile>> {
            lamina_store::storage::RealFs.create_new(path)
        }
    };
    (@open_direct) => {
        fn open_direct(&self, path: &std::path::Path) -> std::io::Result<Box<dyn FsFile>> {
            lamina_store::storage::RealFs.open_direct(path)
        }
    };
    (@open) => {
        fn open(&self, path: &std::path::Path) -> std::io::Result<Box<dyn FsFile>> {
            lamina_store::storage::RealFs.open(path)
        }
    };
    (@rename) => {
        fn rename(&self, from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
            lamina_store::storage::RealFs.rename(from, to)
        }
    };
    (@link) => {
        fn link(&self, from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
            lamina_store::storage::RealFs.link(from, to)
        }
    };
    (@remove_dir_all) => {
        fn remove_dir_all(&self, path: &std::path::Path) -> std::io::Result<()> {
            lamina_store::storage::RealFs.remove_dir_all(path)
        }
    };
    (@remove_file) => {
        fn remove_file(&self, path: &std::path::Path) -> std::io::Result<()> {
            lamina_store::storage::RealFs.remove_file(path)
        }
    };
    (@sync_dir) => {
        fn sync_dir(&self, path: &std::path::Path) -> std::io::Result<()> {
            lamina_store::storage::RealFs.sync_dir(path)
        }
    };
    (@list) => {
        fn list(&self, path: &std::path::Path) -> std::io::Result<Vec<String>> {
            lamina_store::storage::RealFs.list(path)
        }
    };
    (@exists) => {
        fn exists(&self, path: &std::path::Path) -> bool {
            lamina_store::storage::RealFs.exists(path)
        }
    };
}

/// Calls of `FsFile` that go to the file in a field as they are.
macro_rules! inner {
    ($field:tt: $($call:ident)*) => { $(inner!(@$call $field);)* };
    (@length $field:tt) => {
        fn length(&self) -> std::io::Result<u64> {
            self.$field.length()
        }
    };
    (@read_at $field:tt) => {
        fn read_at(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
            self.$field.read_at(offset, out)
        }
    };
    (@write_at $field:tt) => {
        fn write_at(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
            self.$field.write_at(offset, bytes)
        }
    };
    (@sync_data $field:tt) => {
        fn sync_data(&self) -> std::io::Result<()> {
            self.$field.sync_data()
        }
    };
    (@set_length $field:tt) => {
        fn set_length(&self, length: u64) -> std::io::Result<()> {
            self.$field.set_length(length)
        }
    };
}
