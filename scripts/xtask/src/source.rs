//! Rust text reduced to what the compiler acts on, so that a word in a comment or a string is never
//! taken for code. Line numbers stay as they are.

/// `text` with comments, and the inside of strings and character literals, replaced by spaces.
pub(crate) fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => blank(&mut out, at, line_end(bytes, at)),
            b'/' if bytes.get(at + 1) == Some(&b'*') => blank(&mut out, at, comment_end(bytes, at)),
            b'"' => {
                let end = string_end(bytes, at + 1);
                blank(&mut out, at + 1, end.saturating_sub(1).max(at + 1));
                end
            }
            b'\'' => match char_end(bytes, at) {
                Some(end) => blank(&mut out, at + 1, end - 1) + 1,
                None => at + 1,
            },
            b'r' if !is_word(at.checked_sub(1).map_or(b' ', |before| raw_prefix(bytes, before))) => {
                match raw_string(bytes, at) {
                    Some((start, inner_end, end)) => {
                        blank(&mut out, start, inner_end);
                        end
                    }
                    None => at + 1,
                }
            }
            _ => at + 1,
        };
        at = end;
    }
    String::from_utf8(out).expect("only whole characters were replaced by spaces")
}

/// Code with every item under `#[cfg(test)]` blanked. Takes the result of [`code_only`].
pub(crate) fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(found) = code[from..].find(MARK) {
        let start = from + found;
        let end = item_end(code.as_bytes(), start + MARK.len());
        blank(&mut out, start, end);
        from = end;
    }
    String::from_utf8(out).expect("only whole characters were replaced by spaces")
}

/// Whether `line` holds `needle` not preceded or followed by more of the same word.
pub(crate) fn holds_word(line: &str, needle: &str) -> bool {
    let bytes = line.as_bytes();
    line.match_indices(needle).any(|(at, _)| {
        let before = at.checked_sub(1).map_or(b' ', |index| bytes[index]);
        let after = bytes.get(at + needle.len()).copied().unwrap_or(b' ');
        let open_start = !is_word(needle.as_bytes()[0]) || !is_word(before);
        let open_end = !is_word(needle.as_bytes()[needle.len() - 1]) || !is_word(after);
        open_start && open_end
    })
}

fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

/// Replaces `start..end` by spaces but keeps line ends; returns `end`.
fn blank(out: &mut [u8], start: usize, end: usize) -> usize {
    for byte in &mut out[start..end] {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
    end
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |count| at + count)
}

/// End of a block comment; block comments nest.
fn comment_end(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut index = at;
    while index < bytes.len() {
        match (bytes[index], bytes.get(index + 1)) {
            (b'/', Some(b'*')) => {
                depth += 1;
                index += 2;
            }
            (b'*', Some(b'/')) => {
                depth -= 1;
                index += 2;
                if depth == 0 {
                    return index;
                }
            }
            _ => index += 1,
        }
    }
    bytes.len()
}

/// The index after the closing quote of a string whose inside starts at `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut index = at;
    while index < bytes.len() {
        match bytes[index] {
            b'\\' => index += 2,
            b'"' => return index + 1,
            _ => index += 1,
        }
    }
    bytes.len()
}

/// The index after a character literal at `at`, or `None` for a lifetime.
fn char_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        // The byte after the backslash may itself be a quote.
        let close = bytes.get(at + 3..)?.iter().position(|&byte| byte == b'\'')?;
        return Some(at + 3 + close + 1);
    }
    let width = match bytes.get(at + 1)? {
        0xF0.. => 4,
        0xE0.. => 3,
        0xC0.. => 2,
        _ => 1,
    };
    (bytes.get(at + 1 + width) == Some(&b'\'')).then_some(at + width + 2)
}

/// The byte that decides whether the `r` after `before` begins a raw string: `b` and `c` may stand there.
fn raw_prefix(bytes: &[u8], before: usize) -> u8 {
    match bytes[before] {
        b'b' | b'c' => before.checked_sub(1).map_or(b' ', |index| bytes[index]),
        byte => byte,
    }
}

/// Start of the inside, end of the inside, and end of a raw string at `at`.
fn raw_string(bytes: &[u8], at: usize) -> Option<(usize, usize, usize)> {
    let hashes = bytes[at + 1..].iter().take_while(|&&byte| byte == b'#').count();
    let open = at + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(hashes + 1, b'#');
    let inside = &bytes[open + 1..];
    let length = inside.windows(close.len()).position(|window| window == close).unwrap_or(inside.len());
    let inner_end = open + 1 + length;
    Some((open + 1, inner_end, (inner_end + close.len()).min(bytes.len())))
}

/// End of the item that starts after `at`: its closing brace, or a semicolon before any brace.
fn item_end(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0_usize;
    for (index, &byte) in bytes.iter().enumerate().skip(at) {
        match byte {
            b';' if depth == 0 => return index + 1,
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return index + 1;
                }
            }
            _ => {}
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_not_code() {
        let code =
            code_only("let a = \"unsafe \\\" {\"; // unsafe {\n/* unsafe /* { */ */ let b = r#\"unsafe\"#;");
        assert!(!code.contains("unsafe"), "{code}");
        assert!(code.contains("let a") && code.contains("let b"), "{code}");
        assert_eq!(code.lines().count(), 2);
    }

    #[test]
    fn lifetimes_and_characters_do_not_open_strings() {
        let code =
            code_only("fn f<'a>(x: &'a str) -> char { if c == '\"' { '\\'' } else { 'é' } } unsafe {}");
        assert!(code.contains("unsafe"), "{code}");
        assert!(code.contains("fn f<'a>(x: &'a str)"), "{code}");
    }

    #[test]
    fn byte_raw_strings_are_blanked() {
        assert!(!code_only("let a = br##\"unsafe\"# x\"##;").contains("unsafe"));
        assert!(code_only("let bar = unsafe {};").contains("unsafe"));
    }

    #[test]
    fn test_items_are_cut_and_the_rest_stays() {
        let code = without_tests(
            "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { x } }\nfn c() {}\n#[cfg(test)] mod t;\nfn d() {}",
        );
        assert!(!code.contains("fn b") && !code.contains("mod t"), "{code}");
        assert!(code.contains("fn a") && code.contains("fn c") && code.contains("fn d"), "{code}");
    }

    #[test]
    fn a_word_is_not_part_of_a_longer_word() {
        assert!(holds_word("unsafe { x }", "unsafe"));
        assert!(!holds_word("#![forbid(unsafe_code)]", "unsafe"));
        assert!(holds_word("std::thread::spawn", "thread::"));
        assert!(!holds_word("my_thread::spawn", "thread::"));
    }
}
