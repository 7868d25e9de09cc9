//! From blocks to groups and targets: variables, functions and matrices are evaluated, when something asks for them and once.

use std::cell::RefCell;
use std::collections::BTreeMap;

use hcl_edit::Span as _;
use hcl_edit::expr::Expression;

use super::Surroundings;
use super::document::{Document, FunctionBlock, Named, Variable, no_attribute};
use super::error::BakeError;
use super::eval::{Locals, Names, Scope, pairs};
use super::functions;
use super::kinds;
use super::target::{ATTRIBUTES, Group, Target};
use super::value::Value;

/// Targets that one matrix gives at most.
const MATRIX_LIMIT: usize = 1024;
/// What a group may have.
const GROUP_ATTRIBUTES: [&str; 2] = ["targets", "description"];

/// What a document defines, evaluated.
pub(crate) struct Loader<'d> {
    document: &'d Document,
    around: &'d Surroundings,
    values: RefCell<BTreeMap<String, Value>>,
    /// What is being evaluated, to notice what depends on itself.
    open: RefCell<Vec<String>>,
}

/// A target block, once for each row of its matrix.
struct Instance {
    name: String,
    locals: Vec<(String, Value)>,
}

/// Groups and targets, in the order of the files.
#[derive(Debug, Default)]
pub(crate) struct Config {
    /// Groups.
    pub(crate) groups: Vec<(String, Group)>,
    /// Targets.
    pub(crate) targets: Vec<(String, Target)>,
}

impl Config {
    /// Adds a group; of two of one name the later counts.
    pub(crate) fn add_group(&mut self, name: String, group: Group) {
        match self.groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = group,
            None => self.groups.push((name, group)),
        }
    }

    /// Adds a target, or lays it over the one of its name.
    pub(crate) fn add_target(&mut self, name: String, target: Target) {
        match self.targets.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => known.merge(&target),
            None => self.targets.push((name, target)),
        }
    }

    /// A group.
    pub(crate) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|(known, _)| known == name).map(|(_, group)| group)
    }

    /// A target.
    pub(crate) fn target(&self, name: &str) -> Option<&Target> {
        self.targets.iter().find(|(known, _)| known == name).map(|(_, target)| target)
    }

    /// Names of everything that can be built.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let groups = self.groups.iter().map(|(name, _)| name.as_str());
        groups.chain(self.targets.iter().map(|(name, _)| name.as_str()))
    }
}

/// A variable as `--list variables` shows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Listed {
    /// Its name.
    pub(crate) name: String,
    /// Its type as written.
    pub(crate) kind: Option<String>,
    /// Its value.
    pub(crate) value: Value,
    /// What it is for.
    pub(crate) description: Option<String>,
}

impl<'d> Loader<'d> {
    pub(crate) fn new(document: &'d Document, around: &'d Surroundings) -> Self {
        Self { document, around, values: RefCell::default(), open: RefCell::default() }
    }

