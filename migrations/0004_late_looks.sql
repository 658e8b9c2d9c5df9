-- Who came after the last rotation, as whoever drives saw it in its newest hourly look. It may be lost: the next look tells it
-- again, and a row of it is changed. To look around:
--   SELECT fleet, at, fresh FROM late_looks;
CREATE TABLE late_looks (
    fleet TEXT NOT NULL PRIMARY KEY,
    at    TEXT NOT NULL,
    fresh TEXT NOT NULL -- a JSON list of instance ids
) STRICT, WITHOUT ROWID;
