//! A key in wrong hands: replaced at once, and told until when each machine refuses it.

use crate::guests::*;
use crate::stage::Clouds;

#[test]
fn a_compromised_key_is_replaced_with_three_times_and_who_is_out_of_reach_is_listed() {
    let clouds = Clouds::open(&GUESTS);
    each_cloud(&clouds, |stage| {
        let provider = &stage.provider;
        // An ordinary rotation would keep the old private key for a week.
        stage.edit(|config| config.replace("grace: 0s", "grace: 7d"));
        let planned = stage.planned();
        let picture = stage.picture(&clouds);
        for (id, _) in picture.iter().filter(|(id, (state, _))| planned.contains(*id) && state != "running") {
            clouds.meddle(&format!("running={id}"));
        }
        wait_for(stage, "a fleet that runs", || running(stage).len() == planned.len());
        assert_eq!(stage.run(&["rotate", "web"]).code, 0, "{provider}");
        let told = stage.run(&["show", "web"]).out;
        assert!(told.contains("bound and active, and to be proven by a login"), "{provider}: {told}");
        assert!(!told.contains("accept the new key") && !told.contains("accepts the new key"), "{provider}: {told}");
        stage.edit(|config| config.replace("soak: 0s", "soak: 10m"));

        let old = newest(stage);
        let said = stage.run(&["rotate", "web", "--compromised", "--unavailable-max", "100%"]);
        assert_eq!(said.code, 0, "{provider}: {said:?}");
        let hosts = planned.len();
        assert!(
            said.out.contains(&format!("{hosts} of {hosts} hosts proven to refuse the old key: 50 % after ")),
            "{said:?}"
        );
        assert!(said.out.contains(&format!("completed: {hosts} proven by a login")), "{said:?}");
        assert!(said.out.contains(", 99 % after ") && said.out.contains(", 100 % after "), "{said:?}");
        assert!(!half(stage, &old).exists(), "{provider}: the old private key waits out its grace: {said:?}");
        let story = stage.read(&["show", "web"]);
        let (plan, exposure) = (&story["plan"], &story["exposure"]);
        assert_eq!(plan["compromised"], true);
        assert_eq!(exposure["refuse_old_key"], hosts, "{exposure:#}");
        let seconds = |share: &str| exposure["seconds_until_percent"][share].as_f64().unwrap();
        assert!(
            0.0 < seconds("50") && seconds("50") <= seconds("99") && seconds("99") <= seconds("100"),
            "{exposure:#}"
        );

        if provider == "alibaba-ecs" {
            // It tells boots by the minute: each further rotation of the same machines waits for the next one.
            return;
        }
        let away = &running(stage)[hosts - 1];
        clouds.meddle(&format!("unreachable={away}"));
        let said = stage.run(&["rotate", "web", "--compromised", "--unavailable-max", "100%"]);
        assert_eq!(said.code, 0, "{provider}: {said:?}");
        let less = hosts - 1;
        assert!(
            said.out.contains(&format!("{less} of {hosts} hosts proven to refuse the old key: 50 % after ")),
            "{said:?}"
        );
        assert!(said.out.contains(", 99 % not yet, 100 % not yet"), "{said:?}");
        assert!(said.out.contains(&format!("not proven: {away}: bound and running, and out of reach")), "{said:?}");
        let told = stage.run(&["show", "web"]).out;
        assert!(told.contains(&format!("not proven: {away}: ")), "{told}");
    });
}
