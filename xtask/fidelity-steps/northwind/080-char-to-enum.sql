CREATE TYPE region_of AS ENUM ('north', 'south', 'east', 'west', 'midwest');
ALTER TABLE us_states ALTER COLUMN state_region TYPE region_of USING (CASE WHEN state_region IN ('north', 'south', 'east', 'west', 'midwest') THEN state_region END)::region_of;
