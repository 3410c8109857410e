//! `lockstep why`: on what the last decisions of this node rest, and what it waits for.

use controlplane_api::why::Why;
use serde_json::json;

use crate::cmd::group::unknown;
use crate::cmd::print_all;
use crate::cmd::volume::status::Form;
use crate::failure::Failure;
use crate::http::{TIMEOUT, get};
use crate::style::Style;
use crate::why::{About, about, screen};

pub(crate) fn run(name: Option<&str>, form: Form) -> Result<u8, Failure> {
    let why: Why = get("/v1/why", TIMEOUT).map_err(|error| unknown(&error))?;
    let wanted = name.map_or(About::Everything, About::Name);
    let why = about(why, wanted).ok_or_else(|| {
        Failure::new(
            "LS6080",
            format!(
                "there is neither a group nor a volume of a group that is called {}",
                name.unwrap_or_default()
            ),
            "`lockstep status` lists them",
        )
    })?;
    let text = match form {
        Form::Screen => screen(&why, Style::of_stdout()),
        Form::Json => format!("{:#}\n", json!(why)),
    };
    print_all(text.as_bytes())?;
    Ok(0)
}
