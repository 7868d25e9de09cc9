//! Mounts: the syntaxes of `-v`, `--mount` and `--tmpfs`, read into one type. Looks at no file.

use std::path::{Component, Path, PathBuf};

use super::quantity::bytes;

/// A mount as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountFlag {
    /// Absolute path in the container, without `.` and `..`.
    pub(crate) target: PathBuf,
    /// What is mounted there.
    pub(crate) source: MountSource,
    /// The container may not write.
    pub(crate) read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MountSource {
    /// A file or directory of the host, perhaps relative to the working directory.
    Bind {
        /// The path as given.
        path: PathBuf,
        /// Make a directory when it is missing: `-v` does, `--mount` does not.
        create: bool,
    },
    /// A volume; without a name a new one for this container.
    Volume {
        /// Its name.
        name: Option<String>,
        /// Fill it with what the image has at the target, should it be empty.
        copy: bool,
    },
    /// A new tmpfs.
    Tmpfs(TmpfsOptions),
}

/// Options of a tmpfs; docker's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TmpfsOptions {
    /// Limit in bytes.
    pub(crate) size: Option<u64>,
    /// Permissions of its root.
    pub(crate) mode: u32,
    /// Programs may be executed.
    pub(crate) exec: bool,
    /// Set-user-ID counts.
    pub(crate) suid: bool,
    /// Device nodes work.
    pub(crate) dev: bool,
}

impl Default for TmpfsOptions {
    fn default() -> Self {
        Self { size: None, mode: 0o1777, exec: false, suid: false, dev: false }
    }
}

/// A mount that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MountError {
    /// Too many or empty parts.
    #[error("expected SOURCE:PATH[:OPTIONS], or PATH alone for an anonymous volume")]
    Form,
    /// The place in the container is relative.
    #[error("the path in the container `{path}` is not absolute")]
    Relative {
        /// The path.
        path: String,
    },
    /// The place in the container is the root.
    #[error("nothing can be mounted on `/`")]
    Root,
    /// Neither a volume nor a path.
    #[error("`{name}` is not the name of a volume; a path of the host begins with `/` or `./`")]
    VolumeName {
        /// As given.
        name: String,
    },
    /// `--mount` needs a target.
    #[error("`target` is missing")]
    NoTarget,
    /// A bind needs a source.
    #[error("`source` is missing")]
    NoSource,
    /// A tmpfs has none.
    #[error("a tmpfs has no `source`")]
    TmpfsSource,
    /// No such option.
    #[error("unknown option `{option}`")]
    Option {
        /// The option.
        option: String,
    },
    /// An option's value is wrong.
    #[error("`{value}` is no value for `{option}`")]
    Value {
        /// The option.
        option: String,
        /// Its value.
        value: String,
    },
    /// Known to docker, not here.
    #[error("`{option}` is not supported")]
    Unsupported {
        /// The option.
        option: String,
    },
}

/// `-v`: `SOURCE:PATH[:OPTIONS]` or `PATH`. What begins with `/` or `.` is a path of the host, all else a volume.
pub(crate) fn bind_or_volume(text: &str) -> Result<MountFlag, MountError> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] if !source.is_empty() => (source, target, ""),
        [source, target, options] if !source.is_empty() && !options.is_empty() => (source, target, options),
        _ => return Err(MountError::Form),
    };
    let (mut read_only, mut copy) = (false, true);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "readonly" => read_only = true,
            "nocopy" => copy = false,
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" | "private" | "rprivate" | "rbind" => {}
            "shared" | "rshared" | "slave" | "rslave" | "bind" | "U" => {
                return Err(MountError::Unsupported { option: option.to_owned() });
            }
            _ => return Err(MountError::Option { option: option.to_owned() }),
        }
    }
    let source = match source {
        "" => MountSource::Volume { name: None, copy },
        path if path.starts_with(['/', '.']) => MountSource::Bind { path: path.into(), create: true },
        // The shell writes the home directory out; here `~` means nothing.
        name if name.starts_with('~') || name.contains('/') => {
            return Err(MountError::VolumeName { name: name.to_owned() });
        }
        name => MountSource::Volume { name: Some(name.to_owned()), copy },
    };
    Ok(MountFlag { target: clean_target(target)?, source, read_only })
}

/// `--tmpfs`: `PATH[:OPTIONS]`.
pub(crate) fn tmpfs(text: &str) -> Result<MountFlag, MountError> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let (mut tmpfs, mut read_only) = (TmpfsOptions::default(), false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "rw" => read_only = false,
            "ro" => read_only = true,
            "exec" | "noexec" => tmpfs.exec = name == "exec",
            "suid" | "nosuid" => tmpfs.suid = name == "suid",
            "dev" | "nodev" => tmpfs.dev = name == "dev",
            "size" => tmpfs.size = Some(size(name, value)?),
            "mode" => tmpfs.mode = mode(name, value)?,
            "uid" | "gid" | "nr_inodes" | "nr_blocks" => {
                return Err(MountError::Unsupported { option: name.to_owned() });
            }
            _ => return Err(MountError::Option { option: option.to_owned() }),
        }
    }
    Ok(MountFlag { target: clean_target(target)?, source: MountSource::Tmpfs(tmpfs), read_only })
}

