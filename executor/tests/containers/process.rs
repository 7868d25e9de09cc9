//! The process itself: program, user, limits, terminal, signals, further processes.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use executor::spec::{Ids, Process, Resource, Rlimit, WindowSize};
use executor::{Exit, Stdio};

use crate::fixture::{Fixture, outcome, pipes};

crate::tests![
    exit_codes_and_signals,
    a_missing_program,
    not_a_program,
    environment_is_complete,
    users_and_groups,
    working_directory_is_made,
    limits_of_resources,
    umask_and_session,
    a_terminal,
    killing,
    init_reaps_and_passes_signals,
    a_second_process,
    many_at_once,
    memory_limit,
    pids_limit,
    sysctls,
    pausing,
];

fn exit_codes_and_signals() {
    let f = Fixture::new();
    assert_eq!(f.run(f.script("exit 7")).exit, Exit::Code(7));
    assert_eq!(f.run(f.script("echo out; echo err >&2")).stderr, "err\n");
    let mut spec = f.script("kill -TERM $$");
    spec.init = true;
    assert_eq!(f.run(spec).exit, Exit::Code(143));
}

fn a_missing_program() {
    let f = Fixture::new();
    let error = f.try_run(f.spec(&["no-such-program"])).unwrap_err();
    assert_eq!(error.to_string(), "cannot execute `no-such-program`: No such file or directory");
    assert_eq!(error.exit_code(), 127);
    assert_eq!(f.try_run(f.spec(&["/etc/passwd"])).unwrap_err().exit_code(), 126);
}

fn not_a_program() {
    let f = Fixture::new();
    std::fs::write(f.lower().join("bin/garbage"), "\x7fnope").unwrap();
    std::process::Command::new("chmod").args(["+x"]).arg(f.lower().join("bin/garbage")).status().unwrap();
    let error = f.try_run(f.spec(&["garbage"])).unwrap_err();
    assert_eq!(error.to_string(), "cannot execute `garbage`: Exec format error");
    assert!(error.hint().unwrap().contains("architecture"));
}

fn environment_is_complete() {
    let f = Fixture::new();
    let mut spec = f.spec(&["/bin/env"]);
    spec.process.env = vec!["A=1".into(), "B=x y".into()];
    assert_eq!(f.output(spec), "A=1\nB=x y");
}

fn users_and_groups() {
    let f = Fixture::new();
    let mut spec = f.script("id -u; id -g; id -G; touch /tmp/x 2>&1 | grep -o denied");
    spec.process.user = Ids { uid: 1000, gid: 1000, groups: vec![1000, 2000] };
    assert_eq!(f.output(spec), "1000\n1000\n1000 2000\ndenied");
    assert_eq!(f.sh("id -G"), "0");
}

fn working_directory_is_made() {
    let f = Fixture::new();
    let mut spec = f.script("pwd; stat -c '%a %u' .");
    spec.process.cwd = "/a/b/c".into();
    assert_eq!(f.output(spec), "/a/b/c\n755 0");
}

fn limits_of_resources() {
    let f = Fixture::new();
    let mut spec = f.script("ulimit -n; ulimit -c");
    let limit = |resource, value| Rlimit { resource, soft: Some(value), hard: Some(value) };
    spec.process.rlimits = vec![limit(Resource::Nofile, 99), limit(Resource::Core, 0)];
    assert_eq!(f.output(spec), "99\n0");
    let mut spec = f.spec(&["true"]);
    spec.process.rlimits = vec![Rlimit { resource: Resource::Rtprio, soft: None, hard: None }];
    let container = f.helper.start(spec, Stdio::Null).unwrap();
    let allowed = rustix::thread::capabilities(None).unwrap().effective.bits() & (1 << 24) != 0;
    assert_eq!(container.unavailable().is_empty(), allowed, "{:?}", container.unavailable());
    assert!(container.wait().unwrap().success());
}

fn umask_and_session() {
    let f = Fixture::new();
    let mut spec = f.script("umask; cut -d' ' -f5,6 /proc/self/stat | tr -d '\\n'; cat /proc/self/oom_score_adj");
    spec.process.oom_score_adj = Some(77);
    let output = f.output(spec);
    assert!(output.starts_with("0022\n") && output.ends_with("77"), "{output}");
    assert!(output.contains("1 1"), "its own session: {output}");
}

fn a_terminal() {
    let f = Fixture::new();
    let mut spec = f.script("tty; stty size; test -c /dev/console && echo console; read line; echo got $line");
    spec.process.tty = Some(WindowSize { rows: 33, columns: 44 });
    let container = f.helper.start(spec, Stdio::Terminal).unwrap();
    let mut terminal = std::fs::File::from(container.take_terminal().unwrap());
    terminal.write_all(b"hello\n").unwrap();
    let mut text = Vec::new();
    // Ends with EIO when the last process has closed its end (pty(7)).
    drop(terminal.read_to_end(&mut text));
    let text = String::from_utf8(text).unwrap().replace("\r\n", "\n");
    assert!(container.wait().unwrap().success());
    for expected in ["/dev/pts/0\n", "33 44\nconsole\n", "got hello\n"] {
        assert!(text.contains(expected), "{text:?}");
    }
    assert!(container.take_terminal().is_none());
}

