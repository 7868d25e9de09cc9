//! Functions of lists and maps.

use std::collections::BTreeMap;

use super::{Function, Outcome, at_least, between, exactly};
use crate::bake::eval;
use crate::bake::value::Value;

/// Numbers that `range` gives at most, as in HCL.
const RANGE_LIMIT: usize = 1024;

pub(super) const FUNCTIONS: &[Function] = &[
    exactly("length", 1, |args| {
        let length = match &args[0] {
            Value::List(list) => list.len(),
            Value::Map(map) => map.len(),
            Value::String(text) => text.chars().count(),
            other => return Err(format!("a list or a map is needed, not {}", other.kind())),
        };
        Ok(Value::Number(length as f64))
    }),
    exactly("keys", 1, |args| Ok(Value::List(args[0].to_map()?.keys().map(|key| key.as_str().into()).collect()))),
    exactly("values", 1, |args| Ok(Value::List(args[0].to_map()?.values().cloned().collect()))),
    at_least("concat", 1, |args| {
        let lists = args.iter().map(Value::to_list).collect::<Result<Vec<_>, _>>()?;
        Ok(Value::List(lists.concat()))
    }),
    at_least("merge", 1, |args| {
        let mut merged = BTreeMap::new();
        for map in args.iter().filter(|arg| **arg != Value::Null) {
            merged.extend(map.to_map()?.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        Ok(Value::Map(merged))
    }),
    between("lookup", 2, 3, |args| {
        let (map, key) = (args[0].to_map()?, args[1].to_text()?);
        let found = map.get(&key).or(args.get(2));
        found.cloned().ok_or_else(|| format!("there is no {key:?} in it"))
    }),
    exactly("element", 2, |args| {
        let (list, number) = (args[0].to_list()?, args[1].to_integer()?);
        let length = i64::try_from(list.len()).map_err(|_| "the list is too long")?;
        let at = number.checked_rem_euclid(length).ok_or("the list is empty")?;
        Ok(list[at as usize].clone())
    }),
    exactly("slice", 3, |args| {
        let list = args[0].to_list()?;
        let bound = |value: &Value| -> Result<usize, String> {
            let number = value.to_integer()?;
            usize::try_from(number).map_err(|_| format!("{number} is no position"))
        };
        let (start, end) = (bound(&args[1])?, bound(&args[2])?);
        let part =
            list.get(start..end).ok_or_else(|| format!("a list of {} has no part {start} to {end}", list.len()))?;
        Ok(Value::List(part.to_vec()))
    }),
    exactly("index", 2, |args| eval::index(&args[0], &args[1]).map_err(|error| error.message)),
    exactly("hasindex", 2, |args| Ok(Value::Bool(eval::index(&args[0], &args[1]).is_ok()))),
    exactly("indexof", 2, |args| {
        let found = args[0].to_list()?.iter().position(|item| *item == args[1]);
        found.map(|at| Value::Number(at as f64)).ok_or_else(|| "item not found".to_owned())
    }),
    at_least("coalescelist", 1, |args| {
        let full = |arg: &&Value| arg.to_list().is_ok_and(|list| !list.is_empty());
        args.iter().find(full).cloned().ok_or_else(|| "every list is empty".to_owned())
    }),
    exactly("compact", 1, |args| {
        let kept = args[0].to_list()?.iter().filter(|item| !matches!(item, Value::Null) && **item != Value::from(""));
        Ok(Value::List(kept.cloned().collect()))
    }),
    exactly("flatten", 1, |args| {
        let mut flat = Vec::new();
        flatten(args[0].to_list()?, &mut flat);
        Ok(Value::List(flat))
    }),
    exactly("chunklist", 2, |args| {
        let size = usize::try_from(args[1].to_integer()?).map_err(|_| "a size is needed")?;
        let list = args[0].to_list()?;
        Ok(Value::List(
            list.chunks(if size == 0 { list.len().max(1) } else { size }).map(|c| Value::List(c.to_vec())).collect(),
        ))
    }),
    exactly("reverselist", 1, |args| Ok(Value::List(args[0].to_list()?.iter().rev().cloned().collect()))),
    exactly("sort", 1, |args| {
        let mut texts = args[0].to_list()?.iter().map(Value::to_text).collect::<Result<Vec<_>, _>>()?;
        texts.sort();
        Ok(Value::List(texts.into_iter().map(Value::String).collect()))
    }),
    exactly("zipmap", 2, |args| {
        let (keys, values) = (args[0].to_list()?, args[1].to_list()?);
        if keys.len() != values.len() {
            return Err(format!("{} keys for {} values", keys.len(), values.len()));
        }
        let pair = |(key, value): (&Value, &Value)| Ok::<_, String>((key.to_text()?, value.clone()));
        keys.iter().zip(values).map(pair).collect::<Result<_, _>>().map(Value::Map)
    }),
    between("range", 1, 3, range),
];

fn flatten(list: &[Value], flat: &mut Vec<Value>) {
    for item in list {
        match item {
            Value::List(inner) => flatten(inner, flat),
            other => flat.push(other.clone()),
        }
    }
}

/// `range(end)`, `range(start, end)`, `range(start, end, step)`.
fn range(args: &[Value]) -> Outcome {
    let numbers = args.iter().map(Value::to_number).collect::<Result<Vec<_>, _>>()?;
    let (start, end, step) = match numbers[..] {
        [end] => (0.0, end, if end < 0.0 { -1.0 } else { 1.0 }),
        [start, end] => (start, end, if end < start { -1.0 } else { 1.0 }),
        [start, end, step] => (start, end, step),
        _ => return Err("one to three numbers are needed".to_owned()),
    };
    if step == 0.0 || (end - start) * step < 0.0 {
        return Err("the step does not lead to the end".to_owned());
    }
    let mut list = Vec::new();
    let mut number = start;
    while if step > 0.0 { number < end } else { number > end } {
        if list.len() == RANGE_LIMIT {
            return Err(format!("more than {RANGE_LIMIT} numbers"));
        }
        list.push(Value::Number(number));
        number += step;
    }
    Ok(Value::List(list))
}
