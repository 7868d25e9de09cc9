//! From the text of a template to its nodes.

use serde_json::Value;

use super::{Expr, Node, TemplateError};

/// Functions that there are, with those that `super::call` treats in a way of their own.
const FUNCTIONS: [&str; 14] =
    ["and", "eq", "index", "join", "json", "len", "lower", "ne", "not", "or", "print", "println", "split", "upper"];

/// Text, or what stands between `{{` and `}}`.
#[derive(Debug, Clone, Copy)]
enum Piece<'t> {
    Text(&'t str),
    Action(&'t str),
}

/// A word of an action.
#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// `.A`, or `.` with an empty name; whether it stands right behind what is before it.
    Dot(String, bool),
    /// `$name`.
    Variable(String),
    Word(String),
    Literal(Value),
    /// `(`, `)`, `|`, `,`
    Mark(char),
    /// `:=`
    Assign,
}

/// Where a list of nodes ends.
#[derive(Debug, Clone, PartialEq)]
enum Stop {
    Text,
    End,
    /// What follows `else`.
    Else(String),
}

pub(super) fn template(text: &str) -> Result<Vec<Node>, TemplateError> {
    let mut pieces = pieces(text)?.into_iter();
    match nodes(&mut pieces)? {
        (nodes, Stop::Text) => Ok(nodes),
        (_, Stop::End) => Err(wrong("end", "there is nothing to end")),
        (_, Stop::Else(_)) => Err(wrong("else", "there is no `if` before it")),
    }
}

fn wrong(at: &str, what: impl Into<String>) -> TemplateError {
    TemplateError::Syntax { at: at.to_owned(), what: what.into() }
}

/// `{{-` and `-}}` take the blanks before and behind away.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, TemplateError> {
    let (mut pieces, mut rest, mut trim) = (Vec::new(), text, false);
    loop {
        let (before, action) = rest.split_once("{{").map_or((rest, None), |(before, action)| (before, Some(action)));
        let mut plain = if trim { before.trim_start() } else { before };
        let Some(action) = action else {
            pieces.push(Piece::Text(plain));
            return Ok(pieces);
        };
        let (mut inner, after) = action.split_once("}}").ok_or_else(|| wrong(action, "`}}` is missing"))?;
        if let Some(trimmed) = inner.strip_prefix("- ") {
            (inner, plain) = (trimmed, plain.trim_end());
        }
        trim = inner.ends_with(" -");
        inner = inner.strip_suffix(" -").unwrap_or(inner);
        pieces.extend([Piece::Text(plain), Piece::Action(inner.trim())]);
        rest = after;
    }
}

fn nodes<'t>(pieces: &mut impl Iterator<Item = Piece<'t>>) -> Result<(Vec<Node>, Stop), TemplateError> {
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let action = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text.to_owned()));
                continue;
            }
            Piece::Action(action) => action,
        };
        let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
        match word {
            "end" => return Ok((nodes, Stop::End)),
            "else" => return Ok((nodes, Stop::Else(rest.trim().to_owned()))),
            "if" | "with" => nodes.push(branch(rest, pieces, word == "with")?),
            "range" => nodes.push(range(rest, pieces)?),
            _ if action.starts_with("/*") && action.ends_with("*/") => {}
            _ => nodes.push(Node::Print(expression(action)?)),
        }
    }
    Ok((nodes, Stop::Text))
}

/// `if` or `with`, with what it decides about; `else if` is an `if` in the place of what is done otherwise.
fn branch<'t>(text: &str, pieces: &mut impl Iterator<Item = Piece<'t>>, enter: bool) -> Result<Node, TemplateError> {
    let condition = expression(text)?;
    let (body, end) = nodes(pieces)?;
    let otherwise = match end {
        Stop::Text => return Err(wrong("if", "`{{end}}` is missing")),
        Stop::End => Vec::new(),
        Stop::Else(rest) => match rest.strip_prefix("if ") {
            Some(rest) => vec![branch(rest, pieces, false)?],
            None => last(pieces)?,
        },
    };
    Ok(Node::If { condition, enter, body, otherwise })
}

/// What stands between `else` and `end`.
fn last<'t>(pieces: &mut impl Iterator<Item = Piece<'t>>) -> Result<Vec<Node>, TemplateError> {
    match nodes(pieces)? {
        (nodes, Stop::End) => Ok(nodes),
        _ => Err(wrong("else", "`{{end}}` is missing")),
    }
}

fn range<'t>(text: &str, pieces: &mut impl Iterator<Item = Piece<'t>>) -> Result<Node, TemplateError> {
    let (names, over) = match text.split_once(":=") {
        Some((names, over)) => (names.split(',').map(|name| variable(name, text)).collect::<Result<_, _>>()?, over),
        None => (Vec::new(), text),
    };
    let over = expression(over)?;
    let (body, end) = nodes(pieces)?;
    let otherwise = match end {
        Stop::Text => return Err(wrong("range", "`{{end}}` is missing")),
        Stop::End => Vec::new(),
        Stop::Else(_) => last(pieces)?,
    };
    Ok(Node::Range { names, over, body, otherwise })
}

fn variable(text: &str, at: &str) -> Result<String, TemplateError> {
    let name = text.trim().strip_prefix('$').filter(|name| !name.is_empty());
    name.map(str::to_owned).ok_or_else(|| wrong(at, "a variable is written `$name`"))
}

