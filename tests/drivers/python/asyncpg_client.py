"""asyncpg: it prepares everything, believes what was described once, and resets what its pool gets back."""

import asyncio
import io
import os
from contextlib import suppress

import asyncpg

from scenario import DIRECT, check, eventually_async, main, raises, same, together_async


async def connect(**options):
    """A connection; everything else is in the environment."""
    return await asyncpg.connect(**options)


def connected(number_of=1, **options):
    """`async with connected() as (conn, ...)`."""

    class Connections:
        async def __aenter__(self):
            self.all = [await connect(**options) for _ in range(number_of)]
            return self.all

        async def __aexit__(self, *error):
            for conn in self.all:
                await conn.close(timeout=5)

    return Connections()


async def fresh_table(conn, name, columns):
    await conn.execute(f"DROP TABLE IF EXISTS {name}")
    await conn.execute(f"CREATE TABLE {name} ({columns})")


class Elsewhere:
    """Keeps the server connection that was used last busy, so that a pool has to use another one."""

    async def __aenter__(self):
        self.conn = await connect()
        await self.conn.execute("BEGIN")

    async def __aexit__(self, *error):
        await self.conn.execute("ROLLBACK")
        await self.conn.close()


@check
async def named_statements():
    """The same names (__asyncpg_stmt_1__, ...) stand for other texts at every client."""

    async def client(number):
        async with connected() as (conn,):
            for turn in range(25):
                same(await conn.fetchval(f"SELECT {number} * 1000 + $1::int4", turn), number * 1000 + turn)
                async with conn.transaction():
                    same(await conn.fetchval(f"SELECT '{number} ' || $1::text", str(turn)), f"{number} {turn}")

    await together_async(client)


@check
async def evicted_statements():
    """A cache smaller than what is used: asyncpg closes statements all the time."""

    async def client(number):
        async with connected(statement_cache_size=3) as (conn,):
            for turn in range(40):
                same(await conn.fetchval(f"SELECT {turn % 7} + $1::int4", number), turn % 7 + number)

    await together_async(client)


@check
async def without_a_cache():
    """Unnamed statements: parsed and described in one batch, bound in the next."""

    async def client(number):
        async with connected(statement_cache_size=0) as (conn,):
            for turn in range(30):
                same(await conn.fetchval(f"SELECT {number} + $1::int4", turn), number + turn)
                same(await conn.fetchval("SELECT $1::text", str(number)), str(number))

    await together_async(client)


@check
async def prepared_by_hand():
    async def client(number):
        async with connected() as (conn,):
            statement = await conn.prepare(f"SELECT {number} + $1::int4 AS sum")
            same([attribute.name for attribute in statement.get_attributes()], ["sum"])
            for turn in range(25):
                same(await statement.fetchval(turn), number + turn)
            with raises(asyncpg.PostgresSyntaxError):
                await conn.prepare("SELECT FROM WHERE")
            with raises(asyncpg.NumericValueOutOfRangeError):
                await statement.fetchval(2**31 - 1) if number else await conn.fetch("SELECT 2147483647 + 1")
            same(await statement.fetchval(1), number + 1)

    await together_async(client)


@check
async def stale_plan():
    """asyncpg prepares again by itself what PostgreSQL refuses; it must not get rows that it was not told of."""
    async with connected(2) as (conn, owner):
        await fresh_table(owner, "stale", "id int4")
        await owner.execute("INSERT INTO stale VALUES (1)")
        same(tuple(await conn.fetchrow("SELECT * FROM stale")), (1,))
        await owner.execute("ALTER TABLE stale ADD COLUMN word text DEFAULT 'new'")
        same(tuple(await conn.fetchrow("SELECT * FROM stale")), (1, "new"))
        await owner.execute("ALTER TABLE stale ALTER COLUMN id TYPE float4 USING id + 0.5")
        async with Elsewhere():
            same(tuple(await conn.fetchrow("SELECT * FROM stale")), (1.5, "new"))
        await owner.execute("ALTER TABLE stale DROP COLUMN word")
        same(tuple(await conn.fetchrow("SELECT * FROM stale")), (1.5,))


@check
async def stale_statement_by_hand():
    """What the application itself has prepared it sees refused, or gets right."""
    async with connected(2) as (conn, owner):
        await fresh_table(owner, "stale_by_hand", "id int4")
        await owner.execute("INSERT INTO stale_by_hand VALUES (1)")
        statement = await conn.prepare("SELECT * FROM stale_by_hand")
        same(tuple(await statement.fetchrow()), (1,))
        await owner.execute("ALTER TABLE stale_by_hand ALTER COLUMN id TYPE float4 USING id + 0.5")
        with suppress(asyncpg.InvalidCachedStatementError, asyncpg.FeatureNotSupportedError):
            same(tuple(await statement.fetchrow()), (1.5,))
        same(tuple(await conn.fetchrow("SELECT * FROM stale_by_hand")), (1.5,))


