//! What the first word of a command line means when it is no command: docker's other word for one, a build context, or nothing,
//! with what to say then.

use std::path::Path;

use crate::report::CommandError;

/// Docker's words for commands in groups; a group and one of its words make one command.
const GROUPS: [(&str, &[(&str, &str)]); 5] = [
    (
        "image",
        &[
            ("ls", "images"),
            ("list", "images"),
            ("rm", "rmi"),
            ("remove", "rmi"),
            ("build", "build"),
            ("history", "history"),
            ("inspect", "inspect"),
            ("load", "load"),
            ("prune", "prune"),
            ("pull", "pull"),
            ("push", "push"),
            ("save", "save"),
            ("tag", "tag"),
        ],
    ),
    (
        "container",
        &[
            ("ls", "ps"),
            ("list", "ps"),
            ("ps", "ps"),
            ("rm", "rm"),
            ("remove", "rm"),
            ("create", "create"),
            ("exec", "exec"),
            ("inspect", "inspect"),
            ("kill", "kill"),
            ("logs", "logs"),
            ("pause", "pause"),
            ("port", "port"),
            ("rename", "rename"),
            ("restart", "restart"),
            ("run", "run"),
            ("start", "start"),
            ("stats", "stats"),
            ("stop", "stop"),
            ("top", "top"),
            ("unpause", "unpause"),
            ("wait", "wait"),
        ],
    ),
    ("system", &[("df", "df"), ("prune", "prune")]),
    ("builder", &[("build", "build"), ("prune", "prune")]),
    ("buildx", &[("build", "build"), ("bake", "bake"), ("du", "df"), ("history", "history"), ("prune", "prune")]),
];

/// Docker's commands that rbuild has not, and what comes nearest.
const ABSENT: [(&str, &str); 21] = [
    ("attach", "`rbuild logs -f CONTAINER` follows its output, `rbuild exec -it CONTAINER sh` enters it"),
    ("checkpoint", ""),
    (
        "commit",
        "write what you changed into a Dockerfile: what it has in common with earlier builds comes from the cache",
    ),
    ("compose", "`rbuild bake` builds the services of a compose file; it runs none"),
    ("config", ""),
    (
        "cp",
        "`rbuild exec CONTAINER tar -c PATH` prints files of a running container; `rbuild run -v` shares a directory",
    ),
    ("diff", ""),
    ("events", ""),
    ("export", "`rbuild build --output type=tar,dest=FILE` writes the files of an image"),
    ("import", "`FROM scratch` and `ADD FILE.tar /` in a Dockerfile make an image of it"),
    ("info", "`rbuild doctor` prints what this machine can do, `rbuild df` what the store holds"),
    ("manifest", "`rbuild build --platform a,b --push` makes an image of several platforms"),
    ("node", ""),
    ("plugin", ""),
    ("search", ""),
    ("secret", "`rbuild build --secret` gives a secret to a step"),
    ("service", ""),
    ("stack", ""),
    ("swarm", ""),
    ("trust", ""),
    ("update", "make the container again with other limits"),
];

