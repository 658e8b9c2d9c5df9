//! Deliveries: when they are due, and what an `ssh_config` says.

use super::super::deliver::{Host, ssh_config};
use super::*;

fn delivery() -> Delivery {
    Delivery::Exec(HookCommand { command: vec!["push".to_string()], timeout: Duration::from_secs(60) })
}

/// After this, what is to be done: `deliver`, `end`, `held`, or something else.
fn check(fleet: &str, change: impl Fn(&mut RotatePlan), lines: &str, expect: &str) {
    let mut story = Story::new("ecs", fleet);
    story.plan.policy.deliver = vec![delivery(), delivery()];
    change(&mut story.plan);
    let rotation = story.tell(&format!("0 plan\n1 stored\n2 imported new\n{lines}")).rotation();
    let next = rotation.next(at(100));
    let said = match (next.run.as_slice(), next.record.as_slice()) {
        ([Step::Deliver], []) => format!("deliver {}", rotation.to_deliver().unwrap()),
        ([], [Event::Ended { outcome }]) => outcome.to_string(),
        ([], [Event::Held { reason }]) => reason.kind().to_string(),
        ([], []) => "nothing".to_string(),
        _ => "else".to_string(),
    };
    assert_eq!(said, expect, "{fleet}: {lines}");
}

const ACTIVE: &str = "5 >bind a=r/old@1\n6 bound a=r@1\n7 active a";

#[test]
fn a_key_is_delivered_once_everybody_is_done_and_before_the_rotation_ends() {
    let same = |_: &mut RotatePlan| {};
    check("r", same, "5 >bind a=r/old@1\n6 bound a=r@1", "else");
    check("r", same, ACTIVE, "deliver 0");
    check("r", same, &format!("{ACTIVE}\n8 delivered 0"), "deliver 1");
    check("r", same, &format!("{ACTIVE}\n8 delivered 0\n9 delivered 1"), "completed");
    check("r", |plan| plan.policy.deliver.clear(), ACTIVE, "completed");
    // Proven, where that is wanted.
    check("r ssh", same, ACTIVE, "else");
    check("r ssh", same, &format!("{ACTIVE}\n8 proven a"), "deliver 0");
    // Nobody takes it: it would only replace a key that somebody takes.
    check("s", same, "5 >bind a=s/old\n6 bound a=s", "completed");
    // A stranger's half is in nobody's hands.
    let strangers = |plan: &mut RotatePlan| {
        plan.key = KeySource::Stranger { key_pair: "new".into(), public_key: None };
    };
    check("r", strangers, ACTIVE, "completed");
    let existing = |plan: &mut RotatePlan| {
        plan.key = KeySource::Existing { public_key: PrivateKey::sample(1).public().clone() };
    };
    check("r", existing, ACTIVE, "deliver 0");
}

#[test]
fn what_cannot_be_delivered_is_tried_again_then_held_and_let_go_by_a_person_only() {
    let same = |_: &mut RotatePlan| {};
    check("r", same, &format!("{ACTIVE}\n90 >deliver\n91 away deliver +30"), "nothing");
    check("r", same, &format!("{ACTIVE}\n90 >deliver\n91 denied deliver +30"), "step");
    check("r", same, &format!("{ACTIVE}\n8 held"), "nothing");
    check("r", same, &format!("{ACTIVE}\n8 abandon"), "abandoned");
    check("r", same, &format!("{ACTIVE}\n8 delivered 0\n9 held\n10 release"), "deliver 1");
    check("r", same, &format!("{ACTIVE}\n8 held\n9 undelivered-allowed"), "completed");
    let order = Order::Release { note: String::new(), allow: vec![Allow::Undelivered] };
    let held = |lines: &str| {
        let mut story = Story::new("ecs", "r");
        story.plan.policy.deliver = vec![delivery()];
        story.tell(&format!("0 plan\n1 stored\n2 imported new\n{lines}")).rotation()
    };
    assert_eq!(held(&format!("{ACTIVE}\n8 held")).order(&order).unwrap().len(), 1);
    let refused = held("3 held").order(&order).unwrap_err().to_string();
    assert!(refused.contains("nothing is left to be delivered"), "{refused}");
}

#[test]
fn an_ssh_config_names_each_machine_by_id_and_by_a_name_that_is_its_own() {
    let host = |id: &str, name: &str| Host { instance: id.into(), name: name.into(), address: "10.0.0.1".to_string() };
    let check = |hosts: &[Host], expect: &[&str]| {
        let text = ssh_config("web", hosts, &Verify::None, std::path::Path::new("/ops/web key"));
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("Host ")).collect();
        assert_eq!(lines, expect);
        assert_eq!(text.contains("    IdentityFile \"/ops/web key\"\n"), !expect.is_empty(), "{text}");
        assert!(!text.contains("User "), "{text}");
    };
    check(&[host("i-1", "web-1")], &["Host i-1 web-1"]);
    check(&[host("i-1", "web"), host("i-2", "web")], &["Host i-1", "Host i-2"]);
    check(
        &[host("i-1", "*"), host("i-2", "a b"), host("i-3", "!x"), host("i-4", "")],
        &["Host i-1", "Host i-2", "Host i-3", "Host i-4"],
    );
    check(&[host("i-1", "x\n    ProxyCommand evil")], &["Host i-1"]);
    let at = |address: &str| Host { address: address.to_string(), ..host("i-1", "web-1") };
    check(&[at("10.0.0.1 # old")], &[]);
    check(&[at("10.0.0.1\n    ProxyCommand evil")], &[]);
    check(&[at("")], &[]);
    check(&[at("fd00::1")], &["Host i-1 web-1"]);
    let Verify::Ssh(login) = story::login_with(OldKey::Refuse) else { panic!("a login") };
    let text = ssh_config("web", &[host("i-1", "web-1")], &Verify::Ssh(login), std::path::Path::new("/k"));
    assert!(
        text.contains("    HostName 10.0.0.1\n") && text.contains("    User ") && text.contains("    Port "),
        "{text}"
    );
}
