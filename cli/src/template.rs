//! Go's text templates, as far as scripts use them with docker's `--format`: fields, variables, `index`, `range`, `if`, pipes and
//! a few functions, over JSON. Pure.

mod parse;

use serde_json::Value;

/// A template that cannot be read or followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// It does not have the form.
    #[error("the template is wrong at `{at}`: {what}")]
    Syntax {
        /// The action.
        at: String,
        /// What is wrong.
        what: String,
    },
    /// There is no such field.
    #[error("there is no field `{field}`")]
    Missing {
        /// Its name.
        field: String,
    },
    /// A function got what it cannot take.
    #[error("`{function}` cannot take {what}")]
    Argument {
        /// The function.
        function: String,
        /// What it got.
        what: String,
    },
}

/// A template.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template(Vec<Node>);

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Print(Expr),
    /// `if`; or `with`, which makes the value what `.` is.
    If {
        condition: Expr,
        enter: bool,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        names: Vec<String>,
        over: Expr,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
}

#[derive(Debug, Clone, PartialEq)]
enum Expr {
    /// `.`
    Dot,
    /// `$` (the empty name) and `$name`.
    Variable(String),
    Literal(Value),
    Field(Box<Expr>, String),
    Call(String, Vec<Expr>),
}

/// What names mean at some place.
#[derive(Debug, Clone)]
struct Scope {
    dot: Value,
    /// The later ones hide the earlier ones.
    variables: Vec<(String, Value)>,
}

impl Template {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        parse::template(text).map(Self)
    }

    /// What it makes of `value`.
    pub(crate) fn render(&self, value: &Value) -> Result<String, TemplateError> {
        let scope = Scope { dot: value.clone(), variables: vec![(String::new(), value.clone())] };
        let mut out = String::new();
        render(&self.0, &scope, &mut out)?;
        Ok(out)
    }
}

fn render(nodes: &[Node], scope: &Scope, out: &mut String) -> Result<(), TemplateError> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(expr) => out.push_str(&printed(&eval(expr, scope)?)),
            Node::If { condition, enter: true, body, .. } if holds(condition, scope)? => {
                let value = eval(condition, scope)?;
                render(body, &scope.with(&[], Value::Null, value), out)?;
            }
            Node::If { condition, enter, body, otherwise } => {
                let holds = !enter && holds(condition, scope)?;
                render(if holds { body } else { otherwise }, scope, out)?;
            }
            Node::Range { names, over, body, otherwise } => {
                let items = items(&eval(over, scope)?)?;
                if items.is_empty() {
                    render(otherwise, scope, out)?;
                }
                for (key, value) in items {
                    render(body, &scope.with(names, key, value), out)?;
                }
            }
        }
    }
    Ok(())
}

impl Scope {
    /// Inside of a `range` or `with`: one name is the value's, two are the key's and the value's.
    fn with(&self, names: &[String], key: Value, value: Value) -> Self {
        let mut inner = Self { dot: value.clone(), variables: self.variables.clone() };
        match names {
            [] => {}
            [one] => inner.variables.push((one.clone(), value)),
            [first, second, ..] => {
                inner.variables.extend([(first.clone(), key), (second.clone(), value)]);
            }
        }
        inner
    }
}

/// Keys and values, those of maps sorted by key.
fn items(value: &Value) -> Result<Vec<(Value, Value)>, TemplateError> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => Ok(list.iter().enumerate().map(|(at, value)| (at.into(), value.clone())).collect()),
        Value::Object(map) => {
            let mut items: Vec<_> = map.iter().collect();
            items.sort_by_key(|(key, _)| *key);
            Ok(items.into_iter().map(|(key, value)| (key.as_str().into(), value.clone())).collect())
        }
        other => Err(bad("range", other)),
    }
}

