//! One line of comma-separated fields (RFC 4180), as `--mount` and `--device` take them. Knows no keys.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_till};
use nom::character::complete::char;
use nom::combinator::{all_consuming, map, value};
use nom::multi::{fold_many0, separated_list1};
use nom::sequence::delimited;
use nom::{IResult, Parser};

/// Splits a line into fields; quotes around a field go, doubled quotes in it become one.
///
/// `None` for quotes in the middle of a field or an unclosed one.
pub fn parse_fields(line: &str) -> Option<Vec<String>> {
    all_consuming(separated_list1(char(','), field)).parse(line).ok().map(|(_, fields)| fields)
}

fn field(input: &str) -> IResult<&str, String> {
    alt((quoted, plain)).parse(input)
}

fn plain(input: &str) -> IResult<&str, String> {
    map(take_till(|ch| matches!(ch, ',' | '"')), str::to_owned).parse(input)
}

fn quoted(input: &str) -> IResult<&str, String> {
    let piece = alt((value("\"", tag("\"\"")), nom::bytes::complete::take_till1(|ch| ch == '"')));
    let body = fold_many0(piece, String::new, |mut text, piece: &str| {
        text.push_str(piece);
        text
    });
    delimited(char('"'), body, char('"')).parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let fields = |line| parse_fields(line).unwrap();
        assert_eq!(fields("type=bind,rw"), ["type=bind", "rw"]);
        assert_eq!(fields(r#"a,"b,""c""",d"#), ["a", r#"b,"c""#, "d"]);
        assert_eq!(fields(",x,"), ["", "x", ""]);
        assert_eq!(fields(""), [""]);
        assert_eq!(parse_fields(r#"a"b"#), None);
        assert_eq!(parse_fields(r#""a"#), None);
        assert_eq!(parse_fields(r#""a"b"#), None);
    }
}
