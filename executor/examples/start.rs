//! Times the start and end of a container that does nothing: `cargo run --release -p executor --example start`.
//! Wants root and a static busybox at /bin/busybox.

use std::io::Write;
use std::time::{Duration, Instant};

use executor::spec::{Process, Rootfs, Upper};
use executor::{ContainerSpec, Helper, HelperOptions, Lower, Stdio};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    executor::helper_main();
    let rounds = std::env::args().nth(1).map_or(Ok(200), |n| n.parse())?;
    let dir = tempfile::tempdir()?;
    let lower = dir.path().join("lower");
    std::fs::create_dir_all(lower.join("bin"))?;
    std::fs::copy("/bin/busybox", lower.join("bin/busybox"))?;
    std::os::unix::fs::symlink("busybox", lower.join("bin/true"))?;
    for point in ["dev", "proc", "sys"] {
        std::fs::create_dir(lower.join(point))?;
    }
    let begin = Instant::now();
    let helper = Helper::spawn(&HelperOptions::new(dir.path().join("mnt")))?;
    let spawned = begin.elapsed();
    let mut times = Vec::new();
    for round in 0..rounds {
        let upper = dir.path().join(format!("upper{round}"));
        let work = dir.path().join(format!("work{round}"));
        std::fs::create_dir(&upper)?;
        std::fs::create_dir(&work)?;
        let rootfs = Rootfs {
            lowers: vec![Lower::Dir(lower.clone())],
            upper: Some(Upper { upper, work }),
            read_only: false,
            volatile: true,
        };
        let spec = ContainerSpec::sandboxed(format!("bench-{round}"), rootfs, Process::new(["/bin/true"]));
        let begin = Instant::now();
        let exit = helper.start(spec, Stdio::Null)?.wait()?;
        times.push(begin.elapsed());
        assert!(exit.success(), "{exit:?}");
    }
    times.sort();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or(Duration::ZERO);
    writeln!(
        std::io::stdout(),
        "helper {spawned:.2?}; container min {:.2?} median {:.2?} p90 {:.2?}",
        at(0),
        at(50),
        at(90)
    )?;
    Ok(())
}
