//! Operations, and what is checked of them: groups, headers and tables of segments, paths, layouts.
#![no_main]

use lamina_format::record::{LayoutContent, Op};
use lamina_format::segment::{self, Declared, RESERVE};
use lamina_format::{cbor, check, names};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(ops) = cbor::decode::<Vec<Op>>(bytes, "operations") else { return };
    let (mut declared, mut groups) = (Declared::default(), Vec::new());
    for op in ops {
        let _ = declared.apply(&op);
        match op {
            Op::Group(group) if check::group(&group, &declared).is_ok() => groups.push(group),
            Op::Replace(replace) => {
                replace.old.iter().for_each(|old| drop(old.numbers().collect::<Vec<_>>()));
                groups.extend(replace.new.into_iter().filter(|group| check::group(group, &declared).is_ok()));
            }
            Op::Chunks(chunks) => drop(names::check_blob(&chunks.pack)),
            Op::Layout(layout) => drop(cbor::decode::<LayoutContent>(&layout.content, "a layout")),
            _ => {}
        }
    }
    groups.iter().flat_map(|group| &group.blocks).for_each(|block| drop(block.spans()));
    let fits = groups.iter().all(|group| segment::header_cost(&declared, group).is_ok());
    if fits {
        let _ = segment::seal(&declared, &groups, RESERVE);
    }
});
