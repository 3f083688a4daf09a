// What the scenarios for Node share: named checks, each with a limit, one line of output for each.
"use strict";

const assert = require("node:assert/strict");

const CLIENTS = 12;
const LIMIT = 20_000;
const DIRECT = process.env.DRIVERS_WAY === "direct";

// What a check that has failed leaves behind may fail too.
process.on("unhandledRejection", () => {});

/** Makes all checks of `{name: async function}`, or those named on the command line, and ends the program. */
async function main(checks) {
  const wanted = process.argv.slice(2);
  const names = Object.keys(checks).filter((name) => wanted.length === 0 || wanted.includes(name));
  let failed = 0;
  for (const name of names) {
    const why = await outcome(checks[name]);
    failed += why ? 1 : 0;
    console.log(why ? `not ok ${name} - ${why}` : `ok ${name}`);
  }
  console.log(`1..${names.length}`);
  process.exit(failed ? 1 : 0);
}

async function outcome(check) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done within ${LIMIT} ms`)), LIMIT);
  });
  try {
    await Promise.race([check(), late]);
    return null;
  } catch (error) {
    const lines = [...String(error.stack).matchAll(/pg\.js:(\d+)/g)].map((match) => match[1]);
    return `${error.code ?? error.name}: ${error.message.replace(/\s+/g, " ").slice(0, 300)} (line ${lines.join(", ")})`;
  } finally {
    clearTimeout(timer);
  }
}

/** Fails unless the promise is rejected with this SQLSTATE. */
const fails = (promise, code) => assert.rejects(promise, (error) => (assert.equal(error.code, code), true));

/** Runs `client(number)` for many clients at once. */
const together = (client, clients = CLIENTS) => Promise.all(Array.from({ length: clients }, (_, i) => client(i)));

/** Waits until the condition, an async function, holds. */
async function eventually(what, condition) {
  const deadline = Date.now() + LIMIT - 1000;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

module.exports = { CLIENTS, DIRECT, assert, eventually, fails, main, together };
