//! Whole texts: triggers out of an image config, odd files, and whatever else people may feed a parser.

use proptest::prelude::*;

use super::*;

fn messages(text: &[u8]) -> Vec<String> {
    parse(text).diagnostics.iter().map(ToString::to_string).collect()
}

#[test]
fn triggers_with_heredocs() {
    let trigger = parse_instruction("RUN <<EOF\necho hi\nEOF", '\\').unwrap();
    let InstructionKind::Run(run) = &trigger.kind else { panic!("{trigger:?}") };
    assert_eq!(run.script(), Script::Shell("echo hi\n".to_owned()));
    let trigger = parse_instruction("copy --from=src /s /copied", '\\').unwrap();
    assert_eq!((trigger.keyword, trigger.text.as_str()), (Keyword::Copy, "copy --from=src /s /copied"));
}

#[test]
fn triggers_that_are_wrong() {
    let message = |text| parse_instruction(text, '\\').unwrap_err().message;
    assert_eq!(message(""), "file with no instructions");
    assert_eq!(message("FROM x"), "FROM cannot be used here");
    assert_eq!(message("RUN a\nRUN b"), "onbuild trigger should be a single expression");
    assert_eq!(message("RUNN x"), "unknown instruction: RUNN");
    assert_eq!(message("RUN <<EOF\nx"), "unterminated heredoc");
}

#[test]
fn files_with_nothing_in_them() {
    assert_eq!(messages(b""), ["the Dockerfile cannot be empty"]);
    assert_eq!(messages(b"\n"), ["file with no instructions"]);
    assert_eq!(messages(b"# a\n\n  # b"), ["file with no instructions"]);
    assert_eq!(messages(b"ARG A=1"), ["dockerfile contains no stages to build"]);
    assert_eq!(messages(b"\xef\xbb\xbf"), ["file with no instructions"]);
}

#[test]
fn lines_may_be_long_but_not_too_long() {
    let line = |length: usize| format!("FROM x\nRUN {}", "a".repeat(length - 4));
    assert_eq!(messages(line(65_535).as_bytes()), Vec::<String>::new());
    assert_eq!(messages(line(65_536).as_bytes()), ["dockerfile line greater than max allowed size of 65535 (line 2)"]);
}

#[test]
fn a_keyword_may_be_continued() {
    let file = parse(b"FR\\\nOM bu\\\nsybox").dockerfile;
    assert_eq!(file.stages[0].from.kind.image.text, "busybox");
}

#[test]
fn a_mistyped_keyword_is_one_error() {
    assert_eq!(messages(b"FROM a\nRUNN <<EOF\necho\nEOF\nRUN b"), ["unknown instruction: RUNN (line 2)"]);
    assert_eq!(messages(b"FROM a\nRUNN <<EOF\nRUN b"), ["unknown instruction: RUNN (line 2)"]);
}

#[test]
fn a_shebang_leaves_room_for_checks_but_not_for_escapes() {
    let file = parse(b"#!/usr/bin/env rbuild\n# syntax=x\n# check=skip=all\n# escape=`\nFROM x AS Y").dockerfile;
    assert_eq!(file.directives.foreign_syntax(), Some("x"));
    assert_eq!(file.escape, '\\');
    assert!(!file.check.wants(Rule::StageNameCasing));
}

#[test]
fn mistakes_in_stages_that_are_not_built_do_no_harm() {
    let parsed = parse(b"FROM a\nEXPOSE eighty\nFROM b");
    assert!(parsed.has_errors(|stage| stage == 0));
    assert!(!parsed.has_errors(|stage| stage == 1));
}

#[test]
fn a_large_file_is_read_in_no_time() {
    let mut text = String::from("FROM busybox\n");
    for line in 0..5_000 {
        text += &format!("RUN --mount=type=cache,target=/c echo {line} \"$X\" && true # ${{Y:-z}}\n");
    }
    let start = std::time::Instant::now();
    assert_eq!(parse(text.as_bytes()).dockerfile.stages[0].instructions.len(), 5_000);
    // A generous bound for slow machines: quadratic behaviour would take minutes.
    assert!(start.elapsed().as_secs() < 5);
}

