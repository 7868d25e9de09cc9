//! Health checks: what results mean (pure), and the thread that makes them.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use cache::Timestamp;
use executor::spec::Process;
use executor::{ExecError, Exit, Helper, Stdio};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::config::HealthPlan;

/// Results that are kept.
const KEPT: usize = 5;
/// Bytes of a check's output that are kept.
const OUTPUT: usize = 4096;

/// Whether a container works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Health {
    /// The verdict.
    pub(crate) status: Verdict,
    /// Failures since the last success.
    pub(crate) failures: u32,
    /// The last results, oldest first.
    pub(crate) log: VecDeque<Probe>,
}

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// Nothing is known yet.
    Starting,
    /// The last check succeeded.
    Healthy,
    /// Too many failed in a row.
    Unhealthy,
}

impl Verdict {
    /// Docker's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probe {
    /// When it began.
    pub(crate) start: Timestamp,
    /// When it ended.
    pub(crate) end: Timestamp,
    /// Exit code; -1 when it took too long or could not be run.
    pub(crate) code: i32,
    /// What it wrote.
    pub(crate) output: String,
}

impl Health {
    /// Before the first check.
    pub(crate) fn new() -> Self {
        Self { status: Verdict::Starting, failures: 0, log: VecDeque::new() }
    }

    /// Takes a result of a container that was started at `started`. Failures within the start period do not count until
    /// the first success.
    pub(crate) fn observe(&mut self, probe: Probe, plan: &HealthPlan, started: Timestamp) {
        let early = self.status == Verdict::Starting && started.until(probe.start) < plan.start_period;
        if probe.code == 0 {
            self.status = Verdict::Healthy;
            self.failures = 0;
        } else if !early {
            self.failures += 1;
            if self.failures >= plan.retries {
                self.status = Verdict::Unhealthy;
            }
        }
        self.log.push_back(probe);
        while self.log.len() > KEPT {
            self.log.pop_front();
        }
    }
}

/// A thread that checks until this is dropped.
#[derive(Debug)]
pub(crate) struct Monitor {
    /// Dropping it ends the thread at its next wait.
    _stop: Sender<()>,
}

impl Monitor {
    /// Checks the container whose first process is `pid`; each result goes to `report`.
    pub(crate) fn start(
        helper: Arc<Helper>,
        pid: i32,
        process: Process,
        plan: HealthPlan,
        report: impl Fn(Probe) + Send + 'static,
    ) -> Self {
        let (stop, stopped) = channel();
        std::thread::spawn(move || watch(&helper, pid, &process, &plan, &stopped, &report));
        Self { _stop: stop }
    }
}

fn watch(
    helper: &Helper,
    pid: i32,
    process: &Process,
    plan: &HealthPlan,
    stopped: &Receiver<()>,
    report: &dyn Fn(Probe),
) {
    let begin = Instant::now();
    let mut worked = false;
    loop {
        let starting = !worked && begin.elapsed() < plan.start_period;
        let pause = if starting { plan.start_interval.min(plan.interval) } else { plan.interval };
        if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        match probe(helper, pid, process.clone(), plan.timeout) {
            Ok(probe) => {
                worked |= probe.code == 0;
                report(probe);
            }
            // The container or its helper is gone; whoever watches over it knows.
            Err(ExecError::NotRunning | ExecError::HelperGone) => return,
            Err(error) => report(failed(error.to_string())),
        }
    }
}

fn failed(output: String) -> Probe {
    let now = Timestamp::now();
    Probe { start: now, end: now, code: -1, output }
}

/// Makes one check.
fn probe(helper: &Helper, pid: i32, process: Process, timeout: Duration) -> Result<Probe, ExecError> {
    let Ok((reader, writer)) = std::io::pipe() else { return Ok(failed("no pipe for the output".into())) };
    let Ok(second) = writer.try_clone() else { return Ok(failed("no pipe for the output".into())) };
    let start = Timestamp::now();
    let stdio = Stdio::Fds { stdin: None, stdout: writer.into(), stderr: second.into() };
    let check = helper.exec(pid, process, stdio)?;
    let output = std::thread::spawn(move || read_some(reader.into()));
    let in_time = wait_until(&check, Instant::now() + timeout);
    if !in_time {
        check.kill(rustix::process::Signal::KILL.as_raw()).ok();
    }
    let exit = check.wait()?;
    let mut text = output.join().unwrap_or_default();
    let code = match (in_time, exit) {
        (true, Exit::Code(code)) => i32::from(code),
        (true, Exit::Signal(signal)) => 128 + signal,
        (false, _) => {
            text = format!("the check took longer than {} s", timeout.as_secs_f64());
            -1
        }
    };
    Ok(Probe { start, end: Timestamp::now(), code, output: text })
}

/// Reads to the end and keeps the beginning.
fn read_some(pipe: OwnedFd) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = rustix::io::read(&pipe, &mut buffer) {
        kept.extend_from_slice(&buffer[..count.min(OUTPUT - kept.len().min(OUTPUT))]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

fn wait_until(process: &executor::Container, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let pidfd = process.pidfd();
        match poll(&mut [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1000;

    fn plan(start_period: u64, retries: u32) -> HealthPlan {
        HealthPlan {
            test: Vec::new(),
            args: vec!["true".into()],
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            start_period: Duration::from_secs(start_period),
            start_interval: Duration::from_secs(1),
            retries,
        }
    }

    fn verdicts(plan: &HealthPlan, codes: &[i32]) -> Vec<Verdict> {
        let mut health = Health::new();
        let probe = |at: usize, code| {
            let start = Timestamp(at as i64 * SECOND);
            Probe { start, end: start, code, output: String::new() }
        };
        let observed = codes.iter().enumerate().map(|(at, code)| {
            health.observe(probe(at, *code), plan, Timestamp(0));
            health.status
        });
        observed.collect()
    }

    #[test]
    fn failures_in_a_row_make_it_unhealthy() {
        use Verdict::{Healthy, Starting, Unhealthy};
        assert_eq!(verdicts(&plan(0, 2), &[1, 1, 0, 1, 1]), [Starting, Unhealthy, Healthy, Healthy, Unhealthy]);
        assert_eq!(verdicts(&plan(0, 1), &[1]), [Unhealthy]);
    }

    #[test]
    fn the_start_period_forgives_until_the_first_success() {
        use Verdict::{Healthy, Starting, Unhealthy};
        assert_eq!(verdicts(&plan(3, 1), &[1, 1, 1, 1]), [Starting, Starting, Starting, Unhealthy]);
        assert_eq!(verdicts(&plan(9, 1), &[1, 0, 1]), [Starting, Healthy, Unhealthy]);
    }

    #[test]
    fn few_results_are_kept() {
        let mut health = Health::new();
        for code in 0..20 {
            health.observe(Probe { code, ..failed(String::new()) }, &plan(0, 3), Timestamp(0));
        }
        assert_eq!(health.log.iter().map(|p| p.code).collect::<Vec<_>>(), [15, 16, 17, 18, 19]);
    }
}
