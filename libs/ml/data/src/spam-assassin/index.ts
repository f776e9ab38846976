export * from './corpus';
export * from './examples';
export { readMail, shorten, type MailText } from './mail-text';
export { nearDuplicateGroups } from './near-duplicates';
