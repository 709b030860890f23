// Opens reports of the real binary in Chromium and checks what a reader sees.
//
//   node check.mjs BINARY OUTPUT_FOLDER
//
// `playwright-core` and `axe-core` are resolved from the folder that the variable BROWSER_TOOLS names;
// `.ci/run` installs them there. The pictures in OUTPUT_FOLDER are for people to look at.
import { createRequire } from 'node:module';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { makeReports } from './reports.mjs';

const [binary, output] = process.argv.slice(2).map(path => resolve(path));
const require = createRequire(join(resolve(process.env.BROWSER_TOOLS ?? '.'), 'package.json'));
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

const problems = [];
let checks = 0;
const check = (holds, problem) => {
  checks++;
  if (!holds) problems.push(problem);
};

/** The value at a path such as `groups/0/metrics/ttft/median`. */
const at = (document, path) => path.split('/').reduce((value, key) => value?.[key], document);

/** Runs in the page: what its charts and figures are. */
const inspect = () => {
  const visible = element => element.getClientRects().length > 0;
  const charts = [...document.querySelectorAll('figure')].map(figure => ({
    title: figure.querySelector('h3')?.textContent.trim() ?? '',
    hasTable: !!figure.querySelector('table'),
    isTable: !figure.querySelector('svg'),
    plots: [...figure.querySelectorAll('svg.plot')].filter(visible).map(svg => ({
      label: svg.getAttribute('aria-label') ?? '',
      marks: svg.querySelectorAll('path.ln, path.ds, path.ar1, circle, rect.ph, path.wid').length,
      axes: [...svg.querySelectorAll('text.at')].map(text => text.textContent),
      ticks: svg.querySelectorAll('text.ax').length,
    })),
  }));
  const outside = [], overlapping = [];
  for (const svg of [...document.querySelectorAll('svg')].filter(visible)) {
    const frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll('text')].map(text => [text, text.getBoundingClientRect()]);
    for (const [text, box] of texts) {
      if (box.left < frame.left - 3 || box.right > frame.right + 3 || box.top < frame.top - 3 || box.bottom > frame.bottom + 3) {
        outside.push(`${svg.getAttribute('aria-label')?.slice(0, 50)}: "${text.textContent}"`);
      }
    }
    const labels = texts.filter(([text]) => text.classList.contains('ax'));
    labels.forEach(([text, a], i) => labels.slice(i + 1).forEach(([other, b]) => {
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (x > 0.5 && y > 3) overlapping.push(`${svg.getAttribute('aria-label')?.slice(0, 50)}: "${text.textContent}", "${other.textContent}"`);
    }));
  }
  return {
    charts, outside, overlapping,
    width: document.documentElement.scrollWidth,
    figures: [...document.querySelectorAll('[data-json]')].map(element => ({
      path: element.dataset.json, run: +(element.dataset.run ?? 0), scale: +(element.dataset.scale ?? 1), text: element.textContent,
    })),
    sections: [...document.querySelectorAll('main > section')].map(section => section.id),
    links: [...document.querySelectorAll('a[href^="#"]')].map(link => link.getAttribute('href').slice(1)),
    smallest: Math.min(...[...document.querySelectorAll('svg:not(thead svg)')].filter(visible)
      .flatMap(svg => [...svg.querySelectorAll('text')].map(text => {
        const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
        return parseFloat(getComputedStyle(text).fontSize) * scale;
      }))),
    hacked: window.hacked, images: document.images.length,
  };
};

/** A unit in the name of an axis. Shares, counts and numbers of requests have their own words. */
const UNIT = /\bms\b|\bs\b|seconds|tok\/s|req\/s|tokens|events?|streams|share of|request|percent|%/;

const checkFigures = (name, figures, results) => {
  check(figures.length > 10, `${name}: only ${figures.length} figures name their place in run.json`);
  for (const { path, run, scale, text } of figures) {
    const value = at(results[run], path);
    const shown = Number(text.replace('−', '-'));
    const decimals = (text.split('.')[1] ?? '').length;
    const half = 0.5 * 10 ** -decimals * (1 + 1e-9) + 1e-12;
    check(typeof value === 'number' && Math.abs(shown - value * scale) <= half,
      `${name}: ${path} of run ${run} is ${value} × ${scale}, the page shows ${text}`);
  }
};

const checkCharts = (name, charts) => {
  check(charts.length > 4, `${name}: only ${charts.length} charts`);
  for (const { title, plots, isTable } of charts) {
    check(title.length > 3, `${name}: a chart without a title`);
    check(isTable || plots.length === 1, `${name}: ${title}: ${plots.length} pictures are visible`);
    for (const { label, marks, axes, ticks } of plots) {
      check(label.length > 10, `${name}: ${title}: no text for screen readers`);
      check(marks > 0, `${name}: ${title}: no data`);
      check(ticks >= 3, `${name}: ${title}: ${ticks} labels of axes`);
      check(axes.length >= 1 && axes.every(axis => UNIT.test(axis)), `${name}: ${title}: an axis without a unit: ${axes}`);
    }
  }
};

const checkAxe = async (page, name) => {
  await page.evaluate(() => document.querySelectorAll('details').forEach(details => { details.open = true; }));
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  for (const { id, help, nodes } of violations) {
    check(false, `${name}: axe: ${id}: ${help}: ${nodes.length} × ${nodes[0].html.slice(0, 160)} ${nodes[0].failureSummary ?? ''}`);
  }
  check(true);
};

