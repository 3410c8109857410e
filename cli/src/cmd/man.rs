//! `lockstep man DIR`: manual pages, from the same table as the help.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::args::Cli;
use crate::cmd::print_all;
use crate::failure::Failure;

/// Administration.
const SECTION: &str = "8";

pub(crate) fn run(directory: &Path) -> Result<u8, Failure> {
    fs::create_dir_all(directory).map_err(|error| Failure::file(directory, "make", &error))?;
    let mut command = Cli::command();
    command.build();
    write(&command, directory)
        .map_err(|error| Failure::file(directory, "write pages into", &error))?;
    print_all(format!("manual pages are in {}\n", directory.display()).as_bytes())?;
    Ok(0)
}

/// The page of a command, and those of its words.
fn write(command: &Command, directory: &Path) -> io::Result<()> {
    let page = Man::new(command.clone())
        .section(SECTION)
        .source(concat!("Lockstep ", env!("CARGO_PKG_VERSION")))
        .manual("Lockstep");
    let mut text = Vec::new();
    page.render(&mut text)?;
    replace(directory, &page.get_filename(), &text)?;
    command
        .get_subcommands()
        .try_for_each(|verb| write(verb, directory))
}

/// The name becomes this page; where it was a link, what that led to stays as it is.
fn replace(directory: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    let new = directory.join(format!(".{name}.new"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = File::create_new(&new)?;
    file.write_all(text)?;
    fs::rename(new, directory.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(command: &Command, page: &str, found: &mut Vec<(String, Command)>) {
        found.push((page.to_string(), command.clone()));
        for verb in command.get_subcommands() {
            walk(verb, &format!("{page}-{}", verb.get_name()), found);
        }
    }

    #[test]
    fn every_command_has_a_page_that_describes_each_of_its_words() {
        let directory = tempfile::tempdir().unwrap();
        let pages = directory.path().join("man8");
        assert_eq!(run(&pages).unwrap(), 0);
        let mut found = Vec::new();
        walk(&Cli::command(), "lockstep", &mut found);
        assert!(found.len() > 40, "{}", found.len());
        assert_eq!(fs::read_dir(&pages).unwrap().count(), found.len());
        for (page, command) in found {
            let text = fs::read_to_string(pages.join(format!("{page}.8"))).unwrap();
            let plain = text.replace("\\-", "-").replace("\\*(Aq", "'");
            let about = command
                .get_about()
                .unwrap_or_else(|| panic!("{page} has no help"));
            assert!(plain.contains("\n.SH NAME\n"), "{page}");
            let first_words: String = about.to_string().chars().take(20).collect();
            assert!(plain.contains(&first_words), "{page}: {plain}");
            for arg in command.get_arguments() {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(
                    !help.trim().is_empty(),
                    "{page}: {} has no help",
                    arg.get_id()
                );
                if let Some(long) = arg.get_long() {
                    assert!(plain.contains(&format!("--{long}")), "{page}: --{long}");
                }
            }
        }
    }
}
