//! Tables of words and what becomes of them. Most rows were checked against `docker build`.

use super::*;

fn env(name: &str) -> Option<String> {
    let value = match name {
        "PWD" => "/home",
        "SHELL" => "bash",
        "EMPTY" => "",
        "P" => "/usr/local/lib/libfoo.so.1.2",
        "V" => "one.two.one.two",
        "X3" => "xxyy",
        "SPACE" => "abc  def",
        "LEAD" => "  ab c",
        "KOREAN" => "한국어",
        "LINES" => "a\nb\nc",
        "STARS" => "a***yy*",
        "PATTERN" => "/?/",
        "ESCAPED" => "\\*/",
        "GLOBS" => "/foo*/*/*.txt",
        "PATH3" => "/a/foo/b/c.txt",
        "ODD" => "()[]{}^$.*?|\\x",
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

#[track_caller]
fn table(rows: &[(&str, &str)]) {
    for (word, expected) in rows {
        assert_eq!(text(word), *expected, "{word}");
    }
}

#[test]
fn quotes_and_escapes() {
    table(&[
        ("hello", "hello"),
        ("he'll'o", "hello"),
        (r"he\'llo", "he'llo"),
        (r"abc\tdef", "abctdef"),
        (r#""abc\tdef""#, r"abc\tdef"),
        (r#""abc\\tdef""#, r"abc\tdef"),
        (r"'abc\tdef'", r"abc\tdef"),
        (r"hello\", "hello"),
        (r"hello\\", r"hello\"),
        (r#""hel'lo""#, "hel'lo"),
        (r"'hello\'", r"hello\"),
        (r#""''""#, "''"),
        (r#"'"hello"'"#, r#""hello""#),
        ("a b  c", "a b  c"),
        (r#""a\"b\$c\\d\e""#, r#"a"b$c\d\e"#),
        ("안'녕'하세요", "안녕하세요"),
        (r"안녕\'하세요", "안녕'하세요"),
        (r#"E'it'"'"'s'"#, "Eit's"),
    ]);
}

#[test]
fn plain_variables() {
    table(&[
        ("$.", "$."),
        ("a$", "a$"),
        ("$ h", "$ h"),
        ("he$1x", "hex"),
        ("he$PWD", "he/home"),
        (r"he\$PWD", "he$PWD"),
        (r"he\\$PWD", r"he\/home"),
        (r#""he\\$PWD""#, r"he\/home"),
        (r"\${}aaa", "${}aaa"),
        ("he${PWD}", "he/home"),
        ("he${hi}xx", "hexx"),
        ("'$PWD'", "$PWD"),
        (r#""he'$PWD'""#, "he'/home'"),
        ("안녕$KOREAN", "안녕한국어"),
        ("$PWD-x", "/home-x"),
        ("$SHELL.B", "bash.B"),
        ("${SHELL}B", "bashB"),
        ("$SHELLB", ""),
        ("$999aaa", "aaa"),
        ("$001", ""),
        ("$@@@", "@@"),
        ("$$PWD", "PWD"),
        ("$#x", "x"),
        ("${@}aaa", "aaa"),
        ("${$}", ""),
        ("${aaa}}", "}"),
    ]);
}

#[test]
fn defaults() {
    table(&[
        ("[${PWD:-w}][${PWD-w}][${PWD:+w}][${PWD+w}]", "[/home][/home][w][w]"),
        ("[${EMPTY:-w}][${EMPTY-w}][${EMPTY:+w}][${EMPTY+w}]", "[w][][][w]"),
        ("[${NO:-w}][${NO-w}][${NO:+w}][${NO+w}]", "[w][w][][]"),
        ("${NO:-${PWD:-yyy}}", "/home"),
        ("${NO:-${NO:-yyy}}", "yyy"),
        ("${PWD:+${PWD}:}xx", "/home:xx"),
        (r"${NO:-\$PWD:}", "$PWD:"),
        (r"${NO:-\${PWD}z}", "${PWDz}"),
        ("${NO:-bbb {foo}", "bbb {foo"),
        (r"${NO:-\}}", "}"),
        (r#"${NO:-"q q"}"#, "q q"),
        (r#""${NO:-two words}""#, "two words"),
        ("${1:-bbb}", "bbb"),
        ("${-:-bbb}", "bbb"),
        ("${999:+bbb}", ""),
    ]);
}

#[test]
fn demands() {
    table(&[
        ("${PWD?}${PWD:?}${EMPTY?}", "/home/home"),
        ("${NO?}", "error: NO: is not allowed to be unset"),
        ("${NO:?set it}", "error: NO: set it"),
        ("${EMPTY:?}", "error: EMPTY: is not allowed to be empty"),
        ("${EMPTY:?set $SHELL}", "error: EMPTY: set bash"),
    ]);
}

#[test]
fn trimming() {
    table(&[
        ("${P#*/}", "usr/local/lib/libfoo.so.1.2"),
        ("${P##*/}", "libfoo.so.1.2"),
        ("${P%.*}", "/usr/local/lib/libfoo.so.1"),
        ("${P%%.*}", "/usr/local/lib/libfoo"),
        ("${P#nope}", "/usr/local/lib/libfoo.so.1.2"),
        ("${P##*lib}", "foo.so.1.2"),
        ("${P#/usr/?ocal}", "/lib/libfoo.so.1.2"),
        ("${X3#*}", "xxyy"),
        ("${X3##*}", ""),
        ("${X3#}", "xxyy"),
        ("${X3##}", "xxyy"),
        ("${X3#*x*y}", "y"),
        ("${X3##*x}", "yy"),
        ("${X3#$EMPTY}", "xxyy"),
        ("${X3%%$EMPTY}", "xxyy"),
        ("${X3%y}", "xxy"),
        (r"${STARS%%\**}", "a"),
        (r"${STARS%%\**\*}", "a"),
        (r"${STARS%\*}", "a***yy"),
        (r"${ODD#()[]{\}^$.\*\?|\\}", "x"),
        ("${LINES##*b}", "a\nb\nc"),
        ("${KOREAN#?}", "국어"),
        ("${KOREAN%?}", "한국"),
        ("${NO#x}", ""),
        (r"${X3#\x}", r"error: invalid pattern (\x) in substitution: invalid escape '\x'"),
    ]);
}

#[test]
fn replacing() {
    table(&[
        ("${V/one/1}", "1.two.one.two"),
        ("${V//one/1}", "1.two.1.two"),
        ("${V//./-}", "one-two-one-two"),
        ("${V/t?o/2}", "one.2.one.two"),
        ("${V//o*e/X}", "X.two"),
        ("${V/none/x}", "one.two.one.two"),
        ("${V//two/}", "one..one."),
        ("${GLOBS/$ESCAPED/.}", "/foo.*/*.txt"),
        ("${GLOBS//$ESCAPED/.}", "/foo..*.txt"),
        ("${PATH3/$PATTERN//}", "/foo/b/c.txt"),
        ("${X3/$EMPTY/ww}", "wwxxyy"),
        ("${X3//$EMPTY/-}", "-x-x-y-y-"),
        ("${X3//*/-}", "-"),
        ("${X3///}", "xxyy"),
        (r"${P//\//\/}", r"\/usr\/local\/lib\/libfoo.so.1.2"),
        ("${LINES//*/-}", "-\n-\n-"),
        ("${X3//x/$1}", "yy"),
        ("${NO/a/b}", ""),
        ("${X3/x}", "error: syntax error: missing '/' in ${}"),
        ("${X3/x/", "error: syntax error: missing '}'"),
    ]);
}

#[test]
fn malformed_words() {
    let brace = "error: syntax error: missing '}'";
    let bad = "error: syntax error: bad substitution";
    let single = "error: unexpected end of statement while looking for matching single-quote";
    let double = "error: unexpected end of statement while looking for matching double-quote";
    table(&[
        ("${}", bad),
        ("${:}", bad),
        ("${:-x}", bad),
        ("${{a}", bad),
        ("${", brace),
        ("${PWD", brace),
        ("${PWD:", brace),
        ("${PWD:-x", brace),
        ("${NO:-a ${foo}", brace),
        ("he'llo", single),
        (r"he\\'llo", single),
        ("\"hello", double),
        (r#""hello\""#, double),
        ("${.}", "error: unsupported modifier (.) in substitution"),
        ("${NO:YYY}", "error: unsupported modifier (:Y) in substitution"),
        ("${PWD:=x}", "error: unsupported modifier (:=) in substitution"),
        ("${PWD=x}", "error: unsupported modifier (=) in substitution"),
        ("${PWD:#x}", "error: unsupported modifier (:#) in substitution"),
        ("${PWD^}", "error: unsupported modifier (^) in substitution"),
    ]);
    assert_eq!(text(&"${a:-".repeat(500)), "error: substitutions are nested too deeply");
}

#[test]
fn errors_say_where_and_what_to_do() {
    let error = expand_word("a${PWD}${X:=y}", &env, '\\').unwrap_err();
    assert_eq!(error.at, 7);
    assert_eq!(error.to_string(), r#"failed to process "a${PWD}${X:=y}": unsupported modifier (:=) in substitution"#);
    assert!(error.hint().unwrap().contains(":-"));
}

#[test]
fn the_backtick_as_escape() {
    let text = |word| expand_word(word, &env, '`').unwrap().text;
    assert_eq!(text(r"C:\dir\file"), r"C:\dir\file");
    assert_eq!(text("`$PWD"), "$PWD");
    assert_eq!(text("\"a`\"b`n\""), "a\"b`n");
    assert_eq!(text(r"\$PWD"), r"\/home");
}

#[test]
fn several_words() {
    let words = |word: &str| expand_words(word, &env, '\\').unwrap().words.join("|");
    assert_eq!(words("hello${hi}bye"), "hellobye");
    assert_eq!(words("hello${SPACE}bye"), "helloabc|defbye");
    assert_eq!(words("hello\"${SPACE}\"bye"), "helloabc  defbye");
    assert_eq!(words("hello \"${SPACE}\"bye"), "hello|abc  defbye");
    assert_eq!(words("hello${LEAD}def"), "hello|ab|cdef");
    assert_eq!(words("hello\"${LEAD}\" def"), "hello  ab c|def");
    assert_eq!(words("hello${LEAD}"), "hello|ab|c");
    assert_eq!(words("hello\" there  \""), "hello there  ");
    assert_eq!(words("hello     there"), "hello|there");
    assert_eq!(words(r"hello\ there"), "hello there");
    assert_eq!(words("'' a"), "a");
    assert_eq!(words("$NO"), "");
    // As `docker build` does, it loses what stands before a substitution with an operand, in this word alone.
    assert_eq!(words("a${X:-1}-${Y:-2}"), "2");
    assert_eq!(words("a b\"c${X:-1}\"d$PWD e"), "a|c1d/home|e");
    assert_eq!(words("a${PWD}b"), "a/homeb");
}

#[test]
fn heredoc_bodies() {
    let body = "$SHELL \"x\" 'y $PWD' \\$PWD back\\slash ${NO:-d}\n";
    assert_eq!(expand_heredoc(body, &env).unwrap().text, "bash \"x\" 'y /home' $PWD backslash d\n");
}

#[test]
fn variables_are_accounted_for() {
    let vars = expand_word("$PWD ${NO} ${NO2:-x} $PWD ${EMPTY:+y} ${NO3%x}", &env, '\\').unwrap().vars;
    assert_eq!(vars.set, ["PWD", "EMPTY"]);
    assert_eq!(vars.unset, ["NO", "NO3"]);
    assert_eq!(vars.defaulted, ["NO2"]);
    assert_eq!(vars.without_value().collect::<Vec<_>>(), ["NO", "NO3", "NO2"]);
}
