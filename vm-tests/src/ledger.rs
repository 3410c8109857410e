//! What was asked and what was promised, as the host heard it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use vm_guest::record::{Kind, RECORD_BYTES, Record};

use crate::agent::lock;
use crate::write_log::Order;

/// Takes in the records of every machine of a cluster.
#[derive(Clone, Default)]
pub struct Recorder {
    entries: Arc<Mutex<Vec<Entry>>>,
    order: Order,
}

/// A record and when the host received it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Host time.
    pub at: Instant,
    /// Place among everything that happened in the cluster.
    pub order: u64,
    /// Number of the machine it came from.
    pub machine: usize,
    /// What it says.
    pub record: Record,
}

/// The records of some runs.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// In the order the host received them.
    pub entries: Vec<Entry>,
}

impl Recorder {
    /// Takes in what one port says until it ends. A writer ends only when it is told that its end was taken in: who waits
    /// for it knows all that it did.
    pub(crate) fn follow(&self, mut stream: UnixStream, machine: usize) -> JoinHandle<()> {
        let recorder = self.clone();
        thread::spawn(move || {
            let mut bytes = [0; RECORD_BYTES];
            while stream.read_exact(&mut bytes).is_ok() {
                // A writer that was killed in the middle of a record leaves a piece of it: look for the next one.
                let record =
                    Record::decode(&bytes).or_else(|| resynchronise(&mut stream, &mut bytes));
                let Some(record) = record else { return };
                recorder.push(machine, record);
                if record.kind == Kind::End {
                    // A machine that is gone need not be told.
                    let _ = stream.write_all(&record.run.to_le_bytes());
                }
            }
        })
    }

    fn push(&self, machine: usize, record: Record) {
        let mut entries = lock(&self.entries);
        entries.push(Entry {
            at: Instant::now(),
            order: self.order.next(),
            machine,
            record,
        });
    }

    /// The machine lost its power, and all it had sent has been taken in.
    pub(crate) fn power_cut(&self, machine: usize) {
        self.push(
            machine,
            Record {
                run: 0,
                kind: Kind::PowerCut,
                block: 0,
                sequence: 0,
            },
        );
    }

    /// What numbers its entries; disks that are recorded take theirs from it too.
    pub(crate) fn order(&self) -> Order {
        self.order.clone()
    }

    pub(crate) fn ledger(&self, runs: &[u32]) -> Ledger {
        let entries = lock(&self.entries);
        let wanted = |entry: &&Entry| {
            entry.record.kind == Kind::PowerCut || runs.contains(&entry.record.run)
        };
        Ledger {
            entries: entries.iter().filter(wanted).copied().collect(),
        }
    }
}

fn resynchronise(stream: &mut UnixStream, bytes: &mut [u8; RECORD_BYTES]) -> Option<Record> {
    loop {
        bytes.rotate_left(1);
        stream.read_exact(&mut bytes[RECORD_BYTES - 1..]).ok()?;
        if let Some(record) = Record::decode(bytes) {
            return Some(record);
        }
    }
}

impl Ledger {
    /// What was promised up to a moment.
    ///
    /// What was asked for is kept in full: the host may hear of a write after the disk did, and a disk
    /// holds nothing from after the moment anyhow.
    #[must_use]
    pub fn promised_by(&self, cut: u64) -> Self {
        let asked = |entry: &&Entry| matches!(entry.record.kind, Kind::Start | Kind::Issue);
        let entries = self.entries.iter();
        Self {
            entries: entries
                .filter(|entry| asked(entry) || entry.order <= cut)
                .copied()
                .collect(),
        }
    }

    /// How many records of a kind there are.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.entries
            .iter()
            .filter(|entry| entry.record.kind == kind)
            .count()
    }

    /// Block size in bytes, as the first writer said.
    #[must_use]
    pub fn block_size(&self) -> Option<usize> {
        let start = self
            .entries
            .iter()
            .find(|entry| entry.record.kind == Kind::Start)?;
        usize::try_from(start.record.sequence).ok()
    }

    /// The longest time between two acknowledgements (from the first to the last one): the service's standstill.
    #[must_use]
    pub fn longest_stall(&self) -> Duration {
        let acks: Vec<Instant> = self
            .entries
            .iter()
            .filter(|entry| entry.record.kind == Kind::Ack)
            .map(|entry| entry.at)
            .collect();
        acks.windows(2)
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or_default()
    }

    /// When the first write was acknowledged.
    #[must_use]
    pub fn first_ack(&self) -> Option<Instant> {
        let mut entries = self.entries.iter();
        let first = entries.find(|entry| entry.record.kind == Kind::Ack);
        first.map(|entry| entry.at)
    }

    /// When the last write was acknowledged.
    #[must_use]
    pub fn last_ack(&self) -> Option<Instant> {
        self.entries
            .iter()
            .rev()
            .find(|entry| entry.record.kind == Kind::Ack)
            .map(|entry| entry.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_told_when_its_end_was_taken_in() {
        let (mut writer, host) = UnixStream::pair().expect("a pair");
        let recorder = Recorder::default();
        let reader = recorder.follow(host, 0);
        let record = |kind| Record {
            run: 7,
            kind,
            block: 0,
            sequence: 1,
        };
        for kind in [Kind::Issue, Kind::Ack, Kind::End] {
            writer.write_all(&record(kind).encode()).expect("sent");
        }
        let mut told = [0; 4];
        writer.read_exact(&mut told).expect("told");
        assert_eq!(u32::from_le_bytes(told), 7);
        assert_eq!(recorder.ledger(&[7]).count(Kind::Ack), 1);
        drop(writer);
        reader.join().expect("its end");
    }
}
