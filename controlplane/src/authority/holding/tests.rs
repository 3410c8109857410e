//! What a member takes, and what not.

use super::*;
use crate::trust::{Authority, CERTIFICATE_DAYS, DAY_SECONDS, Subject, ends_at, now};
use mirror_core::types::NodeId;

const CLUSTER: Hex16 = Hex16([7; 16]);

fn node() -> NodeId {
    NodeId::new(1).expect("a node")
}

fn whose() -> Whose {
    Whose {
        cluster: CLUSTER,
        who: Named::Node(node()),
    }
}

fn authority() -> Authority {
    Authority::create(CLUSTER).expect("an authority").0
}

fn holding(of: &Authority) -> Holding {
    Holding {
        trusted: vec![of.certificate().to_string()],
        shown: Some(of.issue(node()).expect("a certificate")),
        ready: None,
        witness: None,
    }
}

fn trust(last: &Authority, next: &Authority) -> TrustAsk {
    let authority = next.certificate().to_string();
    let said = last.endorse(&authority).expect("said");
    TrustAsk::Trust {
        authority,
        endorsement: hex(&said),
    }
}

fn show(of: &Authority, holding: &Holding, who: Subject) -> TrustAsk {
    let request = holding.answer().expect("an answer").request;
    let signed = of.sign_for(who, &request.expect("a request"), CERTIFICATE_DAYS);
    TrustAsk::Show {
        certificate: signed.expect("a certificate"),
        witness: None,
    }
}

fn settle(last: &Authority, next: &Authority) -> TrustAsk {
    let said = next.retire(last.print().expect("a print")).expect("said");
    TrustAsk::Settle {
        authority: Hex16(next.print().expect("a print").0),
        retirement: hex(&said),
        witness: None,
    }
}

fn after(holding: &Holding, ask: &TrustAsk) -> Holding {
    let next = holding.after(whose(), ask).expect("taken");
    next.expect("something new")
}

#[test]
fn three_steps_and_each_of_them_once_more_changes_nothing() {
    let (last, next) = (authority(), authority());
    let settled = holding(&last);
    let trusts = after(&settled, &trust(&last, &next));
    assert_eq!(trusts.after(whose(), &trust(&last, &next)), Ok(None));
    assert_eq!(trusts.after(whose(), &TrustAsk::Prepare), Ok(None));
    let ask = show(&next, &trusts, Subject::Node(node()));
    let shows = after(&trusts, &ask);
    assert_eq!(shows.after(whose(), &ask), Ok(None));
    assert!(shows.ready.is_none() && shows.shown != settled.shown);
    let ended = after(&shows, &settle(&last, &next));
    assert_eq!(ended.after(whose(), &settle(&last, &next)), Ok(None));
    let (one, two) = (last.print().expect("one"), next.print().expect("two"));
    let standings = [&settled, &trusts, &shows, &ended].map(|it| it.standing().expect("one"));
    let between = (one, two);
    assert_eq!(
        standings,
        [
            Standing::Settled(between.0),
            Standing::Trusts {
                last: one,
                next: two
            },
            Standing::Shows {
                last: one,
                next: two
            },
            Standing::Settled(between.1)
        ]
    );
    for (holding, standing) in [(&settled, standings[0]), (&shows, standings[2])] {
        assert_eq!(
            standing_of(&holding.answer().expect("an answer")),
            Some(standing)
        );
    }
}

/// Root on a node, say, who speaks in the name of the one that leads.
#[test]
fn nobody_but_the_authority_itself_says_who_comes_next_and_that_it_is_over() {
    let (last, next, forger) = (authority(), authority(), authority());
    let settled = holding(&last);
    let code = |refused: Result<Option<Holding>, Problem>| refused.expect_err("refused").code;
    // Another one says it, or of another cluster, or it is no signature.
    assert_eq!(
        code(settled.after(whose(), &trust(&forger, &forger))),
        "LS6185"
    );
    let elsewhere = Whose {
        cluster: Hex16([8; 16]),
        ..whose()
    };
    assert_eq!(
        code(settled.after(elsewhere, &trust(&last, &next))),
        "LS6185"
    );
    for endorsement in ["", "0", "zz", "00"] {
        let ask = TrustAsk::Trust {
            authority: next.certificate().to_string(),
            endorsement: endorsement.to_string(),
        };
        assert_eq!(code(settled.after(whose(), &ask)), "LS6185");
    }
    // What one says of the next one is no word about its end.
    let trusts = after(&settled, &trust(&last, &next));
    let shows = after(&trusts, &show(&next, &trusts, Subject::Node(node())));
    assert_eq!(
        code(shows.after(whose(), &settle(&last, &forger))),
        "LS6185"
    );
    let TrustAsk::Trust { endorsement, .. } = trust(&next, &last) else {
        panic!("another question");
    };
    let ask = TrustAsk::Settle {
        authority: Hex16(next.print().expect("a print").0),
        retirement: endorsement,
        witness: None,
    };
    assert_eq!(code(shows.after(whose(), &ask)), "LS6185");
}