fn expression(text: &str) -> Result<Expr, TemplateError> {
    let tokens = tokens(text)?;
    let mut parser = Parser { text, tokens: &tokens };
    let expr = parser.pipeline()?;
    match parser.tokens {
        [] => Ok(expr),
        _ => Err(wrong(text, "there is more than an expression")),
    }
}

struct Parser<'t> {
    text: &'t str,
    tokens: &'t [Token],
}

impl Parser<'_> {
    fn next_is(&mut self, mark: char) -> bool {
        let [Token::Mark(first), rest @ ..] = self.tokens else { return false };
        if *first != mark {
            return false;
        }
        self.tokens = rest;
        true
    }

    /// The result of each command is the last argument of the next.
    fn pipeline(&mut self) -> Result<Expr, TemplateError> {
        let mut expr = self.command(None)?;
        while self.next_is('|') {
            expr = self.command(Some(expr))?;
        }
        Ok(expr)
    }

    fn command(&mut self, piped: Option<Expr>) -> Result<Expr, TemplateError> {
        let function = match self.tokens {
            [Token::Word(word), rest @ ..] => {
                if !FUNCTIONS.contains(&word.as_str()) {
                    return Err(wrong(
                        self.text,
                        format!("there is no function `{word}`, only {}", FUNCTIONS.join(", ")),
                    ));
                }
                self.tokens = rest;
                Some(word.clone())
            }
            _ => None,
        };
        let mut operands = Vec::new();
        while !matches!(self.tokens, [] | [Token::Mark(')' | '|'), ..]) {
            operands.push(self.operand()?);
        }
        match (function, operands.as_slice(), piped) {
            (Some(name), _, piped) => {
                operands.extend(piped);
                Ok(Expr::Call(name, operands))
            }
            (None, [only], None) => Ok(only.clone()),
            // `.Label "key"`: a method of docker's rows, which is an entry of a map here.
            (None, [_, _], None) => Ok(Expr::Call("index".to_owned(), operands)),
            (None, [], _) => Err(wrong(self.text, "an expression is missing")),
            _ => Err(wrong(self.text, "only functions take arguments")),
        }
    }

    fn operand(&mut self) -> Result<Expr, TemplateError> {
        let [first, rest @ ..] = self.tokens else { return Err(wrong(self.text, "an expression is missing")) };
        self.tokens = rest;
        let mut expr = match first {
            Token::Dot(name, _) if name.is_empty() => Expr::Dot,
            Token::Dot(name, _) => Expr::Field(Box::new(Expr::Dot), name.clone()),
            Token::Variable(name) => Expr::Variable(name.clone()),
            Token::Literal(value) => Expr::Literal(value.clone()),
            Token::Mark('(') => {
                let inner = self.pipeline()?;
                if !self.next_is(')') {
                    return Err(wrong(self.text, "`)` is missing"));
                }
                inner
            }
            Token::Word(_) | Token::Mark(_) | Token::Assign => {
                return Err(wrong(self.text, "this stands in a wrong place"));
            }
        };
        while let [Token::Dot(name, true), rest @ ..] = self.tokens
            && !name.is_empty()
        {
            expr = Expr::Field(Box::new(expr), name.clone());
            self.tokens = rest;
        }
        Ok(expr)
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, TemplateError> {
    let (mut tokens, mut rest) = (Vec::new(), text);
    let mut glued = false;
    while let Some(first) = rest.chars().next() {
        let before = rest;
        match first {
            c if c.is_whitespace() => rest = &rest[c.len_utf8()..],
            '(' | ')' | '|' | ',' => {
                tokens.push(Token::Mark(first));
                rest = &rest[1..];
            }
            ':' if rest.starts_with(":=") => {
                tokens.push(Token::Assign);
                rest = &rest[2..];
            }
            '.' => {
                let (name, after) = name(&rest[1..]);
                tokens.push(Token::Dot(name.to_owned(), glued));
                rest = after;
            }
            '$' => {
                let (name, after) = name(&rest[1..]);
                tokens.push(Token::Variable(name.to_owned()));
                rest = after;
            }
            '"' | '`' => {
                let (value, after) = quoted(rest).ok_or_else(|| wrong(text, "a quote is missing"))?;
                tokens.push(Token::Literal(value));
                rest = after;
            }
            c if c.is_ascii_digit() || c == '-' => {
                let end = rest[1..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |end| end + 1);
                let number: i64 = rest[..end].parse().map_err(|_| wrong(text, "this is no number"))?;
                tokens.push(Token::Literal(number.into()));
                rest = &rest[end..];
            }
            _ => {
                let (word, after) = name(rest);
                tokens.push(match word {
                    "" => return Err(wrong(text, format!("`{first}` means nothing here"))),
                    "true" | "false" => Token::Literal((word == "true").into()),
                    "nil" => Token::Literal(Value::Null),
                    _ => Token::Word(word.to_owned()),
                });
                rest = after;
            }
        }
        glued = !before.starts_with(char::is_whitespace) && !matches!(first, '(' | '|' | ',');
    }
    Ok(tokens)
}

fn name(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    text.split_at(end)
}

/// A text in quotes with escapes, which are those of JSON as far as anybody uses them, or in backquotes without.
fn quoted(text: &str) -> Option<(Value, &str)> {
    if let Some(raw) = text.strip_prefix('`') {
        let (inner, rest) = raw.split_once('`')?;
        return Some((inner.into(), rest));
    }
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = stream.next()?.ok()?;
    Some((value, &text[stream.byte_offset()..]))
}