fn killing() {
    let f = Fixture::new();
    let container = f.helper.start(f.script("sleep 1000 & sleep 1000"), Stdio::Null).unwrap();
    container.kill(9).unwrap();
    assert_eq!(container.wait().unwrap(), Exit::Signal(9));
    assert!(container.kill(9).is_err());
}

fn init_reaps_and_passes_signals() {
    let f = Fixture::new();
    let script = "trap 'echo term; exit 3' TERM; (sleep 0.01 &) ; echo ready; while :; do sleep 0.01; done";
    let mut spec = f.script(script);
    spec.init = true;
    let (stdio, [out, err]) = pipes();
    let container = f.helper.start(spec, stdio).unwrap();
    let mut out = std::fs::File::from(out);
    let mut ready = [0; 6];
    out.read_exact(&mut ready).unwrap();
    container.kill(15).unwrap();
    let outcome = outcome(&container, [out.into(), err]);
    assert_eq!((outcome.exit, outcome.stdout.as_str()), (Exit::Code(3), "term\n"));
    let mut spec = f.script("readlink /proc/1/exe; echo $$");
    spec.init = true;
    assert!(f.output(spec).ends_with("\n2"));
}

fn a_second_process() {
    let f = Fixture::new();
    let mut spec = f.script("echo $$ > /ready; exec sleep 1000");
    spec.hostname = Some("target".into());
    let upper = spec.rootfs.upper.clone().unwrap().upper;
    let container = f.helper.start(spec, Stdio::Null).unwrap();
    let begin = Instant::now();
    while !upper.join("ready").exists() {
        assert!(begin.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
    let exec = |helper: &executor::Helper, script: &str| {
        let (stdio, outputs) = pipes();
        let process = helper.exec(container.pid(), Process::new(["sh", "-c", script]), stdio).unwrap();
        let outcome = outcome(&process, outputs);
        assert!(outcome.exit.success(), "{outcome:?}");
        outcome.stdout
    };
    let seen = exec(&f.helper, "hostname; cat /ready; for ns in pid mnt cgroup; do readlink /proc/self/ns/$ns; done");
    assert!(seen.starts_with("target\n1\n"), "{seen}");
    let first =
        exec(&f.helper, "for ns in pid mnt cgroup; do readlink /proc/1/ns/$ns; done; grep ^CapEff /proc/self/status");
    assert!(seen.ends_with(first.split("CapEff").next().unwrap()), "{seen}{first}");
    assert!(first.contains("a80425fb"), "{first}");
    let same = exec(&f.helper, "diff /proc/1/cgroup /proc/self/cgroup && echo same");
    assert_eq!(same, "same\n");
    // The helper is where it was.
    assert_eq!(f.sh("echo $$"), "1");
    container.kill(9).unwrap();
    container.wait().unwrap();
    assert!(f.helper.exec(container.pid(), Process::new(["true"]), Stdio::Null).is_err());
}

fn many_at_once() {
    let f = Fixture::new();
    std::thread::scope(|scope| {
        for number in 0..16 {
            let f = &f;
            scope.spawn(move || {
                for round in 0..4 {
                    assert_eq!(f.sh(&format!("echo {number} {round}")), format!("{number} {round}"));
                }
            });
        }
    });
}

fn memory_limit() {
    let f = Fixture::new();
    let mut spec = f.script("cat /sys/fs/cgroup/memory/memory.limit_in_bytes; head -c 100m /dev/zero | tail | wc -c");
    spec.limits.memory = Some(32 << 20);
    spec.limits.memory_swap = Some(32 << 20);
    let (stdio, outputs) = pipes();
    let container = f.helper.start(spec, stdio).unwrap();
    let outcome = outcome(&container, outputs);
    assert!(outcome.stdout.starts_with(&(32 << 20).to_string()), "{outcome:?} {:?}", container.unavailable());
    assert!(container.oom_killed().unwrap(), "{outcome:?}");
    let container = f.helper.start(f.spec(&["true"]), Stdio::Null).unwrap();
    assert!(!container.oom_killed().unwrap());
}

fn pids_limit() {
    let f = Fixture::new();
    let mut spec = f.script("for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo all");
    spec.limits.pids = Some(5);
    let outcome = f.run(spec);
    assert!(outcome.stderr.contains("can't fork"), "{outcome:?}");
}

fn sysctls() {
    let f = Fixture::new();
    let mut spec = f.spec(&["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]);
    spec.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
    assert_eq!(f.output(spec), "0");
}

fn pausing() {
    let f = Fixture::new();
    let mut spec = f.script("while :; do date +%s%N > /tick; done");
    spec.limits.accounting = true;
    let tick = spec.rootfs.upper.clone().unwrap().upper.join("tick");
    let container = f.helper.start(spec, Stdio::Null).unwrap();
    let read = || std::fs::read_to_string(&tick).unwrap_or_default();
    let changes = |from: &str, for_: Duration| {
        let begin = Instant::now();
        while begin.elapsed() < for_ {
            if read() != from {
                return true;
            }
            std::thread::yield_now();
        }
        false
    };
    assert!(changes("", Duration::from_secs(10)));
    container.freeze(true).unwrap();
    assert!(!changes(&read(), Duration::from_millis(30)));
    container.freeze(false).unwrap();
    assert!(changes(&read(), Duration::from_secs(10)));
    container.kill(9).unwrap();
    container.wait().unwrap();
    assert!(container.freeze(true).is_err());
}
