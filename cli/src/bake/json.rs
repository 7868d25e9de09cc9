//! Bake files in JSON. JSON is almost an expression of HCL, whose strings are templates, as HCL wants it of its JSON form. So a file
//! is checked to be JSON, what HCL writes otherwise is rewritten, and HCL's parser reads it: errors then have their places.

use std::str::Chars;

use hcl_edit::Span as _;
use hcl_edit::expr::{Expression, Object, ObjectKey};

use super::document::{Document, Item, Word, syntax};
use super::error::BakeError;

/// A file as HCL's parser takes it; places of errors refer to this text.
///
/// # Errors
/// Where it is no JSON, as if it were the first file.
pub(super) fn rewritten(text: &str) -> Result<String, BakeError> {
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        return Err(json_syntax(&error, text));
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(c);
        if c == '"' {
            let mut string = Rewriter { out: &mut out, inside: Vec::new(), before: None };
            while let Some(unit) = unit(&mut chars) {
                string.push(unit);
            }
            out.push('"');
        }
    }
    Ok(out)
}

/// The next character that a string of JSON means; none at its end.
fn unit(chars: &mut Chars<'_>) -> Option<char> {
    match chars.next()? {
        '"' => None,
        '\\' => Some(match chars.next()? {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'u' => code(chars),
            other => other,
        }),
        c => Some(c),
    }
}

/// What `\uXXXX` means; a character beyond 16 bits is two of them.
fn code(chars: &mut Chars<'_>) -> char {
    let number = |chars: &mut Chars<'_>| {
        let digits: String = chars.by_ref().take(4).collect();
        u32::from_str_radix(&digits, 16).unwrap_or_default()
    };
    let first = number(chars);
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER);
    }
    let mut ahead = chars.clone();
    if (ahead.next(), ahead.next()) == (Some('\\'), Some('u')) {
        let second = number(&mut ahead);
        if (0xdc00..0xe000).contains(&second) {
            *chars = ahead;
            return char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).unwrap_or_default();
        }
    }
    char::REPLACEMENT_CHARACTER
}

/// What a place inside of a template is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// An expression, with this many braces open.
    Expression(usize),
    /// A quoted string of an expression; true behind a backslash.
    Quotes(bool),
}

/// Writes what a string of JSON means as a string of HCL. What stands in `${…}` is HCL already.
struct Rewriter<'o> {
    out: &'o mut String,
    inside: Vec<Inside>,
    before: Option<char>,
}

impl Rewriter<'_> {
    fn push(&mut self, c: char) {
        let opens = c == '{' && matches!(self.before, Some('$' | '%'));
        // `$${` opens nothing.
        let doubled = self.before == Some(c) && matches!(c, '$' | '%');
        self.before = (!doubled).then_some(c);
        match self.inside.last_mut() {
            None => {
                self.literal(c);
                self.inside.extend(opens.then_some(Inside::Expression(1)));
            }
            Some(place) => {
                let next = place.next(c, opens);
                match next {
                    Next::Stay => {}
                    Next::Leave => drop(self.inside.pop()),
                    Next::Enter(inner) => self.inside.push(inner),
                }
                self.out.push(c);
            }
        }
    }

    /// A character of the text itself.
    fn literal(&mut self, c: char) {
        match c {
            '"' => self.out.push_str("\\\""),
            '\\' => self.out.push_str("\\\\"),
            '\n' => self.out.push_str("\\n"),
            '\r' => self.out.push_str("\\r"),
            '\t' => self.out.push_str("\\t"),
            c => self.out.push(c),
        }
    }
}

/// What a character does to where one is.
enum Next {
    Stay,
    Leave,
    Enter(Inside),
}

impl Inside {
    fn next(&mut self, c: char, opens: bool) -> Next {
        match (self, c) {
            (Self::Quotes(escaped), _) if *escaped => *escaped = false,
            (Self::Quotes(escaped), '\\') => *escaped = true,
            (Self::Quotes(_), '"') => return Next::Leave,
            (Self::Quotes(_), _) if opens => return Next::Enter(Self::Expression(1)),
            (Self::Quotes(_), _) => {}
            (Self::Expression(open), '{') => *open += 1,
            (Self::Expression(1), '}') => return Next::Leave,
            (Self::Expression(open), '}') => *open -= 1,
            (Self::Expression(_), '"') => return Next::Enter(Self::Quotes(false)),
            (Self::Expression(_), _) => {}
        }
        Next::Stay
    }
}

