//! Any `.dockerignore` against any path. A walk that goes down directory by directory decides as one look at the whole path
//! does, and never skips a directory in which something is kept. Before the first zero byte is the file, behind it the path.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parser::dockerignore::IgnoreFile;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let (file, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Ok(ignore) = IgnoreFile::parse(file) else { return };
    let names: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"." | b"..")).collect();
    let Some((last, above)) = names.split_last() else { return };
    let (mut state, mut here, mut skipped) = (ignore.root(), Vec::new(), false);
    for name in above {
        join(&mut here, name);
        let (decision, below) = ignore.enter(&state, &here);
        skipped |= decision.ignored && !ignore.may_match_inside(&here);
        state = below;
    }
    join(&mut here, last);
    let walked = ignore.matches_in(&state, &here).ignored;
    assert_eq!(walked, ignore.matches(&here).ignored);
    assert!(walked || !skipped, "kept, but no walk would get there");
});

fn join(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}
