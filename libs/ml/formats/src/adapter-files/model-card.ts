/** An adapter's README.md. All text goes into YAML or Markdown escaped. */
export interface ModelCard {
  readonly title: string;
  /** Hub id of the base model, and its commit. */
  readonly base: string | null;
  readonly revision: string | null;
  /** The method for hubs: `lora`. */
  readonly tag: string;
  /** The method for people: `LoRA, rank 8, alpha 16`. */
  readonly method: string;
  /** The library whose layout the folder has. */
  readonly library: 'peft' | 'swift' | 'tunefleet';
  /** Fact lines for people, e.g. `Training loss: 2.31 -> 0.08`. */
  readonly facts: readonly string[];
}

/** The card with the front matter that hubs expect. Same input, same bytes. */
export function formatModelCard({ title, base, revision, tag, method, library, facts }: ModelCard): string {
  const frontMatter = [
    '---',
    ...(base === null ? [] : [`base_model: ${JSON.stringify(base)}`]),
    `library_name: ${library === 'swift' ? 'ms-swift' : library}`,
    'tags:',
    ...(base === null ? [] : [`- ${JSON.stringify(`base_model:adapter:${base}`)}`]),
    `- ${tag}`,
    ...(library === 'tunefleet' ? [] : ['- tunefleet']),
    'pipeline_tag: text-generation',
    '---',
  ];
  const lines = [`Method: ${method}`, ...(base === null ? [] : [`Base model: ${base}${revision === null ? '' : ` at ${revision}`}`]), ...facts];
  return [...frontMatter, '', `# ${oneLine(title)}`, '', ...lines.map((line) => `- ${oneLine(line)}`), ...usage(library, base), ''].join('\n');
}

function usage(library: ModelCard['library'], base: string | null): string[] {
  if (library === 'tunefleet') return [];
  const load =
    library === 'peft'
      ? ['from peft import PeftModel', 'from transformers import AutoModelForCausalLM', '', `base = AutoModelForCausalLM.from_pretrained(${JSON.stringify(base ?? '<base model>')})`, 'model = PeftModel.from_pretrained(base, "<this folder>")']
      : ['from swift import Swift', 'from transformers import AutoModelForCausalLM', '', `base = AutoModelForCausalLM.from_pretrained(${JSON.stringify(base ?? '<base model>')})`, '# SWIFT looks for one folder per adapter: put these files into <folder>/default', 'model = Swift.from_pretrained(base, "<folder>")'];
  return ['', '## Use', '', '```python', ...load, '```'];
}

const oneLine = (text: string): string => text.replace(/\s+/g, ' ').replace(/[<>]/g, (character) => (character === '<' ? '&lt;' : '&gt;'));
