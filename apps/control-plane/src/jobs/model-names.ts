/** `ft:<base>:<organisation>:<suffix or empty>:<short id>`, as OpenAI's clients know it. */
export function tunedModelName(parts: { readonly base: string; readonly team: string; readonly suffix: string | null; readonly jobId: string }): string {
  return ['ft', parts.base, parts.team, parts.suffix ?? '', parts.jobId.slice(-SHORT_ID_CHARS)].join(':');
}

/** The name a checkpoint would be called by. */
export function checkpointModelName(tunedModel: string, step: number): string {
  return `${tunedModel}:ckpt-step-${step}`;
}

export function isTunedModelName(name: string): boolean {
  return name.startsWith('ft:');
}

/** The last characters of an id are its random ones: 40 bits. */
const SHORT_ID_CHARS = 8;
