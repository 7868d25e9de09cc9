//! Any text as a Dockerfile: it is read without a panic, and whatever is said about it has a place in the text.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let parsed = parser::parse(text);
    for found in &parsed.diagnostics {
        let span = found.span;
        assert!(span.start <= span.end && span.end <= text.len(), "{span:?} is outside of {} bytes", text.len());
        assert!(!found.message.is_empty());
    }
    let stages = &parsed.dockerfile.stages;
    for stage in stages {
        drop(parser::stages::resolve_target(&parsed.dockerfile, &stage.index.to_string()));
    }
    drop(parser::stages::check(&parsed.dockerfile, |_| false));
    // Triggers out of image configs take the same way by another door.
    if let Ok(text) = std::str::from_utf8(text) {
        drop(parser::parse_instruction(text, '\\'));
        drop(parser::parse_instruction(text, '`'));
    }
});
