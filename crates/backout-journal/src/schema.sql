-- journal.db, format 1. See docs/journal.md.

-- `format` (the version of all of this) and `created_ms`.
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

-- The history. `body` is the entry's canonical JSON, `digest` its BLAKE3; `deployment` repeats what the body says,
-- for the index.
CREATE TABLE entry (
    seq INTEGER PRIMARY KEY,
    deployment TEXT,
    body TEXT NOT NULL,
    digest BLOB NOT NULL
) STRICT;
CREATE INDEX entry_of_deployment ON entry (deployment) WHERE deployment IS NOT NULL;

-- Images of the entry with the same number: small ones here, large ones in a file of `images/`.
CREATE TABLE image (
    seq INTEGER PRIMARY KEY,
    content BLOB,
    file TEXT UNIQUE,
    CHECK ((content IS NULL) <> (file IS NULL))
) STRICT;

-- Images that were given up, and the entry that says so.
CREATE TABLE dropped (seq INTEGER PRIMARY KEY, by_seq INTEGER NOT NULL) STRICT;

-- Derived from the entries, in the transaction that writes them: one line a deployment.
CREATE TABLE deployment (
    id TEXT PRIMARY KEY,
    package TEXT NOT NULL,
    version TEXT NOT NULL,
    actor TEXT NOT NULL,
    state TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    state_seq INTEGER NOT NULL,
    started_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    state_ms INTEGER NOT NULL,
    info TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX deployment_by_age ON deployment (first_seq);
CREATE INDEX deployment_by_state ON deployment (state, first_seq);

-- Derived: the highest epoch of the lock, and the entry that began it.
CREATE TABLE epoch (one INTEGER PRIMARY KEY CHECK (one = 1), value INTEGER NOT NULL, seq INTEGER NOT NULL) STRICT;

-- An inserting trigger, too, because REPLACE deletes without asking a deleting one.
CREATE TRIGGER entry_follows BEFORE INSERT ON entry WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM entry)
BEGIN SELECT RAISE(ABORT, 'entries follow each other without gaps'); END;
CREATE TRIGGER entry_is_not_changed BEFORE UPDATE ON entry
BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END;
CREATE TRIGGER entry_is_not_erased BEFORE DELETE ON entry
BEGIN SELECT RAISE(ABORT, 'entries are never erased'); END;
CREATE TRIGGER image_is_new BEFORE INSERT ON image WHEN EXISTS (SELECT 1 FROM image WHERE seq = NEW.seq)
BEGIN SELECT RAISE(ABORT, 'images are never replaced'); END;
CREATE TRIGGER image_is_not_changed BEFORE UPDATE ON image
BEGIN SELECT RAISE(ABORT, 'images are never changed'); END;
CREATE TRIGGER image_is_kept BEFORE DELETE ON image WHEN NOT EXISTS (SELECT 1 FROM dropped WHERE seq = OLD.seq)
BEGIN SELECT RAISE(ABORT, 'images are given up by an entry only'); END;
CREATE TRIGGER dropped_is_new BEFORE INSERT ON dropped WHEN EXISTS (SELECT 1 FROM dropped WHERE seq = NEW.seq)
BEGIN SELECT RAISE(ABORT, 'images are given up once'); END;
CREATE TRIGGER dropped_is_not_changed BEFORE UPDATE ON dropped
BEGIN SELECT RAISE(ABORT, 'dropped images do not come back'); END;
CREATE TRIGGER dropped_is_not_erased BEFORE DELETE ON dropped
BEGIN SELECT RAISE(ABORT, 'dropped images do not come back'); END;
