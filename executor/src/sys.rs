//! The system calls that neither std nor rustix offers safely, one thin wrapper each.
//! The only module with `unsafe`; it knows nothing of containers.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::{Errno, Result};
use rustix::process::Pid;

/// Proof that the process has one thread, so that code after a fork may allocate and take locks (fork(2), "NOTES").
#[derive(Debug, Clone, Copy)]
pub(crate) struct SingleThreaded(());

impl SingleThreaded {
    /// Checks `/proc/self/stat`; `None` when a second thread exists or it cannot be read.
    pub(crate) fn check() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // proc(5): num_threads is field 20; the command in field 2 may hold blanks, so count behind its bracket.
        let threads = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(17)?;
        (threads == "1").then_some(Self(()))
    }
}

/// `struct clone_args` of clone3(2), up to and including `cgroup` (CLONE_ARGS_SIZE_VER2).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// What the two sides of a fork see.
#[derive(Debug)]
pub(crate) enum Forked {
    /// The new process.
    Child,
    /// The caller; the descriptor is closed on exec.
    Parent {
        /// Pid of the child in the caller's pid namespace.
        pid: Pid,
        /// Refers to the child (pidfd_open(2)).
        pidfd: OwnedFd,
    },
}

/// `CLONE_INTO_CGROUP` of linux/sched.h; libc declares it as an `int`, which cannot hold it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// clone3(2) without shared memory: `flags` are `CLONE_NEW*` and `CLONE_PARENT`, `cgroup` a v2 directory to start in.
pub(crate) fn clone3(_: SingleThreaded, flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        // A sibling has the signal of the caller, and may not name one.
        exit_signal: if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 },
        ..CloneArgs::default()
    };
    if let Some(dir) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a valid clone_args of the given size, without CLONE_VM, so the child gets copies of all
    // memory; the token proves that no other thread can have held a lock.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match pid {
        0 => Ok(Forked::Child),
        -1 => Err(last()),
        pid => {
            // SAFETY: with CLONE_PIDFD the kernel has stored a new descriptor there, which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Pid::from_raw(pid as i32).map(|pid| Forked::Parent { pid, pidfd }).ok_or(Errno::CHILD)
        }
    }
}

/// fork(2); `None` in the child. For the reaper, which forks when seccomp already refuses clone3.
pub(crate) fn fork(_: SingleThreaded) -> Result<Option<Pid>> {
    // SAFETY: the token proves that the process has one thread, so the child may do anything.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        -1 => Err(last()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Ends the process at once: no destructors, no atexit handlers, which belong to the process forked from.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Replaces the program; returns only on failure.
pub(crate) fn execve(path: &CStr, args: &[CString], env: &[CString]) -> Errno {
    let pointers = |list: &[CString]| -> Vec<_> { list.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect() };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: all strings are NUL-terminated and outlive the call, both lists end with a null pointer.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    last()
}

/// Gives every signal its default action and empties the mask: Rust ignores SIGPIPE and exec would pass that on.
pub(crate) fn reset_signals() -> Result<()> {
    for signal in 1..=64 {
        if matches!(signal, libc::SIGKILL | libc::SIGSTOP | 32 | 33) {
            continue;
        }
        // SAFETY: SIG_DFL is valid for every signal that may be caught; 32 and 33 belong to the C library.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero sigset_t is made valid by sigemptyset before use.
    check(unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut())
    })
}

/// Blocks all signals and returns the set, for [`wait_signal`].
pub(crate) fn block_signals() -> Result<libc::sigset_t> {
    // SAFETY: an all-zero sigset_t is made valid by sigfillset before use.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut()))?;
        Ok(all)
    }
}

/// Takes the next blocked signal of `set`.
pub(crate) fn wait_signal(set: &libc::sigset_t) -> Result<i32> {
    // SAFETY: `set` is valid, no siginfo is asked for.
    let signal = unsafe { libc::sigwaitinfo(set, ptr::null_mut()) };
    if signal < 0 { Err(last()) } else { Ok(signal) }
}

/// kill(2) with a number that came in as a signal.
pub(crate) fn kill(pid: Pid, signal: i32) -> Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) })
}

/// pidfd_send_signal(2).
pub(crate) fn pidfd_kill(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: no siginfo is passed.
    let done = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, ptr::null::<libc::siginfo_t>(), 0)
    };
    check(done as i32)
}

/// mount_setattr(2) on the mount that `tree` refers to: sets attributes, clears none.
pub(crate) fn mount_setattr(tree: BorrowedFd<'_>, recursive: bool, set: u64) -> Result<()> {
    let attr = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a valid empty string, `attr` has the size given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    check(done as i32)
}

/// Marks all descriptors from `first` on close-on-exec (close_range(2)).
pub(crate) fn cloexec_from(first: u32) -> Result<()> {
    // SAFETY: changes a flag of descriptors, closes none.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    check(done as i32)
}

/// Closes all descriptors from `first` on.
///
/// For a forked child that never returns to code owning them.
pub(crate) fn close_from(first: u32) -> Result<()> {
    // SAFETY: callers end with exit_now or exec, so no OwnedFd of these numbers is dropped afterwards.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    check(done as i32)
}

/// unshare(2) of namespaces (`CLONE_NEW*` bits).
pub(crate) fn unshare(namespaces: i32) -> Result<()> {
    debug_assert_eq!(namespaces & (libc::CLONE_FILES | libc::CLONE_VM), 0);
    // SAFETY: no descriptor table is unshared.
    check(unsafe { libc::unshare(namespaces) })
}

/// One instruction of a classic BPF program (`struct sock_filter`).
pub(crate) type BpfInstruction = libc::sock_filter;

/// Installs a seccomp filter for this thread (seccomp(2)).
pub(crate) fn seccomp(program: &[BpfInstruction]) -> Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions and keeps its own copy.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) };
    check(done as i32)
}

/// Joins a new, unnamed session keyring (keyctl(2)), so that the container does not share its parent's keys.
pub(crate) fn new_session_keyring() -> Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    let done = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>()) };
    if done < 0 { Err(last()) } else { Ok(()) }
}

/// `union bpf_attr` for BPF_PROG_LOAD, up to `license` and the log fields (bpf(2)).
#[repr(C)]
#[derive(Default)]
struct BpfLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// Loads a BPF_PROG_TYPE_CGROUP_DEVICE program of 8-byte instructions.
pub(crate) fn load_device_program(program: &[u64]) -> Result<OwnedFd> {
    const PROG_LOAD: libc::c_int = 5;
    const CGROUP_DEVICE: u32 = 15;
    let attr = BpfLoad {
        prog_type: CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| Errno::INVAL)?,
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..BpfLoad::default()
    };
    // SAFETY: the attribute has the size given and points at live memory that the kernel only reads.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attr, size_of::<BpfLoad>()) };
    if fd < 0 {
        return Err(last());
    }
    // SAFETY: the kernel has just returned this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches a device program to a cgroup v2 directory, beside others of its ancestors.
pub(crate) fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    const PROG_ATTACH: libc::c_int = 8;
    const CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    let attr: [u32; 4] = [cgroup.as_raw_fd() as u32, program.as_raw_fd() as u32, CGROUP_DEVICE, ALLOW_MULTI];
    // SAFETY: the attribute is four live 32-bit words, as BPF_PROG_ATTACH wants.
    let done = unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, attr.as_ptr(), size_of_val(&attr)) };
    check(done as i32)
}

fn check(result: i32) -> Result<()> {
    if result < 0 { Err(last()) } else { Ok(()) }
}

fn last() -> Errno {
    std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
