//! `lockstep explain CODE`.

use crate::codes;
use crate::failure::Failure;

pub(crate) fn run(code: &str) -> Result<u8, Failure> {
    match codes::explain(code) {
        Some(text) => {
            println!("{text}");
            Ok(0)
        }
        None => {
            let advice = "codes are LS and four digits; docs/codes.md lists those of this release";
            Err(Failure::new(
                "LS4011",
                format!("`{code}` is no code of this release"),
                advice,
            ))
        }
    }
}
