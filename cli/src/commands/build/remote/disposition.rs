//! The file name in a `Content-Disposition` header (RFC 6266). Pure; what comes out may be hostile.

/// The name, without directories; `filename*` goes before `filename`.
pub(super) fn file_name(header: &str) -> Option<String> {
    let mut plain = None;
    for parameter in parameters(header) {
        let Some((key, value)) = parameter.split_once('=') else { continue };
        match key.trim().to_ascii_lowercase().as_str() {
            "filename*" => {
                if let Some(name) = extended(value.trim()) {
                    return last_part(&name);
                }
            }
            "filename" => plain = plain.or_else(|| Some(unquoted(value.trim()))),
            _ => {}
        }
    }
    last_part(&plain?)
}

/// What stands between semicolons, those in quotes left alone. The first part is the type.
fn parameters(header: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in header.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ';' if !quoted => {
                parts.push(&header[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&header[start..]);
    parts.split_off(1)
}

fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"') else { return value.to_owned() };
    let (mut out, mut chars) = (String::new(), inner.chars());
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

/// `UTF-8''%e2%82%ac` (RFC 8187).
fn extended(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_, text) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    let mut bytes = Vec::new();
    let mut left = text.as_bytes();
    while let [first, rest @ ..] = left {
        left = rest;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, rest) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        left = rest;
    }
    String::from_utf8(bytes).ok()
}

fn last_part(name: &str) -> Option<String> {
    name.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_all_their_forms() {
        for (header, name) in [
            (r#"attachment; filename="a b.txt""#, Some("a b.txt")),
            ("attachment; filename=plain.txt", Some("plain.txt")),
            (r#"attachment; FileName = "x;y\"z""#, Some("x;y\"z")),
            ("attachment; filename=fallback; filename*=UTF-8''%e2%82%ac.txt", Some("€.txt")),
            ("attachment; filename*=latin1''x; filename=y", Some("y")),
            ("attachment; filename*=UTF-8''%e2%8; filename=y", Some("y")),
            (r#"attachment; filename="../../etc/passwd""#, Some("passwd")),
            (r#"attachment; filename="dir/""#, None),
            ("attachment", None),
            ("filename=x", None),
            ("", None),
        ] {
            assert_eq!(file_name(header).as_deref(), name, "{header}");
        }
    }
}
