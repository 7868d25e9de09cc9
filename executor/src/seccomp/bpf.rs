//! Rules to classic BPF: a binary tree over ranges of call numbers, one per architecture, with argument tests in the
//! leaves. About eight instructions are run per call.

use super::profile::{Action, Compare, Filter, Rule, Test};
use super::table::Architecture;
use crate::sys::BpfInstruction;

/// Offsets in `struct seccomp_data` (seccomp(2)).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const IF_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K

/// The whole program. Processes of an architecture without a table get `ENOSYS` for everything.
pub(super) fn program(filter: &Filter, architectures: &[Architecture]) -> Vec<BpfInstruction> {
    let mut code = vec![plain(LOAD, ARCH)];
    for architecture in architectures {
        let block = block(filter, *architecture);
        code.push(jump(IF_EQUAL, architecture.audit, 1, 0));
        code.push(plain(JUMP, block.len() as u32));
        code.extend(block);
    }
    code.push(ret(Action::UNKNOWN));
    code
}

/// Calls from `first` up to the next range, all handled alike.
struct Range<'f> {
    first: u32,
    rules: &'f [Rule],
    /// When no rule holds.
    otherwise: Action,
}

fn block(filter: &Filter, architecture: Architecture) -> Vec<BpfInstruction> {
    let ranges = ranges(filter, architecture);
    let mut code = vec![plain(LOAD, NUMBER)];
    code.extend(tree(&ranges));
    code
}

/// Neighbours that are handled alike share a range.
fn ranges(filter: &Filter, architecture: Architecture) -> Vec<Range<'_>> {
    let mut calls: Vec<_> = architecture.calls().collect();
    calls.sort_by_key(|(_, number)| *number);
    let mut ranges: Vec<Range<'_>> = Vec::new();
    let mut push = |first, rules, otherwise| {
        if ranges.last().is_none_or(|last| last.rules != rules || last.otherwise != otherwise) {
            ranges.push(Range { first, rules, otherwise });
        }
    };
    let mut next = 0;
    for (name, number) in calls {
        if number > next {
            push(next, &[], filter.otherwise);
        }
        push(number, filter.rules.get(name).map_or(&[], Vec::as_slice), filter.otherwise);
        next = number + 1;
    }
    // A call newer than the table: programs know what to do without it, unlike with EPERM.
    push(next, &[], if filter.otherwise == Action::ALLOW { Action::ALLOW } else { Action::UNKNOWN });
    if architecture.limit < u32::MAX {
        push(architecture.limit, &[], Action::UNKNOWN);
    }
    ranges
}

fn tree(ranges: &[Range<'_>]) -> Vec<BpfInstruction> {
    match ranges {
        [] => Vec::new(),
        [one] => leaf(one),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let (below, above) = (tree(low), tree(high));
            let mut code = branch(IF_AT_LEAST, high[0].first, below.len());
            code.extend(below);
            code.extend(above);
            code
        }
    }
}

/// Skips `distance` instructions when the comparison holds; conditional jumps alone reach 255.
fn branch(compare: u16, value: u32, distance: usize) -> Vec<BpfInstruction> {
    match u8::try_from(distance) {
        Ok(near) => vec![jump(compare, value, near, 0)],
        Err(_) => vec![jump(compare, value, 0, 1), plain(JUMP, distance as u32)],
    }
}

fn leaf(range: &Range<'_>) -> Vec<BpfInstruction> {
    let mut code = Vec::new();
    for rule in range.rules {
        code.extend(rule_code(rule));
        if rule.tests.is_empty() {
            return code;
        }
    }
    code.push(ret(range.otherwise));
    code
}

/// Falls through when a test fails.
fn rule_code(rule: &Rule) -> Vec<BpfInstruction> {
    let mut code = vec![ret(rule.action)];
    for test in rule.tests.iter().rev() {
        let mut whole = test_code(*test, code.len() as u8);
        whole.extend(code);
        code = whole;
    }
    code
}

