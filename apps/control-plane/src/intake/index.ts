export { startIntake, type Intake, type StartIntakeOptions } from './start-intake';
