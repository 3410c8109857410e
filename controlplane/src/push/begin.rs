//! What a run of `lockstepd` begins with: the file in force, whatever `cluster.toml` says, once a push began.

use std::fs;
use std::path::Path;

use controlplane_core::bounds;
use controlplane_core::push::{Digest, Load, Stage};

use super::record::{Record, Store};
use super::words::{digest, short};
use crate::config::{Checked, Cluster, Config};

/// What is loaded.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is kept of it.
    pub record: Record,
}

/// `cluster.toml` now; `None` if it cannot be read.
pub(super) fn file_digest(path: &Path) -> Option<Digest> {
    fs::read(path).ok().map(|bytes| digest(&bytes))
}

/// Whether `cluster.toml` is what it should be: in force, or decided and on its way.
pub(super) fn is_expected(record: &Record, file: Digest) -> bool {
    let pending = record.durable.pending.as_ref();
    let decided = pending.filter(|(_, stage)| *stage == Stage::Decided);
    file == record.durable.in_force.digest
        || decided.is_some_and(|(proposal, _)| file == proposal.digest)
}

/// Loads what this run goes by.
///
/// # Errors
/// The record or the configuration cannot be used, with a code of docs/codes.md.
pub fn load(path: &Path, node: &str, store: &Store) -> anyhow::Result<Loaded> {
    let record = store
        .load()
        .map_err(|error| anyhow::anyhow!("{} {error}", error.code()))?;
    let record = record.filter(|record| record.durable.load() != Load::File);
    let Some(record) = record else {
        return of_file(path, node);
    };
    if file_digest(path).is_none_or(|file| !is_expected(&record, file)) {
        tracing::warn!(
            code = "LS6111",
            in_force = short(&record.durable.in_force.digest),
            "{} is not the file in force: somebody changed it; the one that was pushed stays in force",
            path.display()
        );
    }
    let checked = Checked::parse(path, record.in_force.text.as_bytes())?;
    let old = checked.cluster.clone();
    let mut config = checked.of(node)?;
    if let (Load::Between, Some(next)) = (record.durable.load(), &record.pending) {
        let next = Checked::parse(path, next.text.as_bytes())?.cluster;
        go_between(&mut config, &old, &next);
    }
    Ok(Loaded { config, record })
}

fn of_file(path: &Path, node: &str) -> anyhow::Result<Loaded> {
    // One reading: what is checked is what is kept.
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        // In the words of the configuration.
        Err(_) => return Err(unusable(path, node)?),
    };
    let config = Checked::parse(path, &bytes)?.of(node)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let record = Record::of_file(&text);
    Ok(Loaded { config, record })
}

fn unusable(path: &Path, node: &str) -> anyhow::Result<anyhow::Error> {
    match Config::read(path, node) {
        Err(error) => Ok(error.into()),
        Ok(_) => anyhow::bail!("{} appears and vanishes", path.display()),
    }
}

