//! Names of files, from a folder or from a record.
#![no_main]

use lamina_format::names;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|name: &str| {
    if let Some((writer, generation)) = names::parse_log(name) {
        assert_eq!(names::log(writer, generation), format!("logs/{name}"));
    }
    if let Some(n) = names::parse_commit(name) {
        assert_eq!(names::commit(n), format!("commits/{name}"));
    }
    if names::check_blob(name).is_ok() {
        assert!(!name.contains("..") || !name.contains("/."), "{name:?} leaves the run");
    }
    if names::owner(name).is_some() {
        assert!(names::check_blob(name).is_ok());
    }
});
