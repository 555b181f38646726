//! "Did you mean": the nearest of the words that would have been right.

/// The most edits between a typo and the word that was meant.
const DISTANCE_MAX: usize = 2;

/// The word of `words` that `typed` was most likely meant to be.
pub(in crate::config) fn nearest<'w>(
    typed: &str,
    words: impl IntoIterator<Item = &'w str>,
) -> Option<&'w str> {
    words
        .into_iter()
        .map(|word| (distance(&typed.to_lowercase(), &word.to_lowercase()), word))
        // A word that shares no character with the typed one was not meant.
        .filter(|(distance, word)| *distance <= DISTANCE_MAX && *distance < word.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// How many insertions, deletions, replacements and swaps of neighbours lead
/// from one word to the other (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut above_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for row in 1..=from.len() {
        let mut this = vec![row];
        for column in 1..=to.len() {
            let same = from[row - 1] == to[column - 1];
            let mut least =
                (last[column] + 1).min(this[column - 1] + 1).min(last[column - 1] + usize::from(!same));
            if row > 1 && column > 1 && from[row - 1] == to[column - 2] && from[row - 2] == to[column - 1] {
                least = least.min(above_last[column - 2] + 1);
            }
            this.push(least);
        }
        above_last = std::mem::replace(&mut last, this);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_the_known_ones() {
        for (from, to, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("ca", "abc", 3),
            ("nmae", "name", 1),
            ("vip", "vips", 1),
            ("größe", "grösse", 2),
        ] {
            assert_eq!(distance(from, to), expected, "{from} {to}");
            assert_eq!(distance(to, from), expected, "{to} {from}");
        }
    }

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        let words = ["name", "interface", "lease"];
        assert_eq!(nearest("nmae", words), Some("name"));
        assert_eq!(nearest("Interfaces", words), Some("interface"));
        assert_eq!(nearest("lesae", words), Some("lease"));
        assert_eq!(nearest("zzzz", words), None);
        assert_eq!(nearest("ab", ["cd"]), None);
    }
}
