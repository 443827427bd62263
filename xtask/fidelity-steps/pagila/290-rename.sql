ALTER TABLE actor RENAME TO player;
ALTER TABLE player RENAME COLUMN first_name TO given_name;
ALTER INDEX idx_actor_last_name RENAME TO "Idx Player";
UPDATE player SET given_name = 'Q' WHERE actor_id = 1;
