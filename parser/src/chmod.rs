//! File modes of `--chmod`: octal (`0755`) and symbolic (`u=rwX,go-w`, chmod(1)). Knows bits, touches no file.

/// Permission bits with set-id and sticky bits.
const ALL_BITS: u32 = 0o7777;

/// A parsed `--chmod`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Chmod {
    /// The mode that every file and directory gets, 0 to 0o7777.
    Octal(u32),
    /// Changes to apply in order to the mode a file has.
    Symbolic(Vec<Clause>),
}

/// One change of a symbolic mode, such as `go-w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Clause {
    /// The bits of those it is about: owner, group, others, as a mask over all of 0o7777.
    who: u32,
    op: Op,
    /// The bits named, for everybody; `who` picks.
    bits: u32,
    /// `X`: execute bits, where something may be executed already.
    conditional: bool,
    /// `u`, `g`, `o` behind the operator: by how far to shift the mode to find the bits to copy.
    copies: [Option<u32>; 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Op {
    Add,
    Remove,
    Set,
}

/// A text that is no mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid chmod parameter: '{mode}'. it should be octal string and between 0 and 07777")]
pub struct ChmodError {
    /// The text.
    pub mode: String,
}

impl ChmodError {
    /// What a mode may look like.
    pub fn hint(&self) -> Option<String> {
        Some("write digits 0 to 7 such as 0644, or letters such as u=rwX,go=rX".to_owned())
    }
}

impl Chmod {
    /// Reads an octal or symbolic mode.
    ///
    /// # Errors
    ///
    /// [`ChmodError`] for anything else, and for octal numbers above 07777.
    pub fn parse(text: &str) -> Result<Chmod, ChmodError> {
        let invalid = || ChmodError { mode: text.to_owned() };
        if text.starts_with(|ch: char| ch.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).map_err(|_| invalid())?;
            return if mode <= ALL_BITS { Ok(Chmod::Octal(mode)) } else { Err(invalid()) };
        }
        let mut clauses = Vec::new();
        for clause in text.split(',') {
            parse_clauses(clause, &mut clauses).ok_or_else(invalid)?;
        }
        Ok(Chmod::Symbolic(clauses))
    }

    /// The new permission bits of a file that has `mode`. Bits above 0o7777 are dropped.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Chmod::Octal(mode) => *mode,
            Chmod::Symbolic(clauses) => {
                clauses.iter().fold(mode & ALL_BITS, |now, clause| clause.apply(now, mode & 0o111 != 0 || is_dir))
            }
        }
    }
}

impl Clause {
    fn apply(self, mode: u32, executable: bool) -> u32 {
        let copied = self.copies.iter().flatten().fold(0, |bits, shift| bits | ((mode >> shift & 0o7) * 0o111));
        let execute = if self.conditional && executable { 0o111 } else { 0 };
        let bits = self.who & (self.bits | copied | execute);
        match self.op {
            Op::Add => mode | bits,
            Op::Remove => mode & !bits,
            // The sticky bit goes only where it is named.
            Op::Set => mode & !(self.who & !0o1000) | bits,
        }
    }
}

/// Reads what stands between two commas: `[ugoa..](op perms..)..`
fn parse_clauses(text: &str, clauses: &mut Vec<Clause>) -> Option<()> {
    let end = text.find(|ch| !matches!(ch, 'u' | 'g' | 'o' | 'a')).unwrap_or(text.len());
    let (letters, mut rest) = text.split_at(end);
    let who = letters.chars().fold(0, |who, letter| {
        who | match letter {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o0007,
            _ => 0o6777,
        }
    });
    if rest.is_empty() {
        return None;
    }
    while let Some(sign) = rest.chars().next() {
        let op = match sign {
            '+' => Op::Add,
            '-' => Op::Remove,
            '=' => Op::Set,
            _ => return None,
        };
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
        clauses.push(parse_permissions(&rest[1..end], who, op)?);
        rest = &rest[end..];
    }
    Some(())
}

/// Reads the letters behind one operator. No `who` means everybody: there is no umask in a build.
fn parse_permissions(letters: &str, who: u32, op: Op) -> Option<Clause> {
    let only_others = who != 0 && who & !0o0007 == 0;
    let mut clause =
        Clause { who: if who == 0 { 0o6777 } else { who }, op, bits: 0, conditional: false, copies: [None; 3] };
    for letter in letters.chars() {
        match letter {
            'r' => clause.bits |= 0o444,
            'w' => clause.bits |= 0o222,
            'x' => clause.bits |= 0o111,
            'X' if op == Op::Remove => clause.bits |= 0o111,
            'X' => clause.conditional = true,
            's' if !only_others => clause.bits |= 0o6000,
            't' if !only_others => {
                clause.bits |= 0o1000;
                clause.who |= 0o1000;
            }
            's' | 't' => {}
            'u' => clause.copies[0] = Some(6),
            'g' => clause.copies[1] = Some(3),
            'o' => clause.copies[2] = Some(0),
            _ => return None,
        }
    }
    Some(clause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, mode: u32) -> u32 {
        Chmod::parse(text).unwrap().apply(mode, false)
    }

    #[test]
    fn octal() {
        assert_eq!(Chmod::parse("755"), Ok(Chmod::Octal(0o755)));
        assert_eq!(file("04711", 0o600), 0o4711);
        for text in ["99", "10644", "", "0o7", "-1", "7x", "77777777777777"] {
            assert_eq!(
                Chmod::parse(text).unwrap_err().to_string(),
                format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
            );
        }
    }

    #[test]
    fn symbolic() {
        assert_eq!(file("+x", 0o644), 0o755);
        assert_eq!(file("u+x", 0o644), 0o744);
        assert_eq!(file("go-rwx", 0o777), 0o700);
        assert_eq!(file("u=rwX,go=rX", 0o600), 0o644);
        assert_eq!(file("u=rwX,go=rX", 0o700), 0o755);
        assert_eq!(file("a=r", 0o4755), 0o444);
        assert_eq!(file("g=u", 0o640), 0o660);
        assert_eq!(file("g=u,o=g", 0o750), 0o777);
        assert_eq!(file("go=u-w", 0o700), 0o755);
        assert_eq!(file("u+s,g+s", 0o755), 0o6755);
        assert_eq!(file("+t", 0o777), 0o1777);
        assert_eq!(file("o+t", 0o777), 0o777);
        assert_eq!(file("=", 0o1777), 0o1000);
        assert_eq!(file("u=g+x", 0o640), 0o540);
    }

    #[test]
    fn conditional_execution_on_directories() {
        let mode = Chmod::parse("a+X").unwrap();
        assert_eq!(mode.apply(0o644, true), 0o755);
        assert_eq!(mode.apply(0o644, false), 0o644);
        assert_eq!(mode.apply(0o744, false), 0o755);
    }

    #[test]
    fn malformed_symbolic_modes() {
        for text in ["x", "u", "u=q", "u=r,", ",u=r", "u*r"] {
            assert!(Chmod::parse(text).is_err(), "{text}");
        }
    }
}
