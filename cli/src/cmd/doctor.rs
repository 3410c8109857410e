//! `lockstep doctor`: looks at this server, and says what Lockstep lacks on it.

use std::path::PathBuf;

use nix::unistd::gethostname;

use crate::cmd::print_all;
use crate::cmd::volume::status::Form;
use crate::config::directory;
use crate::doctor::look::{Root, facts};
use crate::doctor::{Counts, judge, told};
use crate::failure::Failure;
use crate::style::Style;
use crate::verdict::Health;

pub(crate) fn run(file: Option<PathBuf>, node: Option<&str>, form: Form) -> Result<u8, Failure> {
    let file = file.unwrap_or_else(|| directory().join("cluster.toml"));
    let checks = judge::checks(&facts(&Root::real(), &file, node));
    let host = gethostname().unwrap_or_default();
    let host = host.to_string_lossy();
    let text = match form {
        Form::Screen => told::screen(&host, &checks, Style::of_stdout()),
        Form::Json => format!("{:#}\n", told::document(&host, &checks)),
    };
    print_all(text.as_bytes()).map_err(|failure| Failure {
        exit_code: Health::Unknown.exit_code(),
        ..failure
    })?;
    Ok(Counts::of(&checks).exit_code())
}
