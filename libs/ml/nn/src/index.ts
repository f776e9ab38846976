export * from './model-hook';
export * from './projection';
