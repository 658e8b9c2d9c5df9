-- What a person asks of a fleet, when a fleet is due, and a row that somebody spoilt stays its own fleet's trouble. To look around:
--   SELECT id, fleet, verb, author, at, answer FROM requests;
--   SELECT fleet, author, at, ask ->> '$.note' FROM paused;
--   SELECT fleet, at, schedule FROM due_times;

-- Columns that are read from JSON: NULL where it is none. Those of 0001 raised "malformed JSON" for every statement that met
-- such a row, so that one spoilt journal hid all the others. What is spoilt already must not stop this either: no NOT NULL and no CHECK
-- here, the triggers below refuse a new row that lacks one of them.
DROP VIEW heads;
DROP INDEX journals_by_fleet;
DROP INDEX journals_by_key_name;
ALTER TABLE journals DROP COLUMN kind;
ALTER TABLE journals DROP COLUMN fleet;
ALTER TABLE journals DROP COLUMN key_name;
ALTER TABLE journals DROP COLUMN account;
ALTER TABLE journals DROP COLUMN provider;
ALTER TABLE journals DROP COLUMN region;
ALTER TABLE journals ADD COLUMN kind     TEXT GENERATED ALWAYS AS (iif(json_valid(plan), plan ->> '$.kind', NULL)) VIRTUAL;
ALTER TABLE journals ADD COLUMN fleet    TEXT GENERATED ALWAYS AS (iif(json_valid(plan), plan ->> '$.fleet', NULL)) VIRTUAL;
ALTER TABLE journals ADD COLUMN key_name TEXT GENERATED ALWAYS AS (iif(json_valid(plan), plan ->> '$.key_name', NULL)) VIRTUAL;
ALTER TABLE journals ADD COLUMN account  TEXT GENERATED ALWAYS AS (iif(json_valid(plan), plan ->> '$.place.account', NULL)) VIRTUAL;
ALTER TABLE journals ADD COLUMN provider TEXT GENERATED ALWAYS AS (iif(json_valid(plan), plan ->> '$.place.provider', NULL)) VIRTUAL;
ALTER TABLE journals ADD COLUMN region   TEXT GENERATED ALWAYS AS (iif(json_valid(plan), plan ->> '$.place.region', NULL)) VIRTUAL;
CREATE INDEX journals_by_fleet ON journals (fleet, kind, n);
CREATE INDEX journals_by_key_name ON journals (key_name, kind);

ALTER TABLE planned_instances DROP COLUMN id;
ALTER TABLE planned_instances DROP COLUMN batch;
ALTER TABLE planned_instances ADD COLUMN id    TEXT GENERATED ALWAYS AS (iif(json_valid(instance), instance ->> '$.id', NULL)) VIRTUAL;
ALTER TABLE planned_instances ADD COLUMN batch INTEGER GENERATED ALWAYS AS (iif(json_valid(instance), instance ->> '$.part.batch', NULL)) VIRTUAL; -- NULL: excluded

CREATE TRIGGER journals_are_written_whole BEFORE INSERT ON journals
WHEN CASE WHEN json_valid(NEW.plan) THEN
    NEW.plan ->> '$.kind' IN ('rotate', 'retire') AND NEW.plan ->> '$.fleet' IS NOT NULL
    AND NEW.plan ->> '$.key_name' IS NOT NULL AND NEW.plan ->> '$.place.account' IS NOT NULL
    AND NEW.plan ->> '$.place.provider' IS NOT NULL AND NEW.plan ->> '$.place.region' IS NOT NULL
END IS NOT 1
BEGIN SELECT RAISE(ABORT, 'a plan says its kind, fleet, key pair and place'); END;
CREATE TRIGGER planned_instances_are_written_whole BEFORE INSERT ON planned_instances
WHEN CASE WHEN json_valid(NEW.instance) THEN NEW.instance ->> '$.id' IS NOT NULL END IS NOT 1
BEGIN SELECT RAISE(ABORT, 'a planned instance says its id'); END;

