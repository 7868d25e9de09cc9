//! Bake files in HCL and JSON as blocks: what is defined where, nothing evaluated. Of two definitions of a variable or a function the
//! later one counts; targets of one name are merged later.

use std::collections::BTreeMap;
use std::ops::Range;

use hcl_edit::Span as _;
use hcl_edit::expr::Expression;
use hcl_edit::structure::{Body, Structure};

use super::error::BakeError;

/// The blocks that a file may have.
const BLOCKS: [&str; 4] = ["group", "target", "variable", "function"];

/// A name and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) span: Option<Range<usize>>,
}

/// A part of a file, whatever the file is written in.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Attribute(Word, Expression),
    Block { kind: Word, labels: Vec<Word>, items: Vec<Item> },
}

/// All files together.
#[derive(Debug, Default)]
pub(crate) struct Document {
    /// Top-level attributes, which are variables that nothing overrides.
    pub(crate) attributes: BTreeMap<String, Given>,
    /// Variables in the order of the files.
    pub(crate) variables: Vec<Variable>,
    /// Functions by name.
    pub(crate) functions: BTreeMap<String, FunctionBlock>,
    /// Groups in the order of the files.
    pub(crate) groups: Vec<Named>,
    /// Targets in the order of the files.
    pub(crate) targets: Vec<Named>,
}

/// An expression and the file it stands in.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    /// Position of the file.
    pub(crate) file: usize,
    /// The expression.
    pub(crate) expression: Expression,
}

/// `variable "NAME" {}`.
#[derive(Debug)]
pub(crate) struct Variable {
    /// Its name.
    pub(crate) name: String,
    /// Its value, where nothing else gives it one.
    pub(crate) default: Option<Given>,
    /// What it has to be.
    pub(crate) kind: Option<Given>,
    /// What it is for.
    pub(crate) description: Option<Given>,
    /// What has to hold, and what to say when it does not.
    pub(crate) validations: Vec<(Given, Given)>,
}

/// `function "NAME" {}`.
#[derive(Debug)]
pub(crate) struct FunctionBlock {
    /// Names of its parameters.
    pub(crate) params: Vec<String>,
    /// Name of the list that takes all further arguments.
    pub(crate) variadic: Option<String>,
    /// What it comes to.
    pub(crate) result: Given,
}

/// `group "NAME" {}` or `target "NAME" {}`.
#[derive(Debug)]
pub(crate) struct Named {
    /// The name.
    pub(super) name: Word,
    /// Position of the file.
    pub(super) file: usize,
    /// Its attributes, in order.
    pub(super) attributes: Vec<(Word, Expression)>,
}

impl Named {
    /// An attribute.
    pub(crate) fn get(&self, name: &str) -> Option<&Expression> {
        self.attributes.iter().find(|(known, _)| known.text == name).map(|(_, expression)| expression)
    }
}

impl Document {
    /// Adds a file in HCL.
    ///
    /// # Errors
    /// What is wrong with its form.
    pub(crate) fn add_hcl(&mut self, file: usize, text: &str) -> Result<(), BakeError> {
        let body = hcl_edit::parser::parse_body(text).map_err(|error| syntax(&error, file, text))?;
        self.add(file, items(&body))
    }

    /// Adds what a file defines.
    pub(super) fn add(&mut self, file: usize, items: Vec<Item>) -> Result<(), BakeError> {
        for item in items {
            match item {
                Item::Attribute(name, expression) => {
                    self.attributes.insert(name.text, Given { file, expression });
                }
                Item::Block { kind, labels, items } => self.block(file, kind, labels, items)?,
            }
        }
        Ok(())
    }

    fn block(&mut self, file: usize, kind: Word, labels: Vec<Word>, items: Vec<Item>) -> Result<(), BakeError> {
        if !BLOCKS.contains(&kind.text.as_str()) {
            let error = BakeError::new(format!("there are no blocks of the kind {}", kind.text));
            return Err(error.meant(&kind.text, BLOCKS).at(file, kind.span));
        }
        let Ok([name]) = <[Word; 1]>::try_from(labels) else {
            let error = BakeError::new(format!("a {0} has one name: {0} \"NAME\" {{ … }}", kind.text));
            return Err(error.at(file, kind.span));
        };
        match kind.text.as_str() {
            "variable" => {
                let variable = variable(file, name.text, items)?;
                self.variables.retain(|known| known.name != variable.name);
                self.variables.push(variable);
            }
            "function" => {
                let function = function(file, items).map_err(|error| error.at(file, name.span))?;
                self.functions.insert(name.text, function);
            }
            kind => {
                let attributes = attributes(file, items)?;
                let list = if kind == "group" { &mut self.groups } else { &mut self.targets };
                list.push(Named { name, file, attributes });
            }
        }
        Ok(())
    }
}

