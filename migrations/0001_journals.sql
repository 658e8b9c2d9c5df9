-- Journals: what was planned and what happened. Everything here is written once: no row is ever changed or deleted.
-- Times are RFC 3339 in UTC with three decimals, so that they sort as text. To look around:
--   SELECT fleet, kind, begun_at, outcome FROM heads;
--   SELECT seq, at, name, event FROM entries WHERE journal = '…' ORDER BY seq;

PRAGMA application_id = 1919640953; -- 'rkey': tells this database from another program's

CREATE TABLE journals (
    n        INTEGER PRIMARY KEY, -- the order in which they began
    id       TEXT NOT NULL UNIQUE,
    plan     TEXT NOT NULL, -- JSON; the columns below are read from it
    kind     TEXT NOT NULL GENERATED ALWAYS AS (plan ->> '$.kind') VIRTUAL CHECK (kind IN ('rotate', 'retire')),
    fleet    TEXT NOT NULL GENERATED ALWAYS AS (plan ->> '$.fleet') VIRTUAL,
    key_name TEXT NOT NULL GENERATED ALWAYS AS (plan ->> '$.key_name') VIRTUAL,
    account  TEXT NOT NULL GENERATED ALWAYS AS (plan ->> '$.place.account') VIRTUAL,
    provider TEXT NOT NULL GENERATED ALWAYS AS (plan ->> '$.place.provider') VIRTUAL,
    region   TEXT NOT NULL GENERATED ALWAYS AS (plan ->> '$.place.region') VIRTUAL
) STRICT;
CREATE INDEX journals_by_fleet ON journals (fleet, kind, n);
CREATE INDEX journals_by_key_name ON journals (key_name, kind);

CREATE TABLE planned_instances (
    journal  TEXT NOT NULL REFERENCES journals (id),
    position INTEGER NOT NULL, -- 0, 1, 2 … in the order of the plan
    instance TEXT NOT NULL, -- JSON
    id       TEXT NOT NULL GENERATED ALWAYS AS (instance ->> '$.id') VIRTUAL,
    batch    INTEGER GENERATED ALWAYS AS (instance ->> '$.part.batch') VIRTUAL, -- NULL: excluded
    PRIMARY KEY (journal, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE entries (
    journal TEXT NOT NULL REFERENCES journals (id),
    seq     INTEGER NOT NULL, -- 1, 2, 3 … without a gap
    at      TEXT NOT NULL,
    author  TEXT NOT NULL CHECK (json_valid(author)),
    event   TEXT NOT NULL CHECK (json_valid(event)),
    prev    TEXT NOT NULL, -- the hash of the entry before
    hash    TEXT NOT NULL, -- SHA-256 in hex of prev, journal, seq, at, author and event, one a line, each line ended by LF
    -- An entry that somebody spoilt must not keep the other journals from being listed.
    name    TEXT NOT NULL GENERATED ALWAYS AS (iif(json_valid(event), event ->> '$.event', 'unreadable')) VIRTUAL,
    PRIMARY KEY (journal, seq)
) STRICT;

-- Where each journal stands. A journal has ended if its newest entry says so.
CREATE VIEW heads AS
SELECT journals.n, journals.id, journals.kind, journals.fleet, journals.key_name, journals.account, journals.provider,
       journals.region, journals.plan, first.at AS begun_at, newest.seq, newest.at, newest.hash,
       CASE WHEN newest.name = 'ended' THEN newest.event ->> '$.outcome' END AS outcome
FROM journals
LEFT JOIN entries AS first ON first.journal = journals.id AND first.seq = 1
LEFT JOIN entries AS newest
    ON newest.journal = journals.id AND newest.seq = (SELECT max(seq) FROM entries WHERE journal = journals.id);

CREATE TRIGGER journals_are_not_changed BEFORE UPDATE ON journals
BEGIN SELECT RAISE(ABORT, 'journals are never changed'); END;
CREATE TRIGGER journals_are_not_deleted BEFORE DELETE ON journals
BEGIN SELECT RAISE(ABORT, 'journals are never deleted'); END;
CREATE TRIGGER journals_are_not_replaced BEFORE INSERT ON journals
WHEN EXISTS (SELECT 1 FROM journals WHERE id = NEW.id OR n = NEW.n)
BEGIN SELECT RAISE(ABORT, 'journals are never replaced'); END;

CREATE TRIGGER planned_instances_are_not_changed BEFORE UPDATE ON planned_instances
BEGIN SELECT RAISE(ABORT, 'planned instances are never changed'); END;
CREATE TRIGGER planned_instances_are_not_deleted BEFORE DELETE ON planned_instances
BEGIN SELECT RAISE(ABORT, 'planned instances are never deleted'); END;
CREATE TRIGGER planned_instances_are_frozen BEFORE INSERT ON planned_instances
WHEN EXISTS (SELECT 1 FROM entries WHERE journal = NEW.journal)
BEGIN SELECT RAISE(ABORT, 'the plan of a journal that has begun is frozen'); END;

CREATE TRIGGER entries_are_not_changed BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END;
CREATE TRIGGER entries_are_not_deleted BEFORE DELETE ON entries
BEGIN SELECT RAISE(ABORT, 'entries are never deleted'); END;
CREATE TRIGGER entries_are_numbered_without_a_gap BEFORE INSERT ON entries
WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM entries WHERE journal = NEW.journal)
BEGIN SELECT RAISE(ABORT, 'entries are numbered without a gap'); END;
