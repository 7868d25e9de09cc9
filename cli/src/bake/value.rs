//! Values of expressions and what one kind becomes where another is wanted, as HCL has it.

use std::collections::BTreeMap;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A string.
    String(String),
    /// A list, tuple or set.
    List(Vec<Value>),
    /// A map or an object.
    Map(BTreeMap<String, Value>),
}

/// Integers up to here are exact.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Value {
    /// The word for its kind.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a bool",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }

    /// As a string, which numbers and bools become.
    pub(crate) fn to_text(&self) -> Result<String, String> {
        match self {
            Self::String(text) => Ok(text.clone()),
            Self::Number(number) => Ok(number_text(*number)),
            Self::Bool(value) => Ok(value.to_string()),
            other => Err(format!("a string is needed, not {}", other.kind())),
        }
    }

    /// As a bool, which the strings `true` and `false` become.
    pub(crate) fn to_bool(&self) -> Result<bool, String> {
        match self {
            Self::Bool(value) => Ok(*value),
            Self::String(text) if text == "true" || text == "1" => Ok(true),
            Self::String(text) if text == "false" || text == "0" => Ok(false),
            Self::String(text) => Err(format!("a bool is needed, not {text:?}")),
            other => Err(format!("a bool is needed, not {}", other.kind())),
        }
    }

    /// As a number, which a string of digits becomes.
    pub(crate) fn to_number(&self) -> Result<f64, String> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::String(text) => parse_number(text).ok_or_else(|| format!("a number is needed, not {text:?}")),
            other => Err(format!("a number is needed, not {}", other.kind())),
        }
    }

    /// As a number without a fraction.
    pub(crate) fn to_integer(&self) -> Result<i64, String> {
        let number = self.to_number()?;
        if number.fract() == 0.0 && number.abs() <= EXACT {
            return Ok(number as i64);
        }
        Err(format!("a whole number is needed, not {}", number_text(number)))
    }

    /// As a list.
    pub(crate) fn to_list(&self) -> Result<&[Value], String> {
        match self {
            Self::List(list) => Ok(list),
            other => Err(format!("a list is needed, not {}", other.kind())),
        }
    }

    /// As a map.
    pub(crate) fn to_map(&self) -> Result<&BTreeMap<String, Value>, String> {
        match self {
            Self::Map(map) => Ok(map),
            other => Err(format!("a map is needed, not {}", other.kind())),
        }
    }

    /// As JSON.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Number(number) if number.fract() == 0.0 && number.abs() <= EXACT => (*number as i64).into(),
            Self::Number(number) => (*number).into(),
            Self::String(text) => text.clone().into(),
            Self::List(list) => list.iter().map(Self::to_json).collect(),
            Self::Map(map) => {
                let entries = map.iter().map(|(key, value)| (key.clone(), value.to_json()));
                serde_json::Value::Object(entries.collect())
            }
        }
    }

    /// From JSON.
    pub(crate) fn from_json(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(*value),
            serde_json::Value::Number(number) => number.as_f64().map_or(Self::Null, Self::Number),
            serde_json::Value::String(text) => Self::String(text.clone()),
            serde_json::Value::Array(list) => Self::List(list.iter().map(Self::from_json).collect()),
            serde_json::Value::Object(map) => {
                Self::Map(map.iter().map(|(key, value)| (key.clone(), Self::from_json(value))).collect())
            }
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

/// A number as text: without a fraction where there is none.
fn number_text(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() <= EXACT { format!("{}", number as i64) } else { number.to_string() }
}

/// A number from text: decimal, finite.
pub(crate) fn parse_number(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    text.parse::<f64>().ok().filter(|number| plain && number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_become_others_as_hcl_has_it() {
        assert_eq!(Value::Number(3.0).to_text().unwrap(), "3");
        assert_eq!(Value::Number(0.25).to_text().unwrap(), "0.25");
        assert_eq!(Value::from("true").to_bool(), Ok(true));
        assert_eq!(Value::from("-1e3").to_number(), Ok(-1000.0));
        assert_eq!(Value::from("inf").to_number(), Err("a number is needed, not \"inf\"".to_owned()));
        assert_eq!(Value::Number(1.5).to_integer(), Err("a whole number is needed, not 1.5".to_owned()));
        assert_eq!(Value::Null.to_text(), Err("a string is needed, not null".to_owned()));
    }
}
