//! What fio says of a job.

use anyhow::{Context as _, ensure};
use serde::Serialize;
use serde_json::Value;

/// Both directions together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Result {
    /// Reads and writes a second; a flush is part of the write that it follows.
    pub operations_per_s: f64,
    /// Read and written.
    pub bytes_per_s: f64,
    /// Mean time of an operation, of the slower direction; without its flush.
    pub mean_us: f64,
    /// Of a hundred operations the slowest, of the slower direction; without its flush.
    pub p99_us: f64,
    /// Mean time of a flush, where the job asks for them.
    pub flush_us: f64,
}

/// Reads `--output-format=json` of a single job.
///
/// # Errors
/// If it is not that, or the job had an error, or did nothing.
pub(crate) fn parse(output: &str) -> anyhow::Result<Result> {
    // Notes may come before it.
    let from = output.find('{').context("fio printed no figures")?;
    let value: Value = serde_json::from_str(&output[from..]).context("figures of fio")?;
    let job = value.pointer("/jobs/0").context("fio tells of no job")?;
    let error = job["error"].as_i64().context("fio tells no error code")?;
    ensure!(error == 0, "fio had error {error}");
    let number = |pointer: &str| job.pointer(pointer).and_then(Value::as_f64);
    let mut result = Result::default();
    for direction in ["read", "write"] {
        let of = |name: &str| {
            let pointer = format!("/{direction}/{name}");
            number(&pointer).with_context(|| format!("fio tells no {pointer}"))
        };
        if of("total_ios")? == 0.0 {
            continue;
        }
        result.operations_per_s += of("iops")?;
        result.bytes_per_s += of("bw_bytes")?;
        result.mean_us = result.mean_us.max(of("lat_ns/mean")? / 1e3);
        result.p99_us = result.p99_us.max(of("clat_ns/percentile/99.000000")? / 1e3);
    }
    ensure!(result.operations_per_s > 0.0, "fio did nothing");
    result.flush_us = number("/sync/lat_ns/mean").unwrap_or(0.0) / 1e3;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(ios: u64, iops: f64, mean: f64, p99: f64) -> String {
        format!(
            r#"{{"total_ios":{ios},"iops":{iops},"bw_bytes":{},"lat_ns":{{"mean":{mean}}},
               "clat_ns":{{"mean":{mean},"percentile":{{"50.000000":1,"99.000000":{p99}}}}}}}"#,
            iops * 4096.0
        )
    }

    fn output(error: i64, read: &str, write: &str) -> String {
        format!(
            r#"{{"fio version":"fio-3.33","jobs":[{{"jobname":"x","error":{error},"read":{read},"write":{write},
               "sync":{{"total_ios":3,"lat_ns":{{"mean":1500000.0}}}}}}]}}"#
        )
    }

    /// What fio prints of a direction in which nothing was done.
    const NOTHING: &str =
        r#"{"total_ios":0,"iops":0.0,"bw_bytes":0,"lat_ns":{"mean":0.0},"clat_ns":{"mean":0.0}}"#;

    #[test]
    fn one_direction_is_taken_as_it_is() {
        let text = output(0, NOTHING, &side(2000, 500.0, 1_990_000.0, 4_000_000.0));
        let result = parse(&format!("note: something\n{text}")).unwrap();
        let expected = Result {
            operations_per_s: 500.0,
            bytes_per_s: 2_048_000.0,
            mean_us: 1990.0,
            p99_us: 4000.0,
            flush_us: 1500.0,
        };
        assert_eq!(result, expected);
    }

    #[test]
    fn of_a_mix_rates_are_added_and_the_slower_direction_is_told() {
        let text = output(
            0,
            &side(70, 70.0, 10.0, 99_000.0),
            &side(30, 30.0, 20.0, 50.0),
        );
        let result = parse(&text).unwrap();
        assert!((result.operations_per_s - 100.0).abs() < 1e-9);
        assert!((result.mean_us - 0.02).abs() < 1e-9);
        assert!((result.p99_us - 99.0).abs() < 1e-9);
    }

    #[test]
    fn errors_and_nothing_are_no_figures() {
        let told = |text: &str| parse(text).unwrap_err().to_string();
        assert!(told("fio: no such file").contains("no figures"));
        assert!(told("{\"jobs\":[]}").contains("no job"));
        let good = side(1, 1.0, 1.0, 1.0);
        assert!(told(&output(5, NOTHING, &good)).contains("error 5"));
        assert!(told(&output(0, NOTHING, NOTHING)).contains("nothing"));
        assert!(told(&output(0, NOTHING, "{\"total_ios\":1}")).contains("/write/iops"));
    }
}