/// What the fields of a `--mount` say, before it is known what they mean together.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    source: Option<String>,
    target: Option<String>,
    read_only: bool,
    no_copy: bool,
    tmpfs: TmpfsOptions,
}

/// `--mount`: `type=..,source=..,target=..[,readonly]`, in the form of a line of CSV.
pub(crate) fn mount(text: &str) -> Result<MountFlag, MountError> {
    let mut fields = Fields::default();
    for field in csv(text) {
        let (name, value) = field.split_once('=').unwrap_or((&field, ""));
        fields.set(name, value)?;
    }
    let target = clean_target(&fields.target.ok_or(MountError::NoTarget)?)?;
    let source = match (fields.kind.as_deref().unwrap_or("volume"), fields.source) {
        ("bind", Some(path)) => MountSource::Bind { path: path.into(), create: false },
        ("bind", None) => return Err(MountError::NoSource),
        ("volume", name) => MountSource::Volume { name, copy: !fields.no_copy },
        ("tmpfs", None) => MountSource::Tmpfs(fields.tmpfs),
        ("tmpfs", Some(_)) => return Err(MountError::TmpfsSource),
        ("image" | "cluster" | "npipe", _) => return Err(MountError::Unsupported { option: "type".to_owned() }),
        (kind, _) => return Err(MountError::Value { option: "type".to_owned(), value: kind.to_owned() }),
    };
    Ok(MountFlag { target, source, read_only: fields.read_only })
}

impl Fields {
    fn set(&mut self, name: &str, value: &str) -> Result<(), MountError> {
        match name {
            "type" => self.kind = Some(value.to_owned()),
            "source" | "src" => self.source = Some(value.to_owned()).filter(|source| !source.is_empty()),
            "target" | "destination" | "dst" => self.target = Some(value.to_owned()),
            "readonly" | "ro" => self.read_only = truth(name, value)?,
            "volume-nocopy" => self.no_copy = truth(name, value)?,
            "tmpfs-size" => self.tmpfs.size = Some(size(name, value)?),
            "tmpfs-mode" => self.tmpfs.mode = mode(name, value)?,
            "consistency" => {}
            "bind-propagation" if matches!(value, "private" | "rprivate") => {}
            "bind-propagation" | "bind-recursive" | "bind-nonrecursive" | "volume-driver" | "volume-opt"
            | "volume-label" | "volume-subpath" => {
                return Err(MountError::Unsupported { option: name.to_owned() });
            }
            _ => return Err(MountError::Option { option: name.to_owned() }),
        }
        Ok(())
    }
}

/// The fields of one line of CSV: a field in double quotes may hold commas, and a quote when it is doubled.
fn csv(text: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            _ => field.push(c),
        }
    }
    fields.push(field);
    fields
}

fn truth(option: &str, value: &str) -> Result<bool, MountError> {
    match value {
        "" | "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(MountError::Value { option: option.to_owned(), value: value.to_owned() }),
    }
}

fn size(option: &str, value: &str) -> Result<u64, MountError> {
    bytes(value).map_err(|_| MountError::Value { option: option.to_owned(), value: value.to_owned() })
}

fn mode(option: &str, value: &str) -> Result<u32, MountError> {
    let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| MountError::Value { option: option.to_owned(), value: value.to_owned() })
}

