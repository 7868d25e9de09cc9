//! Strings with `${…}` and `%{…}` in them, heredocs included.

use hcl_edit::template::{Directive, Element, ForDirective, HeredocTemplate, IfDirective, Strip, Template};

use super::error::BakeError;
use super::eval::{Locals, Scope, pairs};
use super::value::Value;

/// A quoted template. One that is nothing but a single interpolation is its value, of whatever kind.
pub(super) fn string<'e>(scope: &Scope<'_>, elements: impl Iterator<Item = &'e Element>) -> Result<Value, BakeError> {
    let elements: Vec<&Element> = elements.collect();
    match elements.as_slice() {
        [Element::Interpolation(only)] => scope.eval(&only.expr),
        elements => text(scope, elements, &Edges::default()).map(Value::String),
    }
}

/// A heredoc; `<<-` loses the blanks that all its lines begin with.
pub(super) fn heredoc(scope: &Scope<'_>, heredoc: &HeredocTemplate) -> Result<Value, BakeError> {
    // The parser has taken the indent off already, but not in what stands inside of directives.
    let edges = Edges { indent: heredoc.indent().unwrap_or_default(), ..Edges::default() };
    template(scope, &heredoc.template, &edges).map(Value::String)
}

/// What is around a template.
#[derive(Debug, Clone, Copy, Default)]
struct Edges {
    /// The marker in front of it.
    before: Strip,
    /// The marker behind it.
    after: Strip,
    /// Blanks that lines inside of directives lose.
    indent: usize,
    /// Inside of a directive.
    inside: bool,
}

impl Edges {
    fn inside(self, before: Strip, after: Strip) -> Self {
        Self { before, after, inside: true, ..self }
    }
}

fn template(scope: &Scope<'_>, template: &Template, edges: &Edges) -> Result<String, BakeError> {
    let elements: Vec<&Element> = template.iter().collect();
    text(scope, &elements, edges)
}

fn text(scope: &Scope<'_>, elements: &[&Element], edges: &Edges) -> Result<String, BakeError> {
    let mut out = String::new();
    for (i, element) in elements.iter().enumerate() {
        match element {
            Element::Literal(literal) => {
                let shifted =
                    if edges.inside { dedented(literal.value(), edges.indent) } else { literal.value().clone() };
                let mut part = shifted.as_str();
                let left = if i == 0 { edges.before } else { trailing(elements[i - 1]) };
                let right = elements.get(i + 1).map_or(edges.after, |next| leading(next));
                if strips_after(left) {
                    part = part.trim_start();
                }
                if strips_before(right) {
                    part = part.trim_end();
                }
                out.push_str(part);
            }
            Element::Interpolation(interpolation) => out.push_str(&scope.text(&interpolation.expr)?),
            Element::Directive(directive) => match &**directive {
                Directive::If(directive) => out.push_str(&conditional(scope, directive, edges)?),
                Directive::For(directive) => repeated(scope, directive, edges, &mut out)?,
            },
        }
    }
    Ok(out)
}

fn conditional(scope: &Scope<'_>, directive: &IfDirective, edges: &Edges) -> Result<String, BakeError> {
    let (when, end) = (&directive.if_expr, directive.endif_expr.strip);
    if scope.bool(&when.cond_expr)? {
        let after = directive.else_expr.as_ref().map_or(end, |other| other.strip);
        return template(scope, &when.template, &edges.inside(when.strip, after));
    }
    match &directive.else_expr {
        Some(other) => template(scope, &other.template, &edges.inside(other.strip, end)),
        None => Ok(String::new()),
    }
}

fn repeated(scope: &Scope<'_>, directive: &ForDirective, edges: &Edges, out: &mut String) -> Result<(), BakeError> {
    let each = &directive.for_expr;
    let items = pairs(&scope.eval(&each.collection_expr)?).map_err(BakeError::new)?;
    for (key, value) in items {
        let mut own = vec![(each.value_var.as_str().to_owned(), value)];
        own.extend(each.key_var.iter().map(|name| (name.as_str().to_owned(), key.clone())));
        let part = Locals::with(&own, scope.locals, |locals| {
            let edges = edges.inside(each.strip, directive.endfor_expr.strip);
            template(&Scope { locals, ..*scope }, &each.template, &edges)
        });
        out.push_str(&part?);
    }
    Ok(())
}

/// The text without up to `indent` blanks at the beginning of each line but the first, which is the rest of one.
fn dedented(text: &str, indent: usize) -> String {
    let mut lines = text.split('\n');
    let mut out = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        let blanks = line.len() - line.trim_start_matches(' ').len();
        out.push('\n');
        out.push_str(&line[blanks.min(indent)..]);
    }
    out
}

/// The marker that faces what stands before an element.
fn leading(element: &Element) -> Strip {
    match element {
        Element::Literal(_) => Strip::None,
        Element::Interpolation(interpolation) => interpolation.strip,
        Element::Directive(directive) => match &**directive {
            Directive::If(directive) => directive.if_expr.strip,
            Directive::For(directive) => directive.for_expr.strip,
        },
    }
}

/// The marker that faces what stands behind an element.
fn trailing(element: &Element) -> Strip {
    match element {
        Element::Literal(_) => Strip::None,
        Element::Interpolation(interpolation) => interpolation.strip,
        Element::Directive(directive) => match &**directive {
            Directive::If(directive) => directive.endif_expr.strip,
            Directive::For(directive) => directive.endfor_expr.strip,
        },
    }
}

fn strips_before(strip: Strip) -> bool {
    matches!(strip, Strip::Start | Strip::Both)
}

fn strips_after(strip: Strip) -> bool {
    matches!(strip, Strip::End | Strip::Both)
}
