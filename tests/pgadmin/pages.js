// What a person finds on pgAdmin's pages: the tree, query tools, dialogs. How pgAdmin names them is known here only.
'use strict';

const assert = require('node:assert/strict');

// Longer than anything takes that goes well.
const LIMIT = 30_000;

class PgAdmin {
  constructor(page, screenshots) {
    this.page = page;
    this.screenshots = screenshots;
    page.setDefaultTimeout(LIMIT);
  }

  async logIn(url, email, password) {
    await this.page.goto(url);
    await this.page.fill('input[name=email]', email);
    await this.page.fill('input[name=password]', password);
    await this.page.click('button[name=internal_button]');
    await this.node('Servers').waitFor();
  }

  // An entry of the tree by its name; pgAdmin adds how many there are below it.
  node(name) {
    const named = this.page.locator('.file-name', { hasText: new RegExp(`^${name}$`) });
    return this.page.locator('.file-entry', { has: named }).first();
  }

  // Unfolds each until the next, and so the last, is visible.
  async unfold(...names) {
    for (const [index, below] of names.slice(1).entries()) {
      if (await this.node(below).isVisible()) continue;
      await this.node(names[index]).locator('.directory-toggle').click();
      await this.node(below).waitFor();
    }
  }

  async connect(entry, password) {
    await this.node(entry).dblclick();
    await this.page.locator('input[type=password]:visible').fill(password);
    await this.page.locator('button[data-label=OK]:visible').click();
    await this.node('Databases').waitFor();
  }

  async disconnect(entry) {
    await this.node(entry).click({ button: 'right' });
    await this.page.locator('[role=menuitem]:visible', { hasText: 'Disconnect from server' }).click();
    await this.page.locator('button[data-label=Disconnect]:visible').click();
    await this.node('Databases').waitFor({ state: 'detached' });
  }

  async tab(name) {
    await this.page.locator('.dock-tab', { hasText: new RegExp(`^${name}`) }).first().click();
  }

  // The text of the editor on the SQL tab.
  async definition() {
    const editor = this.page.locator('.cm-content:visible').first();
    await editor.filter({ hasText: 'CREATE TABLE' }).waitFor();
    return editor.innerText();
  }

  async queryTool() {
    return this.#opened('Query Tool', 'is_query_tool=true');
  }

  async tableData() {
    return this.#opened('All Rows', 'is_query_tool=false');
  }

  async #opened(button, part) {
    const known = new Set(this.page.frames());
    await this.page.locator(`button[data-label="${button}"]:not([disabled])`).first().click();
    const isNew = (frame) => !known.has(frame) && frame.url().includes(part);
    await until(`${button} opens`, () => this.page.frames().some(isNew));
    const tool = new Tool(this.page, this.page.frames().find(isNew));
    await tool.status('The session is idle and there is no current transaction.');
    return tool;
  }

  async screenshot(name) {
    if (this.screenshots) await this.page.screenshot({ path: `${this.screenshots}/${name}.png` });
  }
}

// A query tool or a table's rows: a page within the page.
class Tool {
  constructor(page, frame) {
    this.page = page;
    this.frame = frame;
  }

  button(label) {
    return this.frame.locator(`button[data-label="${label}"]`);
  }

  async write(sql) {
    await this.frame.locator('.cm-content').first().click();
    await this.page.keyboard.press('Control+A');
    // Not typed: the editor would close what is opened, and propose words.
    await this.page.keyboard.insertText(sql);
  }

  // What one statement answers: rows, or the text of the Messages tab.
  async run(sql) {
    await this.start(sql);
    return this.ended();
  }

  async start(sql) {
    await this.write(sql);
    const asked = this.page.waitForResponse((response) => response.url().includes('/query_tool/start/'));
    await this.button('Execute script').click();
    const response = await asked;
    assert.ok(response.ok(), `${sql}: ${response.status()}`);
  }

  // Waits until nothing is under way.
  async ended() {
    await this.button('Execute script').and(this.frame.locator(':not([disabled])')).waitFor();
    await this.frame.locator('[data-label="Cancel query"][disabled]').waitFor();
  }

  async rows() {
    await this.frame.locator('.rdg-row').first().waitFor();
    return this.frame.locator('.rdg-row').evaluateAll((rows) =>
      rows.map((row) => [...row.querySelectorAll('.rdg-cell')].slice(1).map((cell) => cell.innerText).join('|')));
  }

  async shows(expected) {
    await until(`rows ${expected}`, async () => String(await this.rows()) === String(expected), () => this.rows());
  }

  // Waits until the Messages tab has that, whichever tab is in front.
  async messages(part) {
    await this.tabPanel('messages').locator('textarea', { hasText: part }).waitFor({ state: 'attached' });
  }

  // The words for the state of the session that the first button has.
  async status(words) {
    await this.frame.locator(`button[data-label="${words}"]`).waitFor();
  }

  async option(name) {
    await this.button('Execute options').click();
    await this.frame.locator('[role=menuitem]:visible', { hasText: name }).click();
    await this.page.keyboard.press('Escape');
  }

  // `messages`, `notifications`, `explain`
  tabPanel(name) {
    return this.frame.locator(`[id="id-${name}"]`);
  }

  async tab(name) {
    await this.frame.locator('.dock-tab', { hasText: new RegExp(`^${name}`) }).first().click();
  }
}

async function until(what, condition, seen = () => '') {
  const deadline = Date.now() + LIMIT;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`not within ${LIMIT / 1000} s: ${what} ${await seen()}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

module.exports = { PgAdmin, until };