/// Falls through when the test holds, else skips `rest` instructions behind itself.
///
/// Arguments have 64 bits and BPF compares 32, the higher half decides first.
fn test_code(test: Test, rest: u8) -> Vec<BpfInstruction> {
    let low = plain(LOAD, ARGUMENTS + 8 * u32::from(test.argument));
    let high = plain(LOAD, ARGUMENTS + 8 * u32::from(test.argument) + 4);
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    match test.compare {
        Compare::Equal(value) => {
            let (h, l) = halves(value);
            vec![high, jump(IF_EQUAL, h, 0, rest + 2), low, jump(IF_EQUAL, l, 0, rest)]
        }
        Compare::NotEqual(value) => {
            let (h, l) = halves(value);
            vec![high, jump(IF_EQUAL, h, 0, 2), low, jump(IF_EQUAL, l, rest, 0)]
        }
        Compare::Masked { mask, value } => {
            let ((mh, ml), (h, l)) = (halves(mask), halves(value));
            let first = [high, plain(AND, mh), jump(IF_EQUAL, h, 0, rest + 3)];
            [first, [low, plain(AND, ml), jump(IF_EQUAL, l, 0, rest)]].concat()
        }
        Compare::Greater(value) => ordered(high, low, halves(value), IF_GREATER, true, rest),
        Compare::GreaterOrEqual(value) => ordered(high, low, halves(value), IF_AT_LEAST, true, rest),
        Compare::Less(value) => ordered(high, low, halves(value), IF_AT_LEAST, false, rest),
        Compare::LessOrEqual(value) => ordered(high, low, halves(value), IF_GREATER, false, rest),
    }
}

/// Holds when "`compare` holds" equals `wanted`.
fn ordered(
    high: BpfInstruction,
    low: BpfInstruction,
    (h, l): (u32, u32),
    compare: u16,
    wanted: bool,
    rest: u8,
) -> Vec<BpfInstruction> {
    let (greater, less, last) = match wanted {
        true => (3, rest + 2, jump(compare, l, 0, rest)),
        false => (rest + 3, 2, jump(compare, l, rest, 0)),
    };
    vec![high, jump(IF_GREATER, h, greater, 0), jump(IF_EQUAL, h, 0, less), low, last]
}

fn plain(code: u16, k: u32) -> BpfInstruction {
    jump(code, k, 0, 0)
}

