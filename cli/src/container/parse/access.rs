//! What a container may do: capabilities, devices, resource limits, security options. Reads the seccomp profile a flag
//! names; looks at no device.

use std::path::{Path, PathBuf};

use executor::Capability;
use executor::seccomp::Profile;
use executor::spec::{DeviceKind, DeviceRule, Resource, Rlimit, Seccomp};

use super::Unexpected;

/// One of a kind, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AllOr<T> {
    /// `ALL`.
    All,
    /// One.
    One(T),
}

/// `--cap-add`, `--cap-drop`.
pub(crate) fn capability(text: &str) -> Result<AllOr<Capability>, executor::UnknownCapability> {
    if text.eq_ignore_ascii_case("all") { Ok(AllOr::All) } else { text.parse().map(AllOr::One) }
}

/// One `--device`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceMap {
    /// Path on the host.
    pub(crate) source: PathBuf,
    /// Path in the container.
    pub(crate) target: PathBuf,
    /// Of `r`, `w` and `m`.
    pub(crate) access: String,
}

/// `PATH[:PATH][:rwm]`.
pub(crate) fn device_map(text: &str) -> Result<DeviceMap, Unexpected> {
    let expected = Unexpected { expected: "a device such as /dev/fuse or /dev/sda:/dev/xvda:r" };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, access) = match parts[..] {
        [source] => (source, source, "rwm"),
        [source, access] if is_access(access) => (source, source, access),
        [source, target] => (source, target, "rwm"),
        [source, target, access] if is_access(access) => (source, target, access),
        _ => return Err(expected),
    };
    if !source.starts_with('/') || !target.starts_with('/') {
        return Err(expected);
    }
    Ok(DeviceMap { source: source.into(), target: target.into(), access: access.to_owned() })
}

fn is_access(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'r' | b'w' | b'm'))
}

/// `--device-cgroup-rule`: `c 188:* rwm`.
pub(crate) fn device_rule(text: &str) -> Result<DeviceRule, Unexpected> {
    parse_rule(text).ok_or(Unexpected { expected: "a rule such as `c 188:* rwm`" })
}

fn parse_rule(text: &str) -> Option<DeviceRule> {
    let mut words = text.split_whitespace();
    let kind = match words.next()? {
        "a" => DeviceKind::Any,
        "b" => DeviceKind::Block,
        "c" => DeviceKind::Char,
        _ => return None,
    };
    let number = |text: &str| if text == "*" { Some(None) } else { text.parse().ok().map(Some) };
    let (major, minor) = words.next()?.split_once(':')?;
    let (major, minor) = (number(major)?, number(minor)?);
    let access = words.next().filter(|access| is_access(access))?;
    let has = |letter| access.contains(letter);
    let rule = DeviceRule { allow: true, kind, major, minor, read: has('r'), write: has('w'), mknod: has('m') };
    words.next().is_none().then_some(rule)
}

/// `--ulimit`: `NAME=SOFT[:HARD]`, -1 for none.
pub(crate) fn ulimit(text: &str) -> Result<Rlimit, Unexpected> {
    parse_ulimit(text).ok_or(Unexpected { expected: "a limit such as nofile=1024:2048, soft not above hard" })
}

fn parse_ulimit(text: &str) -> Option<Rlimit> {
    let (name, values) = text.split_once('=')?;
    let resource = resource(name)?;
    let value = |text: &str| if text == "-1" { Some(None) } else { text.parse().ok().map(Some) };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (value(soft)?, value(hard)?),
        None => (value(values)?, value(values)?),
    };
    let fits = match (soft, hard) {
        (Some(soft), Some(hard)) => soft <= hard,
        (None, Some(_)) => false,
        (_, None) => true,
    };
    fits.then_some(Rlimit { resource, soft, hard })
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

/// One `--security-opt`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SecurityOption {
    /// `no-new-privileges`.
    NoNewPrivileges(bool),
    /// `seccomp=..`.
    Seccomp(Seccomp),
    /// `systempaths=unconfined`: nothing masked or read-only in `/proc` and `/sys`.
    UnmaskedPaths,
    /// `apparmor=unconfined`, `label=disable`: as it is anyway.
    Nothing,
}

