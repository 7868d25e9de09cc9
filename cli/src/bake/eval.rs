//! Expressions to values. Where names come from is the caller's business ([`Names`]); what functions do is `functions`'.

use std::collections::BTreeMap;

use hcl_edit::Span as _;
use hcl_edit::expr::{
    BinaryOp, BinaryOperator, Conditional, Expression, ForExpr, FuncCall, Object, ObjectKey, Traversal,
    TraversalOperator, UnaryOperator,
};

use super::error::BakeError;
use super::template;
use super::value::Value;

/// Where the names of an expression come from.
pub(crate) trait Names {
    /// The value of a variable.
    fn variable(&self, name: &str) -> Result<Value, BakeError>;

    /// What `kind.name.attribute` of another block is; none when `kind` is no block that can be referred to.
    fn attribute(&self, kind: &str, name: &str, attribute: &str) -> Option<Result<Value, BakeError>>;

    /// What a function comes to.
    fn call(&self, name: &str, args: &[Value]) -> Result<Value, BakeError>;
}

/// Variables of a `for`, a matrix or a function's parameters, innermost first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Locals<'a> {
    name: &'a str,
    value: &'a Value,
    outer: Option<&'a Locals<'a>>,
}

/// An expression's surroundings.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    /// Names of the whole file.
    pub(crate) names: &'a dyn Names,
    /// Names of this place.
    pub(crate) locals: Option<&'a Locals<'a>>,
    /// The file that it stands in.
    pub(crate) file: usize,
}

impl<'a> Locals<'a> {
    /// One more name.
    pub(crate) fn new(name: &'a str, value: &'a Value, outer: Option<&'a Locals<'a>>) -> Self {
        Self { name, value, outer }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        if self.name == name { Some(self.value) } else { self.outer.and_then(|outer| outer.get(name)) }
    }

    /// Runs `inner` with the names of `variables`.
    pub(crate) fn with<T>(
        variables: &[(String, Value)],
        outer: Option<&Locals<'_>>,
        inner: impl FnOnce(Option<&Locals<'_>>) -> T,
    ) -> T {
        match variables {
            [] => inner(outer),
            [(name, value), rest @ ..] => Locals::with(rest, Some(&Locals::new(name, value, outer)), inner),
        }
    }
}

impl Scope<'_> {
    /// What an expression comes to.
    ///
    /// # Errors
    /// At the innermost part that makes no sense.
    pub(crate) fn eval(&self, expression: &Expression) -> Result<Value, BakeError> {
        let value = match expression {
            Expression::Null(_) => Ok(Value::Null),
            Expression::Bool(value) => Ok(Value::Bool(*value.value())),
            Expression::Number(number) => Ok(Value::Number(number.value().as_f64().unwrap_or(f64::NAN))),
            Expression::String(text) => Ok(Value::String(text.value().clone())),
            Expression::Array(array) => {
                array.iter().map(|item| self.eval(item)).collect::<Result<_, _>>().map(Value::List)
            }
            Expression::Object(object) => self.object(object),
            Expression::StringTemplate(parts) => template::string(self, parts.iter()),
            Expression::HeredocTemplate(heredoc) => template::heredoc(self, heredoc),
            Expression::Parenthesis(inner) => self.eval(inner.inner()),
            Expression::Variable(name) => self.variable(name.as_str()),
            Expression::Conditional(conditional) => self.conditional(conditional),
            Expression::FuncCall(call) => self.call(call),
            Expression::Traversal(traversal) => self.traversal(traversal),
            Expression::UnaryOp(op) => self.eval(&op.expr).and_then(|value| match op.operator.value() {
                UnaryOperator::Neg => value.to_number().map(|number| Value::Number(-number)).map_err(BakeError::new),
                UnaryOperator::Not => value.to_bool().map(|value| Value::Bool(!value)).map_err(BakeError::new),
            }),
            Expression::BinaryOp(op) => self.binary(op),
            Expression::ForExpr(expression) => self.for_expression(expression),
        };
        value.map_err(|error| error.at(self.file, expression.span()))
    }

    fn variable(&self, name: &str) -> Result<Value, BakeError> {
        match self.locals.and_then(|locals| locals.get(name)) {
            Some(value) => Ok(value.clone()),
            None => self.names.variable(name),
        }
    }

    fn object(&self, object: &Object) -> Result<Value, BakeError> {
        let mut map = BTreeMap::new();
        for (key, value) in object.iter() {
            let name = match key {
                ObjectKey::Ident(name) => name.as_str().to_owned(),
                // A bare name is a key, not a variable; in parentheses it is one.
                ObjectKey::Expression(Expression::Variable(name)) => name.as_str().to_owned(),
                ObjectKey::Expression(key) => self.text(key)?,
            };
            map.insert(name, self.eval(value.expr())?);
        }
        Ok(Value::Map(map))
    }

