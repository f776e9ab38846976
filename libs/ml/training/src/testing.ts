import { PackedDataset, type TokenisedDataset } from '@tunefleet/ml-data';

/** Answers of a few tokens after questions that begin alike, and one example without anything to learn. */
export function texts(name: string, count: number): TokenisedDataset {
  const lengths = Int32Array.from({ length: count }, (_, i) => 8 + ((i * 5) % 11));
  const ids: number[] = [];
  const learned: number[] = [];
  lengths.forEach((length, example) => {
    for (let t = 0; t < length; t++) {
      ids.push(t < 4 ? 10 + t : (example * 7 + t * (name.length % 5)) % 60);
      learned.push(example !== 2 && t >= length - 4 ? 1 : 0);
    }
  });
  return new PackedDataset(name, { lengths, ids: Int32Array.from(ids), learned: Uint8Array.from(learned) });
}
