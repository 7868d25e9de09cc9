//! Finding and reading the ignore file of a build: `NAME.dockerignore` beside the Dockerfile, else `.dockerignore` in the context.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use parser::dockerignore::IgnoreFile;

use crate::report::CommandError;

/// The ignore file that counts for a Dockerfile (none: it came on standard input) and a context; none when there is none or it
/// is empty.
///
/// # Errors
/// When it can't be read, or has a line that makes no sense.
pub(crate) fn read(context: &Path, dockerfile: Option<&Path>) -> Result<Option<IgnoreFile>, CommandError> {
    let own = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in own.into_iter().chain([context.join(".dockerignore")]) {
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(CommandError::input(format!("cannot read `{}`: {error}", path.display()))),
        };
        let ignore = IgnoreFile::parse(&bytes).map_err(|error| {
            let mut report = CommandError::from_error(crate::report::Kind::Input, &error, error.hint());
            report.message = format!("bad pattern in `{}`: {}", path.display(), report.message);
            report
        })?;
        let name = path.file_name().map_or(".dockerignore".into(), |name| name.to_string_lossy());
        return Ok((!ignore.is_empty()).then(|| ignore.named(name)));
    }
    Ok(None)
}