#[test]
fn no_step_is_left_out_and_none_goes_back() {
    let (last, next, third) = (authority(), authority(), authority());
    let settled = holding(&last);
    let trusts = after(&settled, &trust(&last, &next));
    let ask = show(&next, &trusts, Subject::Node(node()));
    let shows = after(&trusts, &ask);
    let ended = after(&shows, &settle(&last, &next));
    let refused = |holding: &Holding, ask: &TrustAsk| {
        let problem = holding.after(whose(), ask).expect_err("refused");
        assert_eq!(problem.code, "LS6185", "{problem:?}");
    };
    refused(&settled, &settle(&last, &next));
    refused(&trusts, &settle(&last, &next));
    refused(&shows, &trust(&last, &next));
    refused(&ended, &trust(&last, &next));
    refused(&trusts, &trust(&last, &third));
    // A certificate of nobody who is trusted, for another member, for another key, for no key.
    refused(&settled, &ask);
    let stranger = after(&settled, &TrustAsk::Prepare);
    refused(&stranger, &show(&third, &stranger, Subject::Node(node())));
    let witness = crate::trust::witness_identity().expect("a witness");
    let witness = Lasting::of(&witness.certificate, CLUSTER).expect("a witness");
    refused(
        &stranger,
        &show(&last, &stranger, Subject::Witness(witness)),
    );
    let first = Subject::Node(NodeId::new(0).expect("a node"));
    refused(&stranger, &show(&last, &stranger, first));
    refused(&trusts, &show(&next, &stranger, Subject::Node(node())));
}

#[test]
fn a_certificate_is_renewed_with_another_key_by_the_same_authority() {
    let own = authority();
    let settled = holding(&own);
    let ready = after(&settled, &TrustAsk::Prepare);
    let renewed = after(&ready, &show(&own, &ready, Subject::Node(node())));
    let standing = |it: &Holding| it.standing().expect("a place");
    assert_eq!(standing(&renewed), standing(&settled));
    assert_ne!(renewed.shown, settled.shown);
    assert!(renewed.ready.is_none());
    let shown = renewed.shown.expect("a certificate");
    let left = (ends_at(&shown.certificate).expect("its end") - now()) / DAY_SECONDS;
    assert!(
        (CERTIFICATE_DAYS - 2..=CERTIFICATE_DAYS).contains(&left),
        "{left}"
    );
}

/// The node that leads made the next one by a clock that was years behind: what it signs would have ended already.
#[test]
fn an_authority_that_was_made_by_a_wrong_clock_is_not_trusted() {
    let last = authority();
    let settled = holding(&last);
    let made = |years: i64| Authority::create_for(CLUSTER, years * 365).expect("an authority");
    for years in [-1, 3, 9, 17, 23, 60] {
        let refused = settled.after(whose(), &trust(&last, &made(years).0));
        assert_eq!(refused.expect_err("refused").code, "LS6188", "{years}");
    }
    for years in [19, 20, 21] {
        after(&settled, &trust(&last, &made(years).0));
    }
    // And it is told before a change begins.
    let days = |days: i64| now() + days * DAY_SECONDS;
    assert!(told::apart("node2", days(29), now()).is_none());
    for there in [-4000, -32, 32] {
        let problem = told::apart("node2", days(there), now()).expect("told");
        assert_eq!(problem.code, "LS6188");
        assert!(problem.message.contains("node2"), "{problem:?}");
    }
    assert!(settled.answer().expect("an answer").now.is_some());
}
