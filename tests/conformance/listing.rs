//! Which instances a selection finds: all that it means, each once, and no other. A cloud's own filter may be wider or
//! narrower than the word; the match is decided on our side.

use std::sync::Arc;

use rekeyd::model::{InstanceId, KeyPairId, ProviderKind};
use rekeyd::provider::{Kind, Select, actions};
use rekeyd::sim::{InstanceSpec, Power};

use crate::rig::{Rig, TAG, by_tags, sorted, tags};

/// Puts so many machines of these tags into the cloud.
fn machines(rig: &Rig, count: usize, of: &[(&str, &str)]) -> Vec<InstanceId> {
    (0..count).map(|_| rig.add(InstanceSpec { tags: tags(of), ..InstanceSpec::default() })).collect()
}

pub async fn instances_by_tags_are_found_to_the_last_page_each_once(rig: Arc<Rig>) {
    // More than two pages, and on ECS more than the 1,000 that a tag filter finds there (FACTS 4.1).
    let count = match rig.kind {
        ProviderKind::TencentLighthouse | ProviderKind::TencentCvm => 250,
        ProviderKind::AlibabaEcs => 1500,
        ProviderKind::BaiduBcc => 1100,
    };
    let mut ours = Vec::new();
    for part in 0..10 {
        ours.extend(machines(&rig, count / 10, &[("env", "prod"), TAG]));
        machines(&rig, 10, if part % 2 == 0 { &[] } else { &[("role", "db")] });
    }
    assert_eq!(rig.ids(&by_tags(&[TAG])).await, sorted(ours));
}

pub async fn instances_by_two_tags_bear_both(rig: Arc<Rig>) {
    let ours = machines(&rig, 3, &[TAG, ("env", "prod"), ("owner", "ops")]);
    machines(&rig, 2, &[TAG]);
    machines(&rig, 2, &[("env", "prod")]);
    machines(&rig, 2, &[("role", "prod"), ("env", "web")]);
    machines(&rig, 2, &[TAG, ("env", "test")]);
    assert_eq!(rig.ids(&by_tags(&[TAG, ("env", "prod")])).await, sorted(ours));
}

pub async fn a_selection_by_more_tags_than_any_filter_takes_is_decided_here(rig: Arc<Rig>) {
    // Tencent takes 10 filters, ECS 20 tags (FACTS 2.2, 4.1).
    let names: Vec<String> = (0..25).map(|number| format!("tag{number:02}")).collect();
    let all: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "on")).collect();
    let ours = machines(&rig, 3, &all);
    for lacking in [0, 9, 10, 19, 20, 24] {
        let most: Vec<_> = all.iter().enumerate().filter(|(at, _)| *at != lacking).map(|(_, tag)| *tag).collect();
        machines(&rig, 1, &most);
    }
    assert_eq!(rig.ids(&by_tags(&all)).await, sorted(ours));
}

pub async fn a_tag_matches_value_for_value_in_its_own_case(rig: Arc<Rig>) {
    let ours = machines(&rig, 2, &[TAG]);
    let neighbours = [("role", "webs"), ("role", "we"), ("role", "Web"), ("Role", "web"), ("role", ""), ("roles", "web")];
    for near in neighbours {
        machines(&rig, 2, &[near]);
    }
    machines(&rig, 1, &[("role", "my-web")]);
    machines(&rig, 1, &[("role", "*")]);
    assert_eq!(rig.ids(&by_tags(&[TAG])).await, sorted(ours));
}

pub async fn a_filter_that_the_cloud_forgets_lets_nobody_slip_in(rig: Arc<Rig>) {
    let (ours, others) = (rig.pair("rksim_ours"), rig.pair("rksim_others"));
    let other = rig.add(InstanceSpec {
        tags: tags(&[("role", "db")]),
        keys: vec![others.to_string()],
        power: Power::Stopped,
        ..InstanceSpec::default()
    });
    let mine = rig.machine_of(Power::Stopped, &[&ours]);
    let questions = [
        (by_tags(&[("role", "db")]), by_tags(&[TAG])),
        (Select::BoundTo(others), Select::BoundTo(ours)),
        (Select::Ids(vec![other.clone()]), Select::Ids(vec![mine])),
    ];
    for (asked, meant) in questions {
        rig.tap.calm();
        assert_eq!(rig.ids(&asked).await, std::slice::from_ref(&other));
        // What the cloud said of the others, as its answer to the question for ours.
        let mut answers = rig.tap.answers().into_iter();
        rig.tap.hook(Box::new(move |_, _| answers.next().map(Ok)));
        assert_eq!(rig.ids(&meant).await, [], "{meant:?}");
    }
}

pub async fn a_wildcard_in_a_tag_is_a_letter_like_any_other(rig: Arc<Rig>) {
    machines(&rig, 3, &[TAG]);
    let starred = machines(&rig, 1, &[("role", "w*")]);
    assert_eq!(rig.ids(&by_tags(&[("role", "w*")])).await, sorted(starred));
    assert_eq!(rig.ids(&by_tags(&[("role", "*")])).await, []);
}

pub async fn a_tag_that_holds_the_wires_own_punctuation_is_found(rig: Arc<Rig>) {
    for value in ["a:b", "a,b", "a b", "a&b=c", "a+b/c", "50%", "前端", "\"quoted\"", "~tilde~", "@home", "a_b.c"] {
        let ours = machines(&rig, 2, &[("team", value)]);
        machines(&rig, 1, &[("team", value.get(..1).unwrap_or("x"))]);
        assert_eq!(rig.ids(&by_tags(&[("team", value)])).await, sorted(ours), "{value}");
    }
    let ours = machines(&rig, 2, &[("cost center:eu", "7")]);
    assert_eq!(rig.ids(&by_tags(&[("cost center:eu", "7")])).await, sorted(ours));
}

