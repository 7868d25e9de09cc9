//! Stopping a build from outside: one flag and the things to do when it is set. Knows nothing of signals or containers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Action = Box<dyn FnOnce() + Send>;

/// A build's stop button. Clones are the same button.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    pressed: bool,
    next: u64,
    actions: BTreeMap<u64, Action>,
}

/// Forgets an action when dropped: the thing to stop has ended by itself.
#[must_use]
pub struct Registered {
    cancel: Cancel,
    id: u64,
}

impl Cancel {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Presses the button: every registered action runs once, now.
    pub fn press(&self) {
        let actions = {
            let mut state = self.state();
            state.pressed = true;
            std::mem::take(&mut state.actions)
        };
        for action in actions.into_values() {
            action();
        }
    }

    /// True once the button was pressed.
    pub fn is_pressed(&self) -> bool {
        self.state().pressed
    }

    /// Runs `action` when the button is pressed, at once when it already was.
    pub fn on_press(&self, action: impl FnOnce() + Send + 'static) -> Registered {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        if state.pressed {
            drop(state);
            action();
        } else {
            state.actions.insert(id, Box::new(action));
        }
        Registered { cancel: self.clone(), id }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.cancel.state().actions.remove(&self.id);
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancel").field("pressed", &self.is_pressed()).finish()
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn actions_run_once_and_only_while_registered() {
        let cancel = Cancel::default();
        let count = Arc::new(AtomicU32::new(0));
        let bump = |by: u32| {
            let count = Arc::clone(&count);
            move || {
                count.fetch_add(by, Ordering::SeqCst);
            }
        };
        drop(cancel.on_press(bump(100)));
        let _kept = cancel.on_press(bump(1));
        cancel.press();
        cancel.press();
        let _late = cancel.on_press(bump(10));
        assert_eq!(count.load(Ordering::SeqCst), 11);
    }
}
