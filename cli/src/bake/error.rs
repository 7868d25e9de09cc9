//! What is wrong with a bake file, and where. How it is printed is the command's business.

use std::ops::Range;

/// A place in one of the files: which, by its position among them, and the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Position of the file.
    pub(crate) file: usize,
    /// Bytes of it.
    pub(crate) span: Range<usize>,
}

/// Something wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct BakeError {
    /// One line.
    pub(crate) message: String,
    /// Where; none for what stands in no file.
    pub(crate) place: Option<Place>,
    /// Advice.
    pub(crate) hint: Option<String>,
}

impl BakeError {
    /// An error that stands nowhere yet.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None, hint: None }
    }

    /// The same with advice.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with a guess at what was meant, if there is one.
    pub(crate) fn meant<'a>(mut self, word: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        self.hint = self.hint.or_else(|| parser::suggest(word, known).map(|near| format!("did you mean {near}?")));
        self
    }

    /// The same in another file.
    pub(crate) fn in_file(mut self, file: usize) -> Self {
        self.place.iter_mut().for_each(|place| place.file = file);
        self
    }

    /// The same at a place, unless a closer one is known.
    pub(crate) fn at(mut self, file: usize, span: Option<Range<usize>>) -> Self {
        self.place = self.place.or_else(|| span.map(|span| Place { file, span }));
        self
    }
}