@check
async def stale_plan_in_transaction():
    async with connected(2) as (conn, owner):
        await fresh_table(owner, "stale_inside", "id int4")
        same(await conn.fetch("SELECT * FROM stale_inside"), [])
        await owner.execute("ALTER TABLE stale_inside ADD COLUMN word text")
        await owner.execute("INSERT INTO stale_inside VALUES (1, 'one')")
        with raises(asyncpg.InvalidCachedStatementError):
            async with conn.transaction():
                await conn.fetch("SELECT * FROM stale_inside")
        same([tuple(row) for row in await conn.fetch("SELECT * FROM stale_inside")], [(1, "one")])


@check
async def table_made_again():
    async with connected(2) as (conn, owner):
        for content in range(4):
            await fresh_table(owner, "again", "id int4")
            await owner.execute(f"INSERT INTO again VALUES ({content})")
            same(await conn.fetchval("SELECT * FROM again"), content)


@check
async def own_types():
    """asyncpg asks for what it does not know with statements of its own, in the middle of others."""
    async with connected() as (owner,):
        await owner.execute("DROP TYPE IF EXISTS mood; CREATE TYPE mood AS ENUM ('fine', 'bad')")

    async def client(number):
        async with connected() as (conn,):
            row = await conn.fetchrow("SELECT $1::mood, $2::mood[], ROW(1, 'two')", "fine", ["bad", "fine"])
            same(tuple(row), ("fine", ["bad", "fine"], (1, "two")))

    await together_async(client)


@check
async def batches():
    async with connected() as (owner,):
        await fresh_table(owner, "batched", "client int4, turn int4 UNIQUE")

    async def client(number):
        async with connected() as (conn,):
            rows = [(number, number * 1000 + turn) for turn in range(100)]
            await conn.executemany("INSERT INTO batched VALUES ($1, $2)", rows)
            with raises(asyncpg.UniqueViolationError):
                await conn.executemany("INSERT INTO batched VALUES ($1, $2)", [(number, -number - 1), *rows])
            same(await conn.fetchval("SELECT count(*) FROM batched WHERE client = $1", number), 100)

    await together_async(client)


@check
async def savepoints():
    async def client(number):
        async with connected() as (conn,):
            for _ in range(5):
                async with conn.transaction(isolation="serializable"):
                    with raises(asyncpg.DivisionByZeroError):
                        async with conn.transaction():
                            await conn.fetchval("SELECT 1 / $1::int4", 0)
                    same(await conn.fetchval("SELECT $1::int4", number), number)
                    same(await conn.fetchval("SHOW transaction_isolation"), "serializable")

    await together_async(client)


@check
async def settings_are_kept():
    """As startup parameters and by SET."""

    async def client(number):
        options = {"work_mem": f"{number + 64}MB", "search_path": f"s{number}"} if number % 2 else {}
        default, path = (options["work_mem"], options["search_path"]) if options else ("4MB", '"$user", public')
        async with connected(server_settings=options) as (conn,):
            for turn in range(8):
                same((await conn.fetchval("SHOW work_mem"), await conn.fetchval("SHOW search_path")), (default, path))
                await conn.execute(f"SET lock_timeout = {turn + 99}")
                same(await conn.fetchval("SHOW lock_timeout"), f"{turn + 99}ms")

    await together_async(client)


@check
async def reset_to_startup_settings():
    """The pool's reset has RESET ALL in it, which goes back to what the startup packet has asked for."""

    async def client(number):
        async with connected(server_settings={"work_mem": f"{number + 64}MB"}) as (conn,):
            for _ in range(5):
                await conn.execute("SET work_mem = '1MB'")
                await conn.reset()
                same(await conn.fetchval("SHOW work_mem"), f"{number + 64}MB")

    await together_async(client)


@check
async def search_path_of_each():
    async with connected() as (owner,):
        for number in range(4):
            await owner.execute(f"DROP SCHEMA IF EXISTS tenant{number} CASCADE; CREATE SCHEMA tenant{number}")
            await owner.execute(f"CREATE TABLE tenant{number}.place AS SELECT 'tenant {number}' AS name")

    async def client(number):
        async with connected() as (conn,):
            await conn.execute(f"SET search_path = tenant{number % 4}")
            for _ in range(20):
                same(await conn.fetchval("SELECT name FROM place"), f"tenant {number % 4}")

    await together_async(client)


@check
async def pool():
    """The pool's reset: unlock, CLOSE ALL, UNLISTEN, RESET ALL in one query."""
    async with asyncpg.create_pool(min_size=4, max_size=8) as pool:

        async def client(number):
            for turn in range(10):
                async with pool.acquire() as conn:
                    same(await conn.fetchval("SHOW lock_timeout"), "0")
                    await conn.execute(f"SET lock_timeout = {number + 1}")
                    same(await conn.fetchval(f"SELECT {number} + $1::int4", turn), number + turn)
                    same(await conn.fetchval("SHOW lock_timeout"), f"{number + 1}ms")

        await together_async(client)


@check
async def reset():
    async with connected() as (conn,):
        await conn.execute("SET work_mem = '99MB'")
        await conn.execute("SELECT pg_advisory_lock(7)")
        await conn.reset()
        same(await conn.fetchval("SHOW work_mem"), "4MB")
        async with connected() as (other,):
            same(await other.fetchval("SELECT pg_try_advisory_lock(7)"), True)
        await conn.reload_schema_state()
        await conn.execute("DISCARD ALL")
        with raises(asyncpg.InvalidSQLStatementNameError):
            statement = await conn.prepare("SELECT 1")
            await conn.execute("DEALLOCATE ALL")
            await statement.fetchval()