    fn scope<'s>(&'s self, file: usize, locals: Option<&'s Locals<'s>>) -> Scope<'s> {
        Scope { names: self, locals, file }
    }

    /// Adds everything to `config`.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub(crate) fn load(&self, config: &mut Config) -> Result<(), Vec<BakeError>> {
        let mut errors = Vec::new();
        for variable in &self.document.variables {
            errors.extend(self.variable(&variable.name).and_then(|_| self.validate(variable)).err());
        }
        for name in self.document.attributes.keys() {
            errors.extend(self.variable(name).err());
        }
        for block in &self.document.groups {
            match self.group(block) {
                Ok(group) => config.add_group(block.name.text.clone(), group),
                Err(error) => errors.push(error),
            }
        }
        for block in &self.document.targets {
            self.targets(block, config, &mut errors);
        }
        // What many places refer to is wrong once.
        let mut distinct: Vec<BakeError> = Vec::new();
        for error in errors {
            if !distinct.contains(&error) {
                distinct.push(error);
            }
        }
        if distinct.is_empty() { Ok(()) } else { Err(distinct) }
    }

    /// The variables with their values.
    ///
    /// # Errors
    /// The first that has none.
    pub(crate) fn list(&self) -> Result<Vec<Listed>, BakeError> {
        let listed = |variable: &Variable| {
            let description = match &variable.description {
                Some(given) => Some(self.scope(given.file, None).text(&given.expression)?),
                None => None,
            };
            let kind = variable.kind.as_ref().map(|given| given.expression.to_string().trim().to_owned());
            Ok(Listed { name: variable.name.clone(), kind, value: self.variable(&variable.name)?, description })
        };
        self.document.variables.iter().map(listed).collect()
    }

    fn validate(&self, variable: &Variable) -> Result<(), BakeError> {
        for (condition, message) in &variable.validations {
            if !self.scope(condition.file, None).bool(&condition.expression)? {
                let message = self.scope(message.file, None).text(&message.expression)?;
                let error = BakeError::new(format!("variable {}: {message}", variable.name));
                return Err(error.at(condition.file, condition.expression.span()));
            }
        }
        Ok(())
    }

    /// Runs `inner` unless it is running already.
    fn once<T>(&self, what: String, inner: impl FnOnce() -> Result<T, BakeError>) -> Result<T, BakeError> {
        if self.open.borrow().contains(&what) {
            return Err(BakeError::new(format!("{what} depends on itself")));
        }
        self.open.borrow_mut().push(what);
        let result = inner();
        self.open.borrow_mut().pop();
        result
    }

    /// A declared variable: what the user gave for it, or its default.
    fn declared(&self, variable: &Variable) -> Result<Value, BakeError> {
        let default = match &variable.default {
            Some(given) => self.scope(given.file, None).eval(&given.expression)?,
            None => Value::Null,
        };
        let kind = variable.kind.as_ref().map(|given| kinds::Kind::parse(given.file, &given.expression)).transpose()?;
        let name = &variable.name;
        let place = variable.default.as_ref().or(variable.kind.as_ref());
        let bad = |error: String| {
            let error = BakeError::new(format!("variable {name}: {error}"));
            place.map_or(error.clone(), |given| error.at(given.file, given.expression.span()))
        };
        let value = match self.around.given(name) {
            Some(given) => kinds::from_text(&given, kind.as_ref(), &default).map_err(bad)?,
            None if variable.default.is_none() && kind.is_none() => Value::String(String::new()),
            None => default,
        };
        match kind {
            Some(kind) => kind.convert(&value).map_err(bad),
            _ => Ok(value),
        }
    }

    fn group(&self, block: &Named) -> Result<Group, BakeError> {
        check_name(block)?;
        let mut group = Group::default();
        let scope = self.scope(block.file, None);
        for (name, expression) in &block.attributes {
            let error = |error: String| BakeError::new(error).at(block.file, expression.span());
            match name.text.as_str() {
                "description" => group.description = Some(scope.text(expression)?),
                "targets" => {
                    let value = scope.eval(expression)?;
                    let texts = value.to_list().map_err(error)?.iter().map(Value::to_text).collect::<Result<_, _>>();
                    group.targets = texts.map_err(error)?;
                }
                other => return Err(no_attribute("group", other, &GROUP_ATTRIBUTES).at(block.file, name.span.clone())),
            }
        }
        Ok(group)
    }

    /// The targets of a block, and the group that a matrix is.
    fn targets(&self, block: &Named, config: &mut Config, errors: &mut Vec<BakeError>) {
        let instances = match check_name(block).and_then(|()| self.instances(block)) {
            Ok(instances) => instances,
            Err(error) => return errors.push(error),
        };
        if block.get("matrix").is_some() {
            let targets = instances.iter().map(|instance| instance.name.clone()).collect();
            config.add_group(block.name.text.clone(), Group { description: None, targets });
        }
        for instance in instances {
            match self.target(block, &instance) {
                Ok(target) => config.add_target(instance.name, target),
                Err(found) => errors.extend(found),
            }
        }
    }

    fn target(&self, block: &Named, instance: &Instance) -> Result<Target, Vec<BakeError>> {
        let mut target = Target::default();
        let mut errors = Vec::new();
        for (name, expression) in &block.attributes {
            if !ATTRIBUTES.contains(&name.text.as_str()) {
                errors.push(no_attribute("target", &name.text, &ATTRIBUTES).at(block.file, name.span.clone()));
                continue;
            }
            if matches!(name.text.as_str(), "matrix" | "name") {
                continue;
            }
            let value = self.attribute_of(block, instance, &name.text, expression);
            let bad =
                |error: String| BakeError::new(format!("{}: {error}", name.text)).at(block.file, expression.span());
            errors.extend(value.and_then(|value| target.set(&name.text, &value).map_err(bad)).err());
        }
        if errors.is_empty() { Ok(target) } else { Err(errors) }
    }

    fn attribute_of(
        &self,
        block: &Named,
        instance: &Instance,
        name: &str,
        expression: &Expression,
    ) -> Result<Value, BakeError> {
        self.once(format!("target.{}.{name}", instance.name), || {
            Locals::with(&instance.locals, None, |locals| self.scope(block.file, locals).eval(expression))
        })
    }

    /// Once for each combination of the values of the matrix; once where there is none.
    fn instances(&self, block: &Named) -> Result<Vec<Instance>, BakeError> {
        let Some(matrix) = block.get("matrix") else {
            if let Some(name) = block.get("name") {
                let error = BakeError::new("a target has a name of its own only with a matrix");
                return Err(error.at(block.file, name.span()));
            }
            return Ok(vec![Instance { name: block.name.text.clone(), locals: Vec::new() }]);
        };
        let at = |error: BakeError| error.at(block.file, matrix.span());
        let rows = rows(&self.scope(block.file, None).eval(matrix)?).map_err(at)?;
        let Some(name) = block.get("name") else {
            let error = BakeError::new("a target with a matrix needs a name made of its values");
            let example = rows.first().and_then(|row| row.first()).map_or("value", |(name, _)| name);
            return Err(at(error.hint(format!("name = \"{}-${{{example}}}\"", block.name.text))));
        };
        let mut instances: Vec<Instance> = Vec::with_capacity(rows.len());
        for locals in rows {
            let own = Locals::with(&locals, None, |locals| self.scope(block.file, locals).text(name))?;
            let at_name = |error: BakeError| error.at(block.file, name.span());
            if !is_target_name(&own) {
                return Err(at_name(bad_name(&own)));
            }
            if instances.iter().any(|known| known.name == own) {
                return Err(at_name(BakeError::new(format!("two targets of the matrix have the name {own}"))));
            }
            instances.push(Instance { name: own, locals });
        }
        Ok(instances)
    }

    fn user_function(&self, name: &str, function: &FunctionBlock, args: &[Value]) -> Result<Value, BakeError> {
        let least = function.params.len();
        if args.len() < least || (args.len() > least && function.variadic.is_none()) {
            let s = if least == 1 { "" } else { "s" };
            return Err(BakeError::new(format!("{name} takes {least} argument{s}, not {}", args.len())));
        }
        let mut own: Vec<(String, Value)> = function.params.iter().cloned().zip(args.iter().cloned()).collect();
        own.extend(function.variadic.iter().map(|name| (name.clone(), Value::List(args[least..].to_vec()))));
        self.once(format!("function {name}"), || {
            Locals::with(&own, None, |locals| {
                self.scope(function.result.file, locals).eval(&function.result.expression)
            })
        })
    }
}

