//! The components of a path that are still to be walked, while symlinks add more of them.
//! Whoever walks knows the tree; this knows the order and the limit.

use std::collections::VecDeque;

use super::path::LayerPath;

/// Symlinks followed for one path before it counts as a loop (path_resolution(7)).
const MAX_SYMLINKS: usize = 40;

/// Components to come.
#[derive(Debug)]
pub(super) struct Steps {
    todo: VecDeque<Vec<u8>>,
    symlinks: usize,
}

/// One component.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To the directory above; from the root to the root.
    Up,
    /// To the entry of this name.
    Down(Vec<u8>),
}

/// Too many symlinks.
#[derive(Debug)]
pub(super) struct TooManySymlinks;

impl Steps {
    pub(super) fn new(path: &LayerPath) -> Self {
        Self { todo: path.components().map(<[u8]>::to_vec).collect(), symlinks: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.todo.is_empty()
    }

    /// Puts a symlink's target before what is left. True when the walk has to go back to the root first.
    pub(super) fn follow(&mut self, target: &[u8]) -> Result<bool, TooManySymlinks> {
        self.symlinks += 1;
        if self.symlinks > MAX_SYMLINKS {
            return Err(TooManySymlinks);
        }
        let parts = target.split(|b| *b == b'/').rev();
        for part in parts.filter(|part| !part.is_empty() && *part != b".") {
            self.todo.push_front(part.to_vec());
        }
        Ok(target.starts_with(b"/"))
    }
}

impl Iterator for Steps {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let name = self.todo.pop_front()?;
        Some(if name == b".." { Step::Up } else { Step::Down(name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_come_before_the_rest() {
        let mut steps = Steps::new(&LayerPath::parse("a/b").unwrap());
        assert_eq!(steps.next(), Some(Step::Down(b"a".to_vec())));
        assert!(steps.follow(b"/x/../y/.").unwrap());
        let names: Vec<_> = steps.by_ref().collect();
        let down = |name: &[u8]| Step::Down(name.to_vec());
        assert_eq!(names, [down(b"x"), Step::Up, down(b"y"), down(b"b")]);
        assert!((1..40).all(|_| !steps.follow(b"").unwrap()));
        assert!(steps.follow(b"x").is_err());
    }
}
