//! What a test does to a machine, its guest or a whole cloud over the control port. `POST /meddle?NAME=ID`, several separated by `&`:
//!
//! | | |
//! |---|---|
//! | `unreachable=ID` | its network is cut: it runs, and nobody comes through |
//! | `old-key-stays=ID` | from now on the guest takes what is bound, and keeps the keys that it had |
//! | `never-accepts=ID` | from now on the guest ignores what is bound |
//! | `slow=ID:DURATION` | its sshd answers that much later |
//! | `well=ID` | takes these four back; keys that the guest has, it keeps |
//! | `stopped=ID`, `running=ID` | its power, at once, as its owner would in the console |
//! | `unbilled=ID` | the same as `stopped`, in the mode that costs nothing |
//! | `spot=ID` | it is bought by bids |
//! | `local-disk=ID` | it has a disk of its host |
//! | `refuses=ID:ACTION:CODE` | it refuses every call of that action with that code |
//! | `denies=PROVIDER:ACTION` | that cloud's account may no longer do that |
//! | `key-pairs-max=PROVIDER:NUMBER` | that cloud's account may hold so many key pairs |
//! | `session-token=PROVIDER:TOKEN` | that cloud's access key is a temporary one from now on, good with this token only |
//!
//! `POST /reimage?instance=ID` makes it from its image anew: other host keys, the keys of the cloud's record.
//! `POST /hostkey?instance=ID` gives it other host keys, and nothing else.
//!
//! It must never do half of what was asked: all of it is read, and everything found, before anything changes.

use std::time::Duration;

use super::machine::{Guest, Habit, Power};
use super::world::World;

/// Something to be done to one machine, or to one cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mischief<'a> {
    Unreachable,
    OldKeyStays,
    NeverAccepts,
    Slow(Duration),
    Well,
    Power(Power),
    Unbilled,
    Spot,
    LocalDisk,
    Refuses { action: &'a str, code: &'a str },
    Denies(&'a str),
    KeyPairsMax(usize),
    SessionToken(&'a str),
    Reimage,
    HostKey,
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotDone {
    /// The text says nothing that is known.
    #[error(
        "{0:?} is no mischief: POST /meddle?unreachable=ID, old-key-stays=ID, never-accepts=ID, slow=ID:DURATION, \
         well=ID, stopped=ID, running=ID, unbilled=ID, spot=ID, local-disk=ID, refuses=ID:ACTION:CODE, \
         denies=PROVIDER:ACTION, key-pairs-max=PROVIDER:NUMBER or session-token=PROVIDER:TOKEN, separated by &; or \
         /reimage?instance=ID, /hostkey?instance=ID"
    )]
    Unknown(String),
    /// No cloud has it.
    #[error("there is no instance {0}")]
    NoInstance(String),
    /// It is not served.
    #[error("there is no cloud {0}")]
    NoCloud(String),
}

/// Does what was posted to this path.
pub(super) fn commit(world: &mut World, path: &str, query: &str) -> Result<(), NotDone> {
    let mut found = Vec::new();
    for part in query.split('&') {
        let (id, mischief) = read(path, part).ok_or_else(|| NotDone::Unknown(format!("{path}?{part}")))?;
        let is_of_cloud =
            matches!(mischief, Mischief::Denies(_) | Mischief::KeyPairsMax(_) | Mischief::SessionToken(_));
        let (cloud, missing) = match is_of_cloud {
            true => (world.clouds().iter().position(|cloud| cloud.kind.as_str() == id), NotDone::NoCloud(id.into())),
            false => {
                (world.clouds().iter().position(|cloud| cloud.machine(id).is_some()), NotDone::NoInstance(id.into()))
            }
        };
        found.push((cloud.ok_or(missing)?, id, mischief));
    }
    for (cloud, id, mischief) in found {
        let mut guest = |change: &dyn Fn(&mut Guest)| world.change_guest(cloud, id, change);
        match mischief {
            Mischief::Unreachable => guest(&|guest| guest.unreachable = true),
            Mischief::OldKeyStays => guest(&|guest| guest.habit = Habit::KeepsOld),
            Mischief::NeverAccepts => guest(&|guest| guest.habit = Habit::Ignores),
            Mischief::Slow(by) => guest(&|guest| guest.slow = by),
            Mischief::Well => guest(&|guest| *guest = Guest { image: guest.image, ..Guest::default() }),
            Mischief::HostKey => guest(&|guest| guest.image += 1),
            Mischief::Power(power) => world.set_power(cloud, id, power),
            Mischief::Unbilled => world.stop_without_charging(cloud, id),
            Mischief::Spot => world.make_spot(cloud, id),
            Mischief::LocalDisk => world.give_local_disk(cloud, id),
            Mischief::Refuses { action, code } => world.refuse(cloud, id, action, code),
            Mischief::Denies(action) => drop(world.cloud_mut(cloud).denied.insert(action.to_string())),
            Mischief::KeyPairsMax(max) => world.cloud_mut(cloud).key_pairs_max = max,
            Mischief::SessionToken(token) => world.cloud_mut(cloud).session_token = Some(token.to_string()),
            Mischief::Reimage => world.reimage(cloud, id),
        }
    }
    Ok(())
}

