import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './exec.mjs';
import { hashOfTree } from './fingerprint.mjs';
import { root } from './paths.mjs';

const prismaOutput = join(root, 'libs', 'adapters', 'store-prisma', 'src', 'generated');
const protoOutput = join(root, 'libs', 'contracts', 'src', 'generated');

export const prismaStep = {
  name: 'prisma',
  title: 'Prisma client',
  fingerprint: () =>
    hashOfTree([join(root, 'prisma', 'schema.prisma'), join(root, 'prisma.config.ts'), manifest('prisma'), manifest('@prisma/client')]),
  isPresent: () => existsSync(join(prismaOutput, 'client.ts')),
  async run() {
    await run(process.execPath, [join(root, 'node_modules', 'prisma', 'build', 'index.js'), 'generate'], {
      cwd: root,
      timeoutMs: 120_000,
      env: {
        ...process.env,
        // Generation is WebAssembly. Prisma still insists on its schema engine and would download it, unless this names
        // some executable; it is never started by `generate`.
        PRISMA_SCHEMA_ENGINE_BINARY: process.execPath,
        PRISMA_HIDE_UPDATE_MESSAGE: '1',
        CHECKPOINT_DISABLE: '1',
      },
    });
    return 'generated from prisma/schema.prisma';
  },
};

export const protoStep = {
  name: 'proto',
  title: 'gRPC types',
  fingerprint: () => hashOfTree([join(root, 'proto'), manifest('ts-proto'), manifest('@bufbuild/buf')]),
  isPresent: () => existsSync(protoOutput),
  async run() {
    rmSync(protoOutput, { recursive: true, force: true });
    await run(
      process.execPath,
      [join(root, 'node_modules', '@bufbuild', 'buf', 'bin', 'buf'), 'generate', 'proto', '--template', join('proto', 'buf.gen.yaml')],
      { cwd: root, timeoutMs: 120_000 },
    );
    return 'generated from proto/';
  },
};

function manifest(packageName) {
  return join(root, 'node_modules', packageName, 'package.json');
}
