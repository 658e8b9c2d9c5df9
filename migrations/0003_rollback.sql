-- Two more verbs that a person may ask of a fleet: rollback and catch_up. Which verbs there are is a trigger's now: a column's
-- CHECK is asked of rows that are there already, and one that somebody spoilt must not keep the database from being brought up to date.
DROP VIEW paused;
ALTER TABLE requests DROP COLUMN verb;
ALTER TABLE requests ADD COLUMN verb TEXT GENERATED ALWAYS AS (iif(json_valid(ask), ask ->> '$.ask', NULL)) VIRTUAL;

-- A new verb is a new migration: no release meets one that it does not know.
CREATE TRIGGER requests_ask_what_is_known BEFORE INSERT ON requests
WHEN coalesce(iif(json_valid(NEW.ask), NEW.ask ->> '$.ask', NULL), '') NOT IN ('rotate', 'hold', 'release', 'rollback', 'catch_up')
BEGIN SELECT RAISE(ABORT, 'no such verb'); END;

-- The newest hold or release of each fleet that was neither refused nor taken back, if it is a hold.
CREATE VIEW paused AS
SELECT id, fleet, ask, author, at, answered_at, answer
FROM requests
WHERE verb = 'hold' AND coalesce(outcome, '') NOT IN ('refused', 'withdrawn')
  AND NOT EXISTS (
      SELECT 1 FROM requests AS later
      WHERE later.fleet = requests.fleet AND later.id > requests.id AND later.verb IN ('hold', 'release')
        AND coalesce(later.outcome, '') NOT IN ('refused', 'withdrawn'));
