//! Which devices a container may use: a list of rules, as lines for version 1 and as a BPF program for version 2.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use crate::spec::{DeviceKind, DeviceRule, Devices};
use crate::sys;

const ANY: DeviceRule =
    DeviceRule { allow: true, kind: DeviceKind::Any, major: None, minor: None, read: false, write: false, mknod: true };

/// Character devices every container may use: null, zero, full, random, urandom, tty, console, ptmx, terminals.
const STANDARD: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// The rules for a container, later ones winning; what none names is denied. Nodes may be made for any device, as in
/// docker, but not opened.
///
/// # Errors
/// When a device of the spec is missing on the host.
pub(super) fn policy(devices: &Devices) -> io::Result<Vec<DeviceRule>> {
    let standard = STANDARD.map(|(major, minor)| DeviceRule {
        kind: DeviceKind::Char,
        major: Some(major),
        minor,
        read: true,
        write: true,
        ..ANY
    });
    let mut rules = vec![DeviceRule { kind: DeviceKind::Char, ..ANY }, DeviceRule { kind: DeviceKind::Block, ..ANY }];
    rules.extend(standard);
    for node in &devices.nodes {
        let meta = std::fs::metadata(&node.source)?;
        let kind = if meta.file_type().is_block_device() { DeviceKind::Block } else { DeviceKind::Char };
        let number = meta.rdev();
        rules.push(DeviceRule {
            allow: true,
            kind,
            major: Some(rustix::fs::major(number)),
            minor: Some(rustix::fs::minor(number)),
            read: node.access.contains('r'),
            write: node.access.contains('w'),
            mknod: node.access.contains('m'),
        });
    }
    rules.extend(&devices.rules);
    Ok(rules)
}

/// The program loaded last: most containers of a helper have the same rules, and loading takes longer than attaching.
#[derive(Debug, Default)]
pub(crate) struct DevicePrograms {
    last: Option<(Vec<DeviceRule>, OwnedFd)>,
}

impl DevicePrograms {
    pub(super) fn get(&mut self, rules: Vec<DeviceRule>) -> rustix::io::Result<BorrowedFd<'_>> {
        let last = match self.last.take() {
            Some((loaded, fd)) if loaded == rules => (loaded, fd),
            _ => {
                let fd = sys::load_device_program(&program(&rules))?;
                (rules, fd)
            }
        };
        Ok(self.last.insert(last).1.as_fd())
    }
}

/// As `devices.allow` takes it (kernel documentation, cgroup-v1/devices).
pub(super) fn line(rule: &DeviceRule) -> String {
    let kind = match rule.kind {
        DeviceKind::Char => 'c',
        DeviceKind::Block => 'b',
        DeviceKind::Any => 'a',
    };
    let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
    let access = [(rule.read, 'r'), (rule.write, 'w'), (rule.mknod, 'm')];
    let access: String = access.into_iter().filter_map(|(on, letter)| on.then_some(letter)).collect();
    format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor))
}

// Registers and operations of eBPF (kernel documentation, bpf/standardization/instruction-set).
const R0: u64 = 0;
const CONTEXT: u64 = 1;
const KIND: u64 = 2;
const ACCESS: u64 = 3;
const MAJOR: u64 = 4;
const MINOR: u64 = 5;
const SCRATCH: u64 = 6;
const LOAD_WORD: u64 = 0x61;
const MOVE: u64 = 0xb7;
const MOVE_REGISTER: u64 = 0xbf;
const AND_32: u64 = 0x54;
const SHIFT_RIGHT_32: u64 = 0x74;
const JUMP_UNLESS_EQUAL: u64 = 0x55;
const EXIT: u64 = 0x95;

// `struct bpf_cgroup_dev_ctx` (linux/bpf.h): access_type = access << 16 | kind, major, minor.
const BPF_BLOCK: u64 = 1;
const BPF_CHAR: u64 = 2;
const BPF_MKNOD: u64 = 1;
const BPF_READ: u64 = 2;
const BPF_WRITE: u64 = 4;

