//! Arithmetic, comparison and logic as functions.

use hcl_edit::expr::BinaryOperator;

use super::{Function, Outcome, at_least, exactly};
use crate::bake::eval::operate;
use crate::bake::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    exactly("equal", 2, |args| operate(BinaryOperator::Eq, &args[0], &args[1])),
    exactly("notequal", 2, |args| operate(BinaryOperator::NotEq, &args[0], &args[1])),
    exactly("greaterthan", 2, |args| operate(BinaryOperator::Greater, &args[0], &args[1])),
    exactly("greaterthanorequalto", 2, |args| operate(BinaryOperator::GreaterEq, &args[0], &args[1])),
    exactly("lessthan", 2, |args| operate(BinaryOperator::Less, &args[0], &args[1])),
    exactly("lessthanorequalto", 2, |args| operate(BinaryOperator::LessEq, &args[0], &args[1])),
    exactly("and", 2, |args| operate(BinaryOperator::And, &args[0], &args[1])),
    exactly("or", 2, |args| operate(BinaryOperator::Or, &args[0], &args[1])),
    exactly("not", 1, |args| Ok(Value::Bool(!args[0].to_bool()?))),
    exactly("add", 2, |args| operate(BinaryOperator::Plus, &args[0], &args[1])),
    exactly("subtract", 2, |args| operate(BinaryOperator::Minus, &args[0], &args[1])),
    exactly("multiply", 2, |args| operate(BinaryOperator::Mul, &args[0], &args[1])),
    exactly("divide", 2, |args| operate(BinaryOperator::Div, &args[0], &args[1])),
    exactly("modulo", 2, |args| operate(BinaryOperator::Mod, &args[0], &args[1])),
    exactly("negate", 1, |args| number(-args[0].to_number()?)),
    exactly("absolute", 1, |args| number(args[0].to_number()?.abs())),
    exactly("ceil", 1, |args| number(args[0].to_number()?.ceil())),
    exactly("floor", 1, |args| number(args[0].to_number()?.floor())),
    exactly("int", 1, |args| number(args[0].to_number()?.trunc())),
    exactly("signum", 1, |args| {
        let value = args[0].to_number()?;
        number(if value == 0.0 { 0.0 } else { value.signum() })
    }),
    exactly("pow", 2, |args| number(args[0].to_number()?.powf(args[1].to_number()?))),
    exactly("log", 2, |args| number(args[0].to_number()?.log(args[1].to_number()?))),
    at_least("max", 1, |args| most(args, f64::max)),
    at_least("min", 1, |args| most(args, f64::min)),
    exactly("parseint", 2, |args| {
        let (text, base) = (args[0].to_text()?, args[1].to_integer()?);
        let base = u32::try_from(base).ok().filter(|base| (2..=36).contains(base)).ok_or("the base is 2 to 36")?;
        let value = i64::from_str_radix(&text, base).map_err(|_| format!("{text:?} is no number of base {base}"))?;
        number(value as f64)
    }),
];

fn number(value: f64) -> Outcome {
    if value.is_finite() { Ok(Value::Number(value)) } else { Err("the result is no number".to_owned()) }
}

fn most(args: &[Value], pick: fn(f64, f64) -> f64) -> Outcome {
    let numbers = args.iter().map(Value::to_number).collect::<Result<Vec<_>, _>>()?;
    number(numbers.into_iter().reduce(pick).unwrap_or_default())
}
