//! Images for other platforms: several at once, steps that an interpreter runs, machines that have none.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::on_both_backends;
use crate::support::{Output, Registry, TestSpace, find_program, skip};

on_both_backends![
    several_platforms_are_one_image,
    an_index_is_pushed_and_pulled,
    foreign_steps_run_through_a_handler,
    without_a_handler_nothing_runs,
    a_handler_may_need_its_interpreter_inside,
];

const BOTH: [&str; 2] = ["--platform", "linux/amd64,linux/arm64"];

/// Without a step that runs on the other platform: it is cross-compiled, so to speak.
fn crossed(space: &TestSpace) {
    space.dockerfile(
        "FROM --platform=$BUILDPLATFORM busybox AS make\nARG TARGETARCH BUILDPLATFORM\n\
         RUN echo \"on $BUILDPLATFORM for $TARGETARCH\" > /made\n\
         FROM scratch\nCOPY --from=make /made /made\nCOPY program /program\nCMD [\"/program\"]\n",
    );
    space.write("ctx/program", arm64_program("/by", "hello from arm64\n"));
    space.set_mode("ctx/program", 0o755);
}

/// Ids of the images behind a name, by architecture.
fn images(space: &TestSpace, name: &str) -> Vec<(String, String)> {
    let list: serde_json::Value = serde_json::from_str(&space.ok(&["inspect", name])).unwrap();
    let text = |image: &serde_json::Value, key: &str| image[key].as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(|image| (text(image, "Architecture"), text(image, "Id"))).collect()
}

fn several_platforms_are_one_image(space: &TestSpace) {
    crossed(space);
    space.build(&BOTH);
    let built = images(space, "image");
    assert_eq!(built.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["amd64", "arm64"]);
    assert_eq!(space.inspect("image")["RepoTags"], serde_json::json!(["image:latest"]));
    assert_eq!(space.ok(&["images", "image"]).lines().count(), 3, "a line for each platform, and the head");
    space.ok(&["build", "-q", BOTH[0], BOTH[1], "-o", "trees", "ctx"]);
    let host = oci::Platform::host();
    for arch in ["amd64", "arm64"] {
        assert_eq!(space.read(&format!("trees/linux_{arch}/made")), format!("on {host} for {arch}\n"));
    }
    space.run(&["save", "-o", "docker.tar", "image"]).code(1).says("oci-archive");
    space.ok(&["save", "--format", "oci-archive", "-o", "both.tar", "image"]);
    space.ok(&["rmi", "-f", "image"]);
    space.ok(&["prune", "-af"]);
    space.ok(&["load", "-i", "both.tar"]);
    assert_eq!(images(space, "image"), built);
    // A build takes the image of its platform as its base.
    space.dockerfile("FROM image\nCOPY program /again\n");
    space.ok(&["build", "-q", "--platform", "linux/arm64", "-t", "next", "ctx"]);
    assert_eq!(images(space, "next")[0].0, "arm64");
}