/// A `--security-opt` that cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecurityOptionError {
    /// No such option.
    #[error("expected no-new-privileges, seccomp=unconfined|FILE or systempaths=unconfined")]
    Unknown,
    /// rbuild loads no profiles of security modules.
    #[error("profiles of `{module}` are not supported")]
    Module {
        /// `apparmor` or `label`.
        module: String,
    },
    /// The seccomp profile can't be read.
    #[error("cannot read the profile `{path}`: {reason}")]
    Profile {
        /// As given.
        path: String,
        /// Why not.
        reason: String,
    },
}

/// Reads an option and the profile it names.
pub(crate) fn security_option(text: &str) -> Result<SecurityOption, SecurityOptionError> {
    let (name, value) = text.split_once('=').or_else(|| text.split_once(':')).unwrap_or((text, ""));
    match (name, value) {
        ("no-new-privileges", "" | "true") => Ok(SecurityOption::NoNewPrivileges(true)),
        ("no-new-privileges", "false") => Ok(SecurityOption::NoNewPrivileges(false)),
        ("systempaths", "unconfined") => Ok(SecurityOption::UnmaskedPaths),
        ("apparmor", "unconfined") | ("label", "disable") => Ok(SecurityOption::Nothing),
        ("apparmor" | "label", _) => Err(SecurityOptionError::Module { module: name.to_owned() }),
        ("seccomp", "unconfined") => Ok(SecurityOption::Seccomp(Seccomp::Unconfined)),
        ("seccomp", "builtin") => Ok(SecurityOption::Seccomp(Seccomp::Default)),
        ("seccomp", path) if !path.is_empty() => profile(Path::new(path)).map(SecurityOption::Seccomp),
        _ => Err(SecurityOptionError::Unknown),
    }
}

fn profile(path: &Path) -> Result<Seccomp, SecurityOptionError> {
    let bad = |reason: String| SecurityOptionError::Profile { path: path.display().to_string(), reason };
    let text = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    Profile::parse(&text).map(Seccomp::Profile).map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        let show =
            |text| device_map(text).map(|d| format!("{} {} {}", d.source.display(), d.target.display(), d.access));
        assert_eq!(show("/dev/fuse").unwrap(), "/dev/fuse /dev/fuse rwm");
        assert_eq!(show("/dev/fuse:r").unwrap(), "/dev/fuse /dev/fuse r");
        assert_eq!(show("/dev/a:/dev/b").unwrap(), "/dev/a /dev/b rwm");
        assert_eq!(show("/dev/a:/dev/b:rm").unwrap(), "/dev/a /dev/b rm");
        for text in ["", "fuse", "/dev/a:b", "/dev/a:/dev/b:x", "/a:/b:r:w"] {
            assert!(device_map(text).is_err(), "{text}");
        }
        let rule = device_rule("c 188:* rw").unwrap();
        assert_eq!((rule.major, rule.minor, rule.read, rule.write, rule.mknod), (Some(188), None, true, true, false));
        for text in ["", "x 1:2 r", "c 1 r", "c 1:2", "c 1:2 q", "c 1:2 r r"] {
            assert!(device_rule(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_of_processes() {
        assert_eq!(
            ulimit("nofile=1024"),
            Ok(Rlimit { resource: Resource::Nofile, soft: Some(1024), hard: Some(1024) })
        );
        assert_eq!(ulimit("core=0:-1"), Ok(Rlimit { resource: Resource::Core, soft: Some(0), hard: None }));
        for text in ["nofile", "x=1", "nofile=2:1", "nofile=-1:5", "nofile=a", "nofile=1:2:3"] {
            assert!(ulimit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn security_options() {
        let seen = |text| security_option(text).map_err(|e| e.to_string());
        assert_eq!(seen("no-new-privileges"), Ok(SecurityOption::NoNewPrivileges(true)));
        assert_eq!(seen("no-new-privileges:false"), Ok(SecurityOption::NoNewPrivileges(false)));
        assert_eq!(seen("seccomp=unconfined"), Ok(SecurityOption::Seccomp(Seccomp::Unconfined)));
        assert_eq!(seen("apparmor=x"), Err("profiles of `apparmor` are not supported".into()));
        assert!(seen("seccomp=").is_err() && seen("what").is_err());
        assert!(seen("seccomp=/nowhere").unwrap_err().starts_with("cannot read the profile `/nowhere`: "));
    }
}