/// The target without `.`, `..` and double slashes.
pub(crate) fn clean_target(text: &str) -> Result<PathBuf, MountError> {
    if !text.starts_with('/') {
        return Err(MountError::Relative { path: text.to_owned() });
    }
    let mut clean = PathBuf::from("/");
    for component in Path::new(text).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if clean == Path::new("/") { Err(MountError::Root) } else { Ok(clean) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn show(result: Result<MountFlag, MountError>) -> String {
        let flag = match result {
            Ok(flag) => flag,
            Err(error) => return error.to_string(),
        };
        let source = match flag.source {
            MountSource::Bind { path, create } => format!("bind {} create={create}", path.display()),
            MountSource::Volume { name, copy } => format!("volume {} copy={copy}", name.unwrap_or_default()),
            MountSource::Tmpfs(t) => {
                format!("tmpfs {:?} {:o} exec={} suid={} dev={}", t.size, t.mode, t.exec, t.suid, t.dev)
            }
        };
        format!("{source} on {}{}", flag.target.display(), if flag.read_only { " ro" } else { "" })
    }

    fn table(parse: fn(&str) -> Result<MountFlag, MountError>, lines: &[&str]) -> String {
        lines.iter().map(|line| format!("{line} => {}\n", show(parse(line)))).collect()
    }

    #[test]
    fn short_form() {
        insta::assert_snapshot!(table(bind_or_volume, &[
            "/src:/dst", "./src:/dst:ro", "data:/dst", "/dst", "data:/a/../b/.//c", "data:/dst:ro,nocopy,z",
            "a/b:/dst", "/src:dst", "dst", "/src:/", ":/x", "a:b:c:d", "a:/b:", "a:/b:what", "a:/b:rshared", "",
        ]), @r#"
        /src:/dst => bind /src create=true on /dst
        ./src:/dst:ro => bind ./src create=true on /dst ro
        data:/dst => volume data copy=true on /dst
        /dst => volume  copy=true on /dst
        data:/a/../b/.//c => volume data copy=true on /b/c
        data:/dst:ro,nocopy,z => volume data copy=false on /dst ro
        a/b:/dst => `a/b` is not the name of a volume; a path of the host begins with `/` or `./`
        /src:dst => the path in the container `dst` is not absolute
        dst => the path in the container `dst` is not absolute
        /src:/ => nothing can be mounted on `/`
        :/x => expected SOURCE:PATH[:OPTIONS], or PATH alone for an anonymous volume
        a:b:c:d => expected SOURCE:PATH[:OPTIONS], or PATH alone for an anonymous volume
        a:/b: => expected SOURCE:PATH[:OPTIONS], or PATH alone for an anonymous volume
        a:/b:what => unknown option `what`
        a:/b:rshared => `rshared` is not supported
         => the path in the container `` is not absolute
        "#);
    }

    #[test]
    fn long_form() {
        insta::assert_snapshot!(table(mount, &[
            "type=bind,src=/a,dst=/b", "type=bind,source=/a,target=/b,readonly", "type=bind,dst=/b", "dst=/b",
            "type=volume,src=v,dst=/b,volume-nocopy", "type=tmpfs,dst=/b,tmpfs-size=1m,tmpfs-mode=700",
            "type=tmpfs,src=x,dst=/b", "type=bind,\"src=/a,b\",dst=/b", "type=x,dst=/b", "type=bind,src=/a",
            "type=bind,src=/a,dst=/b,bind-propagation=rshared", "type=volume,dst=/b,foo=bar", "type=volume,dst=/b,ro=maybe",
        ]), @r#"
        type=bind,src=/a,dst=/b => bind /a create=false on /b
        type=bind,source=/a,target=/b,readonly => bind /a create=false on /b ro
        type=bind,dst=/b => `source` is missing
        dst=/b => volume  copy=true on /b
        type=volume,src=v,dst=/b,volume-nocopy => volume v copy=false on /b
        type=tmpfs,dst=/b,tmpfs-size=1m,tmpfs-mode=700 => tmpfs Some(1048576) 700 exec=false suid=false dev=false on /b
        type=tmpfs,src=x,dst=/b => a tmpfs has no `source`
        type=bind,"src=/a,b",dst=/b => bind /a,b create=false on /b
        type=x,dst=/b => `x` is no value for `type`
        type=bind,src=/a => `target` is missing
        type=bind,src=/a,dst=/b,bind-propagation=rshared => `bind-propagation` is not supported
        type=volume,dst=/b,foo=bar => unknown option `foo`
        type=volume,dst=/b,ro=maybe => `maybe` is no value for `ro`
        "#);
    }

    #[test]
    fn tmpfs_form() {
        insta::assert_snapshot!(table(tmpfs, &[
            "/run", "/run:rw,exec,size=64m,mode=755", "/run:ro", "run", "/run:size=x", "/run:mode=9", "/run:uid=5", "/run:x",
        ]), @r#"
        /run => tmpfs None 1777 exec=false suid=false dev=false on /run
        /run:rw,exec,size=64m,mode=755 => tmpfs Some(67108864) 755 exec=true suid=false dev=false on /run
        /run:ro => tmpfs None 1777 exec=false suid=false dev=false on /run ro
        run => the path in the container `run` is not absolute
        /run:size=x => `x` is no value for `size`
        /run:mode=9 => `9` is no value for `mode`
        /run:uid=5 => `uid` is not supported
        /run:x => unknown option `x`
        "#);
    }

    proptest! {
        #[test]
        fn targets_stay_inside(text in "[a-z./:,=\"-]{0,24}") {
            for flag in [bind_or_volume(&text), mount(&text), tmpfs(&text)].into_iter().flatten() {
                prop_assert!(flag.target.is_absolute());
                prop_assert!(flag.target.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_))));
            }
        }
    }
}
