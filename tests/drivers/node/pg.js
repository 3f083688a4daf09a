// node-postgres: named statements that it parses once for each connection, portals with row limits, its pool.
"use strict";

const { once } = require("node:events");
const { Client, Pool, Query } = require("pg");
const Cursor = require("pg-cursor");
const { CLIENTS, DIRECT, assert, eventually, fails, main, together } = require("./scenario.js");

/** Runs `body(...clients)` with so many connections, and closes them. */
async function connected(count, body, options = {}) {
  const clients = Array.from({ length: count }, () => new Client(options));
  // A connection that is ended by the server says so here too.
  clients.forEach((client) => client.on("error", () => {}));
  try {
    await Promise.all(clients.map((client) => client.connect()));
    return await body(...clients);
  } finally {
    clients.forEach((client) => client.end().catch(() => {}));
  }
}

/** Runs `body` while the server connection that was used last is busy, so that a pool has to use another one. */
const elsewhere = (body) =>
  connected(1, async (other) => {
    await other.query("BEGIN");
    const result = await body();
    await other.query("ROLLBACK");
    return result;
  });

/** The first column of the first row. */
async function value(client, text, values, name) {
  const { rows } = await client.query({ text, values, name, rowMode: "array" });
  return rows[0][0];
}

async function freshTable(client, name, columns) {
  await client.query(`DROP TABLE IF EXISTS ${name}`);
  await client.query(`CREATE TABLE ${name} (${columns})`);
}

