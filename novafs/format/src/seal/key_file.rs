//! The region key file: the secret of a domain as text that a person can keep in a safe.

use super::DomainKey;
use zeroize::Zeroizing;

/// First line of the file.
const HEADER: &str = "novaclustr domain key 1";

/// A region key file that cannot be used. No variant shows what the file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// The first line is something else.
    #[error("not a key file: its first line must be \"{HEADER}\"")]
    Header,
    /// A line is not `name = value`, or the name is not known.
    #[error("line {line} of the key file is not one of domain, version, key, written as `name = value`")]
    Line {
        /// Line number from 1.
        line: usize,
    },
    /// A name stands twice.
    #[error("line {line} of the key file gives a name a second time")]
    Twice {
        /// Line number from 1.
        line: usize,
    },
    /// A value is not what its name asks for.
    #[error(
        "line {line} of the key file: domain and version are numbers up to 4294967295, key is 64 hexadecimal digits"
    )]
    Value {
        /// Line number from 1.
        line: usize,
    },
    /// A name is missing.
    #[error("the key file lacks the line `{name} = ...`")]
    Missing {
        /// Which one.
        name: &'static str,
    },
}

impl DomainKey {
    /// Reads a key file: the header line, then `domain`, `version` and `key` (64 hexadecimal digits) in any order,
    /// one `name = value` per line. Empty lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// [`KeyFileError`] says which line is wrong and what belongs there.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let mut lines = text.lines().zip(1..).map(|(text, line)| (text.trim(), line));
        if lines.next().map(|(text, _)| text) != Some(HEADER) {
            return Err(KeyFileError::Header);
        }
        let (mut domain, mut version, mut secret) = (None, None, None);
        for (text, line) in lines {
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let (name, value) = text.split_once('=').ok_or(KeyFileError::Line { line })?;
            let value = value.trim();
            let number = || value.parse::<u32>().map_err(|_| KeyFileError::Value { line });
            let twice = match name.trim() {
                "domain" => domain.replace(number()?).is_some(),
                "version" => version.replace(number()?).is_some(),
                "key" => secret.replace(hex32(value).ok_or(KeyFileError::Value { line })?).is_some(),
                _ => return Err(KeyFileError::Line { line }),
            };
            if twice {
                return Err(KeyFileError::Twice { line });
            }
        }
        let domain = domain.ok_or(KeyFileError::Missing { name: "domain" })?;
        let version = version.ok_or(KeyFileError::Missing { name: "version" })?;
        let secret = secret.ok_or(KeyFileError::Missing { name: "key" })?;
        Ok(Self { domain, version, secret })
    }

    /// The text that [`DomainKey::parse`] reads, for the command that makes a region. It holds the secret: write it
    /// to a file that only its owner can read.
    #[must_use]
    pub fn to_key_file(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(160));
        text.push_str(HEADER);
        text.push_str(&format!("\ndomain = {}\nversion = {}\nkey = ", self.domain, self.version));
        for byte in self.secret.iter() {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(nibble.into(), 16).expect("a nibble is a hexadecimal digit"));
            }
        }
        text.push('\n');
        text
    }
}

fn hex32(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut out = Zeroizing::new([0; 32]);
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_key_file_reads_back() {
        let key = DomainKey::new(3, 9, core::array::from_fn(|i| u8::try_from(i * 7).unwrap()));
        let text = key.to_key_file();
        let read = DomainKey::parse(&text).unwrap();
        assert_eq!((read.domain(), read.version(), *read.secret), (3, 9, *key.secret));
    }

    #[test]
    fn errors_name_the_line() {
        let parse = |text: &str| DomainKey::parse(text).unwrap_err();
        assert_eq!(parse("something"), KeyFileError::Header);
        assert_eq!(parse("novaclustr domain key 1\n# note\nword"), KeyFileError::Line { line: 3 });
        assert_eq!(parse("novaclustr domain key 1\ndomain = x"), KeyFileError::Value { line: 2 });
        assert_eq!(parse("novaclustr domain key 1\nkey = 00"), KeyFileError::Value { line: 2 });
        assert_eq!(parse("novaclustr domain key 1\ndomain = 1\ndomain = 1"), KeyFileError::Twice { line: 3 });
        assert_eq!(parse("novaclustr domain key 1\ndomain = 1"), KeyFileError::Missing { name: "version" });
    }
}
