//! What the helper finds on its host, as data for `plan`. Cheap to gather; nothing is tried out here.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Facts that change how a container is set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Version of the kernel.
    pub kernel: (u32, u32),
    /// The helper lives in a user namespace of its own.
    pub rootless: bool,
    /// Device nodes can be made: not in a user namespace.
    pub mknod: bool,
    /// Group 5 (`tty`) exists in the helper's user namespace.
    pub tty_group: bool,
    /// overlayfs knows `volatile` (Linux 5.10).
    pub overlay_volatile: bool,
    /// overlayfs must keep its attributes under `user.` (Linux 5.11).
    pub overlay_userxattr: bool,
    /// overlayfs takes lower directories one by one (Linux 6.8).
    pub overlay_lower_append: bool,
    /// How cgroups are laid out.
    pub cgroups: CgroupLayout,
    /// How layers are to be mounted here.
    pub backend: Backend,
}

/// How layers become directories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backend {
    /// Index and tar are mounted as they are.
    Erofs,
    /// Layers are unpacked.
    Directory {
        /// Why EROFS cannot be used, for a person.
        reason: String,
    },
}

/// How the host mounts cgroups (cgroups(7)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupLayout {
    /// None mounted, or none that may be written.
    None,
    /// Version 2 alone.
    Unified(Hierarchy),
    /// Version 1, with or without an empty version 2 tree beside it (hybrid).
    Legacy {
        /// The hierarchies.
        controllers: Vec<Hierarchy>,
        /// The version 2 tree.
        unified: Option<Hierarchy>,
    },
}

/// One mounted cgroup tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Last component of the mount point: `cpu,cpuacct`, `memory`, `unified`.
    pub name: String,
    /// Controllers of a version 1 tree, `name=..` included.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The cgroup this process is in, below the mount.
    pub own: PathBuf,
}

impl Hierarchy {
    /// Where a process is in this tree, below its mount, by the text of its `/proc/PID/cgroup`.
    ///
    /// Right when the root of the mount is the root of the tree.
    pub(crate) fn place_in(&self, cgroup: &str) -> Option<PathBuf> {
        Some(own_cgroup(cgroup, &self.controllers)?.trim_start_matches('/').into())
    }

    /// Options that mount this tree once more.
    pub(crate) fn mount_options(&self) -> impl Iterator<Item = (&str, &str)> {
        self.controllers.iter().map(|controller| match controller.split_once('=') {
            Some((key, value)) => (key, value),
            None => (controller.as_str(), ""),
        })
    }
}

impl HostFacts {
    /// Reads `/proc` as the calling process sees it.
    pub fn read() -> Self {
        let kernel = kernel_version();
        let rootless = !maps_everything(&fs::read_to_string("/proc/self/uid_map").unwrap_or_default());
        let gid_map = fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self {
            kernel,
            rootless,
            mknod: !rootless,
            tty_group: maps_id(&gid_map, 5),
            overlay_volatile: kernel >= (5, 10),
            overlay_userxattr: rootless,
            overlay_lower_append: kernel >= (6, 8),
            cgroups: cgroup_layout(&mountinfo, &own),
            backend: Backend::Directory { reason: "not tried".to_owned() },
        }
    }
}

fn kernel_version() -> (u32, u32) {
    let uname = rustix::system::uname();
    let mut numbers = uname.release().to_str().unwrap_or_default().split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    (next(), next())
}

/// Whether an id map (user_namespaces(7)) is that of the initial namespace.
fn maps_everything(map: &str) -> bool {
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

fn maps_id(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().map(|f| f.parse::<u32>().unwrap_or(0));
        let (first, _, count) = (fields.next().unwrap_or(0), fields.next(), fields.next().unwrap_or(0));
        id >= first && id - first < count
    })
}

fn cgroup_layout(mountinfo: &str, own: &str) -> CgroupLayout {
    let mut controllers = Vec::new();
    let mut unified = None;
    for line in mountinfo.lines() {
        let Some((hierarchy, version)) = hierarchy(line, own) else { continue };
        match version {
            2 => unified = Some(hierarchy),
            _ => controllers.push(hierarchy),
        }
    }
    match (controllers.is_empty(), unified) {
        (true, None) => CgroupLayout::None,
        (true, Some(unified)) => CgroupLayout::Unified(unified),
        (false, unified) => CgroupLayout::Legacy { controllers, unified },
    }
}

/// One line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)) as a cgroup tree.
fn hierarchy(line: &str, own: &str) -> Option<(Hierarchy, u8)> {
    let (left, right) = line.split_once(" - ")?;
    let mount = PathBuf::from(left.split(' ').nth(4)?);
    let root = left.split(' ').nth(3)?;
    let mut right = right.split(' ');
    let (kind, options) = (right.next()?, right.nth(1)?);
    let name = mount.file_name()?.to_str()?.to_owned();
    let (controllers, version): (Vec<String>, _) = match kind {
        "cgroup2" => (Vec::new(), 2),
        "cgroup" => {
            let known = |o: &&str| !matches!(*o, "rw" | "ro" | "none" | "xattr" | "clone_children" | "noprefix");
            (options.split(',').filter(known).map(str::to_owned).collect(), 1)
        }
        _ => return None,
    };
    let own = own_cgroup(own, &controllers)?;
    let own = own.strip_prefix(root).unwrap_or(own).trim_start_matches('/').into();
    Some((Hierarchy { name, controllers, mount, own }, version))
}

/// The path for a tree in `/proc/self/cgroup`; the version 2 tree is the one without controllers.
fn own_cgroup<'a>(text: &'a str, controllers: &[String]) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        let matches = match controllers.first() {
            None => names.is_empty(),
            Some(first) => names.split(',').any(|name| name == first),
        };
        matches.then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /a /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn hybrid_layout_is_read() {
        let layout = cgroup_layout(HYBRID, "4:memory:/a/b\n2:cpu,cpuacct:/\n9:name=systemd:/\n0::/x\n");
        let CgroupLayout::Legacy { controllers, unified: Some(unified) } = layout else { panic!("{layout:?}") };
        assert_eq!(unified.own, PathBuf::from("x"));
        assert_eq!(controllers[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(controllers[1].own, PathBuf::from("b"));
        assert_eq!(controllers[2].mount_options().collect::<Vec<_>>(), [("name", "systemd")]);
    }

    #[test]
    fn unified_layout_is_read() {
        let line = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let layout = cgroup_layout(line, "0::/user.slice\n");
        assert!(matches!(layout, CgroupLayout::Unified(h) if h.own.as_os_str() == "user.slice"));
        assert_eq!(cgroup_layout("", ""), CgroupLayout::None);
    }

    #[test]
    fn id_maps_are_read() {
        assert!(maps_everything("         0          0 4294967295\n"));
        assert!(!maps_everything("0 1000 1\n1 100000 65536\n"));
        assert!(maps_id("0 1000 1\n1 100000 65536\n", 5));
        assert!(!maps_id("0 1000 1\n", 5));
    }
}
