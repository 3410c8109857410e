//! Words of a control plane to its data plane: said at once, carried out late, or lost with the process that they were
//! meant for. Whoever said one may be gone by then.

use controlplane_core::facts::command;
use controlplane_core::keeper::Word;
use mirror_core::admin::Command;

use super::control::{Incoming, Step};
use super::node::MS;
use super::world::World;

/// A word that nobody answers is given up, milliseconds without haste.
const WORD_TIMEOUT_MS: u64 = 120_000;
/// A late word, milliseconds without haste.
pub(super) const LATE_MS: u64 = 6000;

/// A word that a data plane has, or will get.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) node: usize,
    pub(super) run: u64,
    pub(super) process: u64,
    pub(super) word: Word,
    pub(super) until: u64,
}

impl World {
    pub(super) fn say_word(&mut self, node: usize, run: u64, word: Word) {
        self.note(|| format!("{node} says {word:?}"));
        let rng = &mut self.control.rng;
        let late = match rng.below(20) {
            0 if self.control.interconnects.noisy => rng.below(LATE_MS * MS) / self.plan.haste,
            1 | 2 => rng.below(200 * MS) / self.plan.haste,
            _ => rng.below(MS),
        };
        let process = self.nodes[node].process.as_ref();
        let Some(process) = process.map(|process| process.number) else {
            self.count("control: words to nobody");
            return self.incoming(node, run, MS / 10, Incoming::Said);
        };
        let granted = matches!(word, Word::GoAlone { .. } | Word::TakeOver { .. });
        let late = late.max(if granted { self.ambush_a_word(node) } else { 0 });
        let step = Step::Word {
            node,
            run,
            process,
            word,
        };
        self.control_later(late, step);
    }

    pub(super) fn word_arrives(&mut self, node: usize, run: u64, process: u64, word: Word) {
        if !self.nodes[node].process_is(process) {
            self.count("control: words to nobody");
            return self.incoming(node, run, MS / 10, Incoming::Said);
        }
        if self.control.daemon(node, run).is_none() {
            self.count("control: words of an earlier run");
        }
        self.check_word(node, word);
        if let Word::GoAlone { basis, .. } | Word::TakeOver { basis, .. } = word {
            self.disturb();
            let view = self.nodes[node].view();
            if view.mark() != basis {
                self.count("control: words about an earlier view");
            } else if view.insync.len() == 2 {
                // What the other one has not flushed is given up.
                self.model.power_cut(1 - node);
            }
        }
        self.count(match word {
            Word::GoAlone { .. } => "control: words to go alone",
            Word::TakeOver { .. } => "control: words to take over",
            Word::Start => "control: words to start",
            Word::StepDown => "control: words to step down",
            Word::Release => "control: words to release",
        });
        // It may be answered at once.
        let number = self.next_command();
        let until = self.now + self.control_ms(WORD_TIMEOUT_MS);
        let told = Told {
            node,
            run,
            process,
            word,
            until,
        };
        self.control.words.insert(number, told);
        let mut command = command(word);
        if let Command::Granted { until_nanos, .. } = &mut command {
            // The data plane's clock knows nothing of the run's haste.
            *until_nanos /= self.plan.haste;
        }
        self.command(node, command);
    }

    /// A data plane answered a command.
    pub(super) fn word_answered(&mut self, command: u64) {
        if let Some(told) = self.control.words.remove(&command) {
            let after = self.control.rng.between(MS / 20, MS);
            self.incoming(told.node, told.run, after, Incoming::Said);
        }
    }

    /// The connection of a word ended with the data plane, or nobody answered for too long.
    pub(super) fn words_of_the_dead(&mut self, node: usize) {
        let process = self.nodes[node].process.as_ref();
        let process = process.map(|process| process.number);
        let now = self.now;
        let over =
            |told: &Told| told.node == node && (Some(told.process) != process || told.until <= now);
        let dead = self.control.words.iter().filter(|(_, told)| over(told));
        let dead: Vec<(u64, Told)> = dead.map(|(number, told)| (*number, *told)).collect();
        for (number, told) in dead {
            self.control.words.remove(&number);
            self.incoming(node, told.run, MS / 10, Incoming::Said);
        }
    }

    /// Whether the other node was told to go on without this one, and has not answered yet.
    pub(super) fn is_called_off(&self, node: usize) -> bool {
        let by_operator = self.desk.case.is_some_and(|case| case.is_told(1 - node));
        let goes_on =
            |told: &Told| matches!(told.word, Word::GoAlone { .. } | Word::TakeOver { .. });
        let mut told = self.control.words.values();
        by_operator || told.any(|told| told.node == 1 - node && goes_on(told))
    }

    /// No data plane has been told to change anything, or will be by what was said already.
    pub(super) fn words_rest(&self) -> bool {
        let changes = |node: usize| self.sample(node).facts.is_none_or(|facts| facts.changing);
        self.control.words.is_empty()
            && !self.agenda_has(|step| matches!(step, Step::Word { .. }))
            && !(0..2).any(changes)
    }

    /// Whoever wants the volume served while both are linked, as an operator.
    pub(super) fn activate_if_linked(&mut self, node: usize) {
        let linked = self
            .sample(node)
            .facts
            .is_some_and(|facts| facts.linked && !facts.changing);
        if linked {
            self.command(node, Command::Activate);
        }
    }
}
