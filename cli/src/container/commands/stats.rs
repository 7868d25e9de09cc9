//! `stats` and `top`: what runs in containers and what it uses, from `/proc` and the cgroup files.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::container::args::{ContainerArgs, StatsArgs};
use crate::container::list::aligned;
use crate::container::look::{self, Seen};
use crate::container::names;
use crate::context::Context;
use crate::output;
use crate::progress::size;
use crate::report::CommandError;
use crate::rows;

/// Clock ticks a second of `/proc/PID/stat`; the same on every architecture of Linux (USER_HZ).
const TICKS: u64 = 100;

/// A process of a container.
struct Running {
    pid: i32,
    parent: i32,
    cpu_seconds: f64,
    resident: u64,
    command: String,
}

/// Prints once what containers use.
pub(crate) fn stats(args: &StatsArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    let seen = if args.containers.is_empty() {
        look::all(&store)?.into_iter().filter(|one| one.state.phase.live().is_some()).collect()
    } else {
        args.containers.iter().map(|name| look::find(&store, name)).collect::<Result<Vec<_>, _>>()?
    };
    let mut rows = Vec::new();
    for one in &seen {
        let processes = processes(one.live()?.pid);
        let memory: u64 = processes.iter().map(|process| process.resident).sum();
        let cpu: f64 = processes.iter().map(|process| process.cpu_seconds).sum();
        rows.push((names::short(one.dir.id()).to_owned(), one.name.clone(), cpu, memory, processes.len()));
    }
    if args.format != "table" {
        let value = |(id, name, cpu, memory, pids): &(String, String, f64, u64, usize)| {
            // For programs, numbers are numbers.
            let memory = if args.format == "json" { json!(memory) } else { json!(size(*memory)) };
            json!({"ID": id, "Name": name, "CPUSeconds": cpu, "MemUsage": memory, "PIDs": pids})
        };
        let values: Vec<Value> = rows.iter().map(value).collect();
        let heads = json!({
            "ID": "CONTAINER ID", "Name": "NAME", "CPUSeconds": "CPU TIME", "MemUsage": "MEM USAGE", "PIDs": "PIDS",
        });
        output::show(&rows::render(&args.format, &heads, &values)?);
        return Ok(ExitCode::SUCCESS);
    }
    let cells: Vec<[String; 5]> = rows
        .into_iter()
        .map(|(id, name, cpu, memory, pids)| [id, name, format!("{cpu:.2} s"), size(memory), pids.to_string()])
        .collect();
    let head = ["CONTAINER ID", "NAME", "CPU TIME", "MEM USAGE", "PIDS"];
    let cells = cells.iter().map(|row| row.each_ref().map(String::as_str));
    output::show(&aligned(std::iter::once(head).chain(cells)));
    Ok(ExitCode::SUCCESS)
}

/// Prints the processes of containers.
pub(crate) fn top(args: &ContainerArgs, context: &Context) -> Result<ExitCode, CommandError> {
    let store = context.store()?;
    for name in &args.containers {
        let seen: Seen = look::find(&store, name)?;
        let processes = processes(seen.live()?.pid);
        let cells: Vec<[String; 4]> = processes
            .iter()
            .map(|p| [p.pid.to_string(), p.parent.to_string(), format!("{:.2} s", p.cpu_seconds), p.command.clone()])
            .collect();
        let cells = cells.iter().map(|row| row.each_ref().map(String::as_str));
        output::show(&aligned(std::iter::once(["PID", "PPID", "TIME", "CMD"]).chain(cells)));
    }
    Ok(ExitCode::SUCCESS)
}

/// The first process and those with its pid namespace or, when that is the host's, its descendants.
fn processes(first: i32) -> Vec<Running> {
    let own = namespace(first);
    let shared = own.is_none() || own == namespace(rustix::process::getpid().as_raw_nonzero().get());
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut all: Vec<Running> = pids.filter_map(read).collect();
    all.sort_by_key(|process| process.pid);
    if !shared {
        all.retain(|process| namespace(process.pid) == own);
        return all;
    }
    let mut family = vec![first];
    // Children mostly have higher pids than their parents; where pids have wrapped around another pass finds them.
    let mut before = 0;
    while family.len() > before {
        before = family.len();
        for process in &all {
            if family.contains(&process.parent) && !family.contains(&process.pid) {
                family.push(process.pid);
            }
        }
    }
    all.retain(|process| family.contains(&process.pid));
    all
}

fn namespace(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

/// None when it has ended (proc_pid_stat(5), proc_pid_cmdline(5)).
fn read(pid: i32) -> Option<Running> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (before, after) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let command = words.join(" ").trim_end().to_owned();
    let name = before.split_once('(').map_or("", |(_, name)| name);
    Some(Running {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        cpu_seconds: (number(11)? + number(12)?) as f64 / TICKS as f64,
        resident: number(21)? * page,
        command: if command.is_empty() { format!("[{name}]") } else { command },
    })
}
