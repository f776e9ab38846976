export * as fleet from './generated/tunefleet/fleet/v1/fleet';
