//! Sizes, rates and times, as people write and read them.

use std::time::Duration;

/// Units with their bytes, longest name first where one ends with another.
const UNITS: [(&str, u64); 13] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
    ("T", 1 << 40),
    ("B", 1),
];

/// Bytes from `1048576`, `10GiB`, `10G` (the same) or `10GB` (10^10).
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let unit = UNITS
        .iter()
        .find_map(|(unit, bytes)| text.strip_suffix(unit).map(|number| (number, *bytes)));
    let (number, unit_bytes) = unit.unwrap_or((text, 1));
    let number: u64 = number.trim().parse().map_err(|_| {
        format!("`{text}` is not a size; write bytes or a whole number with KiB, MiB, GiB or TiB")
    })?;
    let bytes = number
        .checked_mul(unit_bytes)
        .ok_or_else(|| format!("`{text}` is too large"))?;
    if bytes == 0 || !bytes.is_multiple_of(512) {
        return Err(format!(
            "`{text}` is {bytes} bytes; it must be a multiple of 512 and not 0"
        ));
    }
    Ok(bytes)
}

/// Bytes with the unit that fits: `10.0 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const NAMES: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut tenths = u128::from(count) * 10 / 1024;
    let mut name = 0;
    while tenths >= 10_240 && name + 1 < NAMES.len() {
        tenths /= 1024;
        name += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, NAMES[name])
}

/// A time that is read, not computed with: `40 s`, `3 min 20 s`, `2 h 5 min`.
pub(crate) fn seconds(count: u64) -> String {
    match count {
        0..60 => format!("{count} s"),
        60..3600 if count.is_multiple_of(60) => format!("{} min", count / 60),
        60..3600 => format!("{} min {} s", count / 60, count % 60),
        _ => format!("{} h {} min", count / 3600, count % 3600 / 60),
    }
}

/// How long ago something was.
pub(crate) fn ago(since: Duration) -> String {
    if since < Duration::from_secs(10) {
        format!("{}.{} s ago", since.as_secs(), since.subsec_millis() / 100)
    } else {
        format!("{} ago", seconds(since.as_secs()))
    }
}

/// Whole per cent, rounded down: 100 only when all is done.
pub(crate) fn percent(part: u64, whole: u64) -> u64 {
    if whole == 0 {
        return 100;
    }
    let percent = u128::from(part.min(whole)) * 100 / u128::from(whole);
    u64::try_from(percent).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        assert_eq!(parse_size("1048576"), Ok(1 << 20));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert_eq!(parse_size("10 G"), Ok(10 << 30));
        assert_eq!(parse_size("2TB"), Ok(2_000_000_000_000));
        for wrong in [
            "",
            "GiB",
            "1.5GiB",
            "-1",
            "0",
            "100",
            "1XB",
            "99999999999TiB",
        ] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(10 << 30), "10.0 GiB");
        assert_eq!(bytes((1 << 20) - 1), "1023.9 KiB");
        assert_eq!(bytes(u64::MAX), "16383.9 PiB");
        assert_eq!(seconds(40), "40 s");
        assert_eq!(seconds(200), "3 min 20 s");
        assert_eq!(seconds(7500), "2 h 5 min");
        assert_eq!(ago(Duration::from_millis(240)), "0.2 s ago");
        assert_eq!(ago(Duration::from_secs(120)), "2 min ago");
    }

    #[test]
    fn progress_never_passes_the_whole_and_is_not_rounded_up() {
        assert_eq!(percent(999, 1000), 99);
        assert_eq!(percent(1000, 1000), 100);
        assert_eq!(percent(2000, 1000), 100);
        assert_eq!(percent(0, 0), 100);
    }
}