@check
async def listen_and_notify():
    async with connected(2) as (listener, sender):
        heard = asyncio.Queue()
        await listener.add_listener("news", lambda *note: heard.put_nowait(note[2:]))
        for turn in range(3):
            await sender.execute("SELECT pg_notify('news', $1)", str(turn))
            same(await asyncio.wait_for(heard.get(), 10), ("news", str(turn)))
        await listener.reset()
        await sender.execute("NOTIFY news, 'unheard'")
        same(await listener.fetchval("SELECT 1"), 1)
        same(heard.empty(), True)


@check
async def cursors():
    """Portals that stay open between batches, and named ones."""

    async def client(number):
        async with connected() as (conn,), conn.transaction():
            query = "SELECT i + $1::int4 FROM generate_series(1, 50) i"
            same([row[0] async for row in conn.cursor(query, number, prefetch=7)], [i + number for i in range(1, 51)])
            cursor = await conn.cursor(query, number)
            same(await cursor.forward(40), 40)
            same(len(await cursor.fetch(20)), 10)

    await together_async(client)


@check
async def rows_in_portions():
    async def client(number):
        async with connected() as (conn,):
            for _ in range(5):
                statement = await conn.prepare("SELECT * FROM generate_series(1, $1::int4)")
                same(await statement.fetchval(1000 + number), 1)
                same(len(await statement.fetch(1000 + number)), 1000 + number)

    await together_async(client)


@check
async def temporary_tables():
    async with connected(2) as (conn, other):
        await conn.execute("CREATE TEMP TABLE scratch (id int4)")
        for turn in range(5):
            await conn.execute("INSERT INTO scratch VALUES ($1)", turn)
            with raises(asyncpg.UndefinedTableError):
                await other.fetch("SELECT * FROM scratch")
        same(await conn.fetchval("SELECT count(*) FROM scratch"), 5)
        await conn.execute("DROP TABLE scratch")


@check
async def copy_in_and_out():
    async with connected() as (owner,):
        await fresh_table(owner, "copied", "client int4, word text")

    async def client(number):
        async with connected() as (conn,):
            rows = [(number, f"word {turn}") for turn in range(200)]
            same(await conn.copy_records_to_table("copied", records=rows), "COPY 200")
            with raises(asyncpg.BadCopyFileFormatError, asyncpg.InvalidTextRepresentationError):
                await conn.copy_to_table("copied", source=io.BytesIO(b"no number\n"))
            output = io.BytesIO()
            await conn.copy_from_query("SELECT word FROM copied WHERE client = $1", number, output=output)
            same(len(output.getvalue().splitlines()), 200)

    await together_async(client)


@check
async def large_values():
    text = os.urandom(4 << 20).hex()

    async def client(number):
        async with connected() as (conn,):
            same(await conn.fetchval("SELECT $1::text", text) == text, True)
            same(len(await conn.fetchval("SELECT $1::bytea", text.encode())), len(text))

    await together_async(client, 4)


@check
async def cancel():
    """A timeout sends a cancel request, and the connection goes on."""
    async with connected(2) as (conn, other):
        with raises(asyncio.TimeoutError):
            await conn.fetch("/* asyncpg */ SELECT pg_sleep(15)", timeout=0.2)
        same(await conn.fetchval("SELECT 1"), 1)

        async def stopped():
            query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '/* asyncpg%'"
            return await other.fetchval(query) == 0

        await eventually_async("the query has stopped", stopped)


@check
async def killed_in_mid_transaction():
    async with connected() as (owner,):
        await fresh_table(owner, "killed", "client int4 PRIMARY KEY")

    async def client(number):
        conn = await connect()
        await conn.execute("BEGIN; INSERT INTO killed VALUES (0)")
        conn.terminate()
        async with connected() as (survivor,):
            same(await survivor.fetchval("SELECT $1::int4", number), number)

    await together_async(client)
    async with connected() as (conn,):
        await conn.execute("INSERT INTO killed VALUES (0)")


@check
async def notices():
    async with connected() as (conn,):
        heard = []
        conn.add_log_listener(lambda _, message: heard.append(message.message))
        for turn in range(3):
            async with Elsewhere():
                await conn.execute(f"DO $$ BEGIN RAISE WARNING 'turn {turn}'; END $$")
        await asyncio.sleep(0)
        same(heard, ["turn 0", "turn 1", "turn 2"])


@check
async def what_the_server_is():
    """asyncpg learns versions and features from the settings that are reported."""
    async with connected() as (conn,):
        same(conn.get_settings().server_encoding, "UTF8")
        same(conn.get_settings().client_encoding, "UTF8")
        same(conn.get_server_version().major >= 13, True)
        if DIRECT:
            same(conn.get_server_pid(), await conn.fetchval("SELECT pg_backend_pid()"))


if __name__ == "__main__":
    main()
