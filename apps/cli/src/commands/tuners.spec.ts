import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describeCausalLm } from '@tunefleet/ml-models/specs';
import { tunerSpecs, type TunerKind } from '@tunefleet/ml-tuners/specs';
import { costOf } from './tuners';

const fixtures = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', '..', 'libs', 'ml', 'models', 'fixtures');

test.each(['tied', 'qwen3', 'gpt2', 'gemma3_text'])('every tuner has a price and usable defaults on %s', (name) => {
  const model = describeCausalLm(JSON.parse(readFileSync(join(fixtures, name, 'config.json'), 'utf8')));
  for (const kind of Object.keys(tunerSpecs) as TunerKind[]) {
    const cost = costOf(kind, model);
    expect(cost).toMatchObject({ kind, title: expect.stringMatching(/./) as unknown, summary: expect.stringMatching(/^[^A-Z].+[^.]$/) as unknown });
    expect(cost.parameters).toBeGreaterThan(0);
    expect(cost.adapter_bytes).toBe(4 * cost.parameters);
    expect(cost.memory_bytes).toBeGreaterThan((kind === 'qlora' ? 0.5 : 4) * model.parameterCount);
    expect(cost.learning_rate).toBeGreaterThan(0);
  }
});
