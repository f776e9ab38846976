export * from './chat-template';
export * from './render-conversation';
export * from './stream-decoder';
export * from './text-tokenizer';