/// What Dockerfiles are made of.
#[rustfmt::skip]
const PIECES: &[&str] = &[
    "FROM ", "RUN ", "COPY ", "ADD ", "ENV ", "ARG ", "LABEL ", "CMD ", "ONBUILD ", "HEALTHCHECK ",
    "EXPOSE ", "SHELL ", "VOLUME ", "--from=", "--mount=", "type=cache", "target=", ",", "--chmod=", "--",
    "a", "b=c", "é", "😀", " ", "\t", "\n", "\r\n", "\\\n", "\\", "`", "# escape=`\n", "# check=skip=all\n",
    "#", "<<EOF", "<<-'X'", "EOF\n", "X\n", "$a", "${b:-", "${c/", "/", "}", "\"", "'", "[", "]",
    "[\"a\", \"b\"]", "{", ":", "80-90/tcp", "AS ", "scratch", "\u{feff}", "\u{a0}", "\u{b}",
];

/// Texts whose mistakes come close to being right.
fn dockerfile_like() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES), 0..60).prop_map(|pieces| pieces.concat())
}

/// Every place that a tree or a diagnostic mentions lies in the text, on character boundaries.
fn check_spans(text: &[u8]) -> Result<(), TestCaseError> {
    let parsed = parse(text);
    let valid = std::str::from_utf8(text).ok();
    let check = |span: Span| {
        prop_assert!(span.start <= span.end && span.end <= text.len(), "{:?}", span);
        if let Some(text) = valid {
            prop_assert!(text.get(span.start..span.end).is_some(), "{:?} splits a character", span);
        }
        Ok(())
    };
    for found in &parsed.diagnostics {
        check(found.span)?;
    }
    for stage in &parsed.dockerfile.stages {
        check(stage.from.span)?;
        check(stage.from.kind.image.span)?;
        for instruction in &stage.instructions {
            check(instruction.span)?;
            check(instruction.keyword_text.span)?;
            prop_assert!(instruction.line <= instruction.end_line);
            for heredoc in instruction.kind.heredocs() {
                check(heredoc.span)?;
                check(heredoc.body_span)?;
            }
            for word in words_of(&instruction.kind) {
                check(word.span)?;
            }
        }
    }
    stages::check(&parsed.dockerfile, |_| false);
    Ok(())
}

fn words_of(kind: &InstructionKind) -> Vec<&Word> {
    match kind {
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
            pairs.iter().flat_map(|pair| [&pair.key, &pair.value]).collect()
        }
        InstructionKind::Copy(copy) => copy.files.sources.iter().chain([&copy.files.dest]).collect(),
        InstructionKind::Expose(words) | InstructionKind::Volume(words) => words.iter().collect(),
        InstructionKind::Run(run) => {
            run.mounts.iter().flat_map(|mount| &mount.fields).filter_map(|field| field.value.as_ref()).collect()
        }
        _ => Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_spans(&bytes)?;
    }

    #[test]
    fn anything_like_a_dockerfile_is_read(text in dockerfile_like()) {
        check_spans(text.as_bytes())?;
        // The same behind a stage, where more can go wrong.
        check_spans(format!("FROM a\nRUN {text}").as_bytes())?;
        drop(parse_instruction(&text, '`'));
    }

    #[test]
    fn any_word_is_expanded_or_refused(word in r#"[a${}:\-+?#%/*'"\\ é<]{0,40}"#) {
        let env = |name: &str| (name == "a").then(|| "x a".to_owned());
        let one = expand::expand_word(&word, &env, '\\');
        let many = expand::expand_words(&word, &env, '\\');
        prop_assert_eq!(one.is_ok(), many.is_ok());
    }
}
