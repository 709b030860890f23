// The reports that the browser opens: runs of the real binary against simulated models.
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** A name that would run a script if the page did not escape it. */
export const HOSTILE = 'evil"><img src=x onerror=hacked=1><script>hacked=1</script>';

const single = (ttft, itl) => `
runs: 4
thresholds: ["success_rate >= 90 %", "ttft median <= 80 ms", "generation_speed >= 400", "tpot median <= 2.5 ms"]
models:
  Qwen3-30B-A3B:
    simulate: { ttft: ${ttft}ms, itl: ${itl}ms, jitter: 1ms, tokens: 48, reasoning_tokens: 12, seed: 1 }
`;

const ten = () => {
  const names = ['gpt-oss-20b', 'Qwen3-30B-A3B', 'Llama-3.3-70B', 'Mistral-Small-24B', 'gemma-3-27b-it',
    'DeepSeek-R1-Distill-Qwen-32B-with-a-long-name', 'Phi-4', 'Qwen3-8B', 'granite-4.0-h-small', 'OLMo-2-32B'];
  const model = (name, i) => `  ${name}:
    simulate: { ttft: ${20 + 5 * i}ms, itl: ${(1 + 0.3 * i).toFixed(1)}ms, jitter: 1ms, tokens: ${24 + 2 * i}, seed: ${i} }
    thresholds: ["generation_speed >= ${i < 8 ? 100 : 900}"]
`;
  return `runs: 2\nthresholds: ["success_rate >= 99 %", "ttft max <= 500 ms"]\nmodels:\n${names.map(model).join('')}`;
};

const failures = `
runs: 5
thresholds: ["success_rate >= 99 %"]
prompts: [{ name: chat, text: "Explain tides." }, { name: code, text: "Write a loop." }, { name: sum, text: "Sum up." },
          { name: ${JSON.stringify(HOSTILE)}, text: "Say <b>hello</b>." }]
models:
  Qwen3-30B-A3B:
    simulate: { ttft: 20ms, itl: 2ms, jitter: 1ms, tokens: 24, seed: 1 }
    thresholds: ["ttft p95 <= 40 ms"]
  ${JSON.stringify(HOSTILE)}:
    timeouts: { inter_token: 300ms }
    simulate: { ttft: 15ms, itl: 1ms, jitter: 0.5ms, tokens: 32, seed: 4,
                faults: [{ status: 503, request: 3 }, { status: 429, request: 9 }, { reset: 20, request: 11 },
                         { stall: 30, request: 13 }, { truncate: 16, request: 15 }, { error: 12, request: 17 }] }
`;

const load = `
runs: 2
prompts: [{ name: chat, text: "Say something." }]
thresholds: ["success_rate >= 90 %", "output_throughput >= 1"]
workloads: { c4: { concurrency: 4, requests: 80 } }
models:
  Qwen3-30B-A3B:
    simulate: { ttft: 40ms, itl: 8ms, jitter: 4ms, tokens: 24, seed: 1 }
`;

const loads = `
prompts: [{ name: chat, text: "Say something." }, { name: code, text: "Write something." }]
thresholds: ["ttft p95 <= 400 ms"]
goodput: ["ttft <= 45 ms", "tpot <= 12 ms"]
workloads:
  c1: { concurrency: 1, requests: 6 }
  c2: { concurrency: 2, requests: 20 }
  c4: { concurrency: 4, requests: 48, warm_up: 8 }
  r5: { rate: 5/s, duration: 2s }
  r10: { rate: 10/s, duration: 2s }
models:
  Qwen3-8B: { simulate: { ttft: 40ms, itl: 6ms, jitter: 3ms, tokens: 24, seed: 1 } }
  gpt-oss-20b: { simulate: { ttft: 80ms, itl: 10ms, jitter: 5ms, tokens: 24, seed: 2 } }
`;

