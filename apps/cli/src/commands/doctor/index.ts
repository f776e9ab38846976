import type { Command } from 'commander';
import { runCommand } from '../../connection/command';
import { EXIT } from '../../render/exit-code';
import { oneLine, plural } from '../../render/text';
import { findingsOf, hasProblem, type Finding, type FindingStatus } from './findings';
import { gatherFacts } from './gather';

const SIGNS: Readonly<Record<FindingStatus, string>> = { ok: '✓', warning: '!', problem: '✗' };

/** Says what this machine has and what to do about what is missing; exit code 1 when jobs could not run. */
export function registerDoctor(program: Command): void {
  program
    .command('doctor')
    .description('what this machine has (TensorFlow, device, memory, database, models) and what to do where something is missing')
    .option('--json', 'print JSON')
    .action(async (options: { readonly json?: boolean }) => {
      await runCommand(options, async (output) => {
        const facts = await gatherFacts(process.env);
        const findings = findingsOf(facts);
        output.result({ ok: !hasProblem(findings), findings, facts }, () => describe(findings));
        return hasProblem(findings) ? EXIT.failed : EXIT.ok;
      });
    });
}

function describe(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map((finding) => finding.name.length));
  const lines = findings.flatMap(({ name, status, found, advice }) => {
    const line = `${SIGNS[status]} ${name.padEnd(width)}  ${oneLine(found)}`;
    return advice === undefined ? [line] : [line, `  ${' '.repeat(width)}  → ${advice}`];
  });
  const count = (status: FindingStatus): number => findings.filter((finding) => finding.status === status).length;
  const verdict = hasProblem(findings) ? `${plural(count('problem'), 'problem')} and ${plural(count('warning'), 'warning')}` : count('warning') > 0 ? `ready, with ${plural(count('warning'), 'warning')}` : 'all is well';
  return [...lines, '', verdict].join('\n');
}