const checks = {
  // The same name stands for another text at every client.
  named_statements: () =>
    together((number) =>
      connected(1, async (client) => {
        for (let turn = 0; turn < 25; turn++) {
          assert.equal(await value(client, `SELECT ${number} * 1000 + $1::int4`, [turn], "mine"), number * 1000 + turn);
          await client.query("BEGIN");
          assert.equal(await value(client, `SELECT '${number} ' || $1`, [`${turn}`], "yours"), `${number} ${turn}`);
          await client.query("COMMIT");
        }
      }),
    ),

  // node-postgres has all of them under way at once, each with a Sync of its own.
  queued_queries: () =>
    together((number) =>
      connected(1, async (client) => {
        const turns = Array.from({ length: 50 }, (_, turn) => turn);
        const sums = turns.map((turn) => value(client, `SELECT ${number} + $1::int4`, [turn], `q${turn % 5}`));
        assert.deepEqual(await Promise.all(sums), turns.map((turn) => number + turn));
      }),
    ),

  stale_plan: () =>
    connected(2, async (client, owner) => {
      await freshTable(owner, "stale", "id int4");
      await owner.query("INSERT INTO stale VALUES (1)");
      const ask = async () => (await client.query({ name: "stale", text: "SELECT * FROM stale" })).rows;
      assert.deepEqual(await ask(), [{ id: 1 }]);
      await owner.query("ALTER TABLE stale ADD COLUMN word text DEFAULT 'new'");
      if (DIRECT) {
        await fails(ask(), "0A000");
      } else {
        assert.deepEqual(await ask(), [{ id: 1, word: "new" }]);
        assert.deepEqual(await elsewhere(ask), [{ id: 1, word: "new" }]);
      }
    }),

  table_made_again: () =>
    connected(2, async (client, owner) => {
      for (let content = 0; content < 4; content++) {
        await freshTable(owner, "again", "id int4");
        await owner.query(`INSERT INTO again VALUES (${content})`);
        assert.equal(await value(client, "SELECT * FROM again", [], "again"), content);
      }
    }),

  failed_parse: () =>
    connected(1, async (client) => {
      await fails(value(client, "SELECT nothing FROM nowhere", [], "mine"), "42P01");
      assert.equal(await value(client, "SELECT $1::int4", [7], "mine"), 7);
      assert.equal(await elsewhere(() => value(client, "SELECT $1::int4", [8], "mine")), 8);
      await fails(value(client, "SELECT 1 / $1::int4", [0], "divided"), "22012");
      assert.equal(await value(client, "SELECT 1 / $1::int4", [1], "divided"), 1);
    }),

  deallocate: () =>
    connected(1, async (client) => {
      for (const word of ["DEALLOCATE mine", "DEALLOCATE ALL", "DISCARD ALL"]) {
        assert.equal(await value(client, "SELECT $1::int4", [1], "mine"), 1);
        await client.query(word);
        // The driver believes that the statement is still there.
        await fails(value(client, "SELECT $1::int4", [1], "mine"), "26000");
        delete client.connection.parsedStatements.mine;
        assert.equal(await elsewhere(() => value(client, "SELECT $1::int4", [2], "mine")), 2);
      }
    }),

  unnamed_statements: () =>
    together((number) =>
      connected(1, async (client) => {
        for (let turn = 0; turn < 25; turn++) {
          assert.equal(await value(client, `SELECT ${number} + $1::int4`, [turn]), number + turn);
        }
      }),
    ),

  // Execute with a limit, PortalSuspended, and Execute again before the Sync.
  rows_in_portions: () =>
    together((number) =>
      connected(1, async (client) => {
        const text = "SELECT i + $1::int4 AS i FROM generate_series(1, 50) i";
        const { rows } = await client.query({ text, values: [number], rows: 7, name: "portions" });
        assert.deepEqual(rows.map((row) => row.i), Array.from({ length: 50 }, (_, i) => i + 1 + number));
      }),
    ),

  // A portal that stays open over Flushes, without a transaction.
  cursors: () =>
    together((number) =>
      connected(1, async (client) => {
        const cursor = client.query(new Cursor("SELECT i + $1::int4 AS i FROM generate_series(1, 30) i", [number]));
        assert.equal((await cursor.read(10)).length, 10);
        assert.equal((await cursor.read(10))[9].i, 20 + number);
        await cursor.close();
        const broken = client.query(new Cursor("SELECT 1 / (i - 5) FROM generate_series(1, 30) i"));
        await fails(broken.read(100), "22012");
        assert.equal(await value(client, "SELECT $1::int4", [number]), number);
      }),
    ),

  cursor_with_hold: () =>
    connected(1, async (client) => {
      await client.query("DECLARE held CURSOR WITH HOLD FOR SELECT * FROM generate_series(1, 30)");
      for (let turn = 0; turn < 3; turn++) {
        assert.equal((await elsewhere(() => client.query("FETCH 10 FROM held"))).rows.length, 10);
      }
      await client.query("CLOSE held");
      await fails(client.query("FETCH 10 FROM held"), "34000");
    }),

  savepoints: () =>
    together((number) =>
      connected(1, async (client) => {
        for (let turn = 0; turn < 5; turn++) {
          await client.query("BEGIN");
          await client.query("SAVEPOINT before");
          await fails(value(client, "SELECT 1 / $1::int4", [0], "divided"), "22012");
          await fails(value(client, "SELECT $1::int4", [1], "in a failed transaction"), "25P02");
          await client.query("ROLLBACK TO SAVEPOINT before");
          assert.equal(await value(client, "SELECT $1::int4", [number], "in a failed transaction"), number);
          await client.query("COMMIT");
        }
      }),
    ),

  settings_are_kept: () =>
    together((number) =>
      connected(1, async (client) => {
        const mine = number % 3 === 0;
        if (mine) {
          await client.query(`SET work_mem = '${number + 64}MB'; SET search_path = s${number}, public`);
          await client.query("SELECT set_config('mine.tenant', $1, false)", [`it's ${number} µ€ \\ "x"`]);
          await client.query("BEGIN; SET work_mem = '1MB'; SET lock_timeout = 5; ROLLBACK");
        }
        for (let turn = 0; turn < 10; turn++) {
          assert.equal(await value(client, "SHOW work_mem"), mine ? `${number + 64}MB` : "4MB");
          assert.equal(await value(client, "SHOW search_path"), mine ? `s${number}, public` : '"$user", public');
          const tenant = await value(client, "SELECT current_setting('mine.tenant', true)");
          assert.equal(tenant || "", mine ? `it's ${number} µ€ \\ "x"` : "");
          assert.equal(await value(client, "SHOW lock_timeout"), "0");
        }
      }),
    ),

  set_role: () =>
    together((number) =>
      connected(1, async (client) => {
        const role = number % 2 ? "visitor" : "app";
        await client.query(`SET ROLE ${role}`);
        for (let turn = 0; turn < 10; turn++) {
          assert.equal(await value(client, "SELECT current_user", [], "who"), role);
        }
      }),
    ),

  startup_options: () =>
    together((number) =>
      connected(
        1,
        async (client) => {
          for (let turn = 0; turn < 5; turn++) {
            assert.equal(await value(client, "SHOW work_mem"), `${number + 64}MB`);
            assert.equal(await value(client, "SHOW statement_timeout"), `${number + 7001}ms`);
            assert.equal(await value(client, "SHOW application_name"), `app ${number}`);
          }
        },
        {
          options: `-c work_mem=${number + 64}MB`,
          statement_timeout: number + 7001,
          idle_in_transaction_session_timeout: 7000,
          application_name: `app ${number}`,
        },
      ),
    ),

  temporary_tables: () =>
    connected(2, async (client, other) => {
      await client.query("CREATE TEMP TABLE scratch (id int4)");
      for (let turn = 0; turn < 5; turn++) {
        await client.query("INSERT INTO scratch VALUES ($1)", [turn]);
        await fails(other.query("SELECT * FROM scratch"), "42P01");
      }
      assert.equal(await value(client, "SELECT count(*)::int4 FROM scratch"), 5);
      await client.query("DISCARD ALL");
      await fails(client.query("SELECT * FROM scratch"), "42P01");
    }),

  listen_and_notify: () =>
    connected(2, async (listener, sender) => {
      await listener.query("LISTEN news");
      for (let turn = 0; turn < 3; turn++) {
        const heard = once(listener, "notification");
        await sender.query("SELECT pg_notify('news', $1)", [`${turn}`]);
        const [note] = await heard;
        assert.deepEqual([note.channel, note.payload], ["news", `${turn}`]);
      }
      await listener.query("UNLISTEN news");
    }),

  advisory_locks: () =>
    connected(2, async (holder, other) => {
      await holder.query("SELECT pg_advisory_lock($1)", [42]);
      for (let turn = 0; turn < 4; turn++) {
        assert.equal(await value(other, "SELECT pg_try_advisory_lock($1)", [42]), false);
        assert.equal(await value(holder, "SELECT 1"), 1);
      }
      assert.equal(await value(holder, "SELECT pg_advisory_unlock($1)", [42]), true);
      assert.equal(await value(other, "SELECT pg_try_advisory_lock($1)", [42]), true);
      assert.equal(await value(other, "SELECT pg_advisory_unlock($1)", [42]), true);
    }),

  // node-postgres answers a CopyInResponse with CopyFail by itself, and takes COPY TO for a query without rows.
  copy: () =>
    together((number) =>
      connected(1, async (client) => {
        await fails(client.query("COPY pg_class FROM STDIN"), "42501");
        await fails(client.query("CREATE TEMP TABLE gone AS SELECT 1 AS id; COPY gone FROM STDIN"), "57014");
        assert.equal((await client.query("COPY (SELECT 1 FROM generate_series(1, 100)) TO STDOUT")).rows.length, 0);
        assert.equal(await value(client, "SELECT $1::int4", [number]), number);
      }),
    ),

  large_values: () =>
    together(async (number) => {
      const text = `${number}`.repeat(4 << 20);
      await connected(1, async (client) => {
        assert.ok((await value(client, "SELECT $1::text", [text], "large")) === text);
        assert.ok((await value(client, "SELECT $1::bytea", [Buffer.from(text)], "large bytes")).equals(Buffer.from(text)));
      });
    }, 4),

  many_rows: () =>
    together((number) =>
      connected(1, async (client) => {
        const text = "SELECT i, 'row ' || i AS word FROM generate_series(1, $1::int4) i";
        const { rows } = await client.query({ text, values: [10000 + number], name: "many" });
        assert.deepEqual(rows.at(-1), { i: 10000 + number, word: `row ${10000 + number}` });
      }),
    ),

  binary_results: () =>
    connected(1, async (client) => {
      const text = "SELECT $1::int4 AS i, $2::text AS t, $3::bool AS b";
      for (const binary of [true, false]) {
        const { rows } = await client.query({ text, values: [1, "words", true], binary, name: "formats" });
        assert.deepEqual(rows, [{ i: 1, t: "words", b: true }]);
      }
    }),

  cancel: () =>
    connected(2, async (client, other) => {
      const query = new Query("/* node */ SELECT pg_sleep(15)");
      const stopped = fails(once(client.query(query), "end"), "57014");
      const text = "SELECT count(*)::int4 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '/* node */%'";
      await eventually("the query runs", async () => (await value(other, text)) === 1);
      new Client().cancel(client, query);
      await stopped;
      assert.equal(await value(client, "SELECT 1"), 1);
    }),

  killed_in_mid_transaction: () =>
    connected(1, async (owner) => {
      await freshTable(owner, "killed", "client int4 PRIMARY KEY");
      await together((number) =>
        connected(2, async (client, survivor) => {
          await client.query("BEGIN; INSERT INTO killed VALUES (0)");
          client.connection.stream.destroy();
          assert.equal(await value(survivor, "SELECT $1::int4", [number], "alive"), number);
        }),
      );
      await owner.query("INSERT INTO killed VALUES (0)");
    }),

  notices: () =>
    connected(1, async (client) => {
      const heard = [];
      client.on("notice", (notice) => heard.push(notice.message));
      for (let turn = 0; turn < 3; turn++) {
        await elsewhere(() => client.query(`DO $$ BEGIN RAISE WARNING 'turn ${turn}'; END $$`));
      }
      assert.deepEqual(heard, ["turn 0", "turn 1", "turn 2"]);
    }),

  multiple_statements: () =>
    connected(1, async (client) => {
      const results = await client.query("SELECT 1 AS one; SELECT 2 AS two; SET work_mem = '5MB'; SELECT 3 AS three");
      assert.deepEqual(results.map((result) => result.command), ["SELECT", "SELECT", "SET", "SELECT"]);
      await fails(client.query("SELECT 1; SELECT 1 / 0; SELECT 2"), "22012");
      assert.equal(await elsewhere(() => value(client, "SHOW work_mem")), "5MB");
    }),

  pool: async () => {
    const pool = new Pool({ max: 8, min: 4 });
    await together(async (number) => {
      for (let turn = 0; turn < 10; turn++) {
        assert.equal(await value(pool, `SELECT ${turn} + $1::int4`, [number], `sum ${turn}`), number + turn);
      }
      await fails(pool.query("SELECT 1 / 0"), "22012");
    });
    assert.ok(pool.totalCount <= CLIENTS);
    await pool.end();
  },
};

main(checks);