    fn conditional(&self, conditional: &Conditional) -> Result<Value, BakeError> {
        let chosen = if self.bool(&conditional.cond_expr)? { &conditional.true_expr } else { &conditional.false_expr };
        self.eval(chosen)
    }

    fn call(&self, call: &FuncCall) -> Result<Value, BakeError> {
        let name = call.name.name.as_str();
        if let Some(value) = self.attempt(name, call) {
            return value;
        }
        let mut args = call.args.iter().map(|arg| self.eval(arg)).collect::<Result<Vec<_>, _>>()?;
        if call.args.expand_final() {
            let last = args.pop().unwrap_or(Value::Null);
            args.extend(last.to_list().map_err(BakeError::new)?.iter().cloned());
        }
        self.names.call(name, &args)
    }

    /// `try` and `can`, whose arguments may fail.
    fn attempt(&self, name: &str, call: &FuncCall) -> Option<Result<Value, BakeError>> {
        let mut results = call.args.iter().map(|arg| self.eval(arg));
        match name {
            "can" => Some(Ok(Value::Bool(results.all(|result| result.is_ok())))),
            "try" => {
                let found = results.find_map(Result::ok);
                Some(found.ok_or_else(|| BakeError::new("no argument of try comes to a value")))
            }
            _ => None,
        }
    }

    fn traversal(&self, traversal: &Traversal) -> Result<Value, BakeError> {
        let operators: Vec<&TraversalOperator> = traversal.operators.iter().map(|operator| operator.value()).collect();
        if let (
            Expression::Variable(kind),
            [TraversalOperator::GetAttr(name), TraversalOperator::GetAttr(attribute), rest @ ..],
        ) = (&traversal.expr, operators.as_slice())
            && self.locals.and_then(|locals| locals.get(kind.as_str())).is_none()
            && let Some(value) = self.names.attribute(kind.as_str(), name.as_str(), attribute.as_str())
        {
            return self.steps(value?, rest);
        }
        self.steps(self.eval(&traversal.expr)?, &operators)
    }

    fn steps(&self, value: Value, steps: &[&TraversalOperator]) -> Result<Value, BakeError> {
        let Some((first, rest)) = steps.split_first() else { return Ok(value) };
        match first {
            TraversalOperator::GetAttr(name) => self.steps(index(&value, &name.as_str().into())?, rest),
            TraversalOperator::Index(key) => self.steps(index(&value, &self.eval(key)?)?, rest),
            TraversalOperator::LegacyIndex(key) => {
                self.steps(index(&value, &Value::Number(*key.value() as f64))?, rest)
            }
            TraversalOperator::AttrSplat(_) => {
                // What follows the attributes is about the list that they gave.
                let attributes = rest.iter().take_while(|step| matches!(step, TraversalOperator::GetAttr(_))).count();
                let (of_items, of_list) = rest.split_at(attributes);
                self.steps(self.splat(value, of_items)?, of_list)
            }
            TraversalOperator::FullSplat(_) => self.splat(value, rest),
        }
    }

    fn splat(&self, value: Value, steps: &[&TraversalOperator]) -> Result<Value, BakeError> {
        let items = match value {
            Value::List(list) => list,
            Value::Null => Vec::new(),
            one => vec![one],
        };
        items.into_iter().map(|item| self.steps(item, steps)).collect::<Result<_, _>>().map(Value::List)
    }

    fn binary(&self, op: &BinaryOp) -> Result<Value, BakeError> {
        let operator = *op.operator.value();
        let left = self.eval(&op.lhs_expr)?;
        // As in HCL, both sides are always looked at.
        let right = self.eval(&op.rhs_expr)?;
        operate(operator, &left, &right).map_err(BakeError::new)
    }

    fn for_expression(&self, expression: &ForExpr) -> Result<Value, BakeError> {
        let intro = &expression.intro;
        let items = pairs(&self.eval(&intro.collection_expr)?)
            .map_err(|error| BakeError::new(error).at(self.file, intro.collection_expr.span()))?;
        let mut list = Vec::new();
        let mut map: BTreeMap<String, Value> = BTreeMap::new();
        for (key, value) in items {
            let mut own = vec![(intro.value_var.as_str().to_owned(), value)];
            own.extend(intro.key_var.iter().map(|name| (name.as_str().to_owned(), key.clone())));
            Locals::with(&own, self.locals, |locals| {
                let inner = Scope { locals, ..*self };
                if let Some(cond) = &expression.cond
                    && !inner.bool(&cond.expr)?
                {
                    return Ok(());
                }
                let value = inner.eval(&expression.value_expr)?;
                match &expression.key_expr {
                    None => list.push(value),
                    Some(key) => put(&mut map, inner.text(key)?, value, expression.grouping)?,
                }
                Ok(())
            })?;
        }
        Ok(if expression.key_expr.is_some() { Value::Map(map) } else { Value::List(list) })
    }