/** Runs the binary; a missed limit ends it with 101, which is not an error here. */
const run = (binary, folder, ...parameters) => {
  try {
    execFileSync(binary, parameters, { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'], timeout: 240_000 });
  } catch (error) {
    if (error.status !== 101) throw new Error(`${parameters.join(' ')}: ${error.status}: ${error.stderr}`);
  }
};

const measured = (binary, folder, config) => {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'configs.yaml'), config);
  const runs = join(folder, 'llm-stream-bench');
  const before = existsSync(runs) ? readdirSync(runs) : [];
  run(binary, folder, 'run');
  const added = readdirSync(runs).filter(name => !before.includes(name));
  if (added.length !== 1) throw new Error(`a run adds one folder, not ${added}`);
  return join(runs, added[0]);
};

/** Writes the page of runs and returns it with the figures that it must show, the newest run first. */
const page = (binary, name, folders, at) => {
  const file = join(at, `${name}.html`);
  run(binary, at, 'report', ...folders, '--format', 'html', '--output', file);
  const results = folders.map(folder => JSON.parse(readFileSync(join(folder, 'run.json'), 'utf8')));
  results.sort((a, b) => b.setup.started.localeCompare(a.setup.started));
  return { name, file, results };
};

/** A load of 10,000 requests with 500 tokens each: the lines of a small one, repeated. */
const large = (binary, folder, at) => {
  const copy = join(at, 'large');
  mkdirSync(copy, { recursive: true });
  copyFileSync(join(folder, 'run.json'), join(copy, 'run.json'));
  const lines = readFileSync(join(folder, 'requests.jsonl'), 'utf8').trim().split('\n').map(JSON.parse);
  const of = lines.filter(line => line.workload && !line.error_kind);
  const out = [];
  for (let i = 0; i < 10_000; i++) {
    const line = structuredClone(of[i % of.length]);
    const first = line.token_arrivals_us[0] * (1 + (i % 97) / 97);
    const step = 8000 + (i % 89) * 10;
    line.token_arrivals_us = Array.from({ length: 500 }, (_, n) => Math.ceil(first + n * step));
    line.end_us = line.token_arrivals_us.at(-1) + 5;
    // One event for each token, between the role and the end of the answer.
    const tokens = line.events.filter(({ contents }) => contents.includes('answer') || contents.includes('reasoning'));
    line.events = line.events.filter(entry => !tokens.includes(entry) || entry === tokens.at(-1));
    tokens.at(-1).events = 500;
    line.other_arrivals_us = line.other_arrivals_us.map((time, n) => n === 0 ? Math.min(time, Math.floor(first)) : line.end_us);
    line.response_tokens = 500;
    line.handed_over_us = i * 40_000;
    line.request = i + 1;
    line.run = 1;
    line.trial = of[0].trial;
    out.push(JSON.stringify(line));
  }
  writeFileSync(join(copy, 'requests.jsonl'), out.join('\n') + '\n');
  const started = process.hrtime.bigint();
  const made = page(binary, 'large', [copy], at);
  // Curves of all requests, not the figures of run.json alone.
  const curves = readFileSync(made.file, 'utf8').split('class="s ln').length - 1;
  if (curves < 5) throw new Error(`the page of ${out.length} requests has ${curves} curves`);
  return { ...made, isLarge: true, seconds: Number(process.hrtime.bigint() - started) / 1e9 };
};

/** Makes all reports below `at`. */
export const makeReports = (binary, at) => {
  rmSync(at, { recursive: true, force: true });
  mkdirSync(at, { recursive: true });
  const folder = name => join(at, name);
  const one = (name, config) => measured(binary, folder(name), config);
  const runs = [[60, 2], [60, 2.1], [66, 2.3]].map(([ttft, itl]) => one('single', single(ttft, itl)));
  const loaded = one('load', load);
  return [
    page(binary, 'single', runs.slice(0, 1), at),
    page(binary, 'ten', [one('ten', ten())], at),
    page(binary, 'failures', [one('failures', failures)], at),
    page(binary, 'load', [loaded], at),
    page(binary, 'loads', [one('loads', loads)], at),
    page(binary, 'three-runs', runs, at),
    large(binary, loaded, at),
  ];
};
