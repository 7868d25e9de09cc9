//! What this machine can do for containers, each point really tried, for `rbuild doctor`.

use crate::error::{Errno, ExecError};
use crate::facts::{Backend, CgroupLayout, HostFacts};
use crate::launch::{Helper, HelperOptions, Identity, Stdio};
use crate::net::error::{NetError, TUN_HINT};
use crate::net::usermode;
use crate::spec::{ContainerSpec, Process, Rootfs};

/// One point that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// Whether it is as it should be.
    pub good: bool,
    /// What was found.
    pub detail: String,
    /// What could be done about it.
    pub hint: Option<String>,
}

/// The first kernel with all that is used without a fallback: mount_setattr(2).
const OLDEST_KERNEL: (u32, u32) = (5, 12);

/// Looks at the machine by starting a helper and a container that cannot find its program.
pub fn doctor(options: &HelperOptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Identity::Rootless(maps) = &options.identity {
        let good = maps.has_subordinates();
        let detail = match maps.uids.iter().map(|range| range.count).sum::<u32>() {
            count if good => format!("{count} ids"),
            _ => "only your own id: files of an image that belong to others cannot be kept apart".to_owned(),
        };
        let hint =
            (!good).then(|| "give yourself ranges in /etc/subuid and /etc/subgid (usermod --add-subuids)".to_owned());
        findings.push(Finding { subject: "subordinate ids", good, detail, hint });
        findings.push(user_network());
    }
    match Helper::spawn(options) {
        Ok(helper) => {
            findings.extend(of_facts(helper.facts()));
            findings.push(container(&helper));
            findings.push(platforms());
            helper.close();
        }
        Err(error) => findings.push(failed("namespaces", &error)),
    }
    findings
}

/// Whether containers of an ordinary user can have a network of their own.
fn user_network() -> Finding {
    let subject = "network";
    let bad = |detail: &str, hint: Option<String>| Finding { subject, good: false, detail: detail.to_owned(), hint };
    let Some(program) = usermode::program() else {
        return bad("that of the host or none", NetError::NoUserModeProgram.hint());
    };
    match rustix::fs::access(usermode::TUN, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK) {
        Ok(()) => Finding { subject, good: true, detail: format!("by {program}"), hint: None },
        Err(_) => bad("/dev/net/tun cannot be opened", Some(TUN_HINT.to_owned())),
    }
}

fn of_facts(facts: &HostFacts) -> Vec<Finding> {
    let (major, minor) = facts.kernel;
    let hint = |good: bool, text: &str| (!good).then(|| text.to_owned());
    let new = facts.kernel >= OLDEST_KERNEL;
    let kernel = Finding {
        subject: "kernel",
        good: new,
        detail: format!("Linux {major}.{minor}"),
        hint: hint(new, "Linux 5.12 or newer is needed"),
    };
    let (mounted, detail) = match &facts.backend {
        Backend::Erofs => (true, "mounted as they are (EROFS over tar files)".to_owned()),
        Backend::Directory { reason } => (false, format!("unpacked into directories: {reason}")),
    };
    let advice = "Linux 6.12 or newer, root, and a store that is not on an overlay mount layers without unpacking them";
    let layers = Finding { subject: "layers", good: mounted, detail, hint: hint(mounted, advice) };
    vec![kernel, layers, cgroups(facts)]
}

fn cgroups(facts: &HostFacts) -> Finding {
    let (good, detail) = match &facts.cgroups {
        CgroupLayout::None => (false, "none mounted: no limits".to_owned()),
        CgroupLayout::Unified(tree) => {
            let base = if facts.rootless { tree.mount.join(&tree.own) } else { tree.mount.clone() };
            let offered = std::fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
            let writable = rustix::fs::access(&base, rustix::fs::Access::WRITE_OK).is_ok();
            match writable {
                true => (true, format!("version 2: {}", offered.trim())),
                false => (false, "version 2, not delegated to you: no limits".to_owned()),
            }
        }
        CgroupLayout::Legacy { controllers, .. } => {
            let names: Vec<_> = controllers.iter().flat_map(|t| &t.controllers).map(String::as_str).collect();
            match facts.rootless {
                false => (true, format!("version 1: {}", names.join(" "))),
                true => (false, "version 1, which is for root: no limits".to_owned()),
            }
        }
    };
    Finding { subject: "cgroups", good, detail, hint: None }
}

/// The platforms whose programs can be run.
fn platforms() -> Finding {
    let interpreted = crate::binfmt::interpreted().into_iter().map(|(platform, handler)| match handler.is_open {
        true => platform.to_string(),
        false => format!("{platform} (where the image has `{}`)", handler.interpreter.display()),
    });
    let all: Vec<_> = std::iter::once(oci::Platform::host().to_string()).chain(interpreted).collect();
    Finding { subject: "platforms", good: true, detail: all.join(", "), hint: None }
}

/// Everything up to the program works when it is the program that is missing.
fn container(helper: &Helper) -> Finding {
    let rootfs = Rootfs { lowers: Vec::new(), upper: None, read_only: false, volatile: false };
    let id = format!("doctor-{}", std::process::id());
    let spec = ContainerSpec::sandboxed(id, rootfs, Process::new(["/nothing"]));
    match helper.start(spec, Stdio::Null) {
        Err(ExecError::Exec { source: Errno(libc::ENOENT), .. }) => {
            Finding { subject: "containers", good: true, detail: "can be started".to_owned(), hint: None }
        }
        Err(error) => failed("containers", &error),
        Ok(_) => unreachable_program(),
    }
}

/// An empty root holds no program, so this is a fault of the sandbox.
fn unreachable_program() -> Finding {
    Finding {
        subject: "containers",
        good: false,
        detail: "the root of a container is not its own".to_owned(),
        hint: None,
    }
}

fn failed(subject: &'static str, error: &ExecError) -> Finding {
    Finding { subject, good: false, detail: error.to_string(), hint: error.hint() }
}
