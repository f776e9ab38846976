import { systemClock } from '@tunefleet/foundation';
import type { ServerContext } from '../connection/command';
import { EXIT } from '../render/exit-code';
import { endLines } from './job-view';
import { jobMessages } from './job-messages';
import { watchJob } from './watch-job';

/**
 * Shows a job until its end and says how it ended. Ctrl-C stops the watching only.
 * @returns 0 succeeded, 1 failed or cancelled, 130 watching was stopped
 */
export async function watchUntilEnd({ client, output, signal }: Pick<ServerContext<object>, 'client' | 'output' | 'signal'>, jobId: string): Promise<0 | 1 | 130> {
  const { job, ended } = await watchJob({ messages: jobMessages(client, jobId, signal), output, clock: systemClock });
  if (!ended || job === null) {
    output.note(`stopped watching; ${jobId} goes on (tunefleet jobs watch ${jobId}, tunefleet jobs cancel ${jobId})`);
    return EXIT.interrupted;
  }
  if (!output.json) output.item(job, () => endLines(job).join('\n'));
  return job.status === 'succeeded' ? EXIT.ok : EXIT.failed;
}
