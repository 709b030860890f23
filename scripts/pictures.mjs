// Makes the pictures of the README: the end of a run in the terminal, and its report.
//
//   BROWSER_TOOLS=target/browser-tools node scripts/pictures.mjs target/release/llm-stream-bench
//
// `playwright-core` is resolved from the folder that the variable BROWSER_TOOLS names.
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const binary = resolve(process.argv[2]);
const require = createRequire(join(resolve(process.env.BROWSER_TOOLS ?? '.'), 'package.json'));
const { chromium } = require('playwright-core');

const CONFIG = `
runs: 6
thresholds: ["success_rate >= 90 %", "ttft median <= 80 ms"]
goodput: ["ttft <= 80 ms", "tpot <= 8 ms"]
models:
  old-build:
    simulate: { ttft: 60ms, itl: 5ms, jitter: 2ms, tokens: 48, seed: 1 }
  new-build:
    simulate: { ttft: 62ms, itl: 5.6ms, jitter: 2ms, tokens: 48, seed: 2 }
    thresholds: ["generation_speed >= -3 % of old-build"]
  thinking:
    simulate: { ttft: 40ms, itl: 7ms, jitter: 2ms, tokens: 40, reasoning_tokens: 16, seed: 3 }
`;

const folder = mkdtempSync(join(tmpdir(), 'pictures-'));
writeFileSync(join(folder, 'configs.yaml'), CONFIG);
const command = `"${binary}" run --output-dir llm-stream-bench/nightly 2>&1`;
const run = spawnSync('sh', ['-c', command], { cwd: folder, encoding: 'utf8' });
const lines = run.stdout.slice(run.stdout.indexOf('\nSummary')).trim().replaceAll(`${folder}/`, '…/').split('\n');

const escape = text => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
const coloured = line => escape(line)
  .replace(/(FAIL(ED)?\b.*)/, '<b class=fail>$1</b>')
  .replace(/(\bpass(ed)?\b)/, '<b class=pass>$1</b>');
const terminal = `<!doctype html><meta charset=utf-8><style>
  body { margin: 0; background: #14171a }
  pre { margin: 0; padding: 18px 22px; width: max-content; color: #e6e9eb; font: 14px/1.45 "DejaVu Sans Mono", monospace }
  .prompt { color: #9fa9b1 } .pass { color: #4fc9a0 } .fail { color: #ff9a70 }
</style><pre><span class=prompt>$ cargo bench</span>\n…\n${lines.map(coloured).join('\n')}</pre>`;
writeFileSync(join(folder, 'terminal.html'), terminal);

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking'],
});
const page = await browser.newPage({ viewport: { width: 1152, height: 1180 }, colorScheme: 'light' });
await page.goto(pathToFileURL(join(folder, 'terminal.html')).href);
await page.locator('pre').screenshot({ path: 'docs/terminal.png' });
await page.goto(pathToFileURL(join(folder, 'llm-stream-bench/nightly/report.html')).href);
await page.screenshot({ path: 'docs/report.png' });
await browser.close();
