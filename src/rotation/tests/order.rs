//! Orders: which entries a person's word becomes, and which are refused before they are written.

use super::*;
use crate::model::InstanceId;

fn order(words: &str) -> Order {
    let (what, rest) = words.split_once(' ').unwrap_or((words, ""));
    let note = String::new();
    match what {
        "hold" => Order::Hold { note },
        "abandon" => Order::Abandon { note },
        "waive" => Order::WaiveGrace { rotation: JournalId::NIL },
        "trust" => Order::Trust { instance: InstanceId::new(rest), note },
        "release" => {
            let allow = |word| match word {
                "destroy" => Allow::Destroy,
                "gone" => Allow::Gone,
                id => Allow::LeaveOff(InstanceId::new(id)),
            };
            Order::Release { note, allow: rest.split_whitespace().map(allow).collect() }
        }
        other => panic!("{other} is no order"),
    }
}

fn told(answer: Result<Vec<Event>, Refusal>) -> String {
    match answer {
        Ok(events) => events.iter().map(Event::name).collect::<Vec<_>>().join(" "),
        Err(refusal) => format!("refused: {refusal}"),
    }
}

#[test]
fn an_order_becomes_entries_that_the_fold_takes_or_is_refused_with_the_rule() {
    let check = |journal: &str, words: &str, expect: &str| {
        let story = Story::begun("ecs", "rr").tell(journal);
        let rotation = story.rotation();
        let answer = rotation.order(&order(words));
        let text = told(answer.clone());
        assert!(text == expect || (!expect.is_empty() && text.contains(expect)), "{journal} / {words}: {text}");
        let mut after = rotation;
        for event in answer.unwrap_or_default() {
            let (seq, at) = (after.seq + 1, later(after.last_at, Duration::from_secs(1)));
            let by = Author::Operator("anna".to_string());
            after.apply(&Entry { seq, at, by, event }).unwrap();
        }
    };
    check("", "hold", "held");
    check("5 held", "hold", "");
    check("5 abandon", "hold", "");
    check("", "abandon", "abandon_requested");
    check("5 abandon", "abandon", "");
    check("5 held", "abandon", "abandon_requested");
    check("5 held", "release", "released");
    check("5 held:host a=H/X", "trust a", "trusted released");
    check("5 held:host a=H/X", "trust b", "held for the host key of a, not of b");
    check("5 held:host a=H/X", "release", "released");
    check("5 held", "trust a", "is not held for a host key");
    check("", "trust a", "is not held for a host key");
    check("", "release", "is not held");
    // What is not shown may be waited for without a hold.
    check("", "release gone", "released");
    check("5 abandon", "release gone", "released");
    check("5 abandon", "release", "was given up, and is not held");
    check("5 held\n6 end", "release", "has ended");
    check("5 held\n6 end", "hold", "has ended");
    check("5 >reboot a=r\n6 held", "release a", "released");
    check("5 >reboot a=r b=r\n6 held", "release a b a", "released released");
    check("5 >reboot a=r\n6 held", "release b", "no start is owed to b");
    check("5 >reboot a=r\n6 held", "release z", "z is not in a batch");
    check("5 held", "release destroy", "is for the retire journal");
    check("", "waive", "has no grace to wait out");
}

#[test]
fn a_retire_journal_is_held_released_and_allowed_to_destroy_but_not_given_up() {
    let check = |journal: &str, words: &str, expect: &str| {
        let text = told(super::retire::retirement(&format!("0 plan\n{journal}")).unwrap().order(&order(words)));
        assert!(text == expect || (!expect.is_empty() && text.contains(expect)), "{journal} / {words}: {text}");
    };
    check("", "hold", "held");
    check("1 held", "hold", "");
    check("1 held", "release", "released");
    check("", "release", "is not held");
    check("", "release destroy", "released");
    check("1 held", "release a", "no start is owed to a in it");
    check("", "waive", "grace_waived");
    check("1 held", "waive", "grace_waived");
    check("1 waived", "waive", "");
    check("1 end:kept", "waive", "has ended");
    check("", "abandon", "is not given up");
    check("1 end:kept", "release", "has ended");
    check("1 end:kept", "release destroy", "released");
    check("1 end:kept", "release gone", "has ended");
    check("1 end:kept", "release destroy gone", "released released");
    check("", "release gone", "released");
    check("1 held", "release gone destroy", "released released");
    check("1 end:retired", "release destroy", "has ended");
}