/// A BPF_PROG_TYPE_CGROUP_DEVICE program that decides as the rules do. The last rule that covers a request completely
/// decides; a rule that covers a part of it does not apply, as in runc.
fn program(rules: &[DeviceRule]) -> Vec<u64> {
    let mut code = vec![
        instruction(LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(MOVE_REGISTER, ACCESS, KIND, 0, 0),
        instruction(AND_32, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT_32, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        code.extend(rule_code(rule));
    }
    code.extend([instruction(MOVE, R0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    code
}

/// Falls through when the rule does not apply.
fn rule_code(rule: &DeviceRule) -> Vec<u64> {
    let mut code = vec![instruction(MOVE, R0, 0, 0, u64::from(rule.allow)), instruction(EXIT, 0, 0, 0, 0)];
    let mut unless = |test: &[u64], register, value| {
        let skip = code.len() as u64;
        let mut whole = test.to_vec();
        whole.push(instruction(JUMP_UNLESS_EQUAL, register, 0, skip, value));
        whole.append(&mut code);
        code = whole;
    };
    if let Some(minor) = rule.minor {
        unless(&[], MINOR, u64::from(minor));
    }
    if let Some(major) = rule.major {
        unless(&[], MAJOR, u64::from(major));
    }
    match rule.kind {
        DeviceKind::Char => unless(&[], KIND, BPF_CHAR),
        DeviceKind::Block => unless(&[], KIND, BPF_BLOCK),
        DeviceKind::Any => {}
    }
    let bits = [(rule.read, BPF_READ), (rule.write, BPF_WRITE), (rule.mknod, BPF_MKNOD)];
    let others: u64 = bits.into_iter().filter_map(|(on, bit)| (!on).then_some(bit)).sum();
    if others != 0 {
        // Asks for something the rule does not speak of?
        let rest = [instruction(MOVE_REGISTER, SCRATCH, ACCESS, 0, 0), instruction(AND_32, SCRATCH, 0, 0, others)];
        unless(&rest, SCRATCH, 0);
    }
    code
}

fn instruction(code: u64, destination: u64, source: u64, offset: u64, value: u64) -> u64 {
    code | destination << 8 | source << 12 | offset << 16 | value << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_print_as_version_1_lines() {
        let rules = policy(&Devices::default()).unwrap();
        let lines: Vec<_> = rules.iter().map(line).collect();
        insta::assert_snapshot!(lines.join(", "), @"c *:* m, b *:* m, c 1:3 rwm, c 1:5 rwm, c 1:7 rwm, c 1:8 rwm, c 1:9 rwm, c 5:0 rwm, c 5:1 rwm, c 5:2 rwm, c 136:* rwm");
    }

    /// Runs a program on one request.
    fn run(program: &[u64], kind: u64, access: u64, major: u64, minor: u64) -> u64 {
        let context = [kind | access << 16, major, minor];
        let mut registers = [0_u64; 8];
        let mut at = 0;
        loop {
            let word = program[at];
            at += 1;
            let (to, from) = ((word >> 8 & 15) as usize, (word >> 12 & 15) as usize);
            let (offset, value) = (word >> 16 & 0xffff, word >> 32);
            match word & 0xff {
                LOAD_WORD => registers[to] = context[offset as usize / 4],
                MOVE => registers[to] = value,
                MOVE_REGISTER => registers[to] = registers[from],
                AND_32 => registers[to] &= value,
                SHIFT_RIGHT_32 => registers[to] >>= value,
                JUMP_UNLESS_EQUAL if registers[to] != value => at += offset as usize,
                JUMP_UNLESS_EQUAL => {}
                EXIT => return registers[0],
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_program_allows_what_the_rules_allow() {
        let program = program(&policy(&Devices::default()).unwrap());
        let read_write = BPF_READ | BPF_WRITE;
        assert_eq!(run(&program, BPF_CHAR, read_write, 1, 3), 1, "null");
        assert_eq!(run(&program, BPF_CHAR, read_write, 136, 7), 1, "a terminal");
        assert_eq!(run(&program, BPF_BLOCK, BPF_READ, 8, 0), 0, "a disk");
        assert_eq!(run(&program, BPF_BLOCK, BPF_MKNOD, 8, 0), 1, "a node for a disk");
        assert_eq!(run(&program, BPF_BLOCK, BPF_MKNOD | BPF_READ, 8, 0), 0, "a node for a disk, and reading it");
        assert_eq!(run(&program, BPF_CHAR, BPF_READ, 10, 200), 0, "tun");
    }

    #[test]
    fn the_last_rule_wins() {
        let deny = DeviceRule { allow: false, major: Some(1), minor: Some(3), read: true, write: true, ..ANY };
        let devices = Devices { rules: vec![deny], ..Devices::default() };
        let program = program(&policy(&devices).unwrap());
        assert_eq!(run(&program, BPF_CHAR, BPF_READ, 1, 3), 0);
        assert_eq!(run(&program, BPF_CHAR, BPF_READ, 1, 5), 1);
    }
}
