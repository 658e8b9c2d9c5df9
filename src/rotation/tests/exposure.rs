//! How long a compromised key was taken: which proofs count, of whom the shares are, and why the others prove nothing.

use super::super::exposure::{Exposure, SHARES};
use super::*;

/// What a rotation of a compromised key has proven: times, then who takes the old key (`taken`), knows none (`unknown`), is
/// not proven (`not`) or is left out (`out`).
fn check(fleet: &str, journal: &str, expect: &str) {
    let mut story = Story::begun("ecs", fleet).tell(journal);
    story.plan.compromised = true;
    let mut planned = story.instances.clone();
    planned.push(PlannedInstance { id: "z".into(), part: Part::Excluded("Windows".to_string()), ..planned[0].clone() });
    let exposure = story.rotation().exposure(&planned);
    let Exposure { hosts, refused, until, taken, no_old_key, unproven, left_out, by_login } = exposure;
    assert_eq!(by_login, fleet.contains("ssh"));
    assert_eq!(left_out, [("z".into(), "Windows".to_string())]);
    let until: Vec<String> = SHARES
        .iter()
        .zip(until)
        .map(|(share, until)| format!("{share}:{}", until.map_or("-".into(), |until| until.as_secs().to_string())))
        .collect();
    let mut shown = format!("{refused}/{hosts} {}", until.join(" "));
    taken.iter().for_each(|id| shown += &format!(" · taken {id}"));
    no_old_key.iter().for_each(|id| shown += &format!(" · unknown {id}"));
    unproven.iter().for_each(|(id, why)| shown += &format!(" · {id}: {why}"));
    assert_eq!(shown, expect, "{fleet} / {journal}");
}

const FOUR: &str = "3 pinned a=H b=H c=H d=H\n5 >bind a=r@1 b=r@1 c=r@1 d=r@1\n6 ok bind a b c d #1\n\
                    20 bound a=r@1 b=r@1 c=r@1 d=r@1\n21 >reboot a=r b=r c=r d=r\n40 active a b c d";

#[test]
fn shares_are_of_all_hosts_rounded_up_and_only_refusals_count() {
    let told = |proofs: &str| format!("{FOUR}\n{proofs}");
    check("rrrr ssh-warn", &told("50 proven a b\n60 proven c\n70 proven d"), "4/4 50:50 99:70 100:70");
    check(
        "rrrr ssh-warn",
        &told("50 proven a b/taken\n60 proven c\n70 proven d/unknown"),
        "2/4 50:60 99:- 100:- · taken b · unknown d",
    );
    check(
        "rrrr ssh-warn",
        &told("50 proven a\n60 gone b c\n61 late d"),
        "1/2 50:50 99:- 100:- · d: bound and running, and out of reach of any login",
    );
    // Gone are no hosts: all that are left refuse it.
    check("rrrr ssh-warn", &told("50 proven a\n60 gone b c d"), "1/1 50:50 99:50 100:50");
    check("rrrr ssh-warn", &told("60 gone a b c d"), "0/0 50:- 99:- 100:-");
}

#[test]
fn who_is_not_proven_is_told_with_the_reason() {
    check(
        "rrsrr ssh-warn",
        "3 pinned a=H\n5 >bind a=r@1 c=s\n6 ok bind a c #1\n20 bound a=r@1 c=s\n21 >reboot a=r\n40 active a\n41 out b",
        "0/5 50:- 99:- 100:- · a: bound and running, not logged in to yet \
         · b: excluded: not seen bound and active in time \
         · c: bound and switched off: it refuses the old key from its next boot on \
         · d: not touched yet · e: not touched yet",
    );
    check("rr ssh-warn", "5 >bind a=r@1\n6 abandon", "0/2 50:- 99:- 100:- · a: under way · b: not touched yet");
    check(
        "rr ssh-warn",
        "6 abandon\n7 end:abandoned",
        "0/2 50:- 99:- 100:- · a: not touched: the rotation was given up · b: not touched: the rotation was given up",
    );
    // The cloud's word is no proof.
    check(
        "r",
        "5 >bind a=r@1\n6 ok bind a #1\n20 bound a=r@1\n21 >reboot a=r\n40 active a",
        "0/1 50:- 99:- 100:- · a: bound and running by the cloud's word",
    );
}
