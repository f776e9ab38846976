const WORDS = ['spam', 'the thing', 'a ring', 'rest', 'hers', 'sin', 'one ham', 'there', 'in it', 'sea'] as const;

/** Chat rows a tiny model can learn: the answer is in the question. Different rows for different `from`. */
export function chatRows(count: number, from = 0): string {
  return Array.from({ length: count }, (_, index) => {
    const number = from + index;
    const label = number % 2 === 0 ? 'spam' : 'ham';
    const text = `${WORDS[number % WORDS.length]} ${WORDS[(number * 7 + 3) % WORDS.length]} ${label} ${number}`;
    return `${JSON.stringify({ messages: [{ role: 'user', content: text }, { role: 'assistant', content: label }] })}\n`;
  }).join('');
}
