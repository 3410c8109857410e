//! The jobs that every system gets.

use crate::bench::fio;

/// What a job's figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Operations a second.
    Operations,
    /// Megabytes (10^6) a second.
    Megabytes,
    /// Transactions a second.
    Transactions,
}

impl Unit {
    /// In a table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Operations => "IOPS",
            Self::Megabytes => "MB/s",
            Self::Transactions => "tps",
        }
    }
}

/// One job of fio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its name on the command line and in the tables.
    pub name: &'static str,
    /// What it tells.
    pub unit: Unit,
    /// Bytes of one operation.
    pub block_bytes: u64,
    rw: &'static str,
    depth: u32,
    more: &'static str,
}

const fn job(name: &'static str, rw: &'static str, block_bytes: u64, depth: u32) -> Job {
    Job {
        name,
        unit: if block_bytes > 4096 {
            Unit::Megabytes
        } else {
            Unit::Operations
        },
        block_bytes,
        rw,
        depth,
        more: "",
    }
}

/// Without pgbench, which comes last.
pub const JOBS: [Job; 11] = [
    job("write-4k-qd1", "randwrite", 4096, 1),
    job("write-4k-qd16", "randwrite", 4096, 16),
    job("write-4k-qd32", "randwrite", 4096, 32),
    Job {
        more: " --fsync=1",
        ..job("write-4k-fsync", "randwrite", 4096, 1)
    },
    job("read-4k-qd1", "randread", 4096, 1),
    job("read-4k-qd16", "randread", 4096, 16),
    job("write-128k-qd8", "write", 128 << 10, 8),
    job("read-128k-qd8", "read", 128 << 10, 8),
    job("write-1m-qd8", "write", 1 << 20, 8),
    job("read-1m-qd8", "read", 1 << 20, 8),
    Job {
        more: " --rwmixread=70",
        ..job("mix-70-30-qd16", "randrw", 4096, 16)
    },
];

/// The name of the job that is not fio's.
pub const PGBENCH: &str = "pgbench";

impl Job {
    /// The command line of fio for a device.
    #[must_use]
    pub fn command(&self, device: &str, seconds: u64) -> String {
        let Self {
            name,
            rw,
            block_bytes,
            depth,
            more,
            ..
        } = self;
        // Random data are made once: otherwise the one emulated processor makes random numbers most of the time.
        format!(
            "exec fio --name={name} --filename={device} --ioengine=libaio --direct=1 --time_based --runtime={seconds} \
             --norandommap --refill_buffers=0 --scramble_buffers=0 --output-format=json --rw={rw} --bs={block_bytes} \
             --iodepth={depth}{more}"
        )
    }

    /// It writes nothing.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        ["read", "randread"].contains(&self.rw)
    }

    /// The figure in the table.
    #[must_use]
    pub fn figure(&self, result: &fio::Result) -> f64 {
        match self.unit {
            Unit::Megabytes => result.bytes_per_s / 1e6,
            Unit::Operations | Unit::Transactions => result.operations_per_s,
        }
    }
}

/// The jobs with these names (all, without names), and whether pgbench is among them.
///
/// # Errors
/// If there is no such job.
pub fn choose(names: &[String]) -> anyhow::Result<(Vec<Job>, bool)> {
    let known = |name: &String| name == PGBENCH || JOBS.iter().any(|job| job.name == name);
    if let Some(wrong) = names.iter().find(|name| !known(name)) {
        let all: Vec<&str> = JOBS.iter().map(|job| job.name).collect();
        anyhow::bail!(
            "there is no job {wrong}; there are {}, {PGBENCH}",
            all.join(", ")
        );
    }
    let chosen = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let jobs = JOBS.into_iter().filter(|job| chosen(job.name)).collect();
    Ok((jobs, chosen(PGBENCH)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_chosen_by_name_in_their_order() {
        let names = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        let (jobs, pgbench) = choose(&names(&["read-4k-qd1", "write-4k-qd1"])).unwrap();
        let chosen: Vec<&str> = jobs.iter().map(|job| job.name).collect();
        assert_eq!(
            (chosen, pgbench),
            (vec!["write-4k-qd1", "read-4k-qd1"], false)
        );
        let (jobs, pgbench) = choose(&[]).unwrap();
        assert_eq!((jobs.len(), pgbench), (JOBS.len(), true));
        let refused = choose(&names(&["write-5k"])).unwrap_err().to_string();
        assert!(refused.contains("write-5k") && refused.contains("pgbench"));
    }

    #[test]
    fn a_job_of_small_blocks_counts_operations() {
        let result = fio::Result {
            operations_per_s: 500.0,
            bytes_per_s: 2_048_000.0,
            ..fio::Result::default()
        };
        assert!((JOBS[0].figure(&result) - 500.0).abs() < 0.01);
        assert!((JOBS[6].figure(&result) - 2.048).abs() < 0.01);
        let reading = JOBS.iter().filter(|job| job.only_reads());
        assert!(
            reading
                .map(|job| job.name)
                .all(|name| name.starts_with("read"))
        );
        assert!(JOBS[3].command("/dev/x", 4).contains("--fsync=1"));
    }
}