/// A decided file comes into force soon, here or on the other node: times that are safe beside both. (A release that cannot
/// read it does not start.)
fn go_between(config: &mut Config, old: &Cluster, next: &Cluster) {
    let between = bounds::between(old.timing, next.timing);
    config.lease = between.stops;
    config.timing = between.waits;
    let waits = old.waits_between(next, config.peer);
    for group in &mut config.groups {
        // A group that is in one file alone can have nothing left on the other node.
        if let Some(wait) = waits.get(&group.name) {
            group.policy.takeover_wait = *wait;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::record::Text;
    use controlplane_api::arbiter::Hex16;
    use controlplane_core::push::{Proposal, PushId, Times};
    use mirror_core::types::NodeId;
    use std::path::PathBuf;
    use std::time::Duration;

    fn text(timeout: u64) -> String {
        with(timeout, "")
    }

    fn with(timeout: u64, rest: &str) -> String {
        format!(
            "version = 1\n[nodes.node1]\ninterconnects = [\"10.0.0.1:7421\"]\n[nodes.node2]\n\
             interconnects = [\"10.0.0.2:7421\"]\n[witness]\naddress = \"10.0.0.5:7422\"\n\
             [timing]\nheartbeat_timeout_ms = {timeout}\n[groups.pg]\nvolumes = [\"data\"]\n{rest}"
        )
    }

    struct Bed {
        directory: tempfile::TempDir,
        store: Store,
    }

    impl Bed {
        fn new(timeout: u64) -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let store = Store::in_directory(&directory.path().join("state"), Hex16([1; 16]));
            let bed = Self { directory, store };
            fs::write(bed.path(), text(timeout)).expect("written");
            bed
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("cluster.toml")
        }

        fn load(&self) -> Loaded {
            load(&self.path(), "node1", &self.store).expect("loaded")
        }

        fn pushes(&self, stage: Stage, timeout: u64) {
            self.pushes_text(stage, text(timeout));
        }

        fn pushes_text(&self, stage: Stage, new: String) {
            let mut record = self.load().record;
            let proposal = Proposal {
                id: PushId([3; 16]),
                by: NodeId::new(0).expect("a node"),
                number: 1,
                digest: digest(new.as_bytes()),
                replaces: [record.durable.in_force.digest; 2],
                times: Times::Differ,
            };
            record.durable.pending = Some((proposal, stage));
            record.pending = Some(Text::now(new));
            self.store.save(&record).expect("saved");
        }
    }

    fn timeout(loaded: &Loaded) -> Duration {
        loaded.config.timing.timeout
    }

    #[test]
    fn where_nothing_was_pushed_the_file_counts() {
        let bed = Bed::new(2000);
        assert_eq!(timeout(&bed.load()), Duration::from_secs(2));
        fs::write(bed.path(), text(3000)).expect("written");
        assert_eq!(timeout(&bed.load()), Duration::from_secs(3));
    }

    /// Neither the promised file nor one that somebody edited meanwhile.
    #[test]
    fn what_is_promised_is_not_loaded_and_neither_is_an_edited_file() {
        let bed = Bed::new(2000);
        bed.pushes(Stage::Promised, 5000);
        fs::write(bed.path(), text(9000)).expect("written");
        let loaded = bed.load();
        assert_eq!(timeout(&loaded), Duration::from_secs(2));
        assert_eq!(loaded.config.lease, Duration::from_secs(2));
        let file = file_digest(&bed.path()).expect("a file");
        assert!(!is_expected(&loaded.record, file));
    }

    #[test]
    fn between_both_files_a_node_stops_by_the_shorter_time_and_waits_for_the_longer_one() {
        for (old, new) in [(2000, 5000), (5000, 2000)] {
            let bed = Bed::new(old);
            bed.pushes(Stage::Decided, new);
            let loaded = bed.load();
            assert_eq!(timeout(&loaded), Duration::from_secs(5));
            assert_eq!(loaded.config.lease, Duration::from_secs(2));
        }
    }

    /// What the other node may still run by either file is waited for, before anything of the new one can be there.
    #[test]
    fn between_both_files_a_node_waits_for_the_longest_times_of_the_other_ones_services() {
        const WATCHDOG: &str = "[watchdog]\ntimeout_s = 10\n";
        let wait = |bed: &Bed| bed.load().config.groups[0].policy.takeover_wait;
        for (old, new) in [(2000, 60_000), (60_000, 2000)] {
            let bed = Bed::new(old);
            fs::write(bed.path(), with(60_000, WATCHDOG)).expect("written");
            let longest = wait(&bed);
            fs::write(bed.path(), text(old)).expect("written");
            bed.pushes_text(Stage::Promised, with(new, WATCHDOG));
            assert!(wait(&bed) + Duration::from_secs(20) < longest);
            assert!(bed.load().config.watchdog.is_none());

            bed.pushes_text(Stage::Decided, with(new, WATCHDOG));
            let between = bed.load().config;
            assert_eq!(between.groups[0].policy.takeover_wait, longest);
            assert_eq!(between.lease, Duration::from_secs(2));
            // Neither is armed before the other node waits for it.
            assert!(between.watchdog.is_none());
        }
    }

    /// `cluster.toml` may be what should have been pushed: then this node alone would go by it.
    #[test]
    fn where_a_push_came_to_nothing_the_file_in_force_counts() {
        let bed = Bed::new(2000);
        let record = bed.load().record;
        assert_eq!(record.durable.load(), Load::File);
        bed.store.save(&record).expect("saved");
        fs::write(bed.path(), text(9000)).expect("written");
        let loaded = bed.load();
        assert_eq!(timeout(&loaded), Duration::from_secs(2));
        assert_eq!(loaded.record.durable.in_force.number, 0);
    }

    #[test]
    fn what_was_pushed_stays_in_force_over_an_edited_file_or_none() {
        let bed = Bed::new(2000);
        let mut record = bed.load().record;
        record.durable.in_force.number = 1;
        bed.store.save(&record).expect("saved");
        fs::write(bed.path(), text(9000)).expect("written");
        assert_eq!(timeout(&bed.load()), Duration::from_secs(2));
        fs::remove_file(bed.path()).expect("removed");
        assert_eq!(timeout(&bed.load()), Duration::from_secs(2));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_refused_in_the_configurations_words() {
        let bed = Bed::new(2000);
        fs::remove_file(bed.path()).expect("removed");
        let error = load(&bed.path(), "node1", &bed.store).expect_err("nothing there");
        assert!(error.to_string().contains("LS6034"), "{error}");
    }
}