fn read<'a>(path: &str, part: &'a str) -> Option<(&'a str, Mischief<'a>)> {
    let (name, value) = part.split_once('=').filter(|(_, value)| !value.is_empty())?;
    if (path, name) == ("/meddle", "slow") {
        let (id, by) = value.split_once(':')?;
        return Some((id, Mischief::Slow(crate::model::parse_duration(by).ok()?)));
    }
    if (path, name) == ("/meddle", "refuses") {
        let (id, rest) = value.split_once(':')?;
        let (action, code) = rest.split_once(':').filter(|(action, code)| !action.is_empty() && !code.is_empty())?;
        return Some((id, Mischief::Refuses { action, code }));
    }
    if path == "/meddle" && matches!(name, "denies" | "key-pairs-max" | "session-token") {
        let (provider, what) = value.split_once(':').filter(|(_, what)| !what.is_empty())?;
        let mischief = match name {
            "denies" => Mischief::Denies(what),
            "session-token" => Mischief::SessionToken(what),
            _ => Mischief::KeyPairsMax(what.parse().ok()?),
        };
        return Some((provider, mischief));
    }
    let mischief = match (path, name) {
        ("/meddle", "unreachable") => Mischief::Unreachable,
        ("/meddle", "old-key-stays") => Mischief::OldKeyStays,
        ("/meddle", "never-accepts") => Mischief::NeverAccepts,
        ("/meddle", "well") => Mischief::Well,
        ("/meddle", "stopped") => Mischief::Power(Power::Stopped),
        ("/meddle", "running") => Mischief::Power(Power::Running),
        ("/meddle", "unbilled") => Mischief::Unbilled,
        ("/meddle", "spot") => Mischief::Spot,
        ("/meddle", "local-disk") => Mischief::LocalDisk,
        ("/reimage", "instance") => Mischief::Reimage,
        ("/hostkey", "instance") => Mischief::HostKey,
        _ => return None,
    };
    Some((value, mischief))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProviderKind;
    use crate::sim::InstanceSpec;

    fn world() -> (World, [String; 2]) {
        let mut world = World::new(3, "2026-11-22T00:00:00Z".parse().unwrap());
        let ids = [ProviderKind::AlibabaEcs, ProviderKind::TencentCvm].map(|kind| {
            let cloud = world.open_cloud(kind);
            let keys = vec![world.add_strangers_pair(cloud, "old")];
            world.add_instance(cloud, InstanceSpec { keys, ..InstanceSpec::default() })
        });
        (world, ids)
    }

    #[test]
    fn each_kind_of_mischief_is_done_to_its_machine_and_taken_back() {
        let (mut world, [one, two]) = world();
        let query = format!("unreachable={one}&slow={two}:3s&old-key-stays={two}");
        commit(&mut world, "/meddle", &query).unwrap();
        commit(&mut world, "/hostkey", &format!("instance={two}")).unwrap();
        let guest = |world: &World, cloud: usize| world.cloud(cloud).machines()[0].guest;
        assert_eq!(guest(&world, 0), Guest { unreachable: true, ..Guest::default() });
        let slow = Duration::from_secs(3);
        assert_eq!(guest(&world, 1), Guest { habit: Habit::KeepsOld, slow, image: 1, ..Guest::default() });
        commit(&mut world, "/meddle", &format!("well={one}&well={two}&never-accepts={one}&stopped={one}")).unwrap();
        assert_eq!(guest(&world, 0), Guest { habit: Habit::Ignores, ..Guest::default() });
        assert_eq!(guest(&world, 1), Guest { image: 1, ..Guest::default() });
        assert_eq!(world.cloud(0).machines()[0].power, Power::Stopped);
        commit(&mut world, "/meddle", &format!("running={one}")).unwrap();
        assert_eq!((world.cloud(0).machines()[0].power, world.cloud(0).machines()[0].boots), (Power::Running, 1));
    }

    #[test]
    fn what_a_plan_should_find_is_put_there() {
        let (mut world, [one, two]) = world();
        let query = format!("spot={one}&local-disk={two}&refuses={two}:StartInstances:ResourceInsufficient");
        commit(&mut world, "/meddle", &query).unwrap();
        let machine = |world: &World, cloud: usize| world.cloud(cloud).machines()[0].clone();
        assert_eq!((machine(&world, 0).spot, machine(&world, 0).local_disk), (true, false));
        assert_eq!((machine(&world, 1).spot, machine(&world, 1).local_disk), (false, true));
        assert_eq!(machine(&world, 1).refuses("StartInstances"), Some("ResourceInsufficient"));
        commit(&mut world, "/meddle", &format!("unbilled={one}")).unwrap();
        assert_eq!((machine(&world, 0).power, machine(&world, 0).no_charge), (Power::Stopped, true));
        commit(&mut world, "/meddle", "denies=alibaba-ecs:RebootInstances&key-pairs-max=tencent-cvm:7").unwrap();
        commit(&mut world, "/meddle", "session-token=tencent-cvm:t").unwrap();
        assert_eq!((&world.cloud(0).session_token, &world.cloud(1).session_token), (&None, &Some("t".to_string())));
        assert!(world.cloud(0).denied.contains("RebootInstances") && world.cloud(1).denied.is_empty());
        assert_eq!((world.cloud(0).key_pairs_max, world.cloud(1).key_pairs_max), (500, 7));
    }

    #[test]
    fn nothing_is_done_where_a_part_is_wrong() {
        let (mut world, [one, _]) = world();
        let mut check = |path: &str, query: &str, expect: &str| {
            let error = commit(&mut world, path, query).unwrap_err().to_string();
            assert!(error.contains(expect), "{path}?{query}: {error}");
            assert_eq!(world.cloud(0).machines()[0].guest, Guest::default(), "{path}?{query}");
        };
        check("/meddle", "", "no mischief");
        check("/meddle", &format!("unreachable={one}&unreachable=i-0"), "no instance i-0");
        check("/meddle", &format!("unreachable={one}&sick={one}"), "sick=");
        check("/meddle", &format!("slow={one}"), "no mischief");
        check("/meddle", &format!("slow={one}:soon"), "no mischief");
        check("/meddle", &format!("refuses={one}:StartInstances"), "no mischief");
        check("/meddle", &format!("refuses={one}::Code"), "no mischief");
        check("/meddle", &format!("unreachable={one}&denies=baidu-bcc:BatchStopInstance"), "no cloud baidu-bcc");
        check("/meddle", "key-pairs-max=alibaba-ecs:many", "no mischief");
        check("/meddle", &format!("instance={one}"), "no mischief");
        check("/hostkey", &format!("unreachable={one}"), "no mischief");
        check("/reimage", "instance=", "no mischief");
    }

    #[test]
    fn a_guest_takes_what_is_bound_by_its_habit_and_a_new_image_what_is_recorded() {
        for (habit, expect) in [("well", "new"), ("old-key-stays", "new old"), ("never-accepts", "old")] {
            for cloud in 0..2 {
                let (mut world, ids) = world();
                let new = world.add_strangers_pair(cloud, "new");
                let line = |world: &World, name: &str| {
                    let pair = world.cloud(cloud).key_pairs().iter().find(|pair| pair.name == name);
                    pair.unwrap().line.clone()
                };
                let lines: Vec<String> = expect.split(' ').map(|name| line(&world, name)).collect();
                commit(&mut world, "/meddle", &format!("{habit}={}", ids[cloud])).unwrap();
                if cloud == 0 {
                    world.bind_for_next_boot(cloud, 0, std::slice::from_ref(&new));
                    world.set_power(cloud, &ids[cloud], Power::Stopped);
                    assert_eq!(world.cloud(cloud).machines()[0].would_accept(), lines, "{habit}");
                    world.set_power(cloud, &ids[cloud], Power::Running);
                } else {
                    let course = world.rekey(cloud, std::slice::from_ref(&new), Duration::from_millis(1));
                    world.begin(cloud, 0, "bind", "r", course);
                    world.advance("2026-11-22T00:00:01Z".parse().unwrap());
                }
                assert_eq!(world.cloud(cloud).machines()[0].accepts, lines, "{habit}");
                commit(&mut world, "/reimage", &format!("instance={}", ids[cloud])).unwrap();
                let machine = &world.cloud(cloud).machines()[0];
                assert_eq!((&machine.accepts, machine.guest.image), (&vec![line(&world, "new")], 1), "{habit}");
                assert_eq!(machine.power, Power::Running);
            }
        }
    }
}
