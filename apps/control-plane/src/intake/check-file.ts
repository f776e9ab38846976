import type { ArtifactRef } from '@tunefleet/contracts';
import { datasetError, splitLines, validateDataset, type AnyDatasetRow, type DatasetReport, type DatasetRow, type RowParser } from '@tunefleet/domain-datasets';
import { TunefleetError, errorCode } from '@tunefleet/foundation';
import type { BlobStore, DatasetVersionRecord, FileRecord, RecordStore } from '@tunefleet/ports';
import { Recent } from './recent';
import { LengthMeter, type FileLengths } from './row-lengths';

export interface CheckFileDeps {
  readonly records: Pick<RecordStore, 'getFile' | 'upsertDatasetVersion'>;
  readonly blobs: Pick<BlobStore, 'open' | 'stat'>;
}

export interface CheckFileOptions<Row extends AnyDatasetRow = DatasetRow> {
  /** The request's field, for errors. */
  readonly param: string;
  /** Name the worker gives it. */
  readonly artifactName: string;
  readonly minExamples?: number;
  /** Of the training file: rows that are in it, too, are counted. */
  readonly training?: Pick<DatasetReport, 'contentHash' | 'hashes'>;
  /** What rows must be; default: chat or prompt/completion rows. */
  readonly parse?: RowParser<Row>;
  /** Names `parse`: files that are good are remembered under it. Not together with `onRow`, which sees every row. */
  readonly readAs?: string;
  readonly onRow?: (row: Row, line: number) => void;
}

export interface CheckedFile {
  readonly file: FileRecord;
  readonly artifact: ArtifactRef;
  readonly report: DatasetReport;
  readonly lengths: FileLengths;
}

/** Reads a whole file, row by row. @throws invalid_input naming the rows at fault; unavailable when the blob store cannot be read */
export async function checkFile<Row extends AnyDatasetRow = DatasetRow>(deps: CheckFileDeps, teamId: string, fileId: string, options: CheckFileOptions<Row>): Promise<CheckedFile> {
  const { param, artifactName } = options;
  const file = await deps.records.getFile(teamId, fileId);
  if (file === null) throw new TunefleetError('invalid_input', `${param}: file ${fileId} is gone: upload it again and name its new id`, { reason: 'file_not_found', param });
  const { report, lengths } = await factsOf(deps, file, options);
  if (!report.ok) throw datasetError(report, param);
  return { file, artifact: { name: artifactName, sha256: file.sha256, bytes: file.bytes }, report, lengths };
}

type FileFacts = Pick<CheckedFile, 'report' | 'lengths'>;

/** Rows of good files whose facts are kept: a row has its hash in there. */
const KEPT_ROWS_MAX = 200_000;
const kept = new Recent<FileFacts>(KEPT_ROWS_MAX);

/** The same bytes read in the same way have the same facts: a file that is used again is not read again. */
async function factsOf<Row extends AnyDatasetRow>(deps: CheckFileDeps, file: FileRecord, options: CheckFileOptions<Row>): Promise<FileFacts> {
  const { param, minExamples, training, parse, onRow, readAs } = options;
  const key = readAs === undefined ? null : `${file.sha256} ${readAs} ${minExamples} ${training?.contentHash}`;
  const known = key === null ? undefined : kept.get(key);
  if (known !== undefined && (await deps.blobs.stat(file.sha256)) !== null) return known;
  const meter = new LengthMeter();
  const report = await validateDataset<Row>(splitLines(await openContent(deps, file, param)), {
    ...(minExamples === undefined ? {} : { minExamples }),
    ...(training === undefined ? {} : { trainingHashes: training.hashes }),
    ...(parse === undefined ? {} : { parse }),
    onRow: (row, line) => {
      meter.add(row, line);
      onRow?.(row, line);
    },
  });
  const facts = { report, lengths: meter.lengths() };
  if (key !== null && report.ok) kept.set(key, facts, report.examples);
  return facts;
}

/** Records the content, once per team however often it is used. */
export function recordDataset(deps: CheckFileDeps, { file, report, lengths }: CheckedFile): Promise<DatasetVersionRecord> {
  return deps.records.upsertDatasetVersion({
    teamId: file.teamId,
    contentHash: report.contentHash,
    format: report.format ?? 'none',
    rowCount: report.examples,
    summary: { duplicates: report.duplicates, tokensExpected: lengths.tokensExpected, longestRow: lengths.longest?.line ?? null, longestRowTokensExpected: lengths.longest?.tokensExpected ?? null },
  });
}

async function openContent({ blobs }: CheckFileDeps, file: FileRecord, param: string): Promise<AsyncIterable<Uint8Array>> {
  try {
    return await blobs.open(file.sha256);
  } catch (cause) {
    if (errorCode(cause) !== 'not_found') throw cause;
    throw new TunefleetError('invalid_input', `${param}: the content of file ${file.id} is no longer stored: upload it again and name its new id`, { reason: 'file_content_missing', param, cause });
  }
}
