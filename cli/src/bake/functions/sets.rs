//! Functions of sets, which are lists without doubles here.

use super::{Function, Outcome, at_least, exactly};
use crate::bake::value::Value;

/// Items that `setproduct` gives at most.
const PRODUCT_LIMIT: usize = 65_536;

pub(super) const FUNCTIONS: &[Function] = &[
    exactly("contains", 2, |args| Ok(Value::Bool(args[0].to_list()?.contains(&args[1])))),
    exactly("sethaselement", 2, |args| Ok(Value::Bool(args[0].to_list()?.contains(&args[1])))),
    exactly("distinct", 1, |args| Ok(distinct(args[0].to_list()?.iter()))),
    at_least("setunion", 1, |args| {
        let lists = args.iter().map(Value::to_list).collect::<Result<Vec<_>, _>>()?;
        Ok(sorted(distinct(lists.into_iter().flatten())))
    }),
    at_least("setintersection", 1, |args| {
        let lists = args.iter().map(Value::to_list).collect::<Result<Vec<_>, _>>()?;
        let everywhere = |item: &&Value| lists.iter().all(|list| list.contains(item));
        Ok(sorted(distinct(lists[0].iter().filter(everywhere))))
    }),
    exactly("setsubtract", 2, |args| {
        let (list, without) = (args[0].to_list()?, args[1].to_list()?);
        Ok(sorted(distinct(list.iter().filter(|item| !without.contains(item)))))
    }),
    at_least("setsymmetricdifference", 1, |args| {
        let lists = args.iter().map(Value::to_list).collect::<Result<Vec<_>, _>>()?;
        let odd = |item: &&Value| lists.iter().filter(|list| list.contains(item)).count() % 2 == 1;
        Ok(sorted(distinct(lists.iter().copied().flatten().filter(odd))))
    }),
    at_least("setproduct", 2, product),
];

fn distinct<'v>(items: impl Iterator<Item = &'v Value>) -> Value {
    let mut found: Vec<Value> = Vec::new();
    for item in items {
        if !found.contains(item) {
            found.push(item.clone());
        }
    }
    Value::List(found)
}

/// A set of strings comes out in order, as HCL walks it.
fn sorted(set: Value) -> Value {
    match set {
        Value::List(mut list) if list.iter().all(|item| matches!(item, Value::String(_))) => {
            list.sort_by_key(|item| item.to_text().unwrap_or_default());
            Value::List(list)
        }
        other => other,
    }
}

fn product(args: &[Value]) -> Outcome {
    let lists = args.iter().map(Value::to_list).collect::<Result<Vec<_>, _>>()?;
    let mut rows: Vec<Vec<Value>> = vec![Vec::new()];
    for list in lists {
        if rows.len().saturating_mul(list.len()) > PRODUCT_LIMIT {
            return Err(format!("more than {PRODUCT_LIMIT} items"));
        }
        let longer = |row: &Vec<Value>| {
            list.iter().map(|item| [row.as_slice(), std::slice::from_ref(item)].concat()).collect::<Vec<_>>()
        };
        rows = rows.iter().flat_map(longer).collect();
    }
    Ok(Value::List(rows.into_iter().map(Value::List).collect()))
}
