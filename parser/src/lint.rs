//! Lint rules: their names and texts, and the configuration that switches them. Knows which rules exist; the
//! submodules know when they are broken.
//!
//! [`crate::parse`] finds what the file alone shows. Rules that need facts from outside (values of variables, the base
//! image, the ignore file) are functions here, for the code that has the facts.

mod external;
mod file;
mod stage;

pub use external::{
    copy_ignored_file, expose, invalid_base_image_platform, json_recommended, relative_workdir, undefined_var,
};
pub(crate) use file::check_file;
pub(crate) use stage::check_stages;

use crate::directive::check_comment;

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident, $slug:literal, $description:literal;)*) => {
        /// The rules of `docker build --check`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Rule {
            $($(#[$doc])* $name),*
        }

        impl Rule {
            /// All rules.
            pub const ALL: &'static [Rule] = &[$(Rule::$name),*];

            /// The name, as in `check=skip=NAME`.
            pub fn name(self) -> &'static str {
                match self { $(Rule::$name => stringify!($name)),* }
            }

            /// What the rule wants, in a sentence.
            pub fn description(self) -> &'static str {
                match self { $(Rule::$name => $description),* }
            }

            fn slug(self) -> &'static str {
                match self { $(Rule::$name => $slug),* }
            }
        }
    };
}

rules! {
    /// `FROM x AS Name`
    StageNameCasing, "stage-name-casing", "Stage names should be lowercase";
    /// `FROM x as name`
    FromAsCasing, "from-as-casing", "The 'as' keyword should match the case of the 'from' keyword";
    /// A blank line after a continued one.
    NoEmptyContinuation, "no-empty-continuation", "Empty continuation lines will become errors in a future release";
    /// `RUN` and `copy` in one file.
    ConsistentInstructionCasing, "consistent-instruction-casing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)";
    /// Two stages with one name.
    DuplicateStageName, "duplicate-stage-name", "Stage names should be unique";
    /// A stage called `scratch` or `context`.
    ReservedStageName, "reserved-stage-name", "Reserved words should not be used as stage names";
    /// `CMD` or `ENTRYPOINT` in the shell form.
    JSONArgsRecommended, "json-args-recommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals";
    /// `MAINTAINER`
    MaintainerDeprecated, "maintainer-deprecated",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author";
    /// `FROM $X` without `ARG X` above.
    UndefinedArgInFrom, "undefined-arg-in-from", "FROM command must use declared ARGs";
    /// `WORKDIR x` before any absolute one.
    WorkdirRelativePath, "workdir-relative-path",
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes";
    /// `$X` where nothing sets it.
    UndefinedVar, "undefined-var", "Variables should be defined before their use";
    /// Two `CMD`, `ENTRYPOINT` or `HEALTHCHECK` in one stage.
    MultipleInstructionsDisallowed, "multiple-instructions-disallowed",
        "Multiple instructions of the same type should not be used in the same stage";
    /// `ENV key value`
    LegacyKeyValueFormat, "legacy-key-value-format",
        "Legacy key/value format with whitespace separator should not be used";
    /// A base image for another platform.
    InvalidBaseImagePlatform, "invalid-base-image-platform",
        "Base image platform does not match expected target platform";
    /// `FROM --platform=$TARGETPLATFORM`
    RedundantTargetPlatform, "redundant-target-platform",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior";
    /// `ARG PASSWORD`
    SecretsUsedInArgOrEnv, "secrets-used-in-arg-or-env",
        "Sensitive data should not be used in the ARG or ENV commands";
    /// A `FROM` that only works with a build argument.
    InvalidDefaultArgInFrom, "invalid-default-arg-in-from",
        "Default value for global ARG results in an empty or invalid base image name";
    /// `FROM --platform=linux/amd64`
    FromPlatformFlagConstDisallowed, "from-platform-flag-const-disallowed",
        "FROM --platform flag should not use a constant value";
    /// `COPY` of a path that the ignore file excludes.
    CopyIgnoredFile, "copy-ignored-file", "Attempting to Copy file that is excluded by .dockerignore";
    /// A comment above `ARG` or `FROM` that is not about it. Experimental.
    InvalidDefinitionDescription, "invalid-definition-description",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.";
    /// `EXPOSE 80/TCP`
    ExposeProtoCasing, "expose-proto-casing", "Protocol in EXPOSE instruction should be lowercase";
    /// `EXPOSE 127.0.0.1:80:80`
    ExposeInvalidFormat, "expose-invalid-format",
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release";
}

