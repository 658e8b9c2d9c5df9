//! What somebody with a shell, or the disk, did to the database: refused, or noticed, and never anybody else's trouble.

use super::*;
use crate::model::FleetName;
use crate::store::{Agenda, Answer};

const DROP_TRIGGERS: &str = "DROP TRIGGER journals_are_not_changed; DROP TRIGGER entries_are_not_changed; \
                             DROP TRIGGER entries_are_not_deleted; DROP TRIGGER planned_instances_are_not_changed; \
                             PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF";

async fn spoil(path: &Path, sql: &str) {
    by_hand(path, &format!("{DROP_TRIGGERS}; {sql}")).await.unwrap();
}

fn ids(heads: &Heads) -> Vec<JournalId> {
    heads.readable.iter().map(|head| head.id).collect()
}

/// Id, fleet (`-`: unknown) of each unreadable journal.
fn unreadable(heads: &Heads) -> Vec<(JournalId, &str)> {
    heads.unreadable.iter().map(|one| (one.journal, one.fleet.as_ref().map_or("-", FleetName::as_str))).collect()
}

/// Nothing of this fleet begins, because of that journal.
async fn holds(journal: &Sqlite, fleet: &str, by: JournalId) {
    let plans = [rotate(fleet, "rk_99"), retire(fleet, "rk_98", id(2))];
    for plan in plans {
        let answer = journal.begin(id(99), &plan, &[instance("i-99", 0)], &engine(), at(9)).await;
        assert!(matches!(answer, Err(StoreError::Damaged { journal, .. }) if journal == by), "{fleet}: {answer:?}");
    }
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_holds_its_fleet_and_hides_no_other() {
    // Journal 1 is web's. The other fleet's rotation 2 has ended, its retire journal 3 is open.
    let check = async |sql: &str, expect: (JournalId, &str), problem: &str| {
        let (_dir, path) = place();
        let journal = Sqlite::open(&path).await.unwrap();
        rotated(&journal, 1, "web").await;
        rotated(&journal, 2, "db").await;
        journal.begin(id(3), &retire("db", "rk_2", id(2)), &[], &engine(), at(2)).await.unwrap();
        let entries = journal.read(id(3), 0).await.unwrap();
        spoil(&path, &sql.replace("$1", &format!("'{}'", id(1)))).await;

        let heads = journal.heads().await.unwrap();
        assert_eq!(ids(&heads), [id(2), id(3)], "{sql}");
        assert_eq!(unreadable(&heads), [expect], "{sql}");
        assert!(heads.unreadable[0].problem.contains(problem), "{sql}: {heads:?}");
        if expect.0 == id(1) {
            assert!(journal.head(id(1)).await.is_err_and(|error| error.to_string().contains(problem)), "{sql}");
        }
        holds(&journal, "web", expect.0).await;

        // The other fleet goes on as before, and so do readers.
        assert_eq!(journal.read(id(3), 0).await.unwrap(), entries);
        journal.append(id(3), 1, &[held("wait")], &operator(), at(3)).await.unwrap();
        rotated(&journal, 4, "db").await;
        journal.begin(id(5), &retire("db", "rk_4", id(4)), &[], &engine(), at(4)).await.unwrap();
        let reader = Sqlite::open_to_read(&path).await.unwrap();
        assert_eq!(ids(&reader.heads().await.unwrap()), [id(2), id(3), id(4), id(5)], "{sql}");
        // And after everything was closed and opened anew.
        drop((journal, reader));
        let journal = Sqlite::open(&path).await.unwrap();
        assert_eq!(unreadable(&journal.heads().await.unwrap()), [expect], "{sql}");
    };
    let (web, unknown) = ((id(1), "web"), (id(1), "-"));
    check("UPDATE journals SET plan = 'x' || plan WHERE id = $1", unknown, "its plan: expected value").await;
    check("UPDATE journals SET plan = '' WHERE id = $1", unknown, "its plan: EOF").await;
    check("UPDATE journals SET plan = '[7]' WHERE id = $1", unknown, "its plan: ").await;
    check("UPDATE journals SET plan = CAST(x'7bff7d' AS TEXT) WHERE id = $1", unknown, "its plan is no text").await;
    check("UPDATE journals SET plan = json_set(plan, '$.kind', 'rebind') WHERE id = $1", web, "`rebind`").await;
    check("UPDATE journals SET plan = json_set(plan, '$.key_bits', 'ed25519') WHERE id = $1", web, "its plan: ").await;
    check("UPDATE journals SET plan = json_remove(plan, '$.place') WHERE id = $1", web, "`place`").await;
    check("UPDATE journals SET plan = json_remove(plan, '$.fleet') WHERE id = $1", unknown, "`fleet`").await;
    let ended = |event: &str| format!("UPDATE entries SET event = '{event}' WHERE journal = $1 AND seq = 3");
    for event in [
        r#"{"event":"ended","outcome":"exploded"}"#,
        r#"{"event":"ended","outcome":5}"#,
        r#"{"event":"ended","outcome":null}"#,
        r#"{"event":"ended"}"#,
    ] {
        check(&ended(event), web, "its outcome").await;
    }
    check(&ended("{"), web, "its newest entry cannot be read").await;
    check("UPDATE entries SET at = 'yesterday' WHERE journal = $1 AND seq = 3", web, "\"yesterday\"").await;
    check("DELETE FROM entries WHERE journal = $1 AND seq = 1", web, "entry 1 is missing").await;
    check("DELETE FROM entries WHERE journal = $1", web, "it has no entries").await;
    check("UPDATE journals SET id = 'a cat' WHERE id = $1", (JournalId::NIL, "web"), "\"a cat\" is no journal id")
        .await;
    check("UPDATE journals SET id = CAST(x'ff' AS TEXT) WHERE id = $1", (JournalId::NIL, "web"), "is no journal id")
        .await;
}

#[tokio::test]
async fn whose_an_unreadable_journal_is_is_told_by_the_chain() {
    let check = async |spoilt: &[u8], expect: &[(u8, &str)], held: &[&str], free: &[&str]| {
        let (_dir, path) = place();
        let journal = Sqlite::open(&path).await.unwrap();
        rotated(&journal, 1, "web").await;
        rotated(&journal, 2, "db").await;
        rotated(&journal, 3, "web").await;
        rotated(&journal, 4, "web").await;
        journal.begin(id(5), &retire("web", "rk_1", id(1)), &[], &engine(), at(2)).await.unwrap();
        for number in spoilt {
            spoil_again(&path, &format!("UPDATE journals SET plan = '?' WHERE id = '{}'", id(*number))).await;
        }
        let heads = journal.heads().await.unwrap();
        let expect: Vec<(JournalId, &str)> = expect.iter().map(|(number, fleet)| (id(*number), *fleet)).collect();
        assert_eq!(unreadable(&heads), expect, "{spoilt:?}");
        for fleet in held {
            let answer = journal.begin(id(99), &rotate(fleet, "rk_99"), &[instance("i-99", 0)], &engine(), at(9)).await;
            let damaged = matches!(answer, Err(StoreError::Damaged { journal, .. })
                if expect.iter().any(|(one, _)| *one == journal));
            assert!(damaged, "{spoilt:?}: {fleet}: {answer:?}");
        }
        for (fleet, number) in free.iter().zip(10..) {
            rotated(&journal, number, fleet).await;
        }
    };
    check(&[], &[], &[], &["web", "db", "new"]).await;
    // The next one begins from it, or it from the one before, or a retire journal from it.
    check(&[1], &[(1, "web")], &["web"], &["db", "new"]).await;
    check(&[4], &[(4, "web")], &["web"], &["db", "new"]).await;
    check(&[3, 4], &[(3, "web"), (4, "web")], &["web"], &["db", "new"]).await;
    check(&[1, 3], &[(1, "web"), (3, "web")], &["web"], &["db", "new"]).await;
    check(&[1, 3, 4], &[(1, "web"), (3, "web"), (4, "web")], &["web"], &["db", "new"]).await;
    check(&[5], &[(5, "web")], &["web"], &["db", "new"]).await;
    // The first of its fleet, and nobody else's who has a first of their own.
    check(&[2], &[(2, "-")], &["db", "new"], &["web"]).await;
    check(&[1, 3, 4, 5], &[(1, "-"), (3, "-"), (4, "-"), (5, "-")], &["web", "db", "new"], &[]).await;
}

async fn spoil_again(path: &Path, sql: &str) {
    by_hand(path, &format!("DROP TRIGGER IF EXISTS journals_are_not_changed; {sql}")).await.unwrap();
}

#[tokio::test]
async fn what_a_spoilt_open_rotation_was_binding_is_still_left_out_of_others() {
    let check = async |sql: &str, reason: &str| {
        let (_dir, path) = place();
        let journal = Sqlite::open(&path).await.unwrap();
        rotated(&journal, 1, "db").await;
        journal.begin(id(2), &rotate("web", "rk_2"), &[instance("i-1", 0)], &engine(), at(0)).await.unwrap();
        spoil(&path, sql).await;
        let ours = [instance("i-1", 0), instance("i-2", 0)];
        journal.begin(id(3), &rotate("db", "rk_3"), &ours, &engine(), at(1)).await.unwrap();
        let kept = journal.instances(id(3)).await.unwrap();
        assert_eq!(kept[0].part, Part::Excluded(reason.into()), "{sql}");
        assert_eq!(kept[1].part, Part::Batch(0), "{sql}");
    };
    let (theirs, unknown) =
        ("fleet web has it in its open rotation", "a rotation that cannot be read has it, and may be open");
    check("UPDATE journals SET plan = plan || '?' WHERE n = 2", unknown).await;
    check("UPDATE journals SET plan = json_remove(plan, '$.place') WHERE n = 2", theirs).await;
    check("UPDATE entries SET event = '?' WHERE rowid = (SELECT max(rowid) FROM entries)", theirs).await;
}

#[tokio::test]
async fn a_planned_instance_that_cannot_be_read_is_its_own_rotations_trouble() {
    let (_dir, path) = place();
    let journal = Sqlite::open(&path).await.unwrap();
    let theirs = [instance("i-1", 0), instance("i-2", 1)];
    journal.begin(id(1), &rotate("web", "rk_1"), &theirs, &engine(), at(0)).await.unwrap();
    spoil(&path, "UPDATE planned_instances SET instance = '{' WHERE position = 1").await;
    journal
        .begin(id(2), &rotate("db", "rk_2"), &[instance("i-3", 0), theirs[0].clone()], &engine(), at(1))
        .await
        .unwrap();
    assert!(matches!(journal.instances(id(2)).await.unwrap()[1].part, Part::Excluded(_)));
    assert!(problem(journal.instances(id(1)).await).contains("not those that it began with"));
    assert_eq!(ids(&journal.heads().await.unwrap()), [id(1), id(2)]);
}

#[tokio::test]
async fn no_request_is_changed_deleted_or_replaced() {
    let (_dir, path) = place();
    let journal = Sqlite::open(&path).await.unwrap();
    let web = FleetName::new("web");
    let ask = async || journal.ask(&web, &conformance::agenda::pause("x"), &operator(), at(0)).await.unwrap();
    let (answered, open) = (ask().await, ask().await);
    assert!(journal.answer(answered, &Answer::Held, at(1)).await.unwrap());
    let before = (journal.request(answered).await.unwrap(), journal.request(open).await.unwrap());
    let mut refused = 0;
    let mut check = async |sql: &str, expect: &str| {
        let answer = by_hand(&path, sql).await;
        assert!(answer.as_ref().is_err_and(|error| error.contains(expect)), "{sql}: {answer:?}");
        refused += 1;
    };
    for set in ["fleet = 'db'", "ask = '{\"ask\":\"rotate\"}'", "author = '{}'", "at = 'x'", "id = 9", "answer = NULL"]
    {
        check(&format!("UPDATE requests SET {set} WHERE id = 2"), "never changed").await;
    }
    let answer = r#"answered_at = 'x', answer = '{"answer":"withdrawn"}'"#;
    check(&format!("UPDATE requests SET {answer} WHERE id = 1"), "answered once").await;
    check(&format!("UPDATE requests SET {answer}, at = 'x' WHERE id = 2"), "never changed").await;
    check("UPDATE requests SET answer = NULL, answered_at = NULL WHERE id = 1", "answered once").await;
    check("UPDATE requests SET answer = '{}' WHERE id = 2", "CHECK").await;
    check("UPDATE requests SET answer = '{', answered_at = 'x' WHERE id = 2", "CHECK").await;
    check("DELETE FROM requests", "never deleted").await;
    let columns = "id, fleet, ask, author, at";
    check(&format!("INSERT OR REPLACE INTO requests ({columns}) SELECT {columns} FROM requests"), "never replaced")
        .await;
    for ask in ["{\"ask\":\"dance\"}", "{}", "{"] {
        check(
            &format!("INSERT INTO requests (fleet, ask, author, at) VALUES ('a', '{ask}', '{{}}', 'x')"),
            "no such verb",
        )
        .await;
    }
    assert_eq!(refused, 16);
    assert_eq!((journal.request(answered).await.unwrap(), journal.request(open).await.unwrap()), before);
}

#[tokio::test]
async fn no_row_is_changed_deleted_or_replaced() {
    let (_dir, path) = place();
    let journal = Sqlite::open(&path).await.unwrap();
    let entries = rotated(&journal, 1, "web").await;
    let (one, mut refused) = (id(1), 0);
    let mut check = async |sql: &str, expect: &str| {
        let answer = by_hand(&path, sql).await;
        assert!(answer.as_ref().is_err_and(|error| error.contains(expect)), "{sql}: {answer:?}");
        refused += 1;
    };
    check("UPDATE journals SET n = 7", "never changed").await;
    check("UPDATE entries SET at = '2030-01-01T00:00:00.000Z' WHERE seq = 3", "never changed").await;
    check("UPDATE planned_instances SET position = 7", "never changed").await;
    check("DELETE FROM journals", "never deleted").await;
    check("DELETE FROM entries WHERE seq = 3", "never deleted").await;
    check("DELETE FROM planned_instances", "never deleted").await;
    check("INSERT OR REPLACE INTO journals (id, plan) SELECT id, plan FROM journals", "never replaced").await;
    check("INSERT OR REPLACE INTO journals (n, id, plan) SELECT n, 'x', plan FROM journals", "never replaced").await;
    check(
        "INSERT OR REPLACE INTO planned_instances SELECT journal, position, instance FROM planned_instances",
        "frozen",
    )
    .await;
    let copy =
        "INSERT OR REPLACE INTO entries SELECT journal, seq, at, author, event, prev, hash FROM entries WHERE seq = 3";
    check(copy, "without a gap").await;
    let gap = "INSERT INTO entries SELECT journal, 9, at, author, event, prev, hash FROM entries WHERE seq = 3";
    check(gap, "without a gap").await;
    check("INSERT INTO entries VALUES ('none', 1, '', '{}', '{\"event\":\"x\"}', '', '')", "FOREIGN KEY").await;
    assert_eq!(refused, 12);
    assert_eq!(journal.read(one, 0).await.unwrap(), entries);
    journal.verify(one).await.unwrap();
}

#[tokio::test]
async fn what_was_tampered_with_is_damaged() {
    let check = async |sql: &str, expect: &str| {
        let (_dir, path) = place();
        let journal = Sqlite::open(&path).await.unwrap();
        rotated(&journal, 1, "web").await;
        let drop_triggers = "DROP TRIGGER entries_are_not_changed; DROP TRIGGER entries_are_not_deleted;";
        by_hand(&path, &format!("{drop_triggers} {sql}")).await.unwrap();
        let found = problem(journal.read(id(1), 0).await);
        assert!(found.contains(expect), "{sql}: {found}");
        assert_eq!(problem(journal.verify(id(1)).await), found);
    };
    check("UPDATE entries SET event = replace(event, 'running', 'stopped') WHERE seq = 2", "entry 2 was changed").await;
    check("UPDATE entries SET at = '2030-01-01T00:00:00.000Z' WHERE seq = 3", "entry 3 was changed").await;
    check("UPDATE entries SET author = '{\"engine\":\"x\"}' WHERE seq = 1", "entry 1 was changed").await;
    check("UPDATE entries SET prev = hash WHERE seq = 2", "entry 2 does not follow").await;
    check("UPDATE entries SET hash = prev WHERE seq = 2", "entry 2 was changed").await;
    check("DELETE FROM entries WHERE seq = 2", "entry 2 is missing").await;
    check("DELETE FROM entries WHERE seq = 1", "entry 1 is missing").await;
    check("DELETE FROM entries", "entry 1 is missing").await;
}

#[tokio::test]
async fn a_spoilt_journal_does_not_hide_the_others() {
    let (_dir, path) = place();
    let journal = Sqlite::open(&path).await.unwrap();
    rotated(&journal, 1, "web").await;
    let entries = rotated(&journal, 2, "db").await;
    let spoil = format!("UPDATE entries SET event = '{{' WHERE seq = 3 AND journal = '{}'", id(1));
    let drop_trigger = "DROP TRIGGER entries_are_not_changed; PRAGMA ignore_check_constraints = ON";
    by_hand(&path, &format!("{drop_trigger}; {spoil}")).await.unwrap();
    let heads = journal.heads().await.unwrap();
    assert_eq!((ids(&heads), unreadable(&heads)), (vec![id(2)], vec![(id(1), "web")]));
    assert!(problem(journal.read(id(1), 0).await).contains("entry 3 was changed"));
    assert_eq!(journal.read(id(2), 0).await.unwrap(), entries);
    // Its fleet waits, and nothing is written behind what cannot be read; the other goes on.
    holds(&journal, "web", id(1)).await;
    assert!(problem(journal.append(id(1), 3, &[held("on")], &operator(), at(9)).await).contains("newest entry"));
    journal.begin(id(3), &rotate("db", "rk_3"), &[instance("i-1", 0)], &engine(), at(9)).await.unwrap();
}

#[tokio::test]
async fn reading_on_notices_a_change_behind_what_is_known() {
    let (_dir, path) = place();
    let journal = Sqlite::open(&path).await.unwrap();
    rotated(&journal, 1, "web").await;
    let change = "UPDATE entries SET event = '{\"event\":\"key_pair_deleted\"}' WHERE seq = 3";
    by_hand(&path, &format!("DROP TRIGGER entries_are_not_changed; {change}")).await.unwrap();
    assert!(problem(journal.read(id(1), 2).await).contains("entry 3 was changed"));
    assert_eq!(journal.read(id(1), 3).await.unwrap(), []);
}

#[tokio::test]
async fn a_plan_that_is_not_the_one_it_began_with_is_damaged() {
    let check = async |table: &str, sql: &str| {
        let (_dir, path) = place();
        let journal = Sqlite::open(&path).await.unwrap();
        rotated(&journal, 1, "web").await;
        by_hand(&path, &format!("DROP TRIGGER {table}; {sql}")).await.unwrap();
        assert!(problem(journal.instances(id(1)).await).contains("not those that it began with"), "{sql}");
        assert!(problem(journal.verify(id(1)).await).contains("not those that it began with"), "{sql}");
    };
    let instances = "planned_instances_are_not_changed";
    check(instances, "UPDATE planned_instances SET instance = replace(instance, '\"batch\":0', '\"batch\":1')").await;
    check("planned_instances_are_not_deleted", "DELETE FROM planned_instances").await;
    check("journals_are_not_changed", "UPDATE journals SET plan = replace(plan, '4096', '2048')").await;
}

#[tokio::test]
async fn a_journal_whose_forerunner_is_gone_is_noticed() {
    let (_dir, path) = place();
    let journal = Sqlite::open(&path).await.unwrap();
    rotated(&journal, 1, "web").await;
    rotated(&journal, 2, "web").await;
    journal.begin(id(3), &retire("web", "rk_1", id(1)), &[], &engine(), at(4)).await.unwrap();
    let gone = format!(
        "PRAGMA foreign_keys = OFF; DROP TRIGGER journals_are_not_deleted; DROP TRIGGER entries_are_not_deleted; \
         DELETE FROM journals WHERE id = '{0}'; DELETE FROM entries WHERE journal = '{0}';",
        id(1)
    );
    by_hand(&path, &gone).await.unwrap();
    for number in [2, 3] {
        journal.read(id(number), 0).await.unwrap();
        assert!(problem(journal.verify(id(number)).await).contains("does not begin from the journal before it"));
    }
}
