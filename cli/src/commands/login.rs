//! `login` and `logout`: the user's logins for registries, kept where docker keeps them.

use std::fs;
use std::io::{self, BufRead, ErrorKind, IsTerminal, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use registry::login::{helper, is_registry, registry_name, with_login, without_login};
use serde_json::json;

use crate::args::{LoginArgs, LogoutArgs};
use crate::container::RawMode;
use crate::context::{self, Context};
use crate::output;
use crate::report::{CommandError, Kind};

/// Tries a login and keeps it.
pub(crate) fn login(args: &LoginArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let registry = known_registry(args.server.as_deref())?;
    let path = config_file()?;
    let config = read(&path)?;
    let (user, password) = ask(args)?;
    context.registry(args.tls_verify).try_login(&registry, &user, &password).map_err(|error| {
        let refused = matches!(error.status(), Some(401 | 403));
        let error = CommandError::from(error);
        match refused {
            true => CommandError { message: format!("`{registry}` refuses the login: {}", error.message), ..error }
                .hint("many registries want an access token in place of the password"),
            false => error,
        }
    })?;
    if let Some((name, server)) = helper(&config, &registry).map_err(|error| unreadable(&path, &error))? {
        let login = json!({"ServerURL": server, "Username": user, "Secret": password}).to_string();
        if run_helper(&name, "store", &login)? {
            output::tell("Login Succeeded");
            return Ok(ExitCode::SUCCESS);
        }
        output::warn(format_args!("there is no `docker-credential-{name}`; the login goes into the file"));
    }
    let new = with_login(&config, &registry, &user, &password).map_err(|error| unreadable(&path, &error))?;
    write(&path, &new)?;
    output::note(format_args!("the password is in {}, which others cannot read", path.display()));
    output::tell("Login Succeeded");
    Ok(ExitCode::SUCCESS)
}

/// Forgets a login.
pub(crate) fn logout(args: &LogoutArgs) -> Result<ExitCode, CommandError> {
    let registry = known_registry(args.server.as_deref())?;
    let path = config_file()?;
    let config = read(&path)?;
    let mut known = false;
    if let Some((name, server)) = helper(&config, &registry).map_err(|error| unreadable(&path, &error))? {
        known |= run_helper(&name, "erase", &server)?;
    }
    if let Some(new) = without_login(&config, &registry).map_err(|error| unreadable(&path, &error))? {
        write(&path, &new)?;
        known = true;
    }
    // As docker, which fails at nothing here.
    output::tell(match known {
        true => format!("Removing login credentials for {registry}"),
        false => format!("Not logged in to {registry}"),
    });
    Ok(ExitCode::SUCCESS)
}

fn known_registry(server: Option<&str>) -> Result<String, CommandError> {
    let name = registry_name(server);
    if is_registry(&name) {
        return Ok(name);
    }
    Err(CommandError::input(format!("`{name}` is not the name of a registry"))
        .hint("a registry is a host such as ghcr.io or localhost:5000"))
}

/// User name and password, of flags, standard input or the terminal.
fn ask(args: &LoginArgs) -> Result<(String, String), CommandError> {
    let failed = |error: io::Error| CommandError::failed(format!("cannot read the login: {error}"));
    if args.password_stdin {
        let user = args.username.clone().ok_or_else(|| CommandError::input("--password-stdin needs --username"))?;
        let mut password = String::new();
        io::stdin().read_to_string(&mut password).map_err(failed)?;
        return complete(user, password.trim_end_matches(['\r', '\n']).to_owned());
    }
    if let (Some(user), Some(password)) = (&args.username, &args.password) {
        output::warn("other users of this machine see --password; use --password-stdin");
        return complete(user.clone(), password.clone());
    }
    if !io::stdin().is_terminal() {
        return Err(CommandError::input("there is nobody to ask for the password: standard input is not a terminal")
            .hint("use --username and --password-stdin"));
    }
    let user = match &args.username {
        Some(user) => user.clone(),
        None => {
            output::note_text("Username: ");
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line).map_err(failed)?;
            line.trim().to_owned()
        }
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None => prompt().map_err(failed)?.ok_or_else(|| CommandError::new(Kind::Cancelled, "canceled"))?,
    };
    complete(user, password)
}

fn complete(user: String, password: String) -> Result<(String, String), CommandError> {
    if user.is_empty() || password.is_empty() {
        return Err(CommandError::input("user name and password must not be empty"));
    }
    Ok((user, password))
}

/// Reads a password that the terminal does not show; none when the user gave up.
fn prompt() -> io::Result<Option<String>> {
    output::note_text("Password: ");
    let raw = RawMode::start()?;
    let password = typed(io::stdin().lock().bytes());
    drop(raw);
    output::note("");
    password
}

/// A line typed into a terminal that does nothing about keys.
fn typed(keys: impl Iterator<Item = io::Result<u8>>) -> io::Result<Option<String>> {
    const INTERRUPT: u8 = 3;
    const END: u8 = 4;
    const DELETE: [u8; 2] = [8, 127];
    let mut line = Vec::new();
    for key in keys {
        match key? {
            INTERRUPT => return Ok(None),
            b'\r' | b'\n' | END => break,
            key if DELETE.contains(&key) => {
                // A character may be several bytes.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            key => line.push(key),
        }
    }
    String::from_utf8(line).map(Some).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

fn config_file() -> Result<PathBuf, CommandError> {
    let path = context::credential_file().ok_or_else(|| {
        CommandError::failed("there is no place for logins").hint("set HOME, or DOCKER_CONFIG to a directory")
    })?;
    // A link stays one: what it points to is written.
    Ok(path.canonicalize().unwrap_or(path))
}

fn read(path: &Path) -> Result<String, CommandError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        other => other.map_err(|error| unreadable(path, &error)),
    }
}

fn unreadable(path: &Path, error: &dyn std::error::Error) -> CommandError {
    CommandError::failed(format!("cannot read `{}`: {error}", path.display()))
}

/// For its owner's eyes (a temporary file is made that way), and whole at any time.
fn write(path: &Path, text: &str) -> Result<(), CommandError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let written = || {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map(drop).map_err(|error| error.error)
    };
    written().map_err(|error: io::Error| CommandError::failed(format!("cannot write `{}`: {error}", path.display())))
}

/// Runs `docker-credential-NAME VERB` (docker/docker-credential-helpers, "development"); false when there is no such program.
fn run_helper(name: &str, verb: &str, input: &str) -> Result<bool, CommandError> {
    let program = format!("docker-credential-{name}");
    let failed = |why: String| CommandError::failed(format!("credential helper `{program}` failed: {why}"));
    let child = Command::new(&program).arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = match child {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        other => other.map_err(|error| failed(error.to_string()))?,
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that has failed before it read this says so itself.
        stdin.write_all(input.as_bytes()).unwrap_or_default();
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(true);
    }
    let said = String::from_utf8_lossy(&output.stdout);
    Err(failed(said.lines().next().unwrap_or("no message").to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_make_a_password() {
        let read = |keys: &str| typed(keys.bytes().map(Ok)).unwrap();
        assert_eq!(read("secret\rmore").as_deref(), Some("secret"));
        assert_eq!(read("sx\u{7f}e\u{e9}\u{7f}t\n").as_deref(), Some("set"));
        assert_eq!(read("\u{8}a\u{4}").as_deref(), Some("a"));
        assert_eq!(read("secr\u{3}et\n"), None);
        assert!(typed([Ok(0xff), Ok(b'\n')].into_iter()).is_err());
    }
}
