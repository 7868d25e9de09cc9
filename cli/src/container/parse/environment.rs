//! Environment variables of a process: what the image sets, what files and flags change. Pure: the caller's own
//! environment comes as a function.

/// A line of an `--env-file` that is no variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of `{file}` is not a variable: a name holds no blanks")]
pub(crate) struct BadLine {
    /// The file as given.
    pub(crate) file: String,
    /// Its line, from 1.
    pub(crate) line: usize,
}

/// Variables in order; setting one again replaces it in its place, as docker does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Environment(Vec<String>);

impl Environment {
    /// `NAME=value`, each.
    pub(crate) fn new(variables: &[String]) -> Self {
        let mut all = Self::default();
        variables.iter().for_each(|variable| all.put(variable.clone()));
        all
    }

    /// The value of a variable.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|v| v.strip_prefix(name)?.strip_prefix('='))
    }

    /// Sets `NAME=value`.
    pub(crate) fn put(&mut self, variable: String) {
        let name = variable.split('=').next().unwrap_or_default();
        match self.0.iter().position(|known| known.split('=').next() == Some(name)) {
            Some(at) => self.0[at] = variable,
            None => self.0.push(variable),
        }
    }

    /// Sets a variable that has no value yet.
    pub(crate) fn put_default(&mut self, name: &str, value: &str) {
        if self.get(name).is_none() {
            self.0.push(format!("{name}={value}"));
        }
    }

    /// `-e`: sets `NAME=value`; `NAME` alone takes the caller's value, and removes the variable when the caller has none.
    pub(crate) fn apply(&mut self, flag: &str, own: &dyn Fn(&str) -> Option<String>) {
        if flag.contains('=') {
            self.put(flag.to_owned());
            return;
        }
        match own(flag) {
            Some(value) => self.put(format!("{flag}={value}")),
            None => self.0.retain(|known| known.split('=').next() != Some(flag)),
        }
    }

    /// `--env-file`: a variable a line, as for `-e`; lines that begin with `#` are comments, nothing is unquoted.
    pub(crate) fn apply_file(
        &mut self,
        file: &str,
        text: &str,
        own: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), BadLine> {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start().trim_end_matches('\r');
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let name = line.split('=').next().unwrap_or_default();
            if name.is_empty() || name.contains(char::is_whitespace) {
                return Err(BadLine { file: file.to_owned(), line: number + 1 });
            }
            // A name without a value that the caller does not have is left alone here.
            if line.contains('=') || own(line).is_some() {
                self.apply(line, own);
            }
        }
        Ok(())
    }

    /// The variables, each `NAME=value`.
    pub(crate) fn into_vec(self) -> Vec<String> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(name: &str) -> Option<String> {
        (name == "HERE").then(|| "yes".to_owned())
    }

    #[test]
    fn later_settings_win_in_place() {
        let mut env = Environment::new(&["A=1".into(), "B=2".into(), "A=3".into()]);
        env.apply("B=", &own);
        env.apply("HERE", &own);
        env.apply("A", &own);
        env.put_default("B", "9");
        env.put_default("HOME", "/root");
        assert_eq!(env.into_vec(), ["B=", "HERE=yes", "HOME=/root"]);
    }

    #[test]
    fn files_hold_a_variable_a_line() {
        let mut env = Environment::default();
        env.apply_file("f", "# note\n\n  A=b c # d\r\nHERE\nMISSING\nQ=\"x\"\n", &own).unwrap();
        assert_eq!(env.into_vec(), ["A=b c # d", "HERE=yes", "Q=\"x\""]);
        let mut env = Environment::default();
        let error = env.apply_file("f", "A=1\nB C=2\n", &own).unwrap_err();
        assert_eq!(error.to_string(), "line 2 of `f` is not a variable: a name holds no blanks");
        assert!(env.apply_file("f", "=x", &own).is_err());
    }
}
