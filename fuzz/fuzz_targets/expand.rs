//! Any word, with any values: expansion ends, and an error points into the word. The first line of the input is the value of
//! `a`, the second that of `b`, the rest is the word.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let mut parts = input.splitn(3, '\n');
    let (a, b, word) = (parts.next().unwrap_or(""), parts.next(), parts.next().unwrap_or(""));
    let env = |name: &str| match name {
        "a" => Some(a.to_owned()),
        "b" => b.map(str::to_owned),
        _ => None,
    };
    for escape in ['\\', '`'] {
        if let Err(error) = parser::expand::expand_word(word, &env, escape) {
            assert!(word.is_char_boundary(error.at), "{error:?}");
            drop((error.to_string(), error.hint()));
        }
        drop(parser::expand::expand_words(word, &env, escape));
    }
    drop(parser::expand::expand_heredoc(word, &env));
});
