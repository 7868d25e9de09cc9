//! "Did you mean": the nearest known word. Knows words only.

/// How many edits away a word may be to be worth mentioning; `docker build` uses the same limit.
const MAX_DISTANCE: usize = 2;

/// The candidate nearest to `word`, if it is at most two edits away and not the word itself.
///
/// Letter case counts. Of equally near candidates the first wins.
pub fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(&str, usize)> = None;
    for candidate in candidates {
        if candidate == word {
            // The word is known, so the mistake is elsewhere.
            return None;
        }
        let limit = best.map_or(MAX_DISTANCE + 1, |(_, distance)| distance);
        if candidate.len().abs_diff(word.len()) >= limit * 4 {
            continue;
        }
        let distance = distance(word, candidate);
        if distance < limit {
            best = Some((candidate, distance));
        }
    }
    best.map(|(candidate, _)| candidate)
}

/// The number of insertions, deletions and replacements between two words (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replace = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_word_within_two_edits() {
        let known = ["from", "chown", "chmod"];
        assert_eq!(suggest("form", known), Some("from"));
        assert_eq!(suggest("chowwn", known), Some("chown"));
        assert_eq!(suggest("chwod", known), Some("chmod"));
        assert_eq!(suggest("exclude", known), None);
        assert_eq!(suggest("chown", known), None);
    }

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("é", "e"), 1);
    }
}
