//! Two daemons on one store: one drives, nothing is done twice, and who waits takes over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::guests::{GUESTS, daemons_page, each_cloud, events, proven, ready, running, settled, stop, wait_for};
use crate::stage::{Clouds, Stage, fetch};

/// How often a rotation asked for each call on each machine, and for those that name no machine.
fn asked(stage: &Stage) -> BTreeMap<(String, String), usize> {
    let mut asked = BTreeMap::new();
    for event in events(stage, "started") {
        let call = event["call"].as_str().unwrap().to_string();
        let found = event["found"].as_array().cloned().unwrap_or_else(|| vec![Value::Null]);
        for one in found {
            let instance = one["instance"].as_str().unwrap_or_default().to_string();
            *asked.entry((call.clone(), instance)).or_default() += 1;
        }
    }
    asked
}

/// Who wrote the newest rotation's entries, one after another.
fn authors(stage: &Stage) -> Vec<String> {
    let story = stage.read(&["show", "web"]);
    let mut authors: Vec<String> =
        story["entries"].as_array().unwrap().iter().map(|entry| entry["by"].to_string()).collect();
    authors.dedup();
    authors
}

/// How often a cloud was asked to import a pair, and for each machine how often it booted.
fn done(clouds: &Clouds, provider: &str) -> (u64, BTreeMap<String, u64>) {
    let state = clouds.state(provider);
    let calls = state["calls"].as_object().unwrap().iter();
    let imports = calls.filter(|(action, _)| action.to_lowercase().contains("import"));
    let boots = state["instances"].as_array().unwrap().iter();
    let boots = boots.map(|one| (one["id"].as_str().unwrap().to_string(), one["boots"].as_u64().unwrap()));
    (imports.map(|(_, number)| number.as_u64().unwrap()).sum(), boots.collect())
}

fn rotations(stage: &Stage) -> usize {
    let history = stage.read(&["history", "web"]);
    history["journals"].as_array().unwrap().iter().filter(|one| one["kind"] == "rotation").count()
}

#[test]
fn of_two_daemons_on_one_store_one_does_what_is_due_once_and_the_other_takes_over_when_it_is_killed() {
    let clouds = Clouds::open(&GUESTS);
    each_cloud(&clouds, |stage| {
        let (provider, planned) = (stage.provider.as_str(), stage.planned());
        // Everybody runs: who is off keeps a superseded private key, and with it whoever follows, waiting.
        let off =
            stage.picture(&clouds).into_iter().filter(|(id, (power, _))| planned.contains(id) && power != "running");
        off.for_each(|(id, _)| clouds.post(&format!("/meddle?running={id}")));
        let (before, running) = (stage.picture(&clouds), running(stage));
        assert_eq!(running.len(), planned.len(), "{provider}");
        let (_, at_first) = done(&clouds, provider);
        let page = daemons_page(stage);
        let due = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC) + jiff::Span::new().seconds(9);
        stage.edit(|config| {
            let schedule = format!("schedule: \"{} {} {} * * *\"", due.second(), due.minute(), due.hour());
            config.replace("    verify:", &format!("    {schedule}\n    verify:"))
        });
        let other_page = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = std::fs::read_to_string(stage.path("rekeyd.yaml")).unwrap();
        std::fs::write(stage.path("second.yaml"), config.replace(&page, &other_page)).unwrap();

        let mut first = stage.start(&["run"]);
        ready(stage, &page);
        let second = stage.start_with("second.yaml", &["run"], "second");
        wait_for(
            stage,
            "second daemon that waits",
            || matches!(fetch(&other_page, "/readyz"), Ok((503, why)) if why.contains("another rekeyd drives")),
        );
        assert_eq!(rotations(stage), 0, "{provider}: this machine is too slow for the test");
        wait_for(stage, "rotation", || rotations(stage) > 0);
        settled(stage);
        assert_eq!(rotations(stage), 1, "{provider}");
        stage.assert_rotated(&clouds, &planned, &before);
        assert_eq!(authors(stage).len(), 1, "{provider}");
        let twice: Vec<_> = asked(stage).into_iter().filter(|(_, times)| *times > 1).collect();
        assert_eq!(twice, [], "{provider}: asked for twice");
        let booted = |times: u64| -> BTreeMap<String, u64> {
            at_first.iter().map(|(id, boots)| (id.clone(), boots + times * u64::from(running.contains(id)))).collect()
        };
        assert_eq!(done(&clouds, provider), (1, booted(1)), "{provider}: one import, and one boot a machine");
        assert_eq!(fetch(&other_page, "/readyz").unwrap().0, 503, "{provider}");

        // Killed in the midst of the next one.
        let mut follower = stage.start_with("rekeyd.yaml", &["rotate", "web"], "follower");
        wait_for(stage, "second rotation in its midst", || {
            rotations(stage) > 1 && (2..running.len()).contains(&proven(stage).len())
        });
        first.kill();
        wait_for(stage, "daemon that takes over", || matches!(fetch(&other_page, "/readyz"), Ok((200, _))));
        assert_eq!(follower.code_within(Duration::from_secs(60)), Some(0), "{provider}");
        settled(stage);
        assert_eq!(rotations(stage), 2, "{provider}");
        stage.assert_rotated(&clouds, &planned, &before);
        assert_eq!(done(&clouds, provider), (2, booted(2)), "{provider}: one import, and one boot a machine");
        let engines: BTreeSet<String> = authors(stage).into_iter().collect();
        assert_eq!((engines.len(), authors(stage).len()), (2, 2), "{provider}: they took turns");
        let ids: BTreeSet<String> =
            proven(stage).iter().map(|proof| proof["instance"].as_str().unwrap().to_string()).collect();
        assert_eq!(ids, running.into_iter().collect(), "{provider}");
        stop(stage, second);
    });
}

#[test]
fn who_follows_a_daemon_is_told_where_an_old_private_key_waits_for_a_machine_that_is_off() {
    let clouds = Clouds::open(&GUESTS);
    let stage = Stage::proving(&clouds, "baidu-bcc", "");
    assert!(stage.planned().len() > running(&stage).len(), "nobody is off");
    assert_eq!(stage.run(&["rotate", "web"]).code, 0);
    let page = daemons_page(&stage);
    let daemon = stage.start(&["run"]);
    ready(&stage, &page);
    let mut follower = stage.start_with("rekeyd.yaml", &["rotate", "web"], "follower");
    let code = follower.code_within(Duration::from_secs(120));
    let told = std::fs::read_to_string(stage.path("follower")).unwrap();
    assert_eq!(code, Some(0), "{told}\n{}", stage.log());
    assert!(told.contains("somebody who had it is not proven on another one yet"), "{told}");
    stop(&stage, daemon);
}
