//! The README's way from bare machines to a protected PostgreSQL, taken out of its text, so that what is tested is what is
//! written there.

use anyhow::{Context as _, ensure};

const README: &str = include_str!("../../README.md");
const TITLE: &str = "## With a witness";

/// What the README has a reader do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guide {
    /// `cluster.toml`, as it is there.
    pub configuration: String,
    /// What is typed, in its order.
    pub steps: Vec<Step>,
}

/// One line that is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The machine.
    pub on: String,
    /// The line.
    pub command: String,
}

impl Guide {
    /// Takes it out of the README.
    ///
    /// # Errors
    /// If the README is not as this expects it, or does not count right.
    pub fn of_readme() -> anyhow::Result<Self> {
        Self::parse(README)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let (_, section) = text.split_once(TITLE).context("no such section")?;
        let section = section.split("\n## ").next().unwrap_or_default();
        let (before, rest) = section.split_once("```toml\n").context("no file")?;
        let (configuration, after) = rest.split_once("```\n").context("an open file")?;
        let guide = Self {
            configuration: configuration.to_owned(),
            steps: steps(after)?,
        };
        let lines =
            number_before(before, " lines:").context("it does not count the file's lines")?;
        ensure!(
            guide.configuration.lines().count() == lines,
            "the README says {lines} lines of configuration, and has {}",
            guide.configuration.lines().count()
        );
        let lines = number_before(after, " lines to type")
            .context("it does not count the lines that are typed")?;
        ensure!(
            guide.steps.len() == lines,
            "the README says {lines} lines to type, and has {}",
            guide.steps.len()
        );
        let commands = number_before(after, " commands").context("it does not count commands")?;
        ensure!(
            guide.commands() == commands,
            "the README says {commands} commands, and has {}",
            guide.commands()
        );
        Ok(guide)
    }

    /// How many commands these lines are: some have two.
    #[must_use]
    pub fn commands(&self) -> usize {
        let commands = |step: &Step| step.command.split(" && ").count();
        self.steps.iter().map(commands).sum()
    }

    /// What is typed where a database is made; before it, where the cluster and the volume are.
    ///
    /// # Errors
    /// If that cannot be told apart.
    pub fn parts(&self) -> anyhow::Result<(&[Step], &[Step])> {
        let prepares = |step: &Step| step.command.starts_with("lockstep group prepare ");
        let database = self.steps.iter().position(prepares);
        Ok(self.steps.split_at(database.context("no database")?))
    }
}

/// Rows with a number in front. In a table without machines it is all done on the first node.
fn steps(text: &str) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    for line in text.lines() {
        let Some(cells) = cells(line) else {
            continue;
        };
        let (Some(number), Some(last)) = (cells.first(), cells.last()) else {
            continue;
        };
        let Ok(number) = number.parse::<usize>() else {
            continue;
        };
        ensure!(number == steps.len() + 1, "{line}");
        let command = last.split('`').nth(1).context("no command")?;
        steps.push(Step {
            on: if cells.len() == 3 { cells[1] } else { "node1" }.to_owned(),
            command: command.to_owned(),
        });
    }
    Ok(steps)
}

fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
    Some(inner.split(" | ").collect())
}

/// The last number that stands before these words.
fn number_before(text: &str, words: &str) -> Option<usize> {
    let (before, _) = text.rsplit_once(words)?;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the project promises: no more than this is typed, and written, for a protected database.
    const COMMANDS_MAX: usize = 7;
    const LINES_WRITTEN_MAX: usize = 25;

    #[test]
    fn the_readme_counts_right_and_stays_short() {
        let guide = Guide::of_readme().unwrap();
        assert!(guide.commands() <= COMMANDS_MAX, "{:#?}", guide.steps);
        assert!(guide.configuration.lines().count() <= LINES_WRITTEN_MAX);
        let (cluster, database) = guide.parts().unwrap();
        assert!(cluster[0].command == "lockstep cluster init" && cluster[0].on == "node1");
        assert!(cluster.iter().any(|step| step.on == "witness"));
        assert!(database[0].command.contains("initdb"), "{database:?}");
    }

    #[test]
    fn a_line_more_than_the_readme_says_is_noticed() {
        let last = "| 6 | node1 | `lockstep group prepare";
        assert!(README.contains(last));
        let more = README.replace(
            last,
            &format!("| 6 | node1 | `sync` |\n{}", last.replace('6', "7")),
        );
        let error = Guide::parse(&more).unwrap_err().to_string();
        assert!(error.contains("says 6 lines to type, and has 7"), "{error}");
        let more = README.replace("[witness]\n", "[witness]\n# a remark\n");
        let error = Guide::parse(&more).unwrap_err().to_string();
        assert!(error.contains("14 lines of configuration"), "{error}");
        let more = README.replace("`lockstep group prepare", "`sync && lockstep group prepare");
        let error = Guide::parse(&more).unwrap_err().to_string();
        assert!(error.contains("7 commands, and has 8"), "{error}");
    }
}
