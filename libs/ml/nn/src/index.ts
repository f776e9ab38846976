export * from './model-hook';
export * from './norm';
export * from './projection';