/// What is not there does not hold.
fn holds(expr: &Expr, scope: &Scope) -> Result<bool, TemplateError> {
    match eval(expr, scope) {
        Ok(value) => Ok(truth(&value)),
        Err(TemplateError::Missing { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn eval(expr: &Expr, scope: &Scope) -> Result<Value, TemplateError> {
    Ok(match expr {
        Expr::Dot => scope.dot.clone(),
        Expr::Variable(name) => {
            let found = scope.variables.iter().rev().find(|(known, _)| known == name);
            let missing = || TemplateError::Missing { field: format!("${name}") };
            found.map(|(_, value)| value.clone()).ok_or_else(missing)?
        }
        Expr::Literal(value) => value.clone(),
        Expr::Field(of, name) => {
            let missing = || TemplateError::Missing { field: name.clone() };
            eval(of, scope)?.get(name).cloned().ok_or_else(missing)?
        }
        Expr::Call(name, args) => call(name, args, scope)?,
    })
}

fn bad(function: &str, value: &Value) -> TemplateError {
    TemplateError::Argument { function: function.to_owned(), what: value.to_string() }
}

fn call(name: &str, args: &[Expr], scope: &Scope) -> Result<Value, TemplateError> {
    // These look at what may be missing, and only as far as they have to.
    match (name, args) {
        ("not", [one]) => return Ok((!holds(one, scope)?).into()),
        ("and" | "or", [rest @ .., last]) => {
            for arg in rest {
                if holds(arg, scope)? == (name == "or") {
                    return Ok(eval(arg, scope).unwrap_or(Value::Bool(false)));
                }
            }
            return eval(last, scope);
        }
        _ => {}
    }
    let values = args.iter().map(|arg| eval(arg, scope)).collect::<Result<Vec<_>, _>>()?;
    let texts = || -> Vec<String> { values.iter().map(printed).collect() };
    Ok(match (name, values.as_slice()) {
        ("json", [value]) => value.to_string().into(),
        ("index", [value, keys @ ..]) => keys.iter().try_fold(value.clone(), |value, key| index(&value, key))?,
        ("len", [Value::String(text)]) => text.len().into(),
        ("len", [Value::Array(list)]) => list.len().into(),
        ("len", [Value::Object(map)]) => map.len().into(),
        ("len", [Value::Null]) => 0.into(),
        ("print", values) => print(values).into(),
        ("println", _) => (texts().join(" ") + "\n").into(),
        ("lower", [Value::String(text)]) => text.to_lowercase().into(),
        ("upper", [Value::String(text)]) => text.to_uppercase().into(),
        ("join", [Value::Array(list), Value::String(between)]) => {
            list.iter().map(printed).collect::<Vec<_>>().join(between).into()
        }
        ("join", [Value::Null, _]) => "".into(),
        ("split", [Value::String(text), Value::String(at)]) => text.split(at.as_str()).collect::<Vec<_>>().into(),
        ("eq", [first, rest @ ..]) if !rest.is_empty() => rest.iter().any(|other| other == first).into(),
        ("ne", [one, other]) => (one != other).into(),
        (_, values) => return Err(bad(name, &Value::Array(values.to_vec()))),
    })
}

/// An entry of a list or a map; of a map that lacks it, the empty text, as Go has it for maps of texts.
fn index(value: &Value, key: &Value) -> Result<Value, TemplateError> {
    match (value, key) {
        (Value::Array(list), Value::Number(at)) => {
            let at = at.as_u64().and_then(|at| usize::try_from(at).ok());
            let missing = || TemplateError::Missing { field: format!("[{key}]") };
            at.and_then(|at| list.get(at)).cloned().ok_or_else(missing)
        }
        (Value::Object(map), Value::String(key)) => Ok(map.get(key).cloned().unwrap_or_else(|| "".into())),
        (Value::Null, Value::String(_)) => Ok("".into()),
        _ => Err(bad("index", key)),
    }
}

/// Blanks stand between two values of which neither is text.
fn print(values: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        if at > 0 && !value.is_string() && !values[at - 1].is_string() {
            out.push(' ');
        }
        out.push_str(&printed(value));
    }
    out
}

/// As Go prints it.
fn printed(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(printed).collect::<Vec<_>>().join(" ")),
        Value::Object(_) => {
            let pair = |(key, value): (Value, Value)| format!("{}:{}", printed(&key), printed(&value));
            let items = items(value).unwrap_or_default();
            format!("map[{}]", items.into_iter().map(pair).collect::<Vec<_>>().join(" "))
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn made(template: &str) -> String {
        let value = json!({
            "Id": "sha256:abc", "Size": 12, "None": null,
            "State": {"Running": true, "Status": "up"},
            "Config": {"Env": ["A=1", "B=2"], "Labels": {"a.b": "label", "z": "last"}},
            "Ports": {"80/tcp": [{"HostPort": "8080"}], "53/udp": null},
        });
        match Template::parse(template).and_then(|template| template.render(&value)) {
            Ok(text) => text,
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn what_scripts_write() {
        let lines = [
            "{{.Id}}",
            "{{ .State.Status }} {{.State.Running}} {{.Size}}",
            "{{json .Config.Env}}",
            "{{.Config.Env | json}}",
            "{{json .State}}",
            "{{.Config.Env}} {{.Config.Labels}} {{.None}}",
            r#"{{index .Config.Labels "a.b"}}{{index .Config.Labels "none"}}"#,
            "{{index .Config.Env 1}}",
            r#"{{(index (index .Ports "80/tcp") 0).HostPort}}"#,
            r#"{{(index .Ports "80/tcp" 0).HostPort}}"#,
            "{{range .Config.Env}}<{{.}}>{{end}}",
            "{{range .Config.Env}}{{println .}}{{end}}",
            "{{range $port, $at := .Ports}}{{$port}}={{range $at}}{{.HostPort}}{{else}}none{{end}};{{end}}",
            "{{range $i, $e := .Config.Env}}{{if $i}},{{end}}{{$e}}{{end}}",
            "{{len .Config.Env}} {{len .Id}}",
            r#"{{join .Config.Env ", "}} {{upper .State.Status}} {{index (split .Id ":") 1}}"#,
            "{{if .State.Running}}yes{{else}}no{{end}} {{if .State.Health}}yes{{else}}no{{end}}",
            r#"{{if eq .State.Status "down"}}a{{else if and .Size (not .None)}}b{{end}}"#,
            "a {{- .Size -}} b{{/* nothing */}}",
            r#"{{print "a" 1 2 "b"}} {{println "x" 1}}"#,
            "{{with .State}}{{.Status}}{{end}}",
            "{{range .Config.Env}}{{$.Size}}{{end}}",
            "{{.Nothing}}",
            "{{.Id.Nothing}}",
            "{{index .Config.Env 7}}",
            "{{range .Size}}{{end}}",
            "{{len .Size}}",
            "{{if}}x{{end}}",
            "{{.Id",
            "{{range .Config.Env}}",
            "{{end}}",
            "{{nosuch .Id}}",
            r#"{{"open}}"#,
            "{{(.Id}}",
            "{{.Id)}}",
            "{{}}",
        ];
        let table: String = lines.iter().map(|line| format!("{line} => {}\n", made(line).escape_default())).collect();
        insta::assert_snapshot!(table, @r#"
        {{.Id}} => sha256:abc
        {{ .State.Status }} {{.State.Running}} {{.Size}} => up true 12
        {{json .Config.Env}} => [\"A=1\",\"B=2\"]
        {{.Config.Env | json}} => [\"A=1\",\"B=2\"]
        {{json .State}} => {\"Running\":true,\"Status\":\"up\"}
        {{.Config.Env}} {{.Config.Labels}} {{.None}} => [A=1 B=2] map[a.b:label z:last] <no value>
        {{index .Config.Labels "a.b"}}{{index .Config.Labels "none"}} => label
        {{index .Config.Env 1}} => B=2
        {{(index (index .Ports "80/tcp") 0).HostPort}} => 8080
        {{(index .Ports "80/tcp" 0).HostPort}} => 8080
        {{range .Config.Env}}<{{.}}>{{end}} => <A=1><B=2>
        {{range .Config.Env}}{{println .}}{{end}} => A=1\nB=2\n
        {{range $port, $at := .Ports}}{{$port}}={{range $at}}{{.HostPort}}{{else}}none{{end}};{{end}} => 53/udp=none;80/tcp=8080;
        {{range $i, $e := .Config.Env}}{{if $i}},{{end}}{{$e}}{{end}} => A=1,B=2
        {{len .Config.Env}} {{len .Id}} => 2 10
        {{join .Config.Env ", "}} {{upper .State.Status}} {{index (split .Id ":") 1}} => A=1, B=2 UP abc
        {{if .State.Running}}yes{{else}}no{{end}} {{if .State.Health}}yes{{else}}no{{end}} => yes no
        {{if eq .State.Status "down"}}a{{else if and .Size (not .None)}}b{{end}} => b
        a {{- .Size -}} b{{/* nothing */}} => a12b
        {{print "a" 1 2 "b"}} {{println "x" 1}} => a1 2b x 1\n
        {{with .State}}{{.Status}}{{end}} => up
        {{range .Config.Env}}{{$.Size}}{{end}} => 1212
        {{.Nothing}} => error: there is no field `Nothing`
        {{.Id.Nothing}} => error: there is no field `Nothing`
        {{index .Config.Env 7}} => error: there is no field `[7]`
        {{range .Size}}{{end}} => error: `range` cannot take 12
        {{len .Size}} => error: `len` cannot take [12]
        {{if}}x{{end}} => error: the template is wrong at ``: an expression is missing
        {{.Id => error: the template is wrong at `.Id`: `}}` is missing
        {{range .Config.Env}} => error: the template is wrong at `range`: `{{end}}` is missing
        {{end}} => error: the template is wrong at `end`: there is nothing to end
        {{nosuch .Id}} => error: the template is wrong at `nosuch .Id`: there is no function `nosuch`, only and, eq, index, join, json, len, lower, ne, not, or, print, println, split, upper
        {{"open}} => error: the template is wrong at `\"open`: a quote is missing
        {{(.Id}} => error: the template is wrong at `(.Id`: `)` is missing
        {{.Id)}} => error: the template is wrong at `.Id)`: there is more than an expression
        {{}} => error: the template is wrong at ``: an expression is missing
        "#);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in r#"([{}. $|()",a-c0-9]|\{\{|\}\}|end|if |range |index |json |println |:=){0,24}"#) {
            made(&text);
        }
    }
}