impl Document {
    /// Adds a file in JSON, [`rewritten`].
    ///
    /// # Errors
    /// What is wrong with its form.
    pub(super) fn add_json(&mut self, file: usize, text: &str) -> Result<(), BakeError> {
        // Line feeds end the items of an object in HCL. JSON has none inside of strings, so none is needed.
        let line = text.replace(['\n', '\r', '\t'], " ");
        let expression = hcl_edit::parser::parse_expr(line.trim_end()).map_err(|error| syntax(&error, file, &line))?;
        let Expression::Object(root) = &expression else {
            return Err(BakeError::new("a bake file in JSON is an object").at(file, expression.span()));
        };
        let mut items = Vec::new();
        for (key, value) in root.iter() {
            let name = word(file, key)?;
            match name.text.as_str() {
                "target" | "group" | "variable" | "function" => blocks(file, &name, value.expr(), &mut items)?,
                _ => items.push(Item::Attribute(name, value.expr().clone())),
            }
        }
        self.add(file, items)
    }
}

fn json_syntax(error: &serde_json::Error, text: &str) -> BakeError {
    let before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let start = (before + error.column().saturating_sub(1)).min(text.len());
    let start = (0..=start).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let end = text[start..].chars().next().map_or(start, |c| start + c.len_utf8());
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default().to_owned();
    BakeError::new(message).at(0, Some(start..end))
}

/// `"target": {"NAME": {…}}`; also a list of such objects.
fn blocks(file: usize, kind: &Word, value: &Expression, items: &mut Vec<Item>) -> Result<(), BakeError> {
    for object in objects(file, value)? {
        for (key, inner) in object.iter() {
            let label = word(file, key)?;
            for inner in objects(file, inner.expr())? {
                let inner = block_items(file, &kind.text, inner)?;
                items.push(Item::Block { kind: kind.clone(), labels: vec![label.clone()], items: inner });
            }
        }
    }
    Ok(())
}

fn block_items(file: usize, kind: &str, object: &Object) -> Result<Vec<Item>, BakeError> {
    let mut items = Vec::new();
    for (key, value) in object.iter() {
        let name = word(file, key)?;
        if kind == "variable" && name.text == "validation" {
            for validation in objects(file, value.expr())? {
                let inner = block_items(file, "validation", validation)?;
                items.push(Item::Block { kind: name.clone(), labels: Vec::new(), items: inner });
            }
        } else if kind == "variable" && name.text == "type" {
            items.push(Item::Attribute(name, unquoted(value.expr())));
        } else {
            items.push(Item::Attribute(name, value.expr().clone()));
        }
    }
    Ok(items)
}

/// A type is an expression in quotes; what is none stays as it is.
fn unquoted(value: &Expression) -> Expression {
    match value {
        Expression::String(text) => hcl_edit::parser::parse_expr(text.value()).unwrap_or_else(|_| value.clone()),
        other => other.clone(),
    }
}

/// An object, or those of a list.
fn objects(file: usize, value: &Expression) -> Result<Vec<&Object>, BakeError> {
    match value {
        Expression::Object(object) => Ok(vec![object]),
        Expression::Array(list) => {
            let inner = list.iter().map(|item| objects(file, item)).collect::<Result<Vec<_>, _>>()?;
            Ok(inner.into_iter().flatten().collect())
        }
        other => Err(BakeError::new("an object is needed here").at(file, other.span())),
    }
}

fn word(file: usize, key: &ObjectKey) -> Result<Word, BakeError> {
    match key {
        ObjectKey::Ident(name) => Ok(Word { text: name.as_str().to_owned(), span: name.span() }),
        ObjectKey::Expression(Expression::String(name)) => Ok(Word { text: name.value().clone(), span: name.span() }),
        ObjectKey::Expression(other) => Err(BakeError::new("a name can't be a template").at(file, other.span())),
    }
}