pub async fn an_empty_tag_value_is_a_value(rig: Arc<Rig>) {
    let empty = machines(&rig, 2, &[("role", "")]);
    machines(&rig, 2, &[TAG]);
    assert_eq!(rig.ids(&by_tags(&[("role", "")])).await, sorted(empty));
}

pub async fn whichever_look_is_closed_to_the_account_a_selection_is_whole_or_denied(rig: Arc<Rig>) {
    let looks = actions(rig.kind).iter().filter(|action| ["Describe", "List", "Get"].iter().any(|v| action.starts_with(v)));
    let looks: Vec<String> = looks.map(|action| action.to_string()).collect();
    machines(&rig, 5, &[("role", "db")]);
    let mut ours = Vec::new();
    // Few; then, on ECS, more than the 1,000 that a tag filter finds there (FACTS 4.1).
    for (more, can_do_without_none_of) in [(7, 1), (1000, if rig.kind == ProviderKind::AlibabaEcs { 2 } else { 1 })] {
        ours.extend(machines(&rig, more, &[TAG]));
        let ours = sorted(ours.clone());
        let mut denials = 0;
        for look in &looks {
            rig.with(|world| world.cloud_mut(0).denied = [look.clone()].into());
            match rig.provider.instances(&by_tags(&[TAG])).await {
                Ok(found) => assert_eq!(sorted(found.into_iter().map(|one| one.id)), ours, "without {look}"),
                Err(error) => {
                    let error = rig.not_done::<()>(Err(error));
                    assert_eq!((error.kind, &error.action), (Kind::Denied, look), "{error:?}");
                    denials += 1;
                }
            }
        }
        assert_eq!(denials, can_do_without_none_of, "{more} of {looks:?}");
    }
}

pub async fn nobody_bears_a_tag_that_does_not_exist(rig: Arc<Rig>) {
    machines(&rig, 3, &[TAG]);
    assert_eq!(rig.ids(&by_tags(&[("nothing", "here")])).await, []);
}

pub async fn all_is_everybody_but_those_that_are_gone(rig: Arc<Rig>) {
    assert_eq!(rig.ids(&Select::All).await, []);
    let mut everybody = machines(&rig, 120, &[TAG]);
    everybody.extend(machines(&rig, 130, &[]));
    let gone = everybody.remove(17);
    rig.with(|world| world.remove_instance(0, gone.as_str()));
    assert_eq!(rig.ids(&Select::All).await, sorted(everybody));
}

pub async fn of_ids_the_unknown_are_missing_and_the_known_all_there(rig: Arc<Rig>) {
    let known = machines(&rig, 230, &[]);
    machines(&rig, 20, &[]);
    let mut asked = known.clone();
    for number in 0..15 {
        // Well-formed ids of nobody: those of machines that were released.
        let gone = rig.machine_of(Power::Stopped, &[]);
        rig.with(|world| world.remove_instance(0, gone.as_str()));
        asked.insert(number * 13, gone);
    }
    assert_eq!(rig.ids(&Select::Ids(asked)).await, sorted(known));
}

pub async fn of_ids_that_are_all_unknown_nobody_is_found(rig: Arc<Rig>) {
    let gone = machines(&rig, 3, &[]);
    machines(&rig, 2, &[]);
    for id in &gone {
        rig.with(|world| world.remove_instance(0, id.as_str()));
    }
    assert_eq!(rig.ids(&Select::Ids(gone)).await, []);
}

pub async fn an_id_asked_for_twice_comes_once(rig: Arc<Rig>) {
    let known = machines(&rig, 2, &[]);
    let twice = [known.clone(), known.clone()].concat();
    assert_eq!(rig.ids(&Select::Ids(twice)).await, sorted(known));
}

pub async fn no_ids_are_nobody_and_not_everybody(rig: Arc<Rig>) {
    machines(&rig, 3, &[TAG]);
    assert_eq!(rig.ids(&Select::Ids(Vec::new())).await, []);
}

pub async fn bound_to_a_pair_are_those_that_show_it_to_the_last_page(rig: Arc<Rig>) {
    let (ours, near) = (rig.pair("rksim_one"), rig.pair("rksim_one1"));
    let bound: Vec<InstanceId> = (0..130).map(|_| rig.machine_of(Power::Running, &[&ours])).collect();
    for _ in 0..5 {
        rig.machine_of(Power::Running, &[&near]);
        rig.machine_of(Power::Stopped, &[]);
    }
    let mut expect = bound;
    if rig.is_tencent() {
        expect.push(rig.machine_of(Power::Stopped, &[&near, &ours]));
    }
    assert_eq!(rig.ids(&Select::BoundTo(ours)).await, sorted(expect));
}

pub async fn nobody_is_bound_to_a_pair_that_is_gone(rig: Arc<Rig>) {
    let old = rig.pair("rksim_old");
    rig.machine_of(Power::Running, &[&old]);
    let gone = rig.pair("rksim_gone");
    rig.provider.delete_key_pair(&gone, rig.before()).await.unwrap();
    assert_eq!(rig.ids(&Select::BoundTo(gone)).await, Vec::<InstanceId>::new());
    let free: KeyPairId = rig.pair("rksim_free");
    assert_eq!(rig.ids(&Select::BoundTo(free)).await, Vec::<InstanceId>::new());
}
