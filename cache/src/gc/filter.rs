//! Docker's filters for prune and df: which things of the cache a person means. Pure; reads no text of the command line.

use std::time::Duration;

use regex_lite::Regex;

use crate::time::Timestamp;

/// What kind of thing in the cache something is, under BuildKit's words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// The result of a step.
    Step,
    /// An image with its layers.
    Image,
    /// The cache mounts of one id.
    Mount,
    /// What the store makes or fetches again by itself: unpacked and compressed layers, downloads, listings.
    Internal,
    /// The stat cache of a context directory.
    StatCache,
}

impl EntryKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Step, Self::Image, Self::Mount, Self::Internal, Self::StatCache];

    /// The word in filters and tables; BuildKit's where it has one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Step => "regular",
            Self::Image => "image",
            Self::Mount => "exec.cachemount",
            Self::Internal => "internal",
            Self::StatCache => "source.local",
        }
    }
}

/// One thing that garbage collection could give up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Digest or id.
    pub id: String,
    /// What it is in words: the instruction, the name of the image.
    pub description: String,
    /// Bytes of the disk that it holds, alone or with others.
    pub size: u64,
    /// Whether others hold some of these bytes too.
    pub shared: bool,
    /// Whether a running build or a container needs it.
    pub in_use: bool,
    /// When it was last used; of what keeps no account, the beginning of time.
    pub last_used: Timestamp,
}

/// A test of a text.
#[derive(Debug, Clone)]
pub enum Text {
    /// It is this.
    Is(String),
    /// It is not this.
    IsNot(String),
    /// The regular expression matches somewhere in it.
    Matches(Regex),
}

impl Text {
    /// A test by a regular expression.
    ///
    /// # Errors
    /// What is wrong with the expression.
    pub fn matching(pattern: &str) -> Result<Self, String> {
        Regex::new(pattern).map(Self::Matches).map_err(|err| err.to_string())
    }

    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Is(want) => text == want,
            Self::IsNot(other) => text != other,
            Self::Matches(regex) => regex.is_match(text),
        }
    }
}

/// A condition on an [`Entry`].
#[derive(Debug, Clone)]
pub enum Condition {
    /// Its id, with or without `sha256:`; the start of a digest is enough, as tables show no more.
    Id(Text),
    /// Its description.
    Description(Text),
    /// The name of its kind.
    Kind(Text),
    /// It is, or is not, in use.
    InUse(bool),
    /// Others hold, or do not hold, some of its bytes too.
    Shared(bool),
    /// It is, or is not, something that steps write to.
    Mutable(bool),
    /// It was not used for so long.
    UnusedFor(Duration),
}

impl Condition {
    /// Whether it holds for `entry` at the time `now`.
    pub fn holds(&self, entry: &Entry, now: Timestamp) -> bool {
        match self {
            Self::Id(text) => {
                let bare = entry.id.strip_prefix("sha256:").unwrap_or(&entry.id);
                let short = |want: &str| {
                    let want = want.strip_prefix("sha256:").unwrap_or(want);
                    entry.id == want || (bare != entry.id && want.len() >= 4 && bare.starts_with(want))
                };
                match text {
                    Text::Is(want) => short(want),
                    Text::IsNot(other) => !short(other),
                    Text::Matches(_) => text.holds(&entry.id),
                }
            }
            Self::Description(text) => text.holds(&entry.description),
            Self::Kind(text) => text.holds(entry.kind.name()),
            Self::InUse(want) => entry.in_use == *want,
            Self::Shared(want) => entry.shared == *want,
            Self::Mutable(want) => (entry.kind == EntryKind::Mount) == *want,
            // What carries no time of use may have been made a moment ago; it goes with its layer.
            Self::UnusedFor(span) => entry.last_used != Timestamp(0) && entry.last_used.until(now) >= *span,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            kind: EntryKind::Step,
            id: format!("sha256:abcd{}", "0".repeat(60)),
            description: "RUN apt-get install -y curl".to_owned(),
            size: 1,
            shared: false,
            in_use: true,
            last_used: Timestamp(1000),
        }
    }

    #[test]
    fn each_condition_can_hold_and_fail() {
        let is = |text: &str| Text::Is(text.to_owned());
        let not = |text: &str| Text::IsNot(text.to_owned());
        let like = |text: &str| Text::matching(text).unwrap();
        let holds = |condition: Condition| condition.holds(&entry(), Timestamp(11_000));
        for good in [
            Condition::Id(is("abcd")),
            Condition::Id(is("sha256:abcd0")),
            Condition::Id(not("abce")),
            Condition::Id(like("^sha256:ab")),
            Condition::Description(like("apt(-get)? install")),
            Condition::Kind(is("regular")),
            Condition::Kind(not("exec.cachemount")),
            Condition::InUse(true),
            Condition::Shared(false),
            Condition::Mutable(false),
            Condition::UnusedFor(Duration::from_secs(10)),
        ] {
            assert!(holds(good.clone()), "{good:?}");
        }
        for bad in [
            // Too short to be meant as the start of a digest.
            Condition::Id(is("abc")),
            Condition::Id(not("abcd")),
            Condition::Description(is("RUN")),
            Condition::Kind(like("^exec")),
            Condition::InUse(false),
            Condition::Shared(true),
            Condition::Mutable(true),
            Condition::UnusedFor(Duration::from_secs(11)),
        ] {
            assert!(!holds(bad.clone()), "{bad:?}");
        }
        let unknown = Entry { last_used: Timestamp(0), ..entry() };
        assert!(!Condition::UnusedFor(Duration::ZERO).holds(&unknown, Timestamp(11_000)));
        assert!(Text::matching("(").is_err());
    }

    #[test]
    fn an_id_that_is_no_digest_has_no_short_form() {
        let mount = Entry { kind: EntryKind::Mount, id: "/root/.cache".to_owned(), ..entry() };
        let is = |text: &str| Condition::Id(Text::Is(text.to_owned())).holds(&mount, Timestamp(0));
        assert!(is("/root/.cache") && !is("/root"));
        assert!(Condition::Mutable(true).holds(&mount, Timestamp(0)));
    }
}
