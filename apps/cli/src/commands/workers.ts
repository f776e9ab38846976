import type { Command } from 'commander';
import { serverCommand } from '../connection/command';
import { renderTable } from '../render/table';
import { formatBytes, formatTime } from '../render/text';

export function registerWorkers(program: Command): void {
  const workers = program.command('workers').description('machines that run jobs');
  serverCommand(workers.command('list', { isDefault: true }).description('workers with their device and state'), async ({ client, output }) => {
    const list = await client.workers.list();
    output.result(list, () =>
      renderTable(
        [
          { header: 'name', value: (worker) => worker.name },
          { header: 'status', value: (worker) => (worker.cordoned ? `${worker.status}, cordoned` : worker.status) },
          { header: 'device', value: (worker) => `${worker.device.kind} ${worker.device.name}` },
          { header: 'memory free', value: (worker) => formatBytes(worker.device.memory_bytes_free), align: 'right' },
          { header: 'credit', value: (worker) => String(worker.credit), align: 'right' },
          { header: 'model in memory', value: (worker) => worker.model_in_memory ?? '' },
          { header: 'seen', value: (worker) => formatTime(worker.last_seen_at) },
        ],
        list.data,
      ),
    );
  });
}
