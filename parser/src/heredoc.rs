//! Heredocs: recognising `<<WORD` on an instruction's line. Knows nothing of what the bodies are for, nor where
//! they lie; `lines` reads them.

use crate::expand::{ExpandError, Lexer, Options, Quotes};
use crate::span::Span;

/// A `<<WORD` of `RUN`, `COPY` or `ADD` and the lines that belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes; also the file name for `COPY` and `ADD`.
    pub name: String,
    /// Whether variables in the body are expanded: no part of the delimiter was quoted.
    pub expand: bool,
    /// Whether leading tabs go (`<<-`).
    pub strip_tabs: bool,
    /// The body as it stands in the file, line ends included, the terminator not.
    pub body: String,
    /// Where the `<<WORD` stands.
    pub span: Span,
    /// Where the body stands.
    pub body_span: Span,
}

impl Heredoc {
    /// The body as it is meant: without leading tabs where `<<-` asks for it.
    pub fn content(&self) -> String {
        if !self.strip_tabs {
            return self.body.clone();
        }
        self.body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }

    /// The body's first line, for a step's name; `...` stands for the others.
    pub fn summary(&self) -> String {
        let body = self.body.trim();
        match body.split_once('\n') {
            Some((first, _)) => format!("{}...", first.trim_end_matches('\r')),
            None => body.to_owned(),
        }
    }
}

/// A heredoc word without a body yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeredocWord {
    pub(crate) name: String,
    pub(crate) expand: bool,
    pub(crate) strip_tabs: bool,
}

/// The heredoc words of an instruction's line, with their offsets in it.
///
/// A line that cannot be split into words (an unclosed quote, say) has none: the shell will have to cope.
///
/// # Errors
///
/// A word that looks like a heredoc but whose delimiter is malformed.
pub(crate) fn heredocs_of_line(line: &str) -> Result<Vec<(HeredocWord, usize, usize)>, ExpandError> {
    let mut lexer = Lexer::new(line, Options::verbatim('\\'), &|_| None);
    let Ok(words) = lexer.run_words() else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for word in words {
        if let Some(heredoc) = heredoc_word(&word.text)? {
            found.push((heredoc, word.start, word.end));
        }
    }
    Ok(found)
}

/// Reads a word as `[n]<<[-]DELIMITER`, or finds that it is none.
///
/// # Errors
///
/// A delimiter with an unclosed quote or a malformed `$`.
pub(crate) fn heredoc_word(word: &str) -> Result<Option<HeredocWord>, ExpandError> {
    let rest = word.trim_start_matches(|ch: char| ch.is_ascii_digit());
    let Some(rest) = rest.strip_prefix("<<") else {
        return Ok(None);
    };
    let (strip_tabs, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start_matches(|ch: char| ch.is_ascii_whitespace());
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let Some((name, quoted)) = delimiter(rest)? else {
        return Ok(None);
    };
    Ok(Some(HeredocWord { name, expand: !quoted, strip_tabs }))
}

/// The delimiter without its quotes, and whether it had any; `None` if it is not a single word.
fn delimiter(text: &str) -> Result<Option<(String, bool)>, ExpandError> {
    let options = Options { keep_unset: true, ..Options::expansion('\\') };
    let words = Lexer::new(text, options, &|_| None).run_words()?;
    let [word] = words.as_slice() else {
        return Ok(None);
    };
    let options = Options { quotes: Quotes::Keep, ..options };
    let raw = Lexer::new(text, options, &|_| None).run_words()?;
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let quoted = raw.first().is_some_and(|raw| quotes(&raw.text) != quotes(&word.text));
    Ok(Some((word.text.clone(), quoted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(line: &str) -> Vec<String> {
        heredocs_of_line(line)
            .unwrap()
            .into_iter()
            .map(|(word, start, end)| {
                let quoted = if word.expand { "" } else { " quoted" };
                let tabs = if word.strip_tabs { " tabs" } else { "" };
                format!("{}{quoted}{tabs} {:?}", word.name, &line[start..end])
            })
            .collect()
    }

    #[test]
    fn words_that_open_a_heredoc() {
        assert_eq!(names("RUN <<EOF"), [r#"EOF "<<EOF""#]);
        assert_eq!(names("RUN cat <<A >a && cat 3<<-'B' >b"), [r#"A "<<A""#, r#"B quoted tabs "3<<-'B'""#]);
        assert_eq!(names(r#"COPY <<E"OF" /x"#), [r#"EOF quoted "<<E\"OF\"""#]);
        assert_eq!(names("RUN << EOF"), [r#"EOF "<< EOF""#]);
        assert_eq!(names("RUN cat <<$X"), [r#"$X "<<$X""#]);
    }

    #[test]
    fn words_that_do_not() {
        for line in ["RUN a <<<b", "RUN echo '<<EOF'", "RUN a<<EOF", "RUN echo \"<<EOF", "RUN 1 << 2<", "RUN <<"] {
            assert_eq!(names(line), Vec::<String>::new(), "{line}");
        }
    }

    #[test]
    fn content_and_summary() {
        let heredoc = Heredoc {
            name: "EOF".to_owned(),
            expand: true,
            strip_tabs: true,
            body: "\t\ta\n \tb\r\n".to_owned(),
            span: Span::default(),
            body_span: Span::default(),
        };
        assert_eq!(heredoc.content(), "a\n \tb\r\n");
        assert_eq!(heredoc.summary(), "a...");
    }
}