/// What a word means.
#[derive(Debug)]
pub(super) enum Meaning {
    /// The context of a build, or a flag of one.
    Build,
    /// A command, instead of so many words.
    Command(&'static str, usize),
    /// Nothing.
    Nothing(CommandError),
}

/// What `word` means, which is no command; `next` stands behind it.
pub(super) fn meaning(word: &str, next: Option<&str>, known: &[&str]) -> Meaning {
    let group = GROUPS.iter().find(|(group, _)| *group == word).map(|(_, words)| *words);
    if let Some((_, command)) = group.into_iter().flatten().find(|(known, _)| Some(*known) == next) {
        return Meaning::Command(command, 2);
    }
    if word == "help" {
        return Meaning::Command("--help", 1);
    }
    if !could_be_command(word) || Path::new(word).exists() {
        return Meaning::Build;
    }
    Meaning::Nothing(match group {
        Some(words) => not_in_group(word, next, words),
        None => no_command(word, known),
    })
}

/// Paths with a slash, URLs and flags can't; `-` is standard input.
fn could_be_command(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic()) && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn not_in_group(group: &str, next: Option<&str>, words: &[(&'static str, &str)]) -> CommandError {
    let next = next.filter(|next| could_be_command(next)).map_or(String::new(), |next| format!(" {next}"));
    let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    CommandError::input(format!("there is no command `{group}{next}`"))
        .hint(format!("`rbuild {group}` is followed by {}", words.join(", ")))
}

fn no_command(word: &str, known: &[&str]) -> CommandError {
    if let Some((_, advice)) = ABSENT.iter().find(|(absent, _)| *absent == word) {
        let error = CommandError::input(format!("rbuild has no command `{word}`"));
        return if advice.is_empty() { error } else { error.hint(*advice) };
    }
    let groups = GROUPS.iter().map(|(group, _)| *group);
    let error = CommandError::input(format!("there is no command `{word}`, and no directory `{word}` to build"));
    match parser::suggest(word, known.iter().copied().chain(groups)) {
        Some(meant) => error.hint(format!("did you mean `rbuild {meant}`?")),
        None => error.hint("`rbuild --help` lists the commands"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> String {
        let mut words = line.split(' ');
        match meaning(words.next().unwrap(), words.next(), &["images", "build", "login", "ps"]) {
            Meaning::Build => "build".to_owned(),
            Meaning::Command(command, words) => format!("{command} for {words}"),
            Meaning::Nothing(error) => format!("{} ({})", error.message, error.hints.join("; ")),
        }
    }

    #[test]
    fn first_words() {
        let lines = [
            "image ls",
            "container rm",
            "system df",
            "buildx du",
            "help",
            "image",
            "image paint",
            "system -f",
            "imgaes",
            "pss",
            "zzz",
            "cp a",
            "diff a",
            "src",
            "./nothing",
            "https://host/x.git",
            "git@host:x.git",
            "-",
            "-t",
            "a.b",
        ];
        let table: String = lines.iter().map(|line| format!("{line} => {}\n", said(line))).collect();
        insta::assert_snapshot!(table, @r#"
        image ls => images for 2
        container rm => rm for 2
        system df => df for 2
        buildx du => df for 2
        help => --help for 1
        image => there is no command `image` (`rbuild image` is followed by ls, list, rm, remove, build, history, inspect, load, prune, pull, push, save, tag)
        image paint => there is no command `image paint` (`rbuild image` is followed by ls, list, rm, remove, build, history, inspect, load, prune, pull, push, save, tag)
        system -f => there is no command `system` (`rbuild system` is followed by df, prune)
        imgaes => there is no command `imgaes`, and no directory `imgaes` to build (did you mean `rbuild images`?)
        pss => there is no command `pss`, and no directory `pss` to build (did you mean `rbuild ps`?)
        zzz => there is no command `zzz`, and no directory `zzz` to build (`rbuild --help` lists the commands)
        cp a => rbuild has no command `cp` (`rbuild exec CONTAINER tar -c PATH` prints files of a running container; `rbuild run -v` shares a directory)
        diff a => rbuild has no command `diff` ()
        src => build
        ./nothing => build
        https://host/x.git => build
        git@host:x.git => build
        - => build
        -t => build
        a.b => build
        "#);
    }

    #[test]
    fn what_groups_name_is_there() {
        use clap::CommandFactory;
        let definition = crate::args::Cli::command();
        let known: Vec<&str> = definition.get_subcommands().map(clap::Command::get_name).collect();
        for (_, command) in GROUPS.iter().flat_map(|(_, words)| *words) {
            assert!(known.contains(command), "{command}");
        }
        assert!(ABSENT.iter().all(|(absent, _)| !known.contains(absent)));
    }
}
