//! How two copies come together: never a panic, and the same verdict from both sides.

use mirror_core::rejoin::{Side, Verdict, decide};
use mirror_core::wire::{RefusedCode, State};

use crate::input::{Input, patch};
use crate::samples::{node, states};

const CHANGES_MAX: usize = 40;
const STATE_BYTES: usize = 560;

/// Two good states, changed.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let (one, other) = states(input.byte());
    let mut bytes = [one.encode(), other.encode()].concat();
    for _ in 0..CHANGES_MAX {
        if input.is_empty() {
            break;
        }
        patch(&mut input, &mut bytes);
    }
    let (one, other) = bytes.split_at(STATE_BYTES);
    let (Ok(one), Ok(other)) = (State::decode(one), State::decode(other)) else {
        return;
    };
    let one = Side {
        node: node(0),
        state: &one,
    };
    let other = Side {
        node: node(1),
        state: &other,
    };
    let verdict = decide(one, other);
    assert_eq!(verdict, decide(other, one), "both sides agree");
    match verdict {
        Verdict::Refuse(code) => assert_ne!(code, RefusedCode::Protocol, "no rule says that"),
        Verdict::Equal { leader } => {
            assert!(leader == one.node || leader == other.node, "a stranger");
            assert!(
                !one.state.flags.failed && !other.state.flags.failed,
                "a failed disk counts as good"
            );
            assert!(
                !one.state.flags.invalidated && !other.state.flags.invalidated,
                "a copy that an operator marked counts as good"
            );
        }
        Verdict::Copy { source, .. } | Verdict::Apart { source, .. } => {
            let source = if source == one.node { one } else { other };
            assert!(
                !source.state.flags.isolated,
                "an isolated copy is the source"
            );
            assert!(!source.state.flags.failed, "a failed disk is the source");
            assert!(
                !source.state.flags.invalidated,
                "a copy that an operator marked is the source"
            );
            // Who says both contradicts itself: no honest node does.
            let member = source.state.view.insync.contains(source.node);
            assert!(
                member || !source.state.flags.copy_target,
                "an unfinished copy is the source"
            );
        }
    }
}
