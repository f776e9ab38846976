export * from './common';
export * from './files';
export * from './fine-tuning';
export * from './models';
