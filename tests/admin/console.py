"""What drivers do with the console: each their own way of asking, with what they say to every server when they connect."""

import asyncio
import os
import sys

import asyncpg
import psycopg

PORT = os.environ["PGPORT"]
DSN = f"host=127.0.0.1 port={PORT} user=app password=secret dbname=pgbouncer sslmode=disable"


def with_psycopg() -> None:
    with psycopg.connect(DSN, autocommit=True) as connection:
        # The extended protocol, with results in text and in binary.
        for binary in (False, True):
            with connection.cursor(binary=binary) as cursor:
                cursor.execute("SHOW POOLS")
                names = [column.name for column in cursor.description]
                row = dict(zip(names, cursor.fetchall()[-1]))
                assert row["database"] == "pgbouncer" and row["cl_active"] == 1, row
                cursor.execute("SHOW STATS")
                assert cursor.fetchone()[1] == 0
        # The same statement again and again is prepared.
        for _ in range(7):
            assert len(connection.execute("SHOW LISTS").fetchall()) == 14
        assert connection.execute("RELOAD").statusmessage == "RELOAD"
        try:
            connection.execute("SHOW POLS")
            raise AssertionError("it is no command")
        except psycopg.errors.UndefinedObject as error:
            assert "SHOW POOLS" in error.diag.message_hint
    with psycopg.connect(DSN) as connection:
        # In what it takes for a transaction.
        assert connection.execute("SHOW VERSION").fetchone()[0].startswith("pgweir")
        connection.commit()


async def with_asyncpg() -> None:
    connection = await asyncpg.connect(
        host="127.0.0.1", port=int(PORT), user="app", password="secret", database="pgbouncer", ssl=False
    )
    rows = await connection.fetch("SHOW DATABASES")
    assert [row["name"] for row in rows] == ["pgbouncer"] and rows[0]["paused"] == 0, rows
    rows = await connection.fetch("SHOW STATS_TOTALS")
    assert rows[0]["xact_count"] == 0
    assert await connection.execute("RECONNECT") == "RECONNECT"
    await connection.close()


with_psycopg()
asyncio.run(with_asyncpg())
sys.stdout.write("good\n")
