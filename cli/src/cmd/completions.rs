//! `lockstep completions SHELL`: from the same table as the help, so that none lags behind.

use clap::CommandFactory;
use clap_complete::{generate, shells};

use crate::args::{Cli, Shell};
use crate::cmd::print_all;
use crate::failure::Failure;

const NAME: &str = "lockstep";

pub(crate) fn run(shell: Shell) -> Result<u8, Failure> {
    print_all(&script(shell))?;
    Ok(0)
}

fn script(shell: Shell) -> Vec<u8> {
    let mut command = Cli::command();
    let mut text = Vec::new();
    match shell {
        Shell::Bash => generate(shells::Bash, &mut command, NAME, &mut text),
        Shell::Zsh => generate(shells::Zsh, &mut command, NAME, &mut text),
        Shell::Fish => generate(shells::Fish, &mut command, NAME, &mut text),
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use clap::Command;

    /// Each command with its words, and its long options.
    fn walk(command: &Command, words: &[String], found: &mut Vec<(Vec<String>, Vec<String>)>) {
        let options = command.get_arguments().filter_map(|arg| arg.get_long());
        found.push((words.to_vec(), options.map(str::to_string).collect()));
        for verb in command.get_subcommands() {
            let words = [words, &[verb.get_name().to_string()]].concat();
            walk(verb, &words, found);
        }
    }

    fn all() -> Vec<(Vec<String>, Vec<String>)> {
        let mut found = Vec::new();
        walk(&Cli::command(), &[NAME.to_string()], &mut found);
        assert!(found.len() > 40, "{}", found.len());
        found
    }

    #[test]
    fn every_verb_and_option_is_completed_in_every_shell() {
        let text = |shell| String::from_utf8(script(shell)).unwrap();
        let (bash, zsh, fish) = (text(Shell::Bash), text(Shell::Zsh), text(Shell::Fish));
        for (words, options) in all() {
            let verb = words.last().unwrap();
            // bash has a case for each command, by all its words.
            let joined = words.join("__subcmd__").replace('-', "__subcmd__");
            let (_, case) = bash
                .split_once(&format!(" {joined})\n"))
                .unwrap_or_else(|| panic!("bash: {joined}"));
            let offered = case.split('"').nth(1).unwrap();
            // fish goes by the words before, and no deeper than two: options of `volume discarded ...` are not offered.
            let before = match &words[1..] {
                [] => "-n \"__fish_lockstep_needs_command\"".to_string(),
                [noun] => format!("-n \"__fish_lockstep_using_subcommand {noun}"),
                [noun, verb, ..] => format!(
                    "-n \"__fish_lockstep_using_subcommand {noun}; and __fish_seen_subcommand_from {verb}\""
                ),
            };
            if words.len() > 1 {
                assert!(zsh.contains(&format!("({verb})\n")), "zsh: {verb}");
                assert!(fish.contains(&format!(" -a \"{verb}\" ")), "fish: {verb}");
            }
            for option in options {
                let option_words = format!("--{option}");
                assert!(
                    offered.split(' ').any(|word| word == option_words),
                    "bash: {joined} {option_words}"
                );
                assert!(zsh.contains(&option_words), "zsh: {option_words}");
                let mut lines = fish.lines();
                let is_offered = lines
                    .any(|line| line.contains(&before) && line.contains(&format!(" -l {option}")));
                assert!(
                    is_offered || words.len() > 3,
                    "fish: {joined} {option_words}"
                );
            }
        }
    }

    /// The generators show what is hidden as well, so a hidden word would need a generator that leaves it out.
    #[test]
    fn there_is_no_hidden_word_that_completions_would_show() {
        fn hidden(command: &Command, found: &mut Vec<String>) {
            let arguments = command.get_arguments().filter(|arg| arg.is_hide_set());
            found.extend(arguments.map(|arg| arg.get_id().to_string()));
            for verb in command.get_subcommands() {
                if verb.is_hide_set() {
                    found.push(verb.get_name().to_string());
                }
                hidden(verb, found);
            }
        }
        let mut found = Vec::new();
        hidden(&Cli::command(), &mut found);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn what_one_completes_is_a_shell_script_that_the_shell_accepts() {
        use std::process::{Command, Stdio};
        let mut child = Command::new("bash")
            .args(["-n"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("bash");
        let mut input = child.stdin.take().unwrap();
        input.write_all(&script(Shell::Bash)).unwrap();
        drop(input);
        assert!(child.wait().unwrap().success());
    }
}