-- Where each journal stands. A journal has ended if its newest entry says so; an end that does not say how is '', which no release reads.
CREATE VIEW heads AS
SELECT journals.n, journals.id, journals.kind, journals.fleet, journals.key_name, journals.account, journals.provider,
       journals.region, journals.plan, first.prev AS began_from, first.at AS begun_at, newest.seq, newest.at, newest.hash,
       newest.name, CASE WHEN newest.name = 'ended' THEN CAST(coalesce(newest.event ->> '$.outcome', '') AS TEXT) END AS outcome
FROM journals
LEFT JOIN entries AS first ON first.journal = journals.id AND first.seq = 1
LEFT JOIN entries AS newest
    ON newest.journal = journals.id AND newest.seq = (SELECT max(seq) FROM entries WHERE journal = journals.id);

-- What a person asks of a fleet beside whoever drives: written once, answered once.
CREATE TABLE requests (
    id          INTEGER PRIMARY KEY, -- the order in which they were asked
    fleet       TEXT NOT NULL,
    ask         TEXT NOT NULL CHECK (json_valid(ask)),
    author      TEXT NOT NULL CHECK (json_valid(author)),
    at          TEXT NOT NULL,
    answered_at TEXT CHECK ((answered_at IS NULL) = (answer IS NULL)),
    answer      TEXT CHECK (answer IS NULL OR json_valid(answer)),
    -- A new verb is a new migration: no release meets one that it does not know.
    verb        TEXT GENERATED ALWAYS AS (iif(json_valid(ask), ask ->> '$.ask', NULL)) VIRTUAL CHECK (verb IS NOT NULL AND verb IN ('rotate', 'hold', 'release')),
    outcome     TEXT GENERATED ALWAYS AS (iif(json_valid(answer), answer ->> '$.answer', NULL)) VIRTUAL
) STRICT;
CREATE INDEX requests_without_answer ON requests (id) WHERE answer IS NULL;
CREATE INDEX requests_by_fleet ON requests (fleet, id);

-- The newest hold or release of each fleet that was neither refused nor taken back, if it is a hold.
CREATE VIEW paused AS
SELECT id, fleet, ask, author, at, answered_at, answer
FROM requests
WHERE verb = 'hold' AND coalesce(outcome, '') NOT IN ('refused', 'withdrawn')
  AND NOT EXISTS (
      SELECT 1 FROM requests AS later
      WHERE later.fleet = requests.fleet AND later.id > requests.id AND later.verb IN ('hold', 'release')
        AND coalesce(later.outcome, '') NOT IN ('refused', 'withdrawn'));

CREATE TRIGGER requests_are_answered_once BEFORE UPDATE ON requests
WHEN OLD.answer IS NOT NULL OR NEW.answer IS NULL OR NEW.id IS NOT OLD.id OR NEW.fleet IS NOT OLD.fleet
  OR NEW.ask IS NOT OLD.ask OR NEW.author IS NOT OLD.author OR NEW.at IS NOT OLD.at
BEGIN SELECT RAISE(ABORT, 'requests are answered once and never changed'); END;
CREATE TRIGGER requests_are_not_deleted BEFORE DELETE ON requests
BEGIN SELECT RAISE(ABORT, 'requests are never deleted'); END;
CREATE TRIGGER requests_are_not_replaced BEFORE INSERT ON requests
WHEN EXISTS (SELECT 1 FROM requests WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'requests are never replaced'); END;

-- When a fleet is due next. Reckoned from its schedule: it may be lost, and a row of it is changed and deleted.
CREATE TABLE due_times (
    fleet    TEXT NOT NULL PRIMARY KEY,
    schedule TEXT NOT NULL, -- what it was reckoned from
    at       TEXT NOT NULL
) STRICT, WITHOUT ROWID;
