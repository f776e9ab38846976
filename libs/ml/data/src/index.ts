export * from './epoch-order';
export * from './spam-assassin';
export * from './tokenised-dataset';
export { fitLength, type OverLongPolicy } from './tokens/fit-length';
export { tokenStatistics, type TokenStatistics } from './tokens/statistics';
export { PackedDataset, TOKENS_MAX, TokenPool, type PackedTokens } from './tokens/token-pool';
export { tokeniseFile, type TokeniseOptions, type TokenisedFile } from './tokens/tokenise-file';
export { tokeniseRow, type RowPurpose } from './tokens/tokenise-lines';
