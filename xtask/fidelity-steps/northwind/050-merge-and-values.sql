MERGE INTO us_states s USING (VALUES (1, 'A'), (99, 'Z')) v(id, name) ON s.state_id = v.id
  WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (state_id, state_name) VALUES (v.id, v.name);
