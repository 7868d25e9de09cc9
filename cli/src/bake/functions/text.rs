//! Functions that write values as text and read them: `format`, JSON, base64, digests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256, Sha512};

use super::strings::string;
use super::{Function, Outcome, at_least, exactly};
use crate::bake::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    at_least("format", 1, |args| string(format(&args[0].to_text()?, &args[1..])?)),
    at_least("formatlist", 1, formatlist),
    exactly("jsonencode", 1, |args| string(args[0].to_json().to_string())),
    exactly("jsondecode", 1, |args| {
        let json = serde_json::from_str(&args[0].to_text()?).map_err(|error| format!("not JSON: {error}"))?;
        Ok(Value::from_json(&json))
    }),
    exactly("base64encode", 1, |args| string(STANDARD.encode(args[0].to_text()?))),
    exactly("base64decode", 1, |args| {
        let bytes = STANDARD.decode(args[0].to_text()?).map_err(|error| format!("not base64: {error}"))?;
        string(String::from_utf8(bytes).map_err(|_| "the result is no UTF-8 text")?)
    }),
    exactly("urlencode", 1, |args| string(urlencode(&args[0].to_text()?))),
    exactly("sha256", 1, |args| string(hex(&Sha256::digest(args[0].to_text()?)))),
    exactly("sha512", 1, |args| string(hex(&Sha512::digest(args[0].to_text()?)))),
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn urlencode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        b' ' => "+".to_owned(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// `format` once for each item of the lists among the arguments.
fn formatlist(args: &[Value]) -> Outcome {
    let template = args[0].to_text()?;
    let lengths: Vec<usize> = args[1..].iter().filter_map(|arg| arg.to_list().ok().map(<[Value]>::len)).collect();
    let count = lengths.first().copied().unwrap_or(1);
    if lengths.iter().any(|length| *length != count) {
        return Err("the lists differ in length".to_owned());
    }
    let line = |i: usize| {
        let own = |arg: &Value| arg.to_list().ok().map_or_else(|| arg.clone(), |list| list[i].clone());
        format(&template, &args[1..].iter().map(own).collect::<Vec<_>>()).map(Value::String)
    };
    (0..count).map(line).collect::<Result<_, _>>().map(Value::List)
}

/// What stands between `%` and the letter.
#[derive(Default)]
struct Flags {
    left: bool,
    zero: bool,
    sign: bool,
    width: usize,
    precision: Option<usize>,
}

/// A width beyond this is a mistake.
const WIDTH_LIMIT: usize = 1024;

/// Go's verbs, as far as HCL has them: `%v %s %q %d %x %X %o %b %e %f %g %t %%`.
fn format(template: &str, args: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut next = 0;
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let (flags, after) = flags(after)?;
        let mut chars = after.chars();
        let verb = chars.next().ok_or("a `%` at the end")?;
        rest = chars.as_str();
        if verb == '%' {
            out.push('%');
            continue;
        }
        let arg = args.get(next).ok_or_else(|| format!("there is no argument for `%{verb}`"))?;
        next += 1;
        out.push_str(&padded(&shown(verb, arg, &flags)?, &flags));
    }
    out.push_str(rest);
    if next < args.len() && !template.is_empty() {
        return Err(format!("{} arguments for {next} places", args.len()));
    }
    Ok(out)
}

fn flags(text: &str) -> Result<(Flags, &str), String> {
    let mut flags = Flags::default();
    let after = text.trim_start_matches(['-', '0', '+', ' ']);
    let given = &text[..text.len() - after.len()];
    flags.left = given.contains('-');
    flags.zero = given.contains('0') && !flags.left;
    flags.sign = given.contains('+');
    let number = |text: &str| -> Result<usize, String> {
        let value = if text.is_empty() { Ok(0) } else { text.parse() };
        value.ok().filter(|value| *value <= WIDTH_LIMIT).ok_or_else(|| format!("`{text}` is too wide"))
    };
    let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    flags.width = number(&after[..after.len() - rest.len()])?;
    let Some(precise) = rest.strip_prefix('.') else { return Ok((flags, rest)) };
    let rest = precise.trim_start_matches(|c: char| c.is_ascii_digit());
    flags.precision = Some(number(&precise[..precise.len() - rest.len()])?);
    Ok((flags, rest))
}

fn shown(verb: char, arg: &Value, flags: &Flags) -> Result<String, String> {
    let signed = |text: String| if flags.sign && !text.starts_with('-') { format!("+{text}") } else { text };
    Ok(match verb {
        'v' => match arg {
            Value::List(_) | Value::Map(_) | Value::Null => arg.to_json().to_string(),
            other => other.to_text()?,
        },
        's' => {
            let text = arg.to_text()?;
            flags.precision.map_or(text.clone(), |length| text.chars().take(length).collect())
        }
        'q' => serde_json::Value::String(arg.to_text()?).to_string(),
        't' => arg.to_bool()?.to_string(),
        'd' => signed(arg.to_integer()?.to_string()),
        'x' => format!("{:x}", arg.to_integer()?),
        'X' => format!("{:X}", arg.to_integer()?),
        'o' => format!("{:o}", arg.to_integer()?),
        'b' => format!("{:b}", arg.to_integer()?),
        'f' => signed(format!("{:.*}", flags.precision.unwrap_or(6), arg.to_number()?)),
        'e' => signed(format!("{:.*e}", flags.precision.unwrap_or(6), arg.to_number()?)),
        'g' => signed(Value::Number(arg.to_number()?).to_text()?),
        other => return Err(format!("`%{other}` is unknown")),
    })
}

fn padded(text: &str, flags: &Flags) -> String {
    let missing = flags.width.saturating_sub(text.chars().count());
    match (flags.left, flags.zero) {
        (true, _) => format!("{text}{}", " ".repeat(missing)),
        (false, true) => {
            let digits = text.trim_start_matches(['-', '+']);
            format!("{}{}{digits}", &text[..text.len() - digits.len()], "0".repeat(missing))
        }
        (false, false) => format!("{}{text}", " ".repeat(missing)),
    }
}
