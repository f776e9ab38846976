import vm from 'node:vm';
import { TestEnvironment } from 'jest-environment-node';

const { createContext } = vm;
const { DONT_CONTEXTIFY } = vm.constants ?? {};

/**
 * Jest's Node environment in a context whose global is an ordinary object. Jest's own is watched by interceptors, so that every look at `Math` or `Float32Array`
 * in a loop is a call: numeric tests take several times as long. Node before 20.18 has no such context and gets Jest's own.
 */
export default class PlainContextEnvironment extends TestEnvironment {
  constructor(config, context) {
    if (DONT_CONTEXTIFY) vm.createContext = () => createContext(DONT_CONTEXTIFY);
    try {
      super(config, context);
    } finally {
      vm.createContext = createContext;
    }
  }
}
