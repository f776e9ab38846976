import { assertNever, fillNormal, fillUniform } from '@tunefleet/foundation';
import type { LoraTarget } from './match';
import type { LoraSpec } from './spec';

/**
 * Start values of A and B of every target, one after the other. Element i of parameter k depends on (seed, k, i) only.
 * @see huggingface/peft `tuners/lora/layer.py`, `reset_lora_parameters`
 */
export function loraInitialValues(init: LoraSpec['init_lora_weights'], targets: readonly LoraTarget[], seed: number): Float32Array {
  const parts = targets.flatMap(({ rank, inSize, outSize }, index) => {
    const a = new Float32Array(rank * inSize);
    const b = new Float32Array(outSize * rank);
    const [streamA, streamB] = [2 * index, 2 * index + 1];
    switch (init) {
      case true:
        fillUniform(a, 1 / Math.sqrt(inSize), seed, streamA);
        break;
      case 'gaussian':
        fillNormal(a, 1 / rank, seed, streamA);
        break;
      case false:
        fillUniform(a, 1 / Math.sqrt(inSize), seed, streamA);
        fillUniform(b, 1 / Math.sqrt(rank), seed, streamB);
        break;
      default:
        assertNever(init, 'init_lora_weights');
    }
    return [a, b];
  });
  const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
