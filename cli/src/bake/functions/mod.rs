//! The built-in functions: those of HCL's standard library that bake files use, under the names that buildx gives them.

mod collections;
mod dates;
mod numbers;
mod sets;
mod strings;
mod text;

use super::error::BakeError;
use super::value::Value;

type Outcome = Result<Value, String>;

/// A function: its name, how many arguments it takes, what it does.
struct Function {
    name: &'static str,
    least: usize,
    /// None for any number.
    most: Option<usize>,
    run: fn(&[Value]) -> Outcome,
}

const fn exactly(name: &'static str, count: usize, run: fn(&[Value]) -> Outcome) -> Function {
    Function { name, least: count, most: Some(count), run }
}

const fn between(name: &'static str, least: usize, most: usize, run: fn(&[Value]) -> Outcome) -> Function {
    Function { name, least, most: Some(most), run }
}

const fn at_least(name: &'static str, least: usize, run: fn(&[Value]) -> Outcome) -> Function {
    Function { name, least, most: None, run }
}

const TABLES: [&[Function]; 6] = [
    strings::FUNCTIONS,
    text::FUNCTIONS,
    collections::FUNCTIONS,
    sets::FUNCTIONS,
    numbers::FUNCTIONS,
    dates::FUNCTIONS,
];

/// Those that the evaluator itself carries out.
const SPECIAL: [&str; 3] = ["try", "can", "timestamp"];

/// Names of all of them.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TABLES.into_iter().flatten().map(|function| function.name).chain(SPECIAL)
}

/// Calls one; none when there is none of that name. Errors say what can't be done with these arguments.
pub(super) fn call(name: &str, args: &[Value], now: jiff::Timestamp) -> Option<Result<Value, BakeError>> {
    if name == "timestamp" && args.is_empty() {
        return Some(Ok(Value::String(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())));
    }
    let function = TABLES.into_iter().flatten().find(|function| function.name == name)?;
    Some(function.call(args))
}

