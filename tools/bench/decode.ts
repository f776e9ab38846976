/**
 * `npm run bench -- decode`: greedy text on the SmolLM2-135M shape against Hugging Face transformers and PEFT, in turns on this machine, prompts included.
 * Both sides keep their models in memory; the first round only warms up. The peer computes in f32 throughout: where it has no kernels for bf16 that is its faster way.
 *
 * Arguments after `--`: --rounds, --tokens (new ones of each text), --prompt (tokens of each), --batches (comma-separated); --alone leaves the peer out;
 * --profile prints where our side's time goes, by op and shape, instead.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { BatchGenerator } from '@tunefleet/ml-generation';
import { loadCausalLm, type CausalLm, type Precision } from '@tunefleet/ml-models';
import { openDevice, OpProfile, type Device } from '@tunefleet/ml-tensor';
import { createTuner, loadAdapter } from '@tunefleet/ml-tuners';
import { parseTunerSpec } from '@tunefleet/ml-tuners/specs';
import { referencePython } from '../verify/python-environment';
import { DecodePeer, type DecodeRequest } from './decode/peer';
import { writeRandomModel } from './model/shape';
import { printProfile } from './print-profile';
import { countList, counts } from './report/options';
import { median, type Row } from './report/row';

const PRECISIONS: readonly { readonly name: string; readonly precision: Precision; readonly adapters: readonly boolean[] }[] = [
  { name: 'f32', precision: { computeDtype: 'f32', weightDtype: 'f32' }, adapters: [false, true] },
  { name: 'f32 with weights in bf16', precision: { computeDtype: 'f32', weightDtype: 'bf16' }, adapters: [false] },
  { name: 'f32 with weights in nf4', precision: { computeDtype: 'f32', weightDtype: 'f32', quantisation: { type: 'nf4', doubleQuant: true } }, adapters: [false] },
];

export async function run(args: string[]): Promise<Row[]> {
  const { values } = parseArgs({
    args,
    options: {
      rounds: { type: 'string', default: '3' },
      tokens: { type: 'string', default: '12' },
      prompt: { type: 'string', default: '16' },
      batches: { type: 'string', default: '1,16' },
      alone: { type: 'boolean', default: false },
      profile: { type: 'boolean', default: false },
    },
  });
  const { rounds, tokens, prompt } = counts(values, ['rounds', 'tokens', 'prompt']);
  const batches = countList('batches', values.batches);
  const folder = await mkdtemp(join(tmpdir(), 'tunefleet-bench-'));
  const [base, adapter] = [join(folder, 'model'), join(folder, 'adapter')];
  const profile = values.profile ? new OpProfile() : undefined;
  let peer: DecodePeer | null = null;
  try {
    await writeRandomModel(base);
    const device = await openDevice({ backend: 'tensorflow', ...(profile && { profile }) });
    await writeAdapter(device, base, adapter);
    const threads = String(availableParallelism());
    if (!values.alone && !profile) peer = await DecodePeer.start(await referencePython(process.cwd()), ['tools/bench/decode_peft.py', '--model', base, '--adapter', adapter, '--threads', threads]);
    const rows: Row[] = [];
    for (const { name, precision, adapters } of PRECISIONS) {
      using model = await load(device, base, precision);
      for (const adapted of adapters) {
        const loaded = adapted ? await loadAdapter(model, adapter) : null;
        for (const batch of batches) {
          const request = { batch, prompt, tokens, adapted };
          const ours = () => secondsHere(new BatchGenerator(model, loaded?.hook ?? null), request);
          const label = `decode, batch ${batch}, ${name}${adapted ? ', LoRA r 8' : ''}`;
          if (profile) await profileSteps(label, profile, ours, tokens);
          rows.push(await measure(label, request, rounds, ours, peer));
        }
        loaded?.dispose();
      }
    }
    return rows;
  } finally {
    await peer?.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

async function load(device: Device, folder: string, precision: Precision): Promise<CausalLm> {
  const config: unknown = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'));
  return loadCausalLm(device, { folder, config, ...precision });
}

async function writeAdapter(device: Device, base: string, folder: string): Promise<void> {
  using model = await load(device, base, { computeDtype: 'f32', weightDtype: 'f32' });
  const tuner = createTuner(parseTunerSpec({ kind: 'lora', r: 8, lora_alpha: 16, target_modules: 'all-linear' }), model);
  await tuner.save(tuner.initialValues(1, { model, tokenise: () => new Int32Array() }), folder, { id: 'random', revision: 'local' });
}

async function secondsHere(generator: BatchGenerator, { batch, prompt, tokens }: DecodeRequest): Promise<number> {
  const prompts = Array.from({ length: batch }, (_, row) => Int32Array.from({ length: prompt }, (_, i) => row * prompt + i));
  const started = performance.now();
  await generator.generate(prompts, { maxTokens: tokens, stopIds: new Set() });
  return (performance.now() - started) / 1000;
}

/** Rounds in turns; the first does not count. */
async function measure(name: string, request: DecodeRequest, rounds: number, ours: () => Promise<number>, peer: DecodePeer | null): Promise<Row> {
  const [own, theirs]: [number[], number[]] = [[], []];
  for (let round = 0; round <= rounds; round++) {
    own.push(await ours());
    if (peer) theirs.push(await peer.seconds(request));
  }
  const speed = (seconds: readonly number[]): number => (request.batch * request.tokens) / median(seconds.slice(1));
  const [value, other] = [speed(own), speed(theirs)];
  process.stderr.write(`${name}: ${value.toFixed(1)} tokens/s${peer ? `, peer ${other.toFixed(1)}` : ''}\n`);
  return { name, unit: 'tokens/s', value, ...(peer && { peer: other, ratio: value / other }) };
}

async function profileSteps(label: string, profile: OpProfile, ours: () => Promise<number>, tokens: number): Promise<void> {
  await ours();
  profile.reset();
  await ours();
  process.stdout.write(`${label}, a step per token of a text, the prompt among them\n`);
  printProfile(profile.costs(), tokens);
}
