"""Writes the whole upgrade history of a wagtail site as numbered SQL files, one a Django migration.

Run by script/wagtail-history inside its own Python environment. Each migration is applied to a scratch database
(a SQLite file, the PostgreSQL server that PGHOST and PGUSER name, or the MariaDB server whose socket is MYSQL_UNIX_PORT), and what Django sends is written down as it goes: definitions, rows and settings, RunPython's own rows
included. What only reads, and what only concerns Django's own list of applied migrations, is left out. It never
touches a database that is not its own.
"""

import os
import pathlib
import sys
import tempfile

import django
from django.conf import settings

WRITES = ("CREATE", "ALTER", "DROP", "INSERT", "UPDATE", "DELETE", "REPLACE", "SET", "PRAGMA", "REINDEX", "ANALYZE")
READING_PRAGMAS = (
    "PRAGMA table_info", "PRAGMA table_xinfo", "PRAGMA table_list", "PRAGMA index_list", "PRAGMA index_info",
    "PRAGMA index_xinfo", "PRAGMA foreign_key_list",
)

APPS = [
    "wagtail.contrib.forms", "wagtail.contrib.redirects", "wagtail.contrib.settings", "wagtail.contrib.search_promotions",
    "wagtail.contrib.simple_translation", "wagtail.embeds", "wagtail.sites", "wagtail.users", "wagtail.snippets",
    "wagtail.documents", "wagtail.images", "wagtail.search", "wagtail.admin", "wagtail", "modelcluster", "taggit",
    "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
    "django.contrib.messages", "django.contrib.staticfiles", "django.contrib.sites", "django.contrib.redirects",
    "django.contrib.flatpages",
]


def configure(database, **more):
    """Configures Django for a wagtail site with only this database, and with `more` settings."""
    import importlib.util

    apps = [app for app in APPS if importlib.util.find_spec(app)]
    settings.configure(
        SECRET_KEY="not a secret",
        INSTALLED_APPS=apps + [app for app in ("modelsearch",) if importlib.util.find_spec(app)],
        DATABASES={"default": database},
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        WAGTAIL_SITE_NAME="history",
        WAGTAILADMIN_BASE_URL="http://localhost",
        SITE_ID=1,
        STATIC_URL="/static/",
        MEDIA_URL="/media/",
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
        USE_TZ=True,
        SILENCED_SYSTEM_CHECKS=["*"],
        **more,
    )
    django.setup()


POSTGRES = False
MARIADB = False


def mariadb():
    """A scratch database on the MariaDB server, by a client in Python alone."""
    import pymysql

    # Django asks for a version of the client in C, whose interface this one has.
    pymysql.version_info = (2, 2, 7, "final", 0)
    pymysql.install_as_MySQLdb()
    way = {"unix_socket": os.environ["MYSQL_UNIX_PORT"]}
    with pymysql.connect(user="root", **way) as conn:
        conn.cursor().execute("CREATE DATABASE IF NOT EXISTS history CHARACTER SET utf8mb4")
    return {"ENGINE": "django.db.backends.mysql", "NAME": "history", "USER": "root", "OPTIONS": way}


def literal(value):
    """One bound value as the database would be handed it in text."""
    if value is None:
        return "NULL"
    if POSTGRES:
        from psycopg import sql

        return sql.Literal(value).as_string(None)
    if MARIADB:
        from pymysql.converters import escape_item

        return escape_item(value, "utf8mb4")
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (bytes, memoryview)):
        return "X'" + bytes(value).hex() + "'"
    return "'" + str(value).replace("'", "''") + "'"


def rendered(sql, params):
    """The statement with its values in it; Django marks them with %s and writes a plain per cent sign doubled."""
    if params is None or len(params) == 0:
        # Without parameters Django sends the text as it stands.
        return sql if params is None else sql.replace("%%", "%")
    parts, rest, values = [], sql, list(params)
    while rest:
        at = rest.find("%")
        if at < 0:
            parts.append(rest)
            break
        parts.append(rest[:at])
        mark = rest[at : at + 2]
        if mark == "%s":
            parts.append(literal(values.pop(0)))
        elif mark == "%%":
            parts.append("%")
        else:
            raise ValueError("unknown mark in " + sql)
        rest = rest[at + 2 :]
    if values:
        raise ValueError("values left over in " + sql)
    return "".join(parts)


class Recorder:
    """Collects the statements of one migration."""

    def __init__(self):
        self.statements = []

    def __call__(self, execute, sql, params, many, context):
        self.note(sql, params, many)
        return execute(sql, params, many, context)

    def note(self, sql, params, many):
        text = sql.strip()
        if not text.upper().startswith(WRITES) or text.startswith(READING_PRAGMAS):
            return
        if text.upper() in ("PRAGMA FOREIGN_KEYS", "PRAGMA LEGACY_ALTER_TABLE"):
            return
        if '"django_migrations"' in text or "`django_migrations`" in text:
            return
        for row in params if many else [params]:
            self.statements.append(rendered(text, row).rstrip(";"))


def main():
    global MARIADB, POSTGRES
    engine, out = sys.argv[1], pathlib.Path(sys.argv[2])
    POSTGRES, MARIADB = engine == "postgres", engine == "mariadb"
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.sql"):
        old.unlink()
    with tempfile.TemporaryDirectory() as scratch:
        if POSTGRES:
            configure({"ENGINE": "django.db.backends.postgresql", "NAME": "postgres"})
        elif MARIADB:
            configure(mariadb())
        else:
            configure({"ENGINE": "django.db.backends.sqlite3", "NAME": str(pathlib.Path(scratch) / "history.sqlite")})
        from django.core.management import call_command  # noqa: F401  (loads the command machinery)
        from django.db import connection
        from django.db.migrations.executor import MigrationExecutor
        from django.db.models.signals import post_migrate, pre_migrate  # noqa: F401

        executor = MigrationExecutor(connection)
        executor.recorder.ensure_schema()
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
        state = executor._create_project_state(with_applied_migrations=True)
        total = 0
        for number, (migration, _) in enumerate(plan, 1):
            recorder = Recorder()
            with connection.execute_wrapper(recorder):
                state = executor.apply_migration(state, migration)
            name = f"{number:04d}-{migration.app_label}-{migration.name}.sql"
            body = "".join(statement + ";\n" for statement in recorder.statements)
            (out / name).write_text(body or "-- nothing but a change of state\nSELECT 1;\n", encoding="utf-8")
            total += len(recorder.statements)
        print(f"{len(plan)} files, {total} statements in {out}")


if __name__ == "__main__":
    main()
