//! Dockerfiles that break rules, and what is said about them.

use super::*;
use crate::dockerignore::IgnoreFile;
use crate::{parse, parse_with_check};

/// One line per warning: rule, message, advice, underlined text and stage.
fn warnings(text: &str) -> Vec<String> {
    let parsed = parse(text.as_bytes());
    parsed
        .diagnostics
        .iter()
        .map(|found| {
            let help = found.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
            format!("{found}{help} @{}", &text[found.span.start..found.span.end])
        })
        .collect()
}

fn rules(text: &str) -> Vec<&'static str> {
    let parsed = parse(text.as_bytes());
    parsed.diagnostics.iter().filter_map(|found| found.rule()).map(Rule::name).collect()
}

#[test]
fn names_and_casing() {
    insta::assert_snapshot!(
        warnings("from busybox AS Builder\nRun true\nrun true\nFROM x AS scratch\nFROM y as builder").join("\n"),
        @r#"
        ConsistentInstructionCasing: Command 'from' should match the case of the command majority (uppercase) (line 1) @from
        FromAsCasing: 'AS' and 'from' keywords' casing do not match (line 1) @AS
        StageNameCasing: Stage name 'Builder' should be lowercase (line 1) @Builder
        ConsistentInstructionCasing: Command 'Run' should match the case of the command majority (uppercase) (line 2) @Run
        ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase) (line 3) @run
        ReservedStageName: Stage name should not use the same name as reserved stage "scratch" (line 4) @scratch
        FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 5) @as
        DuplicateStageName: Duplicate stage name "builder", stage names should be unique (line 5) @builder
        "#
    );
}

#[test]
fn old_forms_and_secrets() {
    insta::assert_snapshot!(
        warnings("FROM x\nMAINTAINER me\nENV OLD form\nLABEL a b\nCMD echo\nCMD echo x\nARG API_KEY PUBLIC_KEY keyboard\nENV x=1 Db_Password=2").join("\n"),
        @r#"
        MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2) (use LABEL org.opencontainers.image.authors="..") @MAINTAINER
        LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format (line 3) @ENV OLD form
        LegacyKeyValueFormat: "LABEL key=value" should be used instead of legacy "LABEL key value" format (line 4) @LABEL a b
        MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 5) @CMD echo
        SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG "API_KEY") (line 7) (use RUN --mount=type=secret, which leaves nothing in the image) @API_KEY
        SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV "Db_Password") (line 8) (use RUN --mount=type=secret, which leaves nothing in the image) @Db_Password
        "#
    );
}

#[test]
fn continuations() {
    insta::assert_snapshot!(
        warnings("FROM x AS a\nRUN a \\\n\n b").join("\n"),
        @"NoEmptyContinuation: Empty continuation line (line 3) @"
    );
}

#[test]
fn bases_and_platforms() {
    insta::assert_snapshot!(
        warnings("ARG TAG=1\nARG EMPTY\nARG ARCH\nFROM a:$TAGG\nFROM a:${EMPTY}\nFROM a:${NO:-1}\nFROM --platform=$TARGETPLATFORM a\nFROM --platform=linux/amd64 a\nFROM --platform=linux/arm64 a AS build-arm64\nFROM --platform=$BUILDPLATFORM a\nFROM --platform=linux/$ARCHH a\nFROM $TARGETARCH").join("\n"),
        @r#"
        InvalidDefaultArgInFrom: Default value for ARG a:$TAGG results in empty or invalid base image name (line 4) @a:$TAGG
        UndefinedArgInFrom: FROM argument 'TAGG' is not declared (line 4) (did you mean TAG?) @a:$TAGG
        InvalidDefaultArgInFrom: Default value for ARG a:${EMPTY} results in empty or invalid base image name (line 5) @a:${EMPTY}
        UndefinedArgInFrom: FROM argument 'NO' is not declared (line 6) @a:${NO:-1}
        RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior (line 7) @$TARGETPLATFORM
        FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value "linux/amd64" (line 8) @linux/amd64
        UndefinedArgInFrom: FROM argument 'ARCHH' is not declared (line 11) (did you mean ARCH?) @linux/$ARCHH
        "#
    );
}

