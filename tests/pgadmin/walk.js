// A person at pgAdmin: opens both entries, looks around, asks, stops, edits. Everything goes through pgweir.
//
// Prints `ok NAME` or `not ok NAME - WHY` for each step and `1..COUNT` at the end. A step that fails ends the walk: the
// next would begin somewhere else.
'use strict';

const assert = require('node:assert/strict');
const { chromium } = require('playwright-core');
const { PgAdmin, until } = require('./pages.js');

const { PGADMIN_URL, PGADMIN_EMAIL, PGADMIN_PASSWORD, DATABASE_PASSWORD, CHROMIUM, SCREENSHOTS } = process.env;
const STOPPED = 'canceling statement due to user request';

const steps = {
  async the_application_entry_opens_with_the_certificate_verified({ pgadmin }) {
    await pgadmin.logIn(PGADMIN_URL, PGADMIN_EMAIL, PGADMIN_PASSWORD);
    await pgadmin.unfold('Servers', 'application');
    await pgadmin.connect('application', DATABASE_PASSWORD);
  },

  async the_dashboard_draws_its_charts({ pgadmin }) {
    await pgadmin.tab('Dashboard');
    await pgadmin.page.locator('.uplot').first().waitFor();
    await pgadmin.page.waitForResponse((response) => response.url().includes('/dashboard/dashboard_stats') && response.ok());
  },

  async the_tree_unfolds_down_to_a_table({ pgadmin }) {
    await pgadmin.unfold('Databases', 'myappdb', 'Schemas', 'myapp', 'Tables', 'weirs');
    await pgadmin.node('weirs').click();
    await pgadmin.tab('SQL');
    assert.match(await pgadmin.definition(), /name text .* NOT NULL/);
  },

  async a_query_is_answered(walk) {
    walk.tool = await walk.pgadmin.queryTool();
    await walk.tool.run('SELECT id, name FROM weirs ORDER BY id');
    await walk.tool.shows(['1|Teddington', '2|Molesey', '3|Sunbury']);
  },

  async the_stop_button_stops_a_long_query({ pgadmin, tool }) {
    await tool.start('SELECT pg_sleep(120)');
    await stop(tool);
    await tool.messages(STOPPED);
    await tool.status('The session is idle and there is no current transaction.');
    await tool.run("SELECT 'goes on'");
    await tool.shows(['goes on']);
  },

  async stopped_in_a_transaction_it_can_be_rolled_back({ tool }) {
    await tool.option('Auto commit');
    await tool.run('UPDATE weirs SET height = 9 WHERE id = 1');
    await tool.status('The session is idle in a valid transaction block.');
    await tool.start('SELECT pg_sleep(120)');
    await stop(tool);
    await tool.status('The session is idle in a failed transaction block.');
    await tool.button('Rollback').click();
    await tool.status('The session is idle and there is no current transaction.');
    await tool.option('Auto commit');
    await tool.run('SELECT height FROM weirs WHERE id = 1');
    await tool.shows(['2.00']);
  },

  async what_is_set_and_made_in_a_session_stays({ tool }) {
    await tool.run("SET work_mem = '5MB'");
    await tool.run('CREATE TEMP TABLE notes AS SELECT 7 AS seven');
    await tool.run("SELECT seven, current_setting('work_mem'), current_setting('bytea_output') FROM notes");
    await tool.shows(['7|5MB|hex']);
    await tool.run('DROP TABLE notes');
  },

  async notifications_arrive({ tool }) {
    await tool.run('LISTEN news');
    await tool.run("NOTIFY news, 'high water'");
    await tool.run('UNLISTEN news');
    await tool.tab('Notifications');
    await tool.tabPanel('notifications').getByText('high water').waitFor();
  },

  async a_plan_is_drawn({ tool }) {
    await tool.write('SELECT count(*) FROM weirs');
    await tool.button('Explain Analyze').click();
    await tool.tabPanel('explain').locator('svg', { hasText: 'Aggregate' }).first().waitFor();
  },

  async a_row_is_edited(walk) {
    const { pgadmin } = walk;
    await pgadmin.node('weirs').click();
    const rows = await pgadmin.tableData();
    await rows.shows(['1|Teddington|2.00|1811-06-01', '2|Molesey|1.90|1815-01-01', '3|Sunbury|2.10|[null]']);
    await edit(rows, 1, 3, 'Molesey, rebuilt');
    await pgadmin.page.getByText('Data saved successfully.').first().waitFor();
  },

  async the_read_only_entry_reads_and_does_not_write(walk) {
    const { pgadmin } = walk;
    await pgadmin.disconnect('application');
    await pgadmin.connect('read-only', DATABASE_PASSWORD);
    await pgadmin.unfold('Databases', 'myappdb', 'Schemas', 'myapp', 'Tables', 'weirs');
    await pgadmin.node('weirs').click();
    const rows = await pgadmin.tableData();
    await rows.shows(['1|Teddington|2.00|1811-06-01', '2|Molesey, rebuilt|1.90|1815-01-01', '3|Sunbury|2.10|[null]']);
    await edit(rows, 2, 3, 'not mine');
    await rows.messages('permission denied for table weirs');
  },
};

async function stop(tool) {
  const button = tool.button('Cancel query');
  await until('the query can be stopped', () => button.isEnabled());
  await button.click();
  await tool.ended();
}

async function edit(rows, row, column, text) {
  await rows.frame.locator('.rdg-row').nth(row).locator(`[aria-colindex="${column}"]`).dblclick();
  await rows.frame.locator('textarea.Editors-textarea').fill(text);
  await rows.frame.locator('button:visible', { hasText: 'OK' }).last().click();
  await rows.button('Save Data Changes').click();
}

async function main() {
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox', '--disable-dev-shm-usage'] });
  const page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
  const walk = { pgadmin: new PgAdmin(page, SCREENSHOTS) };
  let made = 0;
  for (const [name, step] of Object.entries(steps)) {
    made += 1;
    try {
      await step(walk);
      console.log(`ok ${name}`);
    } catch (error) {
      const why = String(error.message).split('\n').slice(0, 6).join(' | ');
      console.log(`not ok ${name} - ${why}; the page says: ${(await page.innerText('body').catch(String)).slice(-300)}`);
      process.exitCode = 1;
    }
    await walk.pgadmin.screenshot(`${String(made).padStart(2, '0')}-${name}`);
    if (process.exitCode) break;
  }
  await browser.close();
  console.log(`1..${Object.keys(steps).length}`);
}

main();
