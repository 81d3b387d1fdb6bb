//! A command line in one text, split as a shell splits it. Pure.

/// Quotes keep blanks together; a backslash keeps the next letter. `None`: a quote has no end.
pub(super) fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            (letter, Some(open)) if letter == open => quote = None,
            ('\\', None | Some('"')) => word.get_or_insert_default().push(letters.next()?),
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does() {
        let split = |text| split(text).map(|words| words.join("|"));
        assert_eq!(
            split("--a 1  --b='x y' \"c \\\" d\" e\\ f ''").as_deref(),
            Some("--a|1|--b=x y|c \" d|e f|")
        );
        assert_eq!(split("  ").as_deref(), Some(""));
        assert_eq!(split("'open"), None);
        assert_eq!(split("end\\"), None);
    }
}
