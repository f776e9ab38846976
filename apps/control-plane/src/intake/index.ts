export { startIntake, type StartIntakeOptions } from './start-intake';