fn an_index_is_pushed_and_pulled(space: &TestSpace) {
    let Some(registry) = Registry::start(space, "registry") else { return };
    let name = registry.image("team/both:1");
    crossed(space);
    space.ok(&["build", "-q", BOTH[0], BOTH[1], "-t", &name, "ctx"]);
    let built = images(space, &name);
    space.ok(&["push", &name]);
    if let Some(skopeo) = find_program("skopeo") {
        let image = format!("docker://{name}");
        let raw = Output::of(space.program(skopeo, &["inspect", "--raw", "--tls-verify=false", &image])).text();
        let index: serde_json::Value = serde_json::from_str(&raw).unwrap();
        let platforms = index["manifests"].as_array().unwrap().iter().map(|entry| entry["platform"].to_string());
        let expected = ["amd64", "arm64"].map(|arch| format!(r#"{{"os":"linux","architecture":"{arch}"}}"#));
        assert_eq!(platforms.collect::<Vec<_>>(), expected);
    }
    for (arch, id) in built {
        space.ok(&["rmi", "-f", &name]);
        space.ok(&["prune", "-af"]);
        space.ok(&["pull", "-q", "--platform", &format!("linux/{arch}"), &name]);
        assert_eq!(images(space, &name), [(arch, id)]);
    }
}

fn foreign_steps_run_through_a_handler(space: &TestSpace) {
    let Some(_handler) = Handlers::with_ours("F") else { return };
    crossed(space);
    let text = space.read("ctx/Dockerfile") + "RUN [\"/program\"]\n";
    space.dockerfile(&text);
    space.build(&["--platform", "linux/arm64"]);
    assert_eq!(space.ok(&["run", "--rm", "--network", "none", "image"]), "hello from arm64\n");
    space.build(&BOTH);
    let run = ["run", "--rm", "--network", "none", "--platform", "linux/arm64", "image"];
    assert_eq!(space.ok(&run), "hello from arm64\n");
    space.ok(&["build", "-q", "--platform", "linux/arm64", "-o", "tree", "ctx"]);
    assert_eq!(space.read("tree/by"), "hello from arm64\n");
    assert!(space.ok(&["doctor"]).contains("linux/arm64"));
}

fn without_a_handler_nothing_runs(space: &TestSpace) {
    let Some(_handlers) = Handlers::none() else { return };
    space.dockerfile(
        "FROM --platform=$BUILDPLATFORM busybox AS native\nRUN echo it-$((40 + 2))-ran > /x && cat /x\n\
         FROM scratch\nCOPY --from=native /x /x\nRUN [\"/x\"]\n",
    );
    let failed = space.try_build(&["--platform", "linux/arm64"]);
    failed.code(1).says("programs for linux/arm64 can't be run").says("qemu-user-static").says("Dockerfile:5");
    failed.keeps_quiet_about("it-42-ran");
    // What needs no such step is built.
    space.build(&["--platform", "linux/arm64", "--target", "native"]);
}

fn a_handler_may_need_its_interpreter_inside(space: &TestSpace) {
    let Some(handler) = Handlers::with_ours("") else { return };
    space.write("ctx/program", arm64_program("/by", "hello\n"));
    space.dockerfile("FROM scratch\nCOPY --chmod=755 program /program\nRUN [\"/program\"]\n");
    let failed = space.try_build(&["--platform", "linux/arm64"]);
    failed
        .code(1)
        .says("looks for `/usr/bin/qemu-aarch64-static` in the container")
        .says("flag F")
        .says("Dockerfile:3");
    fs::copy(&handler.interpreter, space.path("ctx/qemu")).unwrap();
    space.dockerfile(
        "FROM scratch\nCOPY --chmod=755 program /program\nCOPY qemu /usr/bin/qemu-aarch64-static\nRUN [\"/program\"]\n",
    );
    space.build(&["--platform", "linux/arm64"]);
}

/// The machine's handlers of foreign programs, for one test at a time: those for arm64 are switched off while this lives.
struct Handlers {
    interpreter: PathBuf,
    /// Switched off by this test.
    off: Vec<PathBuf>,
    ours: Option<PathBuf>,
    mounted: bool,
    _lock: fs::File,
}

const BINFMT: &str = "/proc/sys/fs/binfmt_misc";
const OURS: &str = "rbuild-test-arm64";

impl Handlers {
    /// No handler for arm64.
    fn none() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip("handlers of foreign programs are switched off by root only");
            return None;
        }
        let lock = fs::File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("binfmt.lock")).unwrap();
        lock.lock().unwrap();
        let mut handlers =
            Self { interpreter: PathBuf::new(), off: Vec::new(), ours: None, mounted: false, _lock: lock };
        if !Path::new(BINFMT).join("status").exists() {
            if mount("binfmt_misc", BINFMT, "binfmt_misc", MountFlags::empty(), None).is_err() {
                skip("this kernel has no binfmt_misc");
                return None;
            }
            handlers.mounted = true;
        }
        // Left by a test that was killed.
        drop(fs::write(Path::new(BINFMT).join(OURS), "-1"));
        for entry in fs::read_dir(BINFMT).unwrap().map(|entry| entry.unwrap().path()) {
            let text = fs::read_to_string(&entry).unwrap_or_default();
            if text.starts_with("enabled\ninterpreter") && text.contains("0200b700") {
                fs::write(&entry, "0").unwrap();
                handlers.off.push(entry);
            }
        }
        Some(handlers)
    }

    /// Ours alone, with these flags.
    fn with_ours(flags: &str) -> Option<Self> {
        let interpreter = find_program("qemu-aarch64-static")?;
        let mut handlers = Self::none()?;
        handlers.interpreter = interpreter;
        let magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
        let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
        let line = format!(":{OURS}:M::{magic}:{mask}:{}:{flags}", handlers.interpreter.display());
        fs::write(Path::new(BINFMT).join("register"), line).unwrap();
        handlers.ours = Some(Path::new(BINFMT).join(OURS));
        Some(handlers)
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        if let Some(ours) = &self.ours {
            fs::write(ours, "-1").unwrap();
        }
        for handler in &self.off {
            fs::write(handler, "1").unwrap();
        }
        if self.mounted {
            unmount(BINFMT, UnmountFlags::empty()).unwrap();
        }
    }
}

/// A static arm64 program, made by hand, that writes `text` into the file `path` and to its standard output (elf(5); Arm ARM,
/// "A64 instruction set encoding").
fn arm64_program(path: &str, text: &str) -> Vec<u8> {
    const START: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    const INSTRUCTIONS: u32 = 17;
    let movz = |register: u32, value: u32| 0xD280_0000 | value << 5 | register;
    let svc = 0xD400_0001;
    let path_at = INSTRUCTIONS * 4;
    let text_at = path_at + path.len() as u32 + 1;
    // The address of what is `target` bytes after the first instruction, seen from instruction number `from`.
    let adr = |register: u32, from: u32, target: u32| {
        let distance = target - from * 4;
        0x1000_0000 | (distance & 3) << 29 | (distance >> 2) << 5 | register
    };
    let len = text.len() as u32;
    let code: [u32; INSTRUCTIONS as usize] = [
        // openat(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, 0644)
        0x9280_0000 | 99 << 5,
        adr(1, 1, path_at),
        movz(2, 0o1101),
        movz(3, 0o644),
        movz(8, 56),
        svc,
        // write(that, text, len)
        adr(1, 6, text_at),
        movz(2, len),
        movz(8, 64),
        svc,
        // write(1, text, len)
        movz(0, 1),
        adr(1, 11, text_at),
        movz(2, len),
        svc,
        // exit(0)
        movz(0, 0),
        movz(8, 93),
        svc,
    ];
    let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0\x01\0\0\0".to_vec();
    let words = |program: &mut Vec<u8>, words: &[u64]| words.iter().for_each(|w| program.extend(w.to_le_bytes()));
    // Entry, program headers, no section headers; sizes of these headers.
    words(&mut program, &[START + HEADERS, 64, 0]);
    program.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let size = HEADERS + u64::from(text_at) + u64::from(len);
    // One segment, to be read and executed.
    program.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    words(&mut program, &[0, START, START, size, size, 0x1_0000]);
    code.iter().for_each(|instruction| program.extend(instruction.to_le_bytes()));
    program.extend(path.bytes().chain([0]).chain(text.bytes()));
    assert_eq!(program.len() as u64, size);
    program
}
