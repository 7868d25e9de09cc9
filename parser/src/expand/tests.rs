//! Tables of words and what becomes of them.

use super::*;

fn env(name: &str) -> Option<String> {
    let value = match name {
        "PWD" => "/home",
        "SHELL" => "bash",
        "EMPTY" => "",
        "P" => "/usr/local/lib/libfoo.so.1.2",
        "V" => "one.two.one.two",
        "SPACE" => "abc  def",
        "LEAD" => "  ab c",
        "KOREAN" => "한국어",
        "LINES" => "a\nb\nc",
        "STARS" => "a***yy*",
        _ => return None,
    };
    Some(value.to_owned())
}

fn text(word: &str) -> String {
    match expand_word(word, &env, '\\') {
        Ok(expanded) => expanded.text,
        Err(error) => format!("error: {}", error.reason),
    }
}
