//! `--pull=false`: docker's switches take a value behind `=`. What says no is left out, what says yes is the plain flag.

use std::ffi::OsString;

use clap::{ArgAction, Command};

/// Rewrites the switches of the command; what a container is to run stays as it is.
pub(super) fn plain(definition: &Command, arguments: Vec<OsString>) -> Vec<OsString> {
    let word = |argument: &OsString| argument.to_str().and_then(|name| definition.find_subcommand(name));
    let Some((position, command)) = arguments.iter().enumerate().skip(1).find_map(|(at, a)| Some((at, word(a)?)))
    else {
        return arguments;
    };
    let runs_a_program = command.get_positionals().any(clap::Arg::is_trailing_var_arg_set);
    let mut open = true;
    let mut out = Vec::with_capacity(arguments.len());
    for (at, argument) in arguments.into_iter().enumerate() {
        if at > position {
            open &= argument != "--" && (!runs_a_program || argument.as_encoded_bytes().starts_with(b"-"));
            if open && let Some((flag, is_on)) = argument.to_str().and_then(|text| switch(command, text)) {
                if is_on {
                    out.push(flag.into());
                }
                continue;
            }
        }
        out.push(argument);
    }
    out
}

/// The flag of `--FLAG=BOOL`, and whether it is on; none when the command has no such switch.
fn switch<'t>(command: &Command, text: &'t str) -> Option<(&'t str, bool)> {
    let (flag, value) = text.split_once('=')?;
    let name = flag.strip_prefix("--")?;
    // As Go reads them (strconv.ParseBool), which docker is written in.
    let is_on = match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        _ => return None,
    };
    let is_switch = |arg: &clap::Arg| arg.get_long() == Some(name) && matches!(arg.get_action(), ArgAction::SetTrue);
    command.get_arguments().any(is_switch).then_some((flag, is_on))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn rewritten(line: &str) -> String {
        let words = plain(&super::super::Cli::command(), line.split(' ').map(OsString::from).collect());
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn switches_take_a_value() {
        assert_eq!(
            rewritten("rbuild build --pull=false --no-cache=true --load=1 ."),
            "rbuild build --no-cache --load ."
        );
        assert_eq!(rewritten("rbuild --root=true build --tag=true ."), "rbuild --root=true build --tag=true .");
        assert_eq!(rewritten("rbuild build -- --pull=false"), "rbuild build -- --pull=false");
        assert_eq!(rewritten("rbuild run --rm=true image prog --rm=true"), "rbuild run --rm image prog --rm=true");
        assert_eq!(rewritten("rbuild build --pull=maybe ."), "rbuild build --pull=maybe .");
    }
}