/** The time until the page is drawn: the fastest of three, because the machine may do other work. */
const drawn = async (context, url) => {
  const times = [];
  for (let i = 0; i < 3; i++) {
    const page = await context.newPage();
    await page.goto(url);
    times.push(await page.evaluate(() => new Promise(done =>
      requestAnimationFrame(() => setTimeout(() => done(performance.now()))))));
    await page.close();
  }
  return Math.min(...times);
};

const checkKeyboard = async (page, name) => {
  const plot = page.locator('svg.plot[data-hov]').first();
  await plot.focus();
  await page.keyboard.press('ArrowRight');
  const tip = page.locator('#tip');
  check(await tip.isVisible() && (await tip.textContent()).length > 3, `${name}: arrow keys show no value`);
  await page.keyboard.press('Escape');
  check(!await tip.isVisible(), `${name}: Escape leaves the values`);
  const model = page.locator('.keys button').first();
  if (await model.count()) {
    await model.click();
    check(await model.getAttribute('aria-pressed') === 'true', `${name}: a model cannot be shown alone`);
    await page.keyboard.press('Escape');
    check(await model.getAttribute('aria-pressed') === 'false', `${name}: Escape does not show all models again`);
  }
};

const checkAt = async (browser, report, width, colorScheme) => {
  const name = `${report.name}, ${width} px, ${colorScheme}`;
  const url = pathToFileURL(report.file).href;
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme });
  const page = await context.newPage();
  page.on('pageerror', error => check(false, `${name}: ${error.message}`));
  page.on('console', message => check(false, `${name}: console: ${message.text()}`));
  page.on('request', request => check(request.url() === url, `${name}: requests ${request.url()}`));
  await page.goto(url);
  const seen = await page.evaluate(inspect);
  check(seen.width <= width, `${name}: ${seen.width} px wide`);
  seen.outside.forEach(text => check(false, `${name}: outside of its picture: ${text}`));
  seen.overlapping.forEach(text => check(false, `${name}: labels overlap: ${text}`));
  check(seen.smallest >= 9.5, `${name}: text of ${seen.smallest} px`);
  check(seen.hacked === undefined && seen.images === 0, `${name}: hostile text is not inert`);
  seen.links.forEach(link => check(seen.sections.includes(link), `${name}: no section #${link}`));
  checkCharts(name, seen.charts);
  checkFigures(name, seen.figures, report.results);
  await page.screenshot({ path: join(output, `${report.name}-${width}-${colorScheme}.png`), fullPage: true });
  await checkKeyboard(page, name);
  // Contrast depends on the colours alone.
  if (width > 400 || colorScheme === 'light') await checkAxe(page, name);
  const open = await page.evaluate(() => document.documentElement.scrollWidth);
  check(open <= width, `${name}: with open tables ${open} px wide`);
  await context.close();
};

/** Without a script the page has the same content. */
const checkWithoutScript = async (browser, report) => {
  const content = async javaScriptEnabled => {
    const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, javaScriptEnabled });
    const page = await context.newPage();
    await page.goto(pathToFileURL(report.file).href);
    const texts = await page.locator('main').innerText();
    const pictures = await page.locator('svg').count();
    await context.close();
    return { texts: texts.replace(/\b(Enlarge|Copy)\b/g, '').replace(/\s+/g, ' '), pictures };
  };
  const [withScript, without] = [await content(true), await content(false)];
  check(withScript.texts === without.texts, `${report.name}: other text without a script`);
  check(withScript.pictures === without.pictures, `${report.name}: other pictures without a script`);
};

/** Printing: light, without controls, and as vectors. */
const checkPrint = async (browser, report) => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: 'dark' });
  const page = await context.newPage();
  await page.goto(pathToFileURL(report.file).href);
  await page.emulateMedia({ media: 'print' });
  const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  check(background === 'rgb(255, 255, 255)', `${report.name}: printed on ${background}`);
  const controls = await page.locator('.copy button:visible, .zoom:visible').count();
  check(controls === 0, `${report.name}: prints ${controls} buttons`);
  const pdf = await page.pdf({ preferCSSPageSize: true, printBackground: true });
  check(!pdf.includes('/Subtype /Image'), `${report.name}: a picture is printed as pixels`);
  writeFileSync(join(output, `${report.name}-print.pdf`), pdf);
  await context.close();
};

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update'],
});
for (const report of makeReports(binary, output)) {
  const { size } = statSync(report.file);
  check(size < (report.isLarge ? 1_000_000 : 300_000), `${report.name}: ${size} bytes`);
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  const time = await drawn(context, pathToFileURL(report.file).href);
  await context.close();
  check(time < 1000, `${report.name}: drawn after ${time.toFixed(0)} ms`);
  const seconds = report.seconds ? `, written in ${report.seconds.toFixed(1)} s` : '';
  console.log(`${report.name}: ${size} bytes, drawn in ${time.toFixed(0)} ms${seconds}`);
  // The lines of the large one are not those of its run.json.
  if (report.isLarge) continue;
  for (const width of [400, 1280]) for (const scheme of ['light', 'dark']) await checkAt(browser, report, width, scheme);
  await checkWithoutScript(browser, report);
  await checkPrint(browser, report);
}
await browser.close();
problems.forEach(problem => console.error(`FAILED: ${problem}`));
console.log(`${checks} checks, ${problems.length} failed`);
process.exitCode = problems.length > 0 ? 1 : 0;
