"""psycopg 3 with asyncio: the same protocol by other code paths, and the async pool."""

import asyncio

import psycopg
from psycopg import errors
from psycopg_pool import AsyncConnectionPool

from scenario import check, eventually_async, main, raises, same, together_async


async def connect(**options):
    """A connection in autocommit mode."""
    return await psycopg.AsyncConnection.connect(autocommit=True, **options)


async def value(conn, query, arguments=None):
    """The first column of the first row."""
    return (await (await conn.execute(query, arguments)).fetchone())[0]


@check
async def named_statements():
    async def client(number):
        async with await connect(prepare_threshold=0) as conn:
            for turn in range(25):
                same(await value(conn, f"SELECT {number} * 1000 + %s::int4", [turn]), number * 1000 + turn)
                async with conn.transaction():
                    same(await value(conn, f"SELECT '{number}' || %s::text", [str(turn)]), f"{number}{turn}")

    await together_async(client)


@check
async def pipeline():
    async def client(number):
        async with await connect(prepare_threshold=0) as conn:
            for turn in range(10):
                async with conn.pipeline():
                    cursors = [await conn.execute(f"SELECT {i} + %s::int4", [number]) for i in range(15)]
                    found = [(await cursor.fetchone())[0] for cursor in cursors]
                same(found, [i + number for i in range(15)])
                with raises(errors.DivisionByZero):
                    async with conn.pipeline():
                        await conn.execute("SELECT 1 / %s::int4", [0])
                        await conn.execute(f"SELECT 'skipped {turn}' || %s::text", ["!"])
                same(await value(conn, f"SELECT 'skipped {turn}' || %s::text", ["!"]), f"skipped {turn}!")

    await together_async(client)


@check
async def tasks_in_a_pipeline():
    """Several tasks use one connection, whose pipeline takes them all."""
    async with await connect(prepare_threshold=0) as conn, conn.pipeline():

        async def task(number):
            for turn in range(10):
                same(await value(conn, f"SELECT {number} + %s::int4", [turn]), number + turn)

        await together_async(task)


@check
async def savepoints():
    async def client(number):
        async with await connect(prepare_threshold=0) as conn:
            for _ in range(5):
                async with conn.transaction():
                    with raises(errors.DivisionByZero):
                        async with conn.transaction():
                            await conn.execute("SELECT 1 / %s::int4", [0])
                    same(await value(conn, "SELECT %s::int4", [number]), number)

    await together_async(client)


@check
async def settings_are_kept():
    async def client(number):
        async with await connect() as conn:
            if number % 3 == 0:
                await conn.execute(f"SET work_mem = '{number + 64}MB'")
            expected = f"{number + 64}MB" if number % 3 == 0 else "4MB"
            for _ in range(15):
                same(await value(conn, "SHOW work_mem"), expected)

    await together_async(client)


@check
async def listen_and_notify():
    async with await connect() as listener, await connect() as sender:
        await listener.execute("LISTEN news")
        for turn in range(3):
            await sender.execute(f"NOTIFY news, '{turn}'")
        received = [note async for note in listener.notifies(timeout=10, stop_after=3)]
        same([note.payload for note in received], ["0", "1", "2"])
        await listener.execute("UNLISTEN news")


@check
async def rows_one_by_one():
    async def client(number):
        async with await connect() as conn, conn.cursor() as cursor:
            rows = cursor.stream("SELECT i + %s FROM generate_series(1, 500) i", [number])
            same(sum([row[0] async for row in rows]), 125250 + 500 * number)

    await together_async(client)


@check
async def server_cursors():
    async def client(number):
        async with await connect() as conn, conn.transaction(), conn.cursor("mine") as cursor:
            cursor.itersize = 7
            await cursor.execute("SELECT i + %s FROM generate_series(1, 50) i", [number])
            same([row[0] async for row in cursor], [i + number for i in range(1, 51)])

    await together_async(client)


@check
async def copy_in_and_out():
    async with await connect() as owner:
        await owner.execute("DROP TABLE IF EXISTS copied_async")
        await owner.execute("CREATE TABLE copied_async (client int4, word text)")

    async def client(number):
        async with await connect() as conn, conn.cursor() as cursor:
            async with cursor.copy("COPY copied_async FROM STDIN") as copy:
                for turn in range(100):
                    await copy.write_row((number, f"word {turn}"))
            with raises(errors.InvalidTextRepresentation):
                async with cursor.copy("COPY copied_async FROM STDIN") as copy:
                    await copy.write("no number\tword\n")
            async with cursor.copy(f"COPY (SELECT 1 FROM copied_async WHERE client = {number}) TO STDOUT") as copy:
                same(len([row async for row in copy.rows()]), 100)

    await together_async(client)


@check
async def cancel():
    """A task that is cancelled cancels its query."""
    async with await connect() as conn, await connect() as other:
        task = asyncio.create_task(conn.execute("/* async */ SELECT pg_sleep(15)"))

        async def runs():
            query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '/* async%'"
            return await value(other, query) == 1

        await eventually_async("the query runs", runs)
        task.cancel()
        with raises(asyncio.CancelledError):
            await task
        same(await value(other, "SELECT 1"), 1)

        async def stopped():
            return not await runs()

        await eventually_async("the query has stopped", stopped)


@check
async def pool():
    kwargs = {"prepare_threshold": 0}
    async with AsyncConnectionPool(min_size=4, max_size=8, kwargs=kwargs, open=False) as pool:

        async def client(number):
            for turn in range(10):
                async with pool.connection() as conn:
                    same(await value(conn, f"SELECT {number} + %s::int4", [turn]), number + turn)
                with raises(errors.DivisionByZero):
                    async with pool.connection() as conn:
                        await conn.execute("SELECT 1 / %s::int4", [0])

        await together_async(client)


if __name__ == "__main__":
    main()
