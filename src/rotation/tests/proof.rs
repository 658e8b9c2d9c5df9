//! Proof by login: what an answer proves, and what the brain makes of proven, late and doubtful machines.

use super::super::proof::ProofFinding;
use super::story::{host_key, image};
use super::*;
use crate::model::{Login, Seen};

/// A fleet of one, bound and active in second 40, its host key read before.
const ACTIVE: &str = "3 pinned a=H@m-1\n5 >bind a=r@1\n6 ok bind a #1\n20 bound a=r@1\n21 >reboot a=r\n40 active a";

/// The answer to a login (`in`, `refused`, `away`, `other KEY`) at a second, with what the look showed as image and what
/// became of the old key, and what it proves.
fn check(journal: &str, second: u64, answer: &str, shown: &str, old_key: Option<OldKeyFound>, expect: &str) {
    let rotation = Story::begun("ecs", "r ssh").tell(journal).rotation();
    let (word, key) = answer.split_once(' ').unwrap_or((answer, "H"));
    let seen = Seen { host_key: host_key(key), server: "SSH-2.0-x".to_string() };
    let login = match word {
        "in" => Login::Accepted(seen),
        "refused" => Login::Refused(seen),
        "away" => Login::Unreachable { why: "no route".to_string() },
        "other" => Login::WrongHost(seen),
        other => panic!("{other} is no answer"),
    };
    let shown = (!shown.is_empty()).then(|| image(shown));
    let found = match rotation.proof_finding(&"a".into(), shown.as_ref(), &login, old_key, at(second)) {
        ProofFinding::Wait => "wait".to_string(),
        ProofFinding::Verified(proof) => format!("proven {:?}", proof.old_key),
        ProofFinding::Unproven { why } => format!("late: {why}"),
        ProofFinding::Excluded(reason) => format!("out: {reason}"),
        ProofFinding::Reimaged => "anew".to_string(),
        ProofFinding::Hold(reason) => format!("hold {}", reason.kind()),
    };
    assert_eq!(found, expect, "{journal} / {second} {answer}");
}

#[test]
fn a_login_proves_the_key_once_the_old_one_was_asked_for_too() {
    let refused = Some(OldKeyFound::Refused);
    check(ACTIVE, 41, "in", "m-1", refused, "proven Refused");
    check(ACTIVE, 41, "in", "m-1", Some(OldKeyFound::Taken), "proven Taken");
    check(ACTIVE, 41, "in", "m-1", Some(OldKeyFound::NotKnown), "proven NotKnown");
    check(ACTIVE, 41, "in", "m-1", None, "wait");
    let never =
        "out: not proven by a login in time: the new key is accepted, but whether the old one still is cannot be asked";
    check(ACTIVE, 40 + 600, "in", "m-1", None, never);
    check("3 pinned a=H", 5, "in", "", refused, "wait");
    check(&format!("{ACTIVE}\n41 proven a"), 42, "in", "", refused, "wait");
}

#[test]
fn a_refusal_and_silence_get_their_deadline() {
    let out = "out: not proven by a login in time: it refuses the new key";
    check(ACTIVE, 40 + 599, "refused", "", None, "wait");
    check(ACTIVE, 40 + 600, "refused", "", None, out);
    check(ACTIVE, 40 + 599, "away", "", None, "wait");
    check(ACTIVE, 40 + 600, "away", "", None, "out: not proven by a login in time: no route");
    // Never reached before either: that is no evidence against the key.
    let unreached = ACTIVE.replace("pinned a=H@m-1", "pinned a");
    check(&unreached, 40 + 600, "away", "", None, "late: no route");
    check(&unreached, 40 + 600, "refused", "", None, out);
    // Time in which nobody drove it does not count, and trust gives it its time again.
    check(&format!("{ACTIVE}\n2000 resumed"), 2001, "refused", "", None, "wait");
    check(&format!("{ACTIVE}\n2000 resumed"), 2000 + 600, "refused", "", None, out);
    let trusted = format!("{ACTIVE}\n50 held:host a=H/X\n2000 trust a=X\n2000 release");
    check(&trusted, 2001, "away", "", None, "wait");
}

