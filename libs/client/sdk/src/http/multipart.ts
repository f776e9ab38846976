/** The content of a form's file, read anew for every try. */
export interface FormContent {
  readonly bytes: number;
  read(): AsyncIterable<Uint8Array>;
}

export interface FormUpload {
  readonly fields: readonly (readonly [name: string, value: string])[];
  readonly file: { readonly name: string; readonly filename: string; readonly content: FormContent };
}

export interface FormBody {
  readonly headers: { readonly 'content-type': string; readonly 'content-length': string };
  readonly body: AsyncIterable<Uint8Array>;
  /** Why the content could not be read; fetch reports that as a failure of the network, without the reason. */
  readError(): unknown;
}

/**
 * A `multipart/form-data` body, fields first, of known length and read as it is sent: fetch would hold a `FormData`'s file in memory.
 * @see WHATWG HTML, "Multipart form data"; RFC 7578
 */
export function encodeForm({ fields, file }: FormUpload): FormBody {
  const boundary = `tunefleet-${crypto.randomUUID()}`;
  const encoder = new TextEncoder();
  const head = encoder.encode(
    [
      ...fields.map(([name, value]) => `--${boundary}\r\nContent-Disposition: form-data; name="${escaped(name)}"\r\n\r\n${value}\r\n`),
      `--${boundary}\r\nContent-Disposition: form-data; name="${escaped(file.name)}"; filename="${escaped(file.filename)}"\r\nContent-Type: application/octet-stream\r\n\r\n`,
    ].join(''),
  );
  const tail = encoder.encode(`\r\n--${boundary}--\r\n`);
  let readError: unknown;
  const noted = async function* (): AsyncGenerator<Uint8Array> {
    try {
      yield* file.content.read();
    } catch (error) {
      readError = error;
      throw error;
    }
  };
  return {
    headers: { 'content-type': `multipart/form-data; boundary=${boundary}`, 'content-length': String(head.length + file.content.bytes + tail.length) },
    body: inOrder(head, noted(), tail),
    readError: () => readError,
  };
}

async function* inOrder(head: Uint8Array, content: AsyncIterable<Uint8Array>, tail: Uint8Array): AsyncGenerator<Uint8Array> {
  yield head;
  yield* content;
  yield tail;
}

function escaped(name: string): string {
  return name.replaceAll('\r', '%0D').replaceAll('\n', '%0A').replaceAll('"', '%22');
}
