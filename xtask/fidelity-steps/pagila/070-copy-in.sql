COPY city (city, country_id) FROM stdin;
Backslash \\ and tab \t	1
\\N is no null	2
\.
COPY country (country) FROM stdin WITH (FORMAT csv, HEADER);
country
"Free, and ""quoted"""
"two
lines"
\.
SELECT 1;
