//! Types of variables (`type = list(string)`), and how text from the environment or the command line becomes a value of one.

use std::collections::BTreeMap;

use hcl_edit::Span as _;
use hcl_edit::expr::{Expression, ObjectKey};

use super::error::BakeError;
use super::value::{Value, parse_number};

/// A type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// Anything.
    Any,
    /// A string.
    String,
    /// A number.
    Number,
    /// A bool.
    Bool,
    /// A list of one type.
    List(Box<Kind>),
    /// A list without doubles.
    Set(Box<Kind>),
    /// A list of these.
    Tuple(Vec<Kind>),
    /// A map to one type.
    Map(Box<Kind>),
    /// A map of these; true for those that may be missing.
    Object(BTreeMap<String, (Kind, bool)>),
}

impl Kind {
    /// Reads a type.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn parse(file: usize, expression: &Expression) -> Result<Self, BakeError> {
        let bad = |message: String| BakeError::new(message).at(file, expression.span());
        match expression {
            Expression::Variable(name) => match name.as_str() {
                "any" => Ok(Self::Any),
                "string" => Ok(Self::String),
                "number" => Ok(Self::Number),
                "bool" => Ok(Self::Bool),
                "list" => Ok(Self::List(Box::new(Self::Any))),
                "set" => Ok(Self::Set(Box::new(Self::Any))),
                "map" => Ok(Self::Map(Box::new(Self::Any))),
                other => {
                    let known = ["any", "string", "number", "bool", "list", "set", "map", "tuple", "object"];
                    Err(bad(format!("there is no type {other}")).meant(other, known))
                }
            },
            Expression::FuncCall(call) => {
                let args: Vec<&Expression> = call.args.iter().collect();
                let [inner] = args.as_slice() else { return Err(bad("a type takes one argument".to_owned())) };
                match (call.name.name.as_str(), inner) {
                    ("list", inner) => Ok(Self::List(Box::new(Self::parse(file, inner)?))),
                    ("set", inner) => Ok(Self::Set(Box::new(Self::parse(file, inner)?))),
                    ("map", inner) => Ok(Self::Map(Box::new(Self::parse(file, inner)?))),
                    ("tuple", Expression::Array(parts)) => {
                        parts.iter().map(|part| Self::parse(file, part)).collect::<Result<_, _>>().map(Self::Tuple)
                    }
                    ("object", Expression::Object(fields)) => fields
                        .iter()
                        .map(|(key, value)| field(file, key, value.expr()))
                        .collect::<Result<_, _>>()
                        .map(Self::Object),
                    (other, _) => Err(bad(format!("there is no type {other}"))),
                }
            }
            _ => Err(bad("a type is a word such as string, or list(string)".to_owned())),
        }
    }

    /// A value of this type.
    pub(crate) fn convert(&self, value: &Value) -> Result<Value, String> {
        match (self, value) {
            (Self::Any, value) | (_, value @ Value::Null) => Ok(value.clone()),
            (Self::String, value) => value.to_text().map(Value::String),
            (Self::Number, value) => value.to_number().map(Value::Number),
            (Self::Bool, value) => value.to_bool().map(Value::Bool),
            (Self::List(kind), value) => {
                value.to_list()?.iter().map(|item| kind.convert(item)).collect::<Result<_, _>>().map(Value::List)
            }
            (Self::Set(kind), value) => {
                let mut found: Vec<Value> = Vec::new();
                for item in value.to_list()? {
                    let item = kind.convert(item)?;
                    if !found.contains(&item) {
                        found.push(item);
                    }
                }
                Ok(Value::List(found))
            }
            (Self::Tuple(kinds), value) => {
                let list = value.to_list()?;
                if list.len() != kinds.len() {
                    return Err(format!("{} items are needed, not {}", kinds.len(), list.len()));
                }
                kinds.iter().zip(list).map(|(kind, item)| kind.convert(item)).collect::<Result<_, _>>().map(Value::List)
            }
            (Self::Map(kind), value) => {
                let entry = |(key, value): (&String, &Value)| Ok::<_, String>((key.clone(), kind.convert(value)?));
                value.to_map()?.iter().map(entry).collect::<Result<_, _>>().map(Value::Map)
            }
            (Self::Object(fields), value) => {
                let map = value.to_map()?;
                let entry = |(name, (kind, optional)): (&String, &(Self, bool))| match map.get(name) {
                    Some(value) => Ok((name.clone(), kind.convert(value).map_err(|error| format!("{name}: {error}"))?)),
                    None if *optional => Ok((name.clone(), Value::Null)),
                    None => Err(format!("{name} is missing")),
                };
                fields.iter().map(entry).collect::<Result<_, _>>().map(Value::Map)
            }
        }
    }
}

fn field(file: usize, key: &ObjectKey, value: &Expression) -> Result<(String, (Kind, bool)), BakeError> {
    let name = match key {
        ObjectKey::Ident(name) => name.as_str().to_owned(),
        ObjectKey::Expression(Expression::String(name)) => name.value().clone(),
        ObjectKey::Expression(Expression::Variable(name)) => name.as_str().to_owned(),
        ObjectKey::Expression(other) => return Err(BakeError::new("a field is a name").at(file, other.span())),
    };
    match value {
        Expression::FuncCall(call) if call.name.name.as_str() == "optional" => {
            let inner = call.args.iter().next();
            let inner = inner.ok_or_else(|| BakeError::new("optional takes a type").at(file, value.span()))?;
            Ok((name, (Kind::parse(file, inner)?, true)))
        }
        other => Ok((name, (Kind::parse(file, other)?, false))),
    }
}

/// What a variable was given: text, or JSON (`NAME_JSON`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Text {
    /// As it is.
    Plain(String),
    /// JSON.
    Json(String),
}

/// Text as a value: of the type of the variable, or else of that of its default.
pub(crate) fn from_text(given: &Text, kind: Option<&Kind>, default: &Value) -> Result<Value, String> {
    let text = match given {
        Text::Plain(text) => text,
        Text::Json(text) => {
            let json = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
            return Ok(Value::from_json(&json));
        }
    };
    let number = || parse_number(text).map(Value::Number).ok_or_else(|| format!("{text:?} is no number"));
    let bool = || match text.as_str() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
        _ => Err(format!("{text:?} is neither true nor false")),
    };
    let list = || {
        let fields = if text.is_empty() { Some(Vec::new()) } else { parser::parse_fields(text) };
        let fields = fields.ok_or_else(|| format!("{text:?} is no list of values with commas between them"))?;
        Ok(Value::List(fields.into_iter().map(Value::String).collect()))
    };
    match (kind, default) {
        (Some(Kind::String | Kind::Any), _) | (None, Value::String(_) | Value::Null) => Ok(Value::String(text.clone())),
        (Some(Kind::Number), _) | (None, Value::Number(_)) => number(),
        (Some(Kind::Bool), _) | (None, Value::Bool(_)) => bool(),
        (Some(Kind::List(_) | Kind::Set(_) | Kind::Tuple(_)), _) => list(),
        (Some(Kind::Map(_) | Kind::Object(_)), _) => {
            Err("a map is given as JSON, under the name with _JSON behind it".to_owned())
        }
        (None, Value::List(_) | Value::Map(_)) => {
            Err("a list or a map can be given only for a variable that has a type".to_owned())
        }
    }
}