#[test]
fn time_in_which_nobody_could_be_asked_for_a_fault_of_our_own_is_counted_to_nobody() {
    let since = |journal: &str| {
        let rotation = Story::begun("ecs", "r ssh").tell(journal).rotation();
        rotation.cut_off_since(Step::Verify(0)).map(|since| since.duration_since(at(0)).as_secs())
    };
    assert_eq!(since(ACTIVE), None);
    assert_eq!(since(&format!("{ACTIVE}\n50 cutoff verify 0")), Some(50));
    assert_eq!(since(&format!("{ACTIVE}\n50 cutoff verify 0\n60 cutoff verify 0 +60")), Some(50));
    // It is written down once; a cloud that is away is another matter.
    assert_eq!(since(&format!("{ACTIVE}\n50 cutoff verify 0\n700 resumed")), None);
    assert_eq!(since(&format!("{ACTIVE}\n50 cutoff verify 0\n700 resumed\n701 cutoff verify 0")), Some(701));
    assert_eq!(since(&format!("{ACTIVE}\n50 away verify 0")), None);
    // Of the other batches' deadlines nothing is lost, and of its own the time before.
    let cut = format!("{ACTIVE}\n50 cutoff verify 0\n900 resumed");
    check(&cut, 901, "away", "", None, "wait");
    check(&cut, 900 + 600, "away", "", None, "out: not proven by a login in time: no route");
}

#[test]
fn another_host_key_holds_unless_the_cloud_shows_the_disk_made_anew() {
    check(ACTIVE, 41, "other X", "m-1", None, "hold wrong_host");
    check(ACTIVE, 9000, "other X", "", None, "hold wrong_host");
    check(ACTIVE, 41, "other X", "m-2", None, "anew");
    check(ACTIVE, 41, "other X", "m-1!r-7", None, "anew");
    // The reset that was known when the pin was taken is no news, and neither is that another operation follows it.
    let reset = ACTIVE.replace("a=H@m-1", "a=H@m-1!r-7");
    check(&reset, 41, "other X", "m-1!r-7", None, "hold wrong_host");
    check(&reset, 41, "other X", "m-1", None, "hold wrong_host");
    check(&reset, 41, "other X", "m-1!r-8", None, "anew");
    // Pinned anew: the next change holds again.
    let anew = format!("{ACTIVE}\n50 anew a=X@m-2");
    check(&anew, 51, "in X", "m-2", Some(OldKeyFound::Refused), "proven Refused");
    check(&anew, 51, "other Y", "m-2", None, "hold wrong_host");
}

/// What may run now.
fn next(fleet: &str, journal: &str, expect: &str) {
    let rotation = Story::begun("lighthouse", fleet).tell(journal).rotation();
    for line in expect.lines().map(str::trim) {
        let (second, said) = line.split_once(": ").unwrap();
        let shown = show_next(&rotation.next(at(second.parse().unwrap())));
        assert_eq!(format!("{second}: {shown}"), format!("{second}: {said}"), "{fleet} / {journal}");
    }
}

#[test]
fn nobody_else_is_bound_before_the_batch_is_proven() {
    let active = "3 pinned a=H\n5 >bind a=r\n6 ok bind a #1\n20 bound a=s\n21 >start a=s\n22 ok start a\n40 active a";
    // (The batch is not over: who of it was not bound yet may be.)
    next("r r ssh", active, "41: verify 0, bind 0");
    next("r r ssh", &format!("{active}\n50 proven a"), "51: bind 1");
    next("r r ssh", &format!("{active}\n50 held"), "51: held · verify 0");
    // A canary that is out, or was never reached, proves nothing.
    next("r r ssh failures=9", &format!("{active}\n50 out a"), "51: ! held canary");
    next("r r ssh", &format!("{active}\n50 late a"), "51: ! held canary");
    next("r r ssh", &format!("{active}\n50 late a\n51 held:canary\n60 release"), "61: bind 1");
    // Given up: what is bound need not be proven any more.
    next("r r ssh", &format!("{active}\n50 abandon"), "51: held · ! ended abandoned");
}

#[test]
fn a_machine_that_still_takes_its_old_key_holds_unless_that_is_only_to_be_warned_of() {
    let proven = "3 pinned a=H\n5 >bind a=r\n6 ok bind a #1\n20 bound a=s\n21 >start a=s\n22 ok start a\n40 active a\n\
                  50 proven a/taken";
    next("r r ssh", proven, "51: ! held old_key_taken");
    next("r r ssh-warn", proven, "51: bind 1");
    next("r r ssh", &format!("{proven}\n51 held\n60 release"), "61: bind 1");
}