    /// What an expression comes to, as a bool.
    pub(crate) fn bool(&self, expression: &Expression) -> Result<bool, BakeError> {
        let value = self.eval(expression)?;
        value.to_bool().map_err(|error| BakeError::new(error).at(self.file, expression.span()))
    }

    /// What an expression comes to, as a string.
    pub(crate) fn text(&self, expression: &Expression) -> Result<String, BakeError> {
        let value = self.eval(expression)?;
        value.to_text().map_err(|error| BakeError::new(error).at(self.file, expression.span()))
    }
}

fn put(map: &mut BTreeMap<String, Value>, key: String, value: Value, grouping: bool) -> Result<(), BakeError> {
    if grouping {
        match map.entry(key).or_insert_with(|| Value::List(Vec::new())) {
            Value::List(list) => list.push(value),
            other => *other = value,
        }
        return Ok(());
    }
    if map.contains_key(&key) {
        let error = BakeError::new(format!("two items of the for expression have the key {key:?}"));
        return Err(error.hint("put ... behind the value to gather them in a list"));
    }
    map.insert(key, value);
    Ok(())
}

/// The items of a collection with their keys.
pub(crate) fn pairs(value: &Value) -> Result<Vec<(Value, Value)>, String> {
    match value {
        Value::List(list) => {
            Ok(list.iter().enumerate().map(|(i, item)| (Value::Number(i as f64), item.clone())).collect())
        }
        Value::Map(map) => Ok(map.iter().map(|(key, item)| (Value::String(key.clone()), item.clone())).collect()),
        other => Err(format!("a list or a map is needed, not {}", other.kind())),
    }
}

/// `value[key]`.
pub(crate) fn index(value: &Value, key: &Value) -> Result<Value, BakeError> {
    match value {
        Value::List(list) => {
            let number = key.to_integer().map_err(BakeError::new)?;
            let found = usize::try_from(number).ok().and_then(|i| list.get(i));
            found.cloned().ok_or_else(|| BakeError::new(format!("the list of {} has no item {number}", list.len())))
        }
        Value::Map(map) => {
            let name = key.to_text().map_err(BakeError::new)?;
            let missing =
                || BakeError::new(format!("there is no {name:?} in it")).meant(&name, map.keys().map(String::as_str));
            map.get(&name).cloned().ok_or_else(missing)
        }
        other => Err(BakeError::new(format!("{} has no parts", other.kind()))),
    }
}

/// An operator applied.
pub(crate) fn operate(operator: BinaryOperator, left: &Value, right: &Value) -> Result<Value, String> {
    let compare = |holds: fn(f64, f64) -> bool| Ok(Value::Bool(holds(left.to_number()?, right.to_number()?)));
    let number = |value: f64| {
        if value.is_finite() { Ok(Value::Number(value)) } else { Err("the result is no number".to_owned()) }
    };
    match operator {
        BinaryOperator::Eq => Ok(Value::Bool(left == right)),
        BinaryOperator::NotEq => Ok(Value::Bool(left != right)),
        BinaryOperator::LessEq => compare(|a, b| a <= b),
        BinaryOperator::GreaterEq => compare(|a, b| a >= b),
        BinaryOperator::Less => compare(|a, b| a < b),
        BinaryOperator::Greater => compare(|a, b| a > b),
        BinaryOperator::Plus => number(left.to_number()? + right.to_number()?),
        BinaryOperator::Minus => number(left.to_number()? - right.to_number()?),
        BinaryOperator::Mul => number(left.to_number()? * right.to_number()?),
        BinaryOperator::Div | BinaryOperator::Mod if right.to_number()? == 0.0 => Err("division by zero".to_owned()),
        BinaryOperator::Div => number(left.to_number()? / right.to_number()?),
        BinaryOperator::Mod => number(left.to_number()? % right.to_number()?),
        BinaryOperator::And => Ok(Value::Bool(left.to_bool()? && right.to_bool()?)),
        BinaryOperator::Or => Ok(Value::Bool(left.to_bool()? || right.to_bool()?)),
    }
}