impl Names for Loader<'_> {
    fn variable(&self, name: &str) -> Result<Value, BakeError> {
        if let Some(value) = self.values.borrow().get(name) {
            return Ok(value.clone());
        }
        let value = self.once(format!("variable {name}"), || {
            if let Some(variable) = self.document.variables.iter().find(|variable| variable.name == name) {
                return self.declared(variable);
            }
            if let Some(given) = self.document.attributes.get(name) {
                return self.scope(given.file, None).eval(&given.expression);
            }
            if let Some(value) = self.around.built_in.get(name) {
                return Ok(Value::String(value.clone()));
            }
            let known = self.document.variables.iter().map(|variable| variable.name.as_str());
            let known = known.chain(self.document.attributes.keys().map(String::as_str));
            let error = BakeError::new(format!("there is no variable {name}"));
            Err(error.meant(name, known.chain(self.around.built_in.keys().map(String::as_str))))
        })?;
        self.values.borrow_mut().insert(name.to_owned(), value.clone());
        Ok(value)
    }

    fn attribute(&self, kind: &str, name: &str, attribute: &str) -> Option<Result<Value, BakeError>> {
        let declared = self.document.variables.iter().any(|variable| variable.name == kind);
        if kind != "target" || declared || self.document.attributes.contains_key(kind) {
            return None;
        }
        Some(self.attribute_of_target(name, attribute))
    }

    fn call(&self, name: &str, args: &[Value]) -> Result<Value, BakeError> {
        if let Some(function) = self.document.functions.get(name) {
            return self.user_function(name, function, args);
        }
        functions::call(name, args, self.around.now).unwrap_or_else(|| {
            let own = self.document.functions.keys().map(String::as_str);
            let error = BakeError::new(format!("there is no function {name}"));
            Err(error.meant(name, functions::names().map(|name| name as &str).chain(own)))
        })
    }
}

