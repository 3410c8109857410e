//! The watchdog of a node, on the screen and in the verdict.

use controlplane_api::cluster::{Watchdog, WatchdogState};

use crate::style::{Style, Tone};

/// What of it keeps this pair from being ready.
pub(super) fn lacking(watchdog: Option<&Watchdog>) -> Option<String> {
    let watchdog = watchdog?;
    let device = &watchdog.device;
    match watchdog.state {
        WatchdogState::Unusable => Some(format!(
            "not ready for a failover: the watchdog {device} cannot be used{}",
            why(watchdog)
        )),
        WatchdogState::Expiring => Some(format!(
            "services did not stop in time: the watchdog {device} resets this machine"
        )),
        WatchdogState::Armed | WatchdogState::Bound if watchdog.loose => Some(format!(
            "not ready for a failover: the watchdog {device} keeps no bound (LS6133)"
        )),
        WatchdogState::Armed if watchdog.problem.is_some() => Some(format!(
            "not ready for a failover: the watchdog {device} takes no sign of life{}",
            why(watchdog)
        )),
        WatchdogState::Armed | WatchdogState::Disarmed | WatchdogState::Bound => None,
    }
}

fn why(watchdog: &Watchdog) -> String {
    let problem = watchdog.problem.as_ref();
    problem.map_or_else(String::new, |problem| format!(" ({problem})"))
}

/// The row's value.
pub(super) fn row(watchdog: &Watchdog, style: Style) -> String {
    let (tone, state) = match watchdog.state {
        WatchdogState::Disarmed => (Tone::Quiet, "disarmed: nothing runs here that it is for"),
        WatchdogState::Armed => (Tone::Quiet, "armed"),
        WatchdogState::Expiring => (Tone::Bad, "EXPIRING: it resets this machine"),
        WatchdogState::Bound => (
            Tone::Careful,
            "cannot be disarmed; it is petted while lockstepd runs",
        ),
        WatchdogState::Unusable => (Tone::Bad, "CANNOT BE USED"),
    };
    let timeout = match watchdog.timeout_s {
        0 => String::new(),
        timeout_s => format!(", resets after {timeout_s} s"),
    };
    let text = format!("{}  {state}{timeout}{}", watchdog.device, why(watchdog));
    style.paint(tone, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_that_cannot_be_used_is_named_with_its_reason() {
        let of = |state, problem: Option<&str>| Watchdog {
            device: "/dev/watchdog".to_string(),
            state,
            timeout_s: 10,
            problem: problem.map(str::to_string),
            loose: false,
        };
        let busy = of(WatchdogState::Unusable, Some("Device or resource busy"));
        let said = lacking(Some(&busy)).expect("it is lacking");
        assert!(
            said.starts_with("not ready for a failover: the watchdog /dev/watchdog"),
            "{said}"
        );
        assert!(said.ends_with("(Device or resource busy)"), "{said}");
        let row = row(&of(WatchdogState::Armed, None), Style::Plain);
        assert_eq!(row, "/dev/watchdog  armed, resets after 10 s");
        for state in [
            WatchdogState::Armed,
            WatchdogState::Disarmed,
            WatchdogState::Bound,
        ] {
            assert_eq!(lacking(Some(&of(state, None))), None);
        }
        let loose = Watchdog {
            loose: true,
            ..of(WatchdogState::Armed, None)
        };
        assert!(lacking(Some(&loose)).is_some_and(|said| said.contains("keeps no bound")));
        let expiring = lacking(Some(&of(WatchdogState::Expiring, None)));
        assert!(
            expiring
                .expect("it is told")
                .contains("resets this machine")
        );
    }
}
