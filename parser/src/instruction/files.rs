//! `COPY` and `ADD`: their flags, sources, heredocs and destination. Knows nothing of what the paths lead to.

use super::{Outcome, Request};
use crate::ast::{AddInstr, CopyFiles, CopyInstr, Word};
use crate::expand::expand_word;
use crate::flags::{Flags, Known, Takes};
use crate::heredoc::{Heredoc, heredoc_word};
use crate::span::Spanned;

const COPY_FLAGS: &[Known] = &[
    ("from", Takes::Value),
    ("chown", Takes::Value),
    ("chmod", Takes::Value),
    ("link", Takes::Bool),
    ("parents", Takes::Bool),
    ("exclude", Takes::Values),
];

const ADD_FLAGS: &[Known] = &[
    ("chown", Takes::Value),
    ("chmod", Takes::Value),
    ("link", Takes::Bool),
    ("checksum", Takes::Value),
    ("keep-git-dir", Takes::Bool),
    ("unpack", Takes::Bool),
    ("exclude", Takes::Values),
];

pub(super) fn copy(request: Request<'_>) -> Outcome<CopyInstr> {
    let words = sources_and_dest(&request)?;
    let flags = request.flags.check(COPY_FLAGS, request.line_number())?;
    let from = flags.literal("from");
    check_from(&request, from.as_ref())?;
    Ok(CopyInstr { parents: flags.switch("parents") == Some(true), files: copy_files(request, words, &flags)?, from })
}

pub(super) fn add(request: Request<'_>) -> Outcome<AddInstr> {
    let words = sources_and_dest(&request)?;
    let flags = request.flags.check(ADD_FLAGS, request.line_number()).map_err(|error| {
        if error.message.ends_with(" --from") {
            return Box::new(
                error.with_help("use COPY --from; ADD takes files from the build context and from addresses"),
            );
        }
        error
    })?;
    Ok(AddInstr {
        checksum: flags.value("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
        files: copy_files(request, words, &flags)?,
    })
}

fn sources_and_dest(request: &Request<'_>) -> Outcome<(Vec<Word>, Word)> {
    let mut words = request.json_or_words()?;
    match words.pop() {
        Some(dest) if !words.is_empty() => Ok((words, dest)),
        _ => {
            let keyword = request.keyword.as_str();
            let message = format!(
                "{keyword} requires at least two arguments, but only one was provided. \
                 Destination could not be determined"
            );
            Err(request.error(message))
        }
    }
}

/// `--from` is a fixed word: where expansion would change it, the author expected more.
fn check_from(request: &Request<'_>, from: Option<&Spanned<String>>) -> Outcome<()> {
    let Some(from) = from else { return Ok(()) };
    match expand_word(&from.value, &|_| None, request.escape) {
        Ok(expanded) if expanded.text == from.value => Ok(()),
        _ => {
            let message = "variable expansion is not supported for --from, define a new stage with FROM using ARG \
                           from global scope as a workaround";
            Err(request.error_at(message, from.span))
        }
    }
}

fn copy_files(request: Request<'_>, (words, dest): (Vec<Word>, Word), flags: &Flags) -> Outcome<CopyFiles> {
    let keyword = request.keyword.as_str();
    if matches!(heredoc_word(&dest.text), Ok(Some(_))) {
        let message = format!("{keyword} cannot accept a heredoc as a destination");
        return Err(request.error_at(message, dest.span));
    }
    let (heredocs, sources) = split_heredocs(words, request.heredocs);
    Ok(CopyFiles {
        sources,
        heredocs,
        dest,
        chown: flags.value("chown"),
        chmod: flags.value("chmod"),
        link: flags.switch("link") == Some(true),
        excludes: flags.values("exclude").map(|word| Spanned::new(word.text.clone(), word.span)).collect(),
    })
}

/// Tells heredoc words from paths and gives each word its body: of equal names the last one counts.
fn split_heredocs(words: Vec<Word>, bodies: Vec<Heredoc>) -> (Vec<Heredoc>, Vec<Word>) {
    let mut heredocs = Vec::new();
    let mut sources = Vec::new();
    for word in words {
        let Ok(Some(heredoc)) = heredoc_word(&word.text) else {
            sources.push(word);
            continue;
        };
        heredocs.push(match bodies.iter().rev().find(|body| body.name == heredoc.name) {
            Some(body) => Heredoc { span: word.span, ..body.clone() },
            // In a JSON array there are no bodies, and the file is empty.
            None => Heredoc {
                name: heredoc.name,
                expand: heredoc.expand,
                strip_tabs: heredoc.strip_tabs,
                body: String::new(),
                span: word.span,
                body_span: word.span,
            },
        });
    }
    (heredocs, sources)
}
