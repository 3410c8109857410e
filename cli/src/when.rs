//! Moments, as people write and read them: by this machine's clock on the wall.

use controlplane::sys::{LocalTime, local_time, unix_time};

/// A moment in milliseconds since 1970: `2026-11-22 14:05:09.123`.
pub(crate) fn local(unix_ms: u64) -> String {
    let unix_s = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    match local_time(unix_s) {
        Some(it) => format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:03}",
            it.year,
            it.month,
            it.day,
            it.hour,
            it.minute,
            it.second,
            unix_ms % 1000
        ),
        None => "a time that cannot be shown".to_string(),
    }
}

/// The day of a moment in seconds since 1970: `2026-11-22`.
pub(crate) fn day(unix_s: i64) -> String {
    match local_time(unix_s) {
        Some(it) => format!("{:04}-{:02}-{:02}", it.year, it.month, it.day),
        None => "a day that cannot be shown".to_string(),
    }
}

/// The moment that is meant, in milliseconds since 1970: a time ago (`90s`, `30m`, `2h`, `1d`), a time of today (`14:05`), or
/// `2026-11-22`, `2026-11-22 14:05`, `2026-11-22T14:05:09`.
pub(crate) fn parse(text: &str, now_ms: u64) -> Result<u64, String> {
    let text = text.trim();
    let wrong = || {
        format!(
            "`{text}` is not a time; write a time ago such as 90s, 30m, 2h or 1d, a time of today such as 14:05, or 2026-11-22 \
             or `2026-11-22 14:05`"
        )
    };
    if let Some(ago_s) = span_s(text) {
        return Ok(now_ms.saturating_sub(ago_s.saturating_mul(1000)));
    }
    let now_s = i64::try_from(now_ms / 1000).map_err(|_| wrong())?;
    let today = local_time(now_s).ok_or_else(wrong)?;
    let midnight = LocalTime {
        hour: 0,
        minute: 0,
        second: 0,
        ..today
    };
    let (day, clock) = match text.split_once([' ', 'T']) {
        Some((day, clock)) => (Some(day), Some(clock)),
        None if text.contains(':') => (None, Some(text)),
        None => (Some(text), None),
    };
    let mut meant = midnight;
    if let Some(day) = day {
        let [year, month, day] = numbers(day, '-').ok_or_else(wrong)?;
        (meant.year, meant.month, meant.day) = (year, month, day);
    }
    if let Some(clock) = clock {
        let full = if clock.matches(':').count() == 1 {
            format!("{clock}:00")
        } else {
            clock.to_string()
        };
        let [hour, minute, second] = numbers(&full, ':').ok_or_else(wrong)?;
        (meant.hour, meant.minute, meant.second) = (hour, minute, second);
    }
    let meant_s = unix_time(meant).ok_or_else(wrong)?;
    let meant_s = u64::try_from(meant_s).map_err(|_| wrong())?;
    Ok(meant_s.saturating_mul(1000))
}

/// Seconds of `90s`, `30m`, `2h`, `1d`.
pub(crate) fn span_s(text: &str) -> Option<u64> {
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
    let (unit, seconds) = units.into_iter().find(|(unit, _)| text.ends_with(*unit))?;
    let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
    number.checked_mul(seconds)
}

/// Three whole numbers.
fn numbers(text: &str, between: char) -> Option<[i32; 3]> {
    let number = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse().ok()).flatten()
    };
    let parts: Option<Vec<i32>> = text.split(between).map(number).collect();
    parts?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_261_445_678;

    #[test]
    fn what_is_written_is_read_as_the_same_moment() {
        let text = local(NOW);
        let (date, clock) = text.split_once(' ').unwrap();
        let (clock, millis) = clock.split_once('.').unwrap();
        assert_eq!(millis, "678");
        let second = NOW / 1000 * 1000;
        for same in [
            format!("{date} {clock}"),
            format!("{date}T{clock}"),
            clock.to_string(),
            format!(" {date} {clock}"),
        ] {
            assert_eq!(parse(&same, NOW), Ok(second), "{same}");
        }
        let minute = clock.rsplit_once(':').unwrap().0;
        assert_eq!(parse(minute, NOW), Ok(second - second % 60_000));
        let midnight = parse(date, NOW).unwrap();
        assert!(local(midnight).ends_with("00:00:00.000") && midnight <= NOW);
        assert_eq!(parse(&format!("{date} 00:00"), NOW), Ok(midnight));
    }

    #[test]
    fn a_time_ago_is_counted_from_now() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("2h", 7200), ("1 d", 86_400)] {
            assert_eq!(parse(text, NOW), Ok(NOW - seconds * 1000));
        }
        assert_eq!(parse("99999999d", NOW), Ok(0));
    }

    #[test]
    fn what_is_no_time_is_refused_with_what_would_be_one() {
        for wrong in [
            "",
            "yesterday",
            "h",
            "-2h",
            "25:00",
            "12:61",
            "2026-02-31",
            "2026-1",
            "2026-11-22 x",
            "1:2:3:4",
            "+1:00",
            "99999999999999999999d",
        ] {
            let refused = parse(wrong, NOW).unwrap_err();
            assert!(
                refused.contains("is not a time; write"),
                "{wrong}: {refused}"
            );
        }
    }
}
