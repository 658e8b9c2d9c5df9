//! What a rotation of a compromised key came to, in words and as JSON: how long until the old key was refused, by whom it
//! may still be taken, and the way on. It must say no more than logins proved.

use serde_json::{Value, json};

use crate::model::{Duration, InstanceId};
use crate::rotation::exposure::{Exposure, SHARES};
use crate::rotation::{PlannedInstance, Rotation};

use super::output::{Output, Tone, count, some};

/// So many machines of each kind are named.
const NAMED: usize = 20;

/// Says what a rotation of a compromised key has proven; nothing of any other one.
pub(super) fn say_exposure(out: Output, rotation: &Rotation, planned: &[PlannedInstance]) {
    if !rotation.plan.compromised {
        return;
    }
    let exposure = rotation.exposure(planned);
    for (tone, line) in told(&exposure, rotation) {
        out.line(out.tone(tone, format!("{}: {line}", rotation.plan.fleet)));
    }
}

/// The same for machines to read; null for any other rotation.
pub(super) fn as_json(rotation: &Rotation, planned: &[PlannedInstance]) -> Value {
    if !rotation.plan.compromised {
        return Value::Null;
    }
    let exposure = rotation.exposure(planned);
    let with_why = |all: &[(InstanceId, String)]| -> Vec<Value> {
        all.iter().map(|(instance, why)| json!({ "instance": instance, "why": why })).collect()
    };
    let until = SHARES.iter().zip(exposure.until).map(|(share, until)| {
        let seconds = until.map(|until| until.as_secs_f64());
        (share.to_string(), json!(seconds))
    });
    json!({
        "by_login": exposure.by_login,
        "hosts": exposure.hosts,
        "refuse_old_key": exposure.refused,
        "seconds_until_percent": until.collect::<serde_json::Map<_, _>>(),
        "take_old_key": exposure.taken,
        "no_old_key_known": exposure.no_old_key,
        "not_proven": with_why(&exposure.unproven),
        "left_out": with_why(&exposure.left_out),
    })
}

fn told(exposure: &Exposure, rotation: &Rotation) -> Vec<(Tone, String)> {
    let fleet = &rotation.plan.fleet;
    let mut lines = Vec::new();
    if exposure.by_login {
        let times = SHARES.iter().zip(exposure.until).map(|(share, until)| match until {
            Some(until) => format!("{share} % after {}", seconds(until)),
            None => format!("{share} % not yet"),
        });
        let tone = if exposure.refused == exposure.hosts { Tone::Good } else { Tone::Bad };
        let hosts = count(exposure.hosts, "host");
        let line = format!("{} of {hosts} proven to refuse the old key: ", exposure.refused);
        lines.push((tone, line + &times.collect::<Vec<_>>().join(", ")));
    } else {
        let line = format!(
            "nothing is proven of {}: with verify: none the cloud's word is all there is. Say in the config file how they \
             are logged in to (verify: ssh), and `rekeyd rotate {fleet} --compromised` again proves it",
            count(exposure.hosts, "host")
        );
        lines.push((Tone::Bad, line));
    }
    if !exposure.taken.is_empty() {
        let line = format!(
            "STILL TAKE THE OLD KEY: {}; take it out of their authorized_keys by hand",
            some(&exposure.taken, NAMED)
        );
        lines.push((Tone::Bad, line));
    }
    if !exposure.no_old_key.is_empty() {
        let line = format!(
            "no old key is known of {}: none could be offered to them. Look into their authorized_keys",
            some(&exposure.no_old_key, NAMED)
        );
        lines.push((Tone::Careful, line));
    }
    for (what, all) in [("not proven", &exposure.unproven), ("left out by the plan", &exposure.left_out)] {
        let named = all.iter().filter(|_| exposure.by_login || what != "not proven").take(NAMED);
        lines.extend(named.map(|(id, why)| (Tone::Careful, format!("{what}: {id}: {why}"))));
        if all.len() > NAMED && (exposure.by_login || what != "not proven") {
            let line = format!("{what}: {} more; `rekeyd show {} --json` names them", all.len() - NAMED, rotation.id);
            lines.push((Tone::Careful, line));
        }
    }
    lines
}

/// A time as an operator reads it: tenths of a second while they matter.
fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..=59 => format!("{:.1} s", time.as_secs_f64()),
        whole => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_tenths_of_seconds_and_then_in_minutes() {
        let check = |millis: u64, expect: &str| assert_eq!(seconds(Duration::from_millis(millis)), expect);
        check(0, "0.0 s");
        check(12_340, "12.3 s");
        check(60_000, "1 min 00 s");
        check(3_725_900, "62 min 05 s");
    }
}