#[test]
fn rules_can_be_switched_off() {
    assert_eq!(rules("# check=skip=LegacyKeyValueFormat\nFROM x AS Y\nENV a b"), ["StageNameCasing"]);
    assert_eq!(rules("# check=skip=all\nFROM x AS Y\nENV a b"), Vec::<&str>::new());
    assert_eq!(rules("FROM x\n# check=skip=LegacyKeyValueFormat\nENV a b\nLABEL a b"), ["LegacyKeyValueFormat"]);
    let parsed = parse_with_check(b"# check=skip=all\nFROM x AS Y", Some("error=true"));
    assert_eq!(parsed.diagnostics.len(), 1);
    assert!(parsed.dockerfile.check.error);
}

#[test]
fn experimental_rules_are_asked_for() {
    let text = "# check=experimental=all\n# nonsense\nFROM x AS y\n# V the version\nARG V\n# other\n\nARG W";
    assert_eq!(rules(text), ["InvalidDefinitionDescription"]);
    assert_eq!(rules("# a\n# nonsense\nFROM x AS y"), Vec::<&str>::new());
}

#[test]
fn malformed_configurations() {
    let message = |text| CheckConfig::parse(text).unwrap_err().to_string();
    assert_eq!(message("skip"), "invalid check option \"skip\"");
    assert_eq!(message("skipp=x"), "invalid check option \"skipp\"");
    assert!(message("error=maybe").starts_with("failed to parse check option"));
    assert!(parse(b"# check=what\nFROM x").has_errors(|_| false));
}

#[test]
fn every_rule_has_a_name_and_a_page() {
    assert_eq!(Rule::ALL.len(), 22);
    for rule in Rule::ALL {
        assert_eq!(Rule::parse(rule.name()), Some(*rule));
    }
    assert_eq!(Rule::UndefinedVar.url().unwrap(), "https://docs.docker.com/go/dockerfile/rule/undefined-var/");
}

#[test]
fn rules_with_facts_from_outside() {
    let text = "FROM x\nENV A=$NOPE\nCOPY a.txt b/ /\n";
    let file = parse(text.as_bytes()).dockerfile;
    let (env, copy) = (&file.stages[0].instructions[0], &file.stages[0].instructions[1]);
    let found = undefined_var(&file.check, env, env.span, "NOPE", ["NOPEE", "PATH"], |_| false).unwrap();
    assert_eq!(found.to_string(), "UndefinedVar: Usage of undefined variable '$NOPE' (line 2)");
    assert_eq!(found.help.as_deref(), Some("did you mean $NOPEE?"));
    assert_eq!(undefined_var(&file.check, env, env.span, "NOPE", [], |name| name == "NOPE"), None);

    let from = &file.stages[0].from;
    assert_eq!(invalid_base_image_platform(&file.check, from, "x", "linux/arm64", "linux/arm64/v8"), None);
    let found = invalid_base_image_platform(&file.check, from, "x", "linux/arm64", "linux/amd64").unwrap();
    assert_eq!(
        found.message,
        "Base image x was pulled with platform \"linux/amd64\", expected \"linux/arm64\" for current build"
    );

    let ignored = |source, ignore: &str| {
        let ignore = IgnoreFile::parse(ignore).unwrap();
        copy_ignored_file(&file.check, copy, copy.span, source, &ignore).map(|found| found.message)
    };
    let message = |path| Some(format!("Attempting to Copy file {path:?} that is excluded by .dockerignore"));
    assert_eq!(ignored("./a.txt", "*.txt"), message("a.txt"));
    assert_eq!(ignored("a.txt", "*.txt\n!b.txt"), None);
    assert_eq!(ignored(".", "*"), message("."));
    assert_eq!(ignored(".", "*.txt"), None);
    assert_eq!(ignored("b", "a"), None);
}
