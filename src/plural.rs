//! Counts in sentences.

/// `1 mistake`, `2 mistakes`. The plural must be the singular with an `s`.
pub fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_a_plural() {
        let lines = [0, 1, 2].map(|n| counted(n, "mistake"));
        assert_eq!(lines, ["0 mistakes", "1 mistake", "2 mistakes"]);
    }
}