impl Function {
    fn call(&self, args: &[Value]) -> Result<Value, BakeError> {
        let name = self.name;
        let fits = args.len() >= self.least && self.most.is_none_or(|most| args.len() <= most);
        if !fits {
            let wanted = match self.most {
                Some(most) if most == self.least => most.to_string(),
                Some(most) => format!("{} to {most}", self.least),
                None => format!("at least {}", self.least),
            };
            let s = if wanted == "1" { "" } else { "s" };
            return Err(BakeError::new(format!("{name} takes {wanted} argument{s}, not {}", args.len())));
        }
        (self.run)(args).map_err(|error| BakeError::new(format!("{name}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::eval;

    #[test]
    fn the_functions_do_what_hcl_has_them_do() {
        for (expression, expected) in CASES {
            assert_eq!(eval(expression), *expected, "{expression}");
        }
    }

    /// Expressions with what they come to, as JSON. Checked against HCL's documentation of its functions.
    const CASES: &[(&str, &str)] = &[
        (r#"upper("abc")"#, r#""ABC""#),
        (r#"title("hello wide world")"#, r#""Hello Wide World""#),
        (r#"join("-", ["a", 1, true])"#, r#""a-1-true""#),
        (r#"split(",", "a,b,")"#, r#"["a","b",""]"#),
        (r#"replace("1 + 2 + 3", "+", "-")"#, r#""1 - 2 - 3""#),
        (r#"format("%s-%d-%5.2f-%q-%v-%%", "x", 3, 1.5, "y", [1])"#, r#""x-3- 1.50-\"y\"-[1]-%""#),
        (r#"format("%03d|%-4s|%x|%t", 7, "a", 255, true)"#, r#""007|a   |ff|true""#),
        (r#"formatlist("%s:%s", ["a", "b"], "latest")"#, r#"["a:latest","b:latest"]"#),
        (r#"concat(["a"], [], ["b", "c"])"#, r#"["a","b","c"]"#),
        (r#"contains(["a", "b"], "b")"#, "true"),
        (r#"length({ a = 1, b = 2 })"#, "2"),
        (r#"length([1, 2, 3])"#, "3"),
        (r#"strlen("héllo")"#, "5"),
        (r#"keys({ b = 1, a = 2 })"#, r#"["a","b"]"#),
        (r#"values({ b = 1, a = 2 })"#, "[2,1]"),
        (r#"merge({ a = 1 }, { a = 2, b = 3 })"#, r#"{"a":2,"b":3}"#),
        (r#"lookup({ a = "x" }, "b", "none")"#, r#""none""#),
        (r#"element(["a", "b", "c"], 4)"#, r#""b""#),
        (r#"slice(["a", "b", "c", "d"], 1, 3)"#, r#"["b","c"]"#),
        (r#"trim("?!hello?!", "!?")"#, r#""hello""#),
        (r#"trimprefix("helloworld", "hello")"#, r#""world""#),
        (r#"trimsuffix("helloworld", "world")"#, r#""hello""#),
        (r#"trimspace("  x\n")"#, r#""x""#),
        (r#"chomp("x\r\n\n")"#, r#""x""#),
        (r#"regex("[a-z]+", "53453453.345345aaabbbccc23454")"#, r#""aaabbbccc""#),
        (r#"regex("(\\d+)-(\\d+)", "on 2019-02 x")"#, r#"["2019","02"]"#),
        (r#"regex("(?P<major>\\d+)\\.(?P<minor>\\d+)", "v1.2")"#, r#"{"major":"1","minor":"2"}"#),
        (r#"regexall("[a-z]+", "1ab2cd")"#, r#"["ab","cd"]"#),
        (r#"regex_replace("feature/x y", "[^a-z]+", "-")"#, r#""feature-x-y""#),
        (r#"regex_replace("v1.2", "v(\\d+)", "$${1}!")"#, r#""1!.2""#),
        (r#"substr("hello world", 1, 4)"#, r#""ello""#),
        (r#"substr("hello", -3, -1)"#, r#""llo""#),
        (r#"coalesce(null, "", "x")"#, r#""""#),
        (r#"coalescelist([], ["a"])"#, r#"["a"]"#),
        (r#"compact(["a", "", "b"])"#, r#"["a","b"]"#),
        (r#"distinct(["a", "b", "a"])"#, r#"["a","b"]"#),
        (r#"flatten([["a"], [["b"], "c"]])"#, r#"["a","b","c"]"#),
        (r#"chunklist(["a", "b", "c"], 2)"#, r#"[["a","b"],["c"]]"#),
        (r#"reverse("abc")"#, r#""cba""#),
        (r#"reverselist([1, 2])"#, "[2,1]"),
        (r#"sort(["b", "a"])"#, r#"["a","b"]"#),
        (r#"range(3)"#, "[0,1,2]"),
        (r#"range(1, 8, 3)"#, "[1,4,7]"),
        (r#"zipmap(["a", "b"], [1, 2])"#, r#"{"a":1,"b":2}"#),
        (r#"setproduct(["a", "b"], [1, 2])"#, r#"[["a",1],["a",2],["b",1],["b",2]]"#),
        (r#"setunion(["a"], ["b", "a"])"#, r#"["a","b"]"#),
        (r#"setintersection(["a", "b"], ["b"])"#, r#"["b"]"#),
        (r#"setsubtract(["a", "b"], ["b"])"#, r#"["a"]"#),
        (r#"index({ a = 5 }, "a")"#, "5"),
        (r#"indexof(["a", "b"], "b")"#, "1"),
        (r#"hasindex(["a"], 1)"#, "false"),
        (r#"equal("a", "a")"#, "true"),
        (r#"notequal("", "x")"#, "true"),
        ("not(true)", "false"),
        ("and(true, false)", "false"),
        ("or(true, false)", "true"),
        ("add(1, 2)", "3"),
        ("subtract(1, 2)", "-1"),
        ("multiply(2, 3)", "6"),
        ("divide(1, 4)", "0.25"),
        ("modulo(7, 3)", "1"),
        ("pow(2, 10)", "1024"),
        ("max(1, 3, 2)", "3"),
        ("min(1, 3, 2)", "1"),
        ("ceil(1.2)", "2"),
        ("floor(-1.2)", "-2"),
        ("absolute(-3)", "3"),
        ("int(3.9)", "3"),
        (r#"parseint("ff", 16)"#, "255"),
        ("greaterthan(2, 1)", "true"),
        ("lessthanorequalto(2, 1)", "false"),
        (r#"jsonencode({ a = [1, "x"] })"#, r#""{\"a\":[1,\"x\"]}""#),
        (r#"jsondecode("{\"a\": [1, null]}")"#, r#"{"a":[1,null]}"#),
        (r#"base64encode("foob")"#, r#""Zm9vYg==""#),
        (r#"base64decode("Zm9vYg==")"#, r#""foob""#),
        (r#"urlencode("a b/c?")"#, r#""a+b%2Fc%3F""#),
        (r#"sha256("abc")"#, r#""ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad""#),
        (r#"indent(2, "a\nb")"#, r#""a\n  b""#),
        (r#"basename("/a/b.txt")"#, r#""b.txt""#),
        (r#"dirname("/a/b.txt")"#, r#""/a""#),
        (r#"sanitize("a/b:c")"#, r#""a_b_c""#),
        (r#"formatdate("DD MMM YYYY hh:mm ZZZ", "2018-01-02T23:12:01Z")"#, r#""02 Jan 2018 23:12 UTC""#),
        (
            r#"formatdate("EEEE, DD-MMM-YY 'at' hh:mm:ss Z", "2018-01-02T23:12:01-08:00")"#,
            r#""Tuesday, 02-Jan-18 at 23:12:01 -08:00""#,
        ),
        (r#"timeadd("2017-11-22T00:00:00Z", "1h30m")"#, r#""2017-11-22T01:30:00Z""#),
        ("timestamp()", r#""2024-05-06T07:08:09Z""#),
        (r#"try(missing_variable, "fallback")"#, r#""fallback""#),
        ("can(missing_variable)", "false"),
    ];

    #[test]
    fn mistakes_are_named() {
        let cases = [
            (r#"uper("a")"#, "there is no function uper (did you mean upper?)"),
            (r#"upper("a", "b")"#, "upper takes 1 argument, not 2"),
            (r#"join(",", "a")"#, "join: a list is needed, not a string"),
            (r#"regex("(", "a")"#, "regex: `(` is no regular expression: found open group without closing ')'"),
            (r#"regex("x", "a")"#, "regex: nothing in \"a\" matches `x`"),
            ("divide(1, 0)", "divide: division by zero"),
            (r#"element([], 0)"#, "element: the list is empty"),
            ("range(0, 100000)", "range: more than 1024 numbers"),
        ];
        for (expression, expected) in cases {
            assert_eq!(eval(expression), expected, "{expression}");
        }
    }
}