impl Rule {
    /// The rule of a name.
    pub fn parse(name: &str) -> Option<Rule> {
        Rule::ALL.iter().copied().find(|rule| rule.name() == name)
    }

    /// Only checked when asked for.
    pub fn is_experimental(self) -> bool {
        self == Rule::InvalidDefinitionDescription
    }

    /// Where the rule is explained; one rule has no page.
    pub fn url(self) -> Option<String> {
        let documented = self != Rule::InvalidBaseImagePlatform;
        documented.then(|| format!("https://docs.docker.com/go/dockerfile/rule/{}/", self.slug()))
    }
}

/// A set of rules by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum RuleSet {
    #[default]
    None,
    All,
    Some(Vec<String>),
}

impl RuleSet {
    fn parse(text: &str) -> RuleSet {
        match text.trim() {
            "all" => RuleSet::All,
            names => RuleSet::Some(names.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }

    fn contains(&self, rule: Rule) -> bool {
        match self {
            RuleSet::None => false,
            RuleSet::All => true,
            RuleSet::Some(names) => names.iter().any(|name| name == rule.name()),
        }
    }

    fn merge(&mut self, other: RuleSet) {
        match (&mut *self, other) {
            (RuleSet::All, _) | (_, RuleSet::None) => {}
            (RuleSet::Some(names), RuleSet::Some(more)) => names.extend(more),
            (_, other) => *self = other,
        }
    }
}

/// What the linter is to do: `skip=..;error=..;experimental=..`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckConfig {
    skip: RuleSet,
    experimental: RuleSet,
    /// Broken rules fail the build before any step runs.
    pub error: bool,
}

/// A `check` directive that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// An option other than the three, or without `=`.
    #[error("invalid check option {option:?}")]
    Option {
        /// The option as written.
        option: String,
    },
    /// `error=` with something that is no truth value.
    #[error("failed to parse check option {option:?}: not a boolean")]
    Bool {
        /// The option as written.
        option: String,
    },
}

impl CheckConfig {
    /// Reads `skip=A,B;error=true;experimental=all`.
    ///
    /// # Errors
    ///
    /// [`CheckError`].
    pub fn parse(text: &str) -> Result<CheckConfig, CheckError> {
        let mut config = CheckConfig::default();
        if text.trim().is_empty() {
            return Ok(config);
        }
        for part in text.trim().splitn(3, ';') {
            let unknown = |option: &str| CheckError::Option { option: option.to_owned() };
            let (key, value) = part.split_once('=').ok_or_else(|| unknown(part))?;
            match key.trim() {
                "skip" => config.skip = RuleSet::parse(value),
                "experimental" => config.experimental = RuleSet::parse(value),
                "error" => {
                    config.error = match value.trim() {
                        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                        _ => return Err(CheckError::Bool { option: part.to_owned() }),
                    }
                }
                other => return Err(unknown(other)),
            }
        }
        Ok(config)
    }

    /// Whether breaking a rule is worth a warning.
    pub fn wants(&self, rule: Rule) -> bool {
        if rule.is_experimental() { self.experimental.contains(rule) } else { !self.skip.contains(rule) }
    }

    /// The configuration for one instruction, which a `# check=..` comment right above it may widen.
    #[must_use]
    pub fn with_comments(&self, comments: &[String]) -> CheckConfig {
        let mut merged = self.clone();
        let own = comments.iter().find_map(|comment| check_comment(comment));
        let own = own.and_then(|text| CheckConfig::parse(text.split(' ').next()?).ok());
        if let Some(own) = own {
            merged.skip.merge(own.skip);
            merged.experimental.merge(own.experimental);
        }
        merged
    }
}

#[cfg(test)]
mod tests;
