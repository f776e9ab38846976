import type { LoraAdapterConfig } from './lora-config';

/** What the card tells beside the configuration. All text goes into YAML or Markdown escaped. */
export interface ModelCard {
  readonly title: string;
  /** Fact lines for people, e.g. `Training loss: 2.31 -> 0.08`. */
  readonly facts: readonly string[];
}

/** The adapter's README.md with the front matter hubs and PEFT expect. Same input, same bytes. */
export function formatModelCard(config: LoraAdapterConfig, card: ModelCard): string {
  const base = config.base_model_name_or_path;
  const frontMatter = ['---', ...(base === null ? [] : [`base_model: ${JSON.stringify(base)}`]), 'library_name: peft', 'tags:', ...(base === null ? [] : [`- ${JSON.stringify(`base_model:adapter:${base}`)}`]), '- lora', '- tunefleet', ...(config.task_type === 'CAUSAL_LM' ? ['pipeline_tag: text-generation'] : []), '---'];
  const facts = [`Method: LoRA, rank ${config.r}, alpha ${config.lora_alpha}${config.use_rslora ? ', rank-stabilised' : ''}`, ...(base === null ? [] : [`Base model: ${base}${config.revision === null ? '' : ` at ${config.revision}`}`]), ...card.facts];
  const usage = [
    '```python',
    'from peft import PeftModel',
    'from transformers import AutoModelForCausalLM',
    '',
    `base = AutoModelForCausalLM.from_pretrained(${JSON.stringify(base ?? '<base model>')})`,
    'model = PeftModel.from_pretrained(base, "<this folder>")',
    '```',
  ];
  return [...frontMatter, '', `# ${oneLine(card.title)}`, '', ...facts.map((fact) => `- ${oneLine(fact)}`), '', '## Use', '', ...usage, ''].join('\n');
}

const oneLine = (text: string): string => text.replace(/\s+/g, ' ').replace(/[<>]/g, (character) => (character === '<' ? '&lt;' : '&gt;'));
