//! POSIX ACLs as extended attribute values: refuses malformed ones and makes the rest agree with the mode bits, as
//! chmod(2) does, so that every way of looking at a layer shows the same (kernel, `posix_acl_xattr.h`).

const VERSION: [u8; 4] = 2u32.to_le_bytes();
const ENTRY: usize = 8;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// Checks the ACL in `value`, and writes the bits of `mode` into it. False when it is malformed, or says nothing
/// that the mode bits do not say, in which case Linux stores none.
pub(super) fn settle(value: &mut [u8], mode: Option<u32>) -> bool {
    let Some(tags) = tags(value) else { return false };
    if tags.is_empty() || !is_valid(&tags) {
        return false;
    }
    let Some(mode) = mode else { return true };
    if tags.len() == 3 {
        return false;
    }
    let group = if tags.contains(&MASK) { MASK } else { GROUP_OBJ };
    for (entry, tag) in value[VERSION.len()..].chunks_exact_mut(ENTRY).zip(&tags) {
        let shift = match *tag {
            USER_OBJ => 6,
            OTHER => 0,
            tag if tag == group => 3,
            _ => continue,
        };
        entry[2..4].copy_from_slice(&(((mode >> shift) & 7) as u16).to_le_bytes());
    }
    true
}

/// The tag of every entry; none when the framing or a permission is wrong.
fn tags(value: &[u8]) -> Option<Vec<u16>> {
    let entries = value.strip_prefix(&VERSION)?;
    if entries.len() % ENTRY != 0 {
        return None;
    }
    let tag = |e: &[u8]| (u16::from_le_bytes([e[2], e[3]]) <= 7).then(|| u16::from_le_bytes([e[0], e[1]]));
    entries.chunks_exact(ENTRY).map(tag).collect()
}

/// The order and completeness that the kernel asks for (`posix_acl_valid`).
fn is_valid(tags: &[u16]) -> bool {
    let count = |wanted| tags.iter().filter(|t| **t == wanted).count();
    let known = tags.iter().all(|t| [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER].contains(t));
    let needs_mask = count(USER) + count(GROUP) > 0;
    known
        && tags.is_sorted()
        && [USER_OBJ, GROUP_OBJ, OTHER].iter().all(|t| count(*t) == 1)
        && count(MASK) <= 1
        && (!needs_mask || count(MASK) == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16)]) -> Vec<u8> {
        let mut value = VERSION.to_vec();
        for (tag, perm) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(perm.to_le_bytes());
            value.extend(1000u32.to_le_bytes());
        }
        value
    }

    #[test]
    fn mode_bits_win_over_the_entries_they_stand_for() {
        let mut value = acl(&[(USER_OBJ, 7), (USER, 7), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 7)]);
        assert!(settle(&mut value, Some(0o640)));
        assert_eq!(value, acl(&[(USER_OBJ, 6), (USER, 7), (GROUP_OBJ, 5), (MASK, 4), (OTHER, 0)]));
    }

    #[test]
    fn malformed_and_needless_acls_are_dropped() {
        assert!(!settle(&mut [], Some(0o644)));
        assert!(!settle(&mut VERSION.to_vec(), Some(0o644)));
        assert!(!settle(&mut acl(&[(USER_OBJ, 6), (GROUP_OBJ, 4), (OTHER, 4)]), Some(0o644)));
        assert!(settle(&mut acl(&[(USER_OBJ, 6), (GROUP_OBJ, 4), (OTHER, 4)]), None));
        assert!(!settle(&mut acl(&[(USER_OBJ, 6), (USER, 7), (GROUP_OBJ, 4), (OTHER, 4)]), None));
        assert!(!settle(&mut acl(&[(USER_OBJ, 9), (GROUP_OBJ, 4), (OTHER, 4)]), None));
        let mut cut = acl(&[(USER_OBJ, 6), (GROUP_OBJ, 4), (OTHER, 4)]);
        cut.pop();
        assert!(!settle(&mut cut, None));
    }
}