fn ret(action: Action) -> BpfInstruction {
    plain(RETURN, action.0)
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> BpfInstruction {
    BpfInstruction { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::profile;
    use super::super::table::ARCHITECTURES;
    use super::*;
    use crate::caps::{Capabilities, Capability};

    /// Runs a program as the kernel does.
    fn run(program: &[BpfInstruction], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let load = |offset: u32| match offset {
            NUMBER => number,
            ARCH => arch,
            other => {
                let argument = arguments[(other - ARGUMENTS) as usize / 8];
                if other % 8 == 4 { (argument >> 32) as u32 } else { argument as u32 }
            }
        };
        let (mut at, mut a) = (0, 0);
        loop {
            let BpfInstruction { code, jt, jf, k } = program[at];
            at += 1;
            let holds = match code {
                LOAD => {
                    a = load(k);
                    continue;
                }
                AND => {
                    a &= k;
                    continue;
                }
                JUMP => {
                    at += k as usize;
                    continue;
                }
                RETURN => return k,
                IF_EQUAL => a == k,
                IF_GREATER => a > k,
                IF_AT_LEAST => a >= k,
                other => panic!("unknown instruction {other:#x}"),
            };
            at += usize::from(if holds { jt } else { jf });
        }
    }

    /// What the rules say, without BPF.
    fn decide(filter: &Filter, name: &str, arguments: [u64; 6]) -> Action {
        let holds = |test: &Test| {
            let value = arguments[usize::from(test.argument)];
            match test.compare {
                Compare::Equal(v) => value == v,
                Compare::NotEqual(v) => value != v,
                Compare::Less(v) => value < v,
                Compare::LessOrEqual(v) => value <= v,
                Compare::Greater(v) => value > v,
                Compare::GreaterOrEqual(v) => value >= v,
                Compare::Masked { mask, value: v } => value & mask == v,
            }
        };
        let rules = filter.rules.get(name).into_iter().flatten();
        rules.into_iter().find(|r| r.tests.iter().all(holds)).map_or(filter.otherwise, |r| r.action)
    }

    #[test]
    fn every_call_of_the_default_profile_is_decided_as_the_rules_say() {
        let admin = Capability::SYS_ADMIN;
        for capabilities in [Capabilities::default(), Capabilities::none(), Capabilities::default().with(admin)] {
            let filter = profile::default(capabilities);
            let program = program(&filter, ARCHITECTURES);
            for architecture in ARCHITECTURES {
                for (name, number) in architecture.calls() {
                    for arguments in [[0; 6], [38; 6], [39; 6], [40; 6], [0x1000_0000; 6], [u64::MAX; 6]] {
                        let got = run(&program, architecture.audit, number, arguments);
                        assert_eq!(got, decide(&filter, name, arguments).0, "{name} {arguments:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_in_the_table_does_not_exist() {
        let program = program(&profile::default(Capabilities::default()), ARCHITECTURES);
        for (arch, number) in [(ARCHITECTURES[0].audit, 5000), (ARCHITECTURES[0].audit, 0x4000_0000), (1, 0)] {
            assert_eq!(run(&program, arch, number, [0; 6]), Action::UNKNOWN.0);
        }
    }

    #[test]
    fn the_default_profile_stays_small() {
        let program = program(&profile::default(Capabilities::default()), ARCHITECTURES);
        assert!(program.len() < 700, "{} instructions", program.len());
    }

    #[test]
    fn dockers_json_is_read() {
        let json = br#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[
            {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":13},
            {"names":["kill"],"action":"SCMP_ACT_ERRNO","args":[{"index":1,"value":9,"op":"SCMP_CMP_EQ"}]},
            {"names":["chroot"],"action":"SCMP_ACT_ERRNO","excludes":{"caps":["CAP_SYS_CHROOT"]}}]}"#;
        let filter = profile::Profile::parse(json).unwrap().filter(Capabilities::default());
        let one = |name, arguments| decide(&filter, name, arguments);
        assert_eq!(one("mkdir", [0; 6]), Action::errno(13));
        assert_eq!(one("kill", [1, 9, 0, 0, 0, 0]), Action::errno(1));
        assert_eq!(one("kill", [1, 15, 0, 0, 0, 0]), Action::ALLOW);
        assert_eq!(one("chroot", [0; 6]), Action::ALLOW);
    }

    fn compare() -> impl Strategy<Value = Compare> {
        let number = prop_oneof![0_u64..3, Just(1 << 32), Just((1 << 32) + 1), Just(u64::MAX), any::<u64>()];
        (0..7, number.clone(), number).prop_map(|(kind, v, mask)| match kind {
            0 => Compare::Equal(v),
            1 => Compare::NotEqual(v),
            2 => Compare::Less(v),
            3 => Compare::LessOrEqual(v),
            4 => Compare::Greater(v),
            5 => Compare::GreaterOrEqual(v),
            _ => Compare::Masked { mask, value: v & mask },
        })
    }

    proptest! {
        #[test]
        fn argument_tests_compare_all_64_bits(
            tests in proptest::collection::vec(proptest::collection::vec((0..6_u8, compare()), 0..4), 0..4),
            near in 0_u64..3,
            value in any::<u64>(),
            pick in any::<bool>(),
        ) {
            let value = if pick { near | (value & (1 << 32)) } else { value };
            let mut filter = Filter::default();
            let rules = tests.iter().enumerate().map(|(n, tests)| Rule {
                tests: tests.iter().map(|&(argument, compare)| Test { argument, compare }).collect(),
                action: Action::errno(100 + n as u32),
            });
            filter.rules.insert("read".to_owned(), rules.collect());
            let program = program(&filter, &ARCHITECTURES[..1]);
            let number = ARCHITECTURES[0].calls().find(|(name, _)| *name == "read").unwrap().1;
            let got = run(&program, ARCHITECTURES[0].audit, number, [value; 6]);
            prop_assert_eq!(got, decide(&filter, "read", [value; 6]).0);
        }
    }
}