impl Loader<'_> {
    fn attribute_of_target(&self, name: &str, attribute: &str) -> Result<Value, BakeError> {
        let mut found = None;
        for block in &self.document.targets {
            for instance in self.once(format!("matrix of {}", block.name.text), || self.instances(block))? {
                if instance.name == name
                    && let Some(expression) = block.get(attribute)
                {
                    found = Some((block, instance, expression));
                }
            }
        }
        let Some((block, instance, expression)) = found else {
            let known: Vec<&str> = self.document.targets.iter().map(|block| block.name.text.as_str()).collect();
            if known.contains(&name) {
                return Err(BakeError::new(format!("target {name} has no {attribute}")));
            }
            return Err(BakeError::new(format!("there is no target {name}")).meant(name, known));
        };
        self.attribute_of(block, &instance, attribute, expression)
    }
}

fn check_name(block: &Named) -> Result<(), BakeError> {
    if is_target_name(&block.name.text) {
        return Ok(());
    }
    Err(bad_name(&block.name.text).at(block.file, block.name.span.clone()))
}

fn bad_name(name: &str) -> BakeError {
    BakeError::new(format!("{name:?} is no name of a target")).hint("use letters, digits, - and _")
}

/// Letters, digits, `-` and `_`.
pub(super) fn is_target_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// All combinations of the values of a matrix.
fn rows(matrix: &Value) -> Result<Vec<Vec<(String, Value)>>, BakeError> {
    let Value::Map(matrix) = matrix else {
        return Err(BakeError::new(format!("matrix is a map of lists, not {}", matrix.kind())));
    };
    let mut rows: Vec<Vec<(String, Value)>> = vec![Vec::new()];
    for (name, values) in matrix {
        let values = pairs(values).map_err(|error| BakeError::new(format!("matrix: {name}: {error}")))?;
        if rows.len().saturating_mul(values.len()) > MATRIX_LIMIT {
            return Err(BakeError::new(format!("the matrix has more than {MATRIX_LIMIT} combinations")));
        }
        let longer = |row: &Vec<(String, Value)>| -> Vec<Vec<(String, Value)>> {
            values.iter().map(|(_, value)| [row.as_slice(), &[(name.clone(), value.clone())]].concat()).collect()
        };
        rows = rows.iter().flat_map(longer).collect();
    }
    Ok(rows)
}
