import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { tunerSpecs } from '../spec-registry';
import { ASPECTS, conformance } from './conformance';
import { renderConformance } from './render';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', '..', '..');

test('every tuner has an answer to everything, and every yes a test', () => {
  expect(Object.keys(conformance).sort()).toEqual(Object.keys(tunerSpecs).sort());
  for (const [kind, row] of Object.entries(conformance)) {
    for (const aspect of ASPECTS) {
      const cell = row[aspect];
      if ('no' in cell) expect(cell.no.length).toBeGreaterThan(20);
      else expect([kind, aspect, existsSync(join(root, cell.file)) && readFileSync(join(root, cell.file), 'utf8').includes(cell.test)]).toEqual([kind, aspect, true]);
    }
  }
});

test('the page of the guide is what the table says; "npm run conformance" writes it', () => {
  expect(readFileSync(join(root, 'docs', 'guide', 'conformance.md'), 'utf8')).toBe(renderConformance());
});
