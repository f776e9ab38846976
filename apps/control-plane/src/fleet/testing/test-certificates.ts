import { execFile } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Paths of PEM files. */
export interface TestCertificate {
  readonly cert: string;
  readonly key: string;
}

/** An authority that exists for one test file, made with the openssl of the machine. */
export class TestAuthority {
  private serial = 1;

  private constructor(
    private readonly dir: string,
    readonly ca: TestCertificate,
  ) {}

  static async create(dir: string, name: string): Promise<TestAuthority> {
    const folder = join(dir, name);
    await mkdir(folder, { recursive: true });
    const ca = { cert: join(folder, 'ca.pem'), key: join(folder, 'ca.key') };
    await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1', '-subj', `/CN=${name}`, '-keyout', ca.key, '-out', ca.cert]);
    return new TestAuthority(folder, ca);
  }

  /** @param names as in `subjectAltName`: `IP:127.0.0.1`, `DNS:control.example` */
  async issue(name: string, names: string): Promise<TestCertificate> {
    const [cert, key, request, extensions] = ['pem', 'key', 'csr', 'ext'].map((end) => join(this.dir, `${name}.${end}`)) as [string, string, string, string];
    await writeFile(extensions, `subjectAltName=${names}\n`);
    await run('openssl', ['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', `/CN=${name}`, '-keyout', key, '-out', request]);
    await run('openssl', ['x509', '-req', '-in', request, '-CA', this.ca.cert, '-CAkey', this.ca.key, '-set_serial', String(this.serial++), '-days', '1', '-extfile', extensions, '-out', cert]);
    return { cert, key };
  }
}
