/**
 * Keeps one of each group of texts that are nearly the same (bulk mail differs in names and numbers only).
 * Method: sets of word triples, 48 min-hashes, 16 bands of 3; pairs that share a band are joined when their sets overlap by at least half (Jaccard).
 * @see Broder 1997, "On the resemblance and containment of documents"; Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3
 */
const HASHES = 48;
const ROWS_PER_BAND = 3;
const SIMILAR = 0.5;
/** Looked up once: in a vm context, such as tests run in, every look at a global costs. */
const { imul } = Math;

/** @returns for each text the index of its group's first text; a text is the first of its own group when the value is its own index */
export function nearDuplicateGroups(texts: readonly string[]): Int32Array {
  const sets = texts.map(shingles);
  const parent = Int32Array.from(texts, (_, index) => index);
  const find = (index: number): number => {
    let root = index;
    while (parent[root] !== root) root = parent[root] as number;
    parent[index] = root;
    return root;
  };
  const buckets = new Map<string, number[]>();
  for (const [index, set] of sets.entries()) {
    const signature = minHashes(set);
    for (let band = 0; band < HASHES / ROWS_PER_BAND; band++) {
      const key = `${band}:${signature.slice(band * ROWS_PER_BAND, (band + 1) * ROWS_PER_BAND).join()}`;
      const bucket = buckets.get(key) ?? [];
      for (const other of bucket) {
        const [a, b] = [find(index), find(other)];
        if (a !== b && jaccard(set, sets[other] as ReadonlySet<number>) >= SIMILAR) parent[Math.max(a, b)] = Math.min(a, b);
      }
      bucket.push(index);
      buckets.set(key, bucket);
    }
  }
  return parent.map((_, index) => find(index));
}

/** Letters only, so that prices, dates and random tails do not hide a repeat. */
export function normaliseForComparison(text: string): string {
  return text.toLowerCase().replace(/[^a-z]+/g, ' ').trim();
}

function shingles(text: string): ReadonlySet<number> {
  const words = normaliseForComparison(text).split(' ');
  if (words.length < 3) return new Set([hash32(words.join(' '))]);
  return new Set(words.slice(2).map((word, index) => hash32(`${words[index]} ${words[index + 1]} ${word}`)));
}

function minHashes(set: ReadonlySet<number>): Uint32Array {
  const signature = new Uint32Array(HASHES).fill(0xffffffff);
  for (const shingle of set) {
    for (let index = 0; index < HASHES; index++) {
      let value = imul(shingle ^ imul(index + 1, 0x9e3779b1), 0x85ebca6b);
      value = imul(value ^ (value >>> 13), 0xc2b2ae35);
      value = (value ^ (value >>> 16)) >>> 0;
      if (value < (signature[index] as number)) signature[index] = value;
    }
  }
  return signature;
}

function jaccard(a: ReadonlySet<number>, b: ReadonlySet<number>): number {
  let shared = 0;
  for (const item of a) if (b.has(item)) shared += 1;
  return shared / (a.size + b.size - shared);
}

/** FNV-1a, 32 bits. */
function hash32(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) hash = imul(hash ^ text.charCodeAt(index), 0x01000193);
  return hash >>> 0;
}
