//! What is typed on the other machine: a secret, and whom to tell it.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Crockford's base 32: no I, L, O, U.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const DIGIT_BITS: usize = 5;
const GROUP_DIGITS: usize = 4;
/// The layout of a token: its first byte.
const VERSION: u8 = 1;
const CHECK_BYTES: usize = 2;
const TOKEN_BYTES: usize = 1 + 16 + 16 + CHECK_BYTES;
const TOKEN_DIGITS: usize = TOKEN_BYTES * 8 / DIGIT_BITS;

/// 128 random bits that prove who joins.
#[derive(Clone)]
pub struct Secret(pub [u8; 16]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// What is kept of it: two of these are compared in constant time.
    pub(super) fn image(&self) -> blake3::Hash {
        blake3::hash(&self.0)
    }
}

/// Names a certificate: the first 128 bits of the BLAKE3 of its DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// Of a certificate.
    pub fn of(certificate: &[u8]) -> Self {
        let mut first = [0; 16];
        first.copy_from_slice(&blake3::hash(certificate).as_bytes()[..16]);
        Self(first)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&grouped(&self.0))
    }
}

/// A secret, and the certificate of the only end that may hear it.
#[derive(Clone, Debug)]
pub struct Token {
    /// The secret.
    pub secret: Secret,
    /// Whom it may be told.
    pub fingerprint: Fingerprint,
}

/// Why a text is no token. Nothing was told to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Too short or too long.
    #[error("it has {digits} letters and digits, a token has {TOKEN_DIGITS}")]
    Length {
        /// What it has.
        digits: usize,
    },
    /// No token has this.
    #[error("{digit:?} is in no token")]
    Digit {
        /// The character.
        digit: char,
    },
    /// Its last digits do not fit the others.
    #[error("it is misspelt: its last digits do not fit the others")]
    Misspelt,
    /// Another release made it.
    #[error("it is of another release (layout {version}, this one knows {VERSION})")]
    Version {
        /// What it says.
        version: u8,
    },
}

impl Token {
    fn bytes(&self) -> [u8; TOKEN_BYTES] {
        let mut bytes = [0; TOKEN_BYTES];
        bytes[0] = VERSION;
        bytes[1..17].copy_from_slice(&self.secret.0);
        bytes[17..33].copy_from_slice(&self.fingerprint.0);
        let check = check(&bytes[..33]);
        bytes[33..].copy_from_slice(&check);
        bytes
    }
}

fn check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let image = blake3::hash(bytes);
    [image.as_bytes()[0], image.as_bytes()[1]]
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&grouped(&self.bytes()))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    /// Letters may be small, O is 0, I and L are 1; blanks and dashes are left out.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut digits = Vec::new();
        for digit in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
            digits.push(value(digit).ok_or(TokenError::Digit { digit })?);
            if digits.len() > TOKEN_DIGITS {
                break;
            }
        }
        if digits.len() != TOKEN_DIGITS {
            let digits = text.chars().filter(char::is_ascii_alphanumeric).count();
            return Err(TokenError::Length { digits });
        }
        let mut bytes = [0; TOKEN_BYTES];
        for (place, digit) in digits.iter().enumerate() {
            for bit in 0..DIGIT_BITS {
                let at = place * DIGIT_BITS + bit;
                let set = digit >> (DIGIT_BITS - 1 - bit) & 1;
                bytes[at / 8] |= set << (7 - at % 8);
            }
        }
        if check(&bytes[..33]) != bytes[33..] {
            return Err(TokenError::Misspelt);
        }
        if bytes[0] != VERSION {
            return Err(TokenError::Version { version: bytes[0] });
        }
        let part = |from: usize| std::array::from_fn(|at| bytes[from + at]);
        Ok(Self {
            secret: Secret(part(1)),
            fingerprint: Fingerprint(part(17)),
        })
    }
}

fn value(digit: char) -> Option<u8> {
    let digit = match digit.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let place = DIGITS.iter().position(|known| char::from(*known) == digit);
    place.and_then(|place| u8::try_from(place).ok())
}

/// Base 32, in groups; missing bits at the end are 0.
fn grouped(bytes: &[u8]) -> String {
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    let count = (bytes.len() * 8).div_ceil(DIGIT_BITS);
    let mut text = String::new();
    for place in 0..count {
        if place > 0 && place % GROUP_DIGITS == 0 {
            text.push('-');
        }
        let value = (0..DIGIT_BITS).fold(0, |value, at| value << 1 | bit(place * DIGIT_BITS + at));
        text.push(char::from(DIGITS[usize::from(value)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            secret: Secret(std::array::from_fn(|at| {
                u8::try_from(at * 37 % 251).expect("small")
            })),
            fingerprint: Fingerprint(std::array::from_fn(|at| {
                u8::try_from(at * 91 % 253).expect("small")
            })),
        }
    }

    #[test]
    fn a_token_is_read_as_it_was_written_however_it_is_typed() {
        let text = token().to_string();
        assert_eq!((text.len(), text.split('-').count()), (69, 14), "{text}");
        let sloppy = text.to_lowercase().replace('-', " ").replace('0', "o");
        for typed in [&text, &format!("  {text}\n"), &sloppy.replace('1', "l")] {
            let read: Token = typed.parse().expect("a token");
            assert_eq!(read.secret.0, token().secret.0);
            assert_eq!(read.fingerprint, token().fingerprint);
        }
    }

    #[test]
    fn every_wrong_digit_and_every_exchange_of_neighbours_is_noticed() {
        let text = token().to_string().replace('-', "");
        for at in 0..text.len() {
            for other in DIGITS {
                let mut wrong = text.clone().into_bytes();
                if wrong[at] == *other {
                    continue;
                }
                wrong[at] = *other;
                let wrong = String::from_utf8(wrong).expect("text");
                let error = wrong.parse::<Token>().expect_err("misspelt");
                assert_eq!(error, TokenError::Misspelt, "{wrong}");
            }
            let mut swapped = text.clone().into_bytes();
            if at > 0 && swapped[at] != swapped[at - 1] {
                swapped.swap(at, at - 1);
                let swapped = String::from_utf8(swapped).expect("text");
                assert!(swapped.parse::<Token>().is_err(), "{swapped}");
            }
        }
    }

    #[test]
    fn what_is_no_token_is_refused_with_the_reason() {
        let text = token().to_string();
        let length = |digits| TokenError::Length { digits };
        assert_eq!(text[..67].parse::<Token>().err(), Some(length(54)));
        assert_eq!("".parse::<Token>().err(), Some(length(0)));
        let long = format!("{text}0");
        assert_eq!(long.parse::<Token>().err(), Some(length(57)));
        let strange = text.replacen('-', "!", 1);
        assert_eq!(
            strange.parse::<Token>().err(),
            Some(TokenError::Digit { digit: '!' })
        );
        let mut later = token().bytes();
        later[0] = 2;
        let check = check(&later[..33]);
        later[33..].copy_from_slice(&check);
        assert_eq!(
            grouped(&later).parse::<Token>().err(),
            Some(TokenError::Version { version: 2 })
        );
        assert!(
            !format!("{:?}", token()).contains("37"),
            "a secret is shown"
        );
    }
}