fn items(body: &Body) -> Vec<Item> {
    let word = |name: &hcl_edit::Decorated<hcl_edit::Ident>| Word { text: name.as_str().to_owned(), span: name.span() };
    let item = |structure: &Structure| match structure {
        Structure::Attribute(attribute) => Item::Attribute(word(&attribute.key), attribute.value.clone()),
        Structure::Block(block) => {
            let label =
                |label: &hcl_edit::structure::BlockLabel| Word { text: label.as_str().to_owned(), span: label.span() };
            Item::Block {
                kind: word(&block.ident),
                labels: block.labels.iter().map(label).collect(),
                items: items(&block.body),
            }
        }
    };
    body.iter().map(item).collect()
}

/// What the parser of HCL says, at its place.
pub(super) fn syntax(error: &hcl_edit::parser::Error, file: usize, text: &str) -> BakeError {
    let start = error.location().offset().min(text.len());
    let end = text[start..].chars().next().map_or(start, |c| start + c.len_utf8());
    let message = error.message().replace("; ", ", ").replace('\n', " ");
    BakeError::new(message).at(file, Some(start..end))
}

fn attributes(file: usize, items: Vec<Item>) -> Result<Vec<(Word, Expression)>, BakeError> {
    let attribute = |item| match item {
        Item::Attribute(name, expression) => Ok((name, expression)),
        Item::Block { kind, .. } => {
            let error = BakeError::new("blocks are not allowed here").hint(format!("write {} = {{ … }}", kind.text));
            Err(error.at(file, kind.span))
        }
    };
    items.into_iter().map(attribute).collect()
}

fn variable(file: usize, name: String, items: Vec<Item>) -> Result<Variable, BakeError> {
    const KNOWN: [&str; 3] = ["default", "type", "description"];
    let mut variable = Variable { name, default: None, kind: None, description: None, validations: Vec::new() };
    for item in items {
        match item {
            Item::Attribute(name, expression) => {
                let given = Some(Given { file, expression });
                match name.text.as_str() {
                    "default" => variable.default = given,
                    "type" => variable.kind = given,
                    "description" => variable.description = given,
                    other => return Err(no_attribute("variable", other, &KNOWN).at(file, name.span)),
                }
            }
            Item::Block { kind, items, .. } if kind.text == "validation" => {
                let given = attributes(file, items)?;
                let part = |key: &str| {
                    let missing = || BakeError::new(format!("a validation needs {key}")).at(file, kind.span.clone());
                    let found = given.iter().find(|(name, _)| name.text == key).ok_or_else(missing)?;
                    Ok(Given { file, expression: found.1.clone() })
                };
                variable.validations.push((part("condition")?, part("error_message")?));
            }
            Item::Block { kind, .. } => {
                let error = BakeError::new(format!("a variable has no block {}", kind.text));
                return Err(error.meant(&kind.text, ["validation"]).at(file, kind.span));
            }
        }
    }
    Ok(variable)
}

fn function(file: usize, items: Vec<Item>) -> Result<FunctionBlock, BakeError> {
    const KNOWN: [&str; 3] = ["params", "variadic_params", "result"];
    let (mut params, mut variadic, mut result) = (None, None, None);
    for (name, expression) in attributes(file, items)? {
        match (name.text.as_str(), expression) {
            ("params", Expression::Array(list)) => {
                params = Some(list.iter().map(|item| parameter(file, item)).collect::<Result<_, _>>()?);
            }
            ("params", other) => return Err(BakeError::new("params is a list of names").at(file, other.span())),
            ("variadic_params", name) => variadic = Some(parameter(file, &name)?),
            ("result", expression) => result = Some(Given { file, expression }),
            (other, _) => return Err(no_attribute("function", other, &KNOWN).at(file, name.span)),
        }
    }
    let params = params.ok_or_else(|| BakeError::new("a function needs params"))?;
    let result = result.ok_or_else(|| BakeError::new("a function needs a result"))?;
    Ok(FunctionBlock { params, variadic, result })
}

/// The name of a parameter: bare, or in JSON a string.
fn parameter(file: usize, expression: &Expression) -> Result<String, BakeError> {
    match expression {
        Expression::Variable(name) => Ok(name.as_str().to_owned()),
        Expression::String(name) => Ok(name.value().clone()),
        other => Err(BakeError::new("a parameter is a name").at(file, other.span())),
    }
}

/// An attribute that its block does not have.
pub(super) fn no_attribute(kind: &str, name: &str, known: &[&str]) -> BakeError {
    BakeError::new(format!("a {kind} has no attribute {name}")).meant(name, known.iter().copied())
}
