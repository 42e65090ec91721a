//! The region key file: the secret of a domain as a line of text that a person can keep in a safe.

use super::{CipherKind, DomainKey};
use zeroize::Zeroizing;

/// First word of the line.
const HEADER: &str = "novaclustr-region-key-1";

/// A region key file that cannot be used. The message never shows what the file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a region key file: {reason}; expected one line: {HEADER} <domain> <version> <64 hexadecimal digits>"
)]
pub struct KeyFileError {
    /// What is wrong with it.
    pub reason: &'static str,
}

impl DomainKey {
    /// Reads the text of a region key file: header, domain, version from 1 and 64 hexadecimal digits in lower case,
    /// separated by single spaces and ended by one line feed.
    ///
    /// # Errors
    /// [`KeyFileError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let wrong = |reason| KeyFileError { reason };
        let line = text.strip_suffix('\n').ok_or(wrong("it does not end with a line feed"))?;
        let mut fields = line.split(' ');
        if fields.next() != Some(HEADER) {
            return Err(wrong("its first word is another one"));
        }
        let domain = fields.next().and_then(decimal).ok_or(wrong("the domain is not a number"))?;
        let version = fields.next().and_then(decimal).filter(|version| *version > 0);
        let version = version.ok_or(wrong("the version is not a number from 1"))?;
        let secret = fields.next().and_then(hex32).ok_or(wrong("the key is not 64 digits of 0-9 and a-f"))?;
        match fields.next() {
            None => Ok(Self { domain, version, secret, cipher: CipherKind::default() }),
            Some(_) => Err(wrong("something follows the key")),
        }
    }
}

/// A number without sign or leading zeros.
fn decimal(text: &str) -> Option<u32> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

fn hex32(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut out = Zeroizing::new([0; 32]);
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(out)
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_region_key_file_is_read() {
        let text = format!("{HEADER} 3 9 {}\n", "0a1f".repeat(16));
        let key = DomainKey::parse(&text).unwrap();
        assert_eq!((key.domain(), key.version()), (3, 9));
        assert_eq!(key.secret[..4], [0x0a, 0x1f, 0x0a, 0x1f]);
    }

    #[test]
    fn every_other_form_is_refused() {
        let digits = "0a".repeat(32);
        for text in [
            format!("{HEADER} 3 9 {digits}"),
            format!("{HEADER} 3 9 {digits} \n"),
            format!("{HEADER} 3 0 {digits}\n"),
            format!("{HEADER} +3 9 {digits}\n"),
            format!("{HEADER}  3 9 {digits}\n"),
            format!("{HEADER} 3 9 {}\n", digits.to_uppercase()),
            format!("{HEADER} 3 9 {}\n", &digits[1..]),
            format!("novaclustr-region-key-2 3 9 {digits}\n"),
            String::new(),
        ] {
            assert!(DomainKey::parse(&text).is_err(), "{text:?}");
        }
    }
}
