/** The readable text of an e-mail: what a person sees first, without transport headers, markup and addresses. */

export interface MailText {
  readonly subject: string;
  readonly body: string;
}

const PARTS_MAX = 20;

/** @param raw the mail as stored, headers first. Never throws: what cannot be decoded is left as it is. */
export function readMail(raw: string): MailText {
  const { headers, body } = splitHeaders(raw);
  return { subject: cleanSubject(decodeWords(headers.get('subject') ?? '')), body: cleanBody(partText(headers, body, 0)) };
}

function splitHeaders(raw: string): { headers: Map<string, string>; body: string } {
  const text = raw.replace(/\r\n?/g, '\n');
  const end = text.indexOf('\n\n');
  const head = (end === -1 ? text : text.slice(0, end)).replace(/\n[ \t]+/g, ' ');
  const headers = new Map<string, string>();
  for (const line of head.split('\n')) {
    const match = /^([A-Za-z-]+):\s*(.*)$/.exec(line);
    if (match !== null && !headers.has((match[1] as string).toLowerCase())) headers.set((match[1] as string).toLowerCase(), match[2] as string);
  }
  return { headers, body: end === -1 ? '' : text.slice(end + 2) };
}

/** Text of a MIME part: plain text before HTML before whatever comes first. */
function partText(headers: ReadonlyMap<string, string>, body: string, depth: number): string {
  const type = (headers.get('content-type') ?? 'text/plain').toLowerCase();
  const boundary = /boundary="?([^";]+)"?/i.exec(headers.get('content-type') ?? '')?.[1];
  if (type.startsWith('multipart/') && boundary !== undefined && depth < 3) {
    const parts = body.split(`--${boundary.trim()}`).slice(1, PARTS_MAX).map((part) => splitHeaders(part.replace(/^\n/, '')));
    const of = (kind: string): (typeof parts)[number] | undefined => parts.find((part) => (part.headers.get('content-type') ?? 'text/plain').toLowerCase().startsWith(kind));
    const chosen = of('text/plain') ?? of('multipart/') ?? of('text/html');
    return chosen === undefined ? '' : partText(chosen.headers, chosen.body, depth + 1);
  }
  if (!type.startsWith('text/') && !type.startsWith('message/')) return '';
  const decoded = decodeTransfer(body, (headers.get('content-transfer-encoding') ?? '').trim().toLowerCase());
  return type.startsWith('text/html') || /<html|<body|<table|<font|<br\s*\/?>/i.test(decoded.slice(0, 2000)) ? stripHtml(decoded) : decoded;
}

function decodeTransfer(text: string, encoding: string): string {
  if (encoding === 'base64') return Buffer.from(text, 'base64').toString('latin1');
  if (encoding === 'quoted-printable') return decodeQuoted(text.replace(/=\n/g, ''));
  return text;
}

function decodeQuoted(text: string): string {
  return text.replace(/=([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)));
}

/** RFC 2047 words: `=?charset?Q?...?=`. */
function decodeWords(text: string): string {
  return text.replace(/=\?[^?\s]+\?([bBqQ])\?([^?]*)\?=/g, (_, kind: string, content: string) =>
    kind.toLowerCase() === 'b' ? Buffer.from(content, 'base64').toString('latin1') : decodeQuoted(content.replaceAll('_', ' ')),
  );
}

const ENTITIES: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', nbsp: ' ', copy: '(c)', reg: '(R)', apos: "'" };

function stripHtml(html: string): string {
  return html
    .replace(/<!--[\s\S]*?-->/g, '')
    .replace(/<(script|style|head|title)\b[\s\S]*?<\/\1\s*>/gi, ' ')
    .replace(/<(br|p|div|tr|li|td|h[1-6])\b[^>]*>/gi, ' ')
    .replace(/<[^>]{0,2000}>/g, '')
    .replace(/&#(\d{1,5});/g, (_, code: string) => String.fromCharCode(Number(code)))
    .replace(/&([a-z]{2,5});?/gi, (whole, name: string) => ENTITIES[name.toLowerCase()] ?? whole);
}

/** Mailing lists put their name in brackets before the subject; that would tell the answer without reading the mail. */
function cleanSubject(subject: string): string {
  return cleanText(subject.replace(/\[[^\]]{1,40}\]/g, ' '));
}

function cleanBody(body: string): string {
  const lines = body.split('\n');
  const footer = lines.findIndex((line, index) => index > 0 && (/^_{10,}\s*$/.test(line) || /^-- ?$/.test(line)));
  return cleanText(
    (footer === -1 ? lines : lines.slice(0, footer))
      .filter((line) => !/^(URL|Date): /.test(line)) // news feeds turned into mail
      .filter((line) => !/^(This is a multi-part message in MIME format|-----BEGIN PGP|Hash: )/.test(line))
      .join('\n'),
  );
}

/** Addresses become a plain word; the corpus' own made-up names and anything unprintable go; white space is one blank. */
function cleanText(text: string): string {
  return text
    .replace(/\b(?:https?|ftp):\/\/[^\s<>"')]+|\bwww\.[^\s<>"')]+/gi, 'LINK')
    .replace(/[\w.+-]+@[\w.-]+/g, 'ADDRESS')
    .replace(/\b[\w-]*\b(?:spamassassin|taint\.org|zzzz+|yyyy+)\w*/gi, ' ')
    .replace(/[^\x20-\x7E]+/g, ' ')
    .replace(/([-=_*#~.!$>+|])(?:\s*\1){3,}/g, '$1$1')
    .replace(/(?:^|\s)>+(?=\s)/g, ' ')
    .replace(/\s+/g, ' ')
    .trim();
}

/** Cuts at a word border. @param characters most that is kept */
export function shorten(text: string, characters: number): string {
  if (text.length <= characters) return text;
  const border = text.lastIndexOf(' ', characters);
  return text.slice(0, border > characters / 2 ? border : characters).trimEnd();
}
